//! Read-only access to the log's file, whether a host has it open or not.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::schema::{self, Layout};
use super::{OpenError, last_position, read};
use crate::log::readers::{self, Unreadable};
use crate::log::{MAX_PAGE, ReadError};
use crate::model::{CommitHash, Position, Recorded, StreamId, Version};

/// The file of a log or of a local copy. Reading it does not keep a host from writing, and blocks the calling
/// thread.
pub struct LogFile {
    connection: Connection,
}

impl LogFile {
    /// Opens the file of the log in `dir`. Fails if there is none.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let file: PathBuf = schema::file(dir);
        if !file.exists() {
            return Err(OpenError::NoLog { dir: dir.to_owned() });
        }
        let failed = schema::failed(&file);
        let connection = readers::connect(&file).map_err(&failed)?;
        match schema::identify(&connection, &file, &failed)? {
            // A host is creating it at this moment.
            Layout::None => Err(OpenError::NoLog { dir: dir.to_owned() }),
            Layout::Older(found) => Err(OpenError::Older { file, found }),
            Layout::Current => Ok(Self { connection }),
        }
    }

    /// Returns the position of the last event.
    pub fn head(&self) -> Result<Position, ReadError> {
        Ok(last_position(&self.connection).map_err(Unreadable::from)?)
    }

    /// Returns the hash of the commit that an event is part of, for each of some events, or `None` if
    /// there is no such event. All are read at one moment.
    pub(crate) fn commit_hashes<'s>(
        &self,
        events: impl Iterator<Item = (&'s StreamId, Version)>,
    ) -> Result<Vec<Option<CommitHash>>, ReadError> {
        let moment = self.connection.unchecked_transaction().map_err(Unreadable::from)?;
        let hash = |(stream, version): (_, Version)| {
            let found = read::stream(&moment, stream, version.before(1), 1)?;
            Ok(found.first().filter(|event| event.version == version).map(|event| event.hash))
        };
        events.map(hash).collect()
    }

    /// Returns up to [`MAX_PAGE`] events with a position above `after`, oldest first.
    pub fn read_all(&self, after: Position) -> Result<Vec<Recorded>, ReadError> {
        Ok(read::all(&self.connection, after, MAX_PAGE)?)
    }
}
