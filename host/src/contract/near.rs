//! Generated inputs that differ a little from good ones. They get further than random bytes, which the first
//! check refuses. The tests of the whole host include this file as well.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The most changes of one input: with more, hardly anything of it is left.
const MOST_EDITS: usize = 6;
/// The most bytes of one change.
const MOST_BYTES: usize = 16;

/// A change of some bytes, at a place.
#[derive(Clone, Debug)]
enum Edit {
    Cut(Index, usize),
    Repeat(Index, usize),
    Put(Index, Vec<u8>),
    Set(Index, u8),
}

impl Edit {
    fn apply(self, mut bytes: Vec<u8>) -> Vec<u8> {
        let (Self::Cut(place, _) | Self::Repeat(place, _) | Self::Put(place, _) | Self::Set(place, _)) =
            &self;
        let at = place.index(bytes.len() + 1);
        let range = |length: usize| at..bytes.len().min(at + length);
        match self {
            Self::Cut(_, length) => drop(bytes.drain(range(length))),
            Self::Repeat(_, length) => drop(bytes.splice(at..at, bytes[range(length)].to_vec())),
            Self::Put(_, new) => drop(bytes.splice(at..at, new)),
            Self::Set(_, new) => bytes.get_mut(at).into_iter().for_each(|byte| *byte = new),
        }
        bytes
    }
}

/// Returns bytes that differ from one of the seeds in a few places, or not at all. `words`: texts to put in.
pub(crate) fn near(seeds: Vec<Vec<u8>>, words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let byte = || prop_oneof![4 => b' '..=b'~', 1 => any::<u8>()];
    let new = prop_oneof![
        3 => select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(byte(), 1..MOST_BYTES / 2),
    ];
    let edit = prop_oneof![
        (any::<Index>(), 1..MOST_BYTES).prop_map(|(place, length)| Edit::Cut(place, length)),
        (any::<Index>(), 1..MOST_BYTES).prop_map(|(place, length)| Edit::Repeat(place, length)),
        (any::<Index>(), new).prop_map(|(place, new)| Edit::Put(place, new)),
        (any::<Index>(), byte()).prop_map(|(place, new)| Edit::Set(place, new)),
    ];
    let edited =
        |(seed, edits): (Vec<u8>, Vec<Edit>)| edits.into_iter().fold(seed, |seed, edit| edit.apply(seed));
    (select(seeds), vec(edit, 0..=MOST_EDITS)).prop_map(edited)
}

/// Returns texts that differ from one of the seeds in a few places, or not at all.
pub(crate) fn near_text<S: AsRef<str>>(
    seeds: &[S],
    words: &'static [&'static str],
) -> impl Strategy<Value = String> + use<S> {
    let seeds = seeds.iter().map(|seed| seed.as_ref().as_bytes().to_vec()).collect();
    near(seeds, words).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
