//! Knows without a look at the disk that most new streams are new: a Bloom filter of their names.
//!
//! A saga creates aggregates whose ids it takes from others, so that only the log can say that they are new.
//! A read of a stream that is not there costs as much as one that is, a fifth of a step.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;
use zerocopy::FromZeros as _;

use crate::error::Chain;
use crate::log::readers::connect;
use crate::log::thread::Joined;
use crate::model::StreamId;

/// The words of 64 bits: 16 MiB, of which a stream touches one line of 64 bytes. With ten million streams one
/// new stream in a hundred is looked up all the same.
const WORDS: usize = 1 << 21;
/// The words of a line, in one of which each bit of a stream is.
const LINE: usize = 8;
/// The bits of a stream.
const BITS: u32 = 6;

pub(super) struct KnownStreams {
    hasher: RandomState,
    words: Box<[AtomicU64]>,
    /// True once all streams of the file are in here.
    complete: AtomicBool,
    /// True when the log is being closed.
    stopped: AtomicBool,
}

/// The thread that adds the streams of a file. It ends with the log.
pub(super) struct Loader {
    known: Arc<KnownStreams>,
    _thread: Joined,
}

impl Loader {
    pub(super) fn spawn(known: Arc<KnownStreams>, file: PathBuf) -> io::Result<Self> {
        let own = known.clone();
        let load = move || {
            if let Err(error) = connect(&file).and_then(|connection| own.load(&connection)) {
                tracing::warn!(
                    error = %Chain(&error),
                    "cannot list the streams of the log; each one is looked up"
                );
            }
        };
        Ok(Self { known, _thread: Joined::spawn("log-streams", load)? })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.known.stopped.store(true, Ordering::Release);
    }
}

impl Default for KnownStreams {
    fn default() -> Self {
        // Memory that the system has zeroed: pages that nothing is written to take no room. Err: there is
        // none; then everything is looked up.
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(WORDS).unwrap_or_default();
        Self { hasher: RandomState::new(), words, complete: false.into(), stopped: false.into() }
    }
}

impl KnownStreams {
    /// Adds all streams of a file.
    fn load(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT name FROM streams")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.add_name(row.get_ref(0)?.as_str()?);
            if self.stopped.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        self.complete.store(!self.words.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Adds a stream, before anybody can read it.
    pub(super) fn add(&self, stream: &StreamId) {
        self.add_name(stream.as_str());
    }

    fn add_name(&self, name: &str) {
        for (word, bit) in self.bits(name) {
            if let Some(word) = self.words.get(word) {
                word.fetch_or(bit, Ordering::Release);
            }
        }
    }

    /// Returns false if a stream is not in the log.
    pub(super) fn may_have(&self, stream: &StreamId) -> bool {
        !self.complete.load(Ordering::Acquire)
            || self
                .bits(stream.as_str())
                .all(|(word, bit)| self.words[word].load(Ordering::Acquire) & bit != 0)
    }

    /// Returns the words of a name, each with its bit.
    fn bits(&self, name: &str) -> impl Iterator<Item = (usize, u64)> {
        let hash = self.hasher.hash_one(name);
        let line = (hash as usize % (WORDS / LINE)) * LINE;
        // The line takes the low bits; each bit of the name takes nine of the others.
        let rest = self.hasher.hash_one(hash);
        (0..BITS).map(move |index| {
            let bits = rest >> (index * 9);
            (line + (bits >> 6) as usize % LINE, 1 << (bits % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_added_is_known_and_few_others_are() {
        let known = KnownStreams::default();
        let stream = |number: u32| StreamId::new("order", &format!("o-{number}")).unwrap();
        assert!(known.may_have(&stream(0)), "the file may have any");
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE streams (name TEXT); INSERT INTO streams VALUES ('order/o-0')")
            .unwrap();
        known.load(&connection).unwrap();
        (1..10_000).for_each(|number| known.add(&stream(number)));
        assert!((0..10_000).all(|number| known.may_have(&stream(number))));
        let mistaken = (10_000..20_000).filter(|number| known.may_have(&stream(*number))).count();
        assert!(mistaken < 20, "{mistaken}");
    }
}
