//! The keys that were added last, to know without a look at the disk that another one is new.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};

/// A set with at least the last `capacity` keys. Keeps 64 bits of each, so it may take a key for one that is
/// in it.
pub(crate) struct Recent {
    hasher: RandomState,
    capacity: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    current: HashSet<u64>,
    previous: HashSet<u64>,
}

impl Recent {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { hasher: RandomState::new(), capacity, generations: Mutex::default() }
    }

    /// Adds a key. Returns whether it was not in the set.
    pub(crate) fn add(&self, key: impl Hash) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !generations.previous.contains(&hash);
        let new = generations.current.insert(hash) && new;
        if generations.current.len() >= self.capacity {
            generations.previous = std::mem::take(&mut generations.current);
        }
        new
    }

    /// Returns whether a key may be in the set.
    pub(crate) fn has(&self, key: impl Hash) -> bool {
        let hash = self.hasher.hash_one(key);
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.current.contains(&hash) || generations.previous.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_keys_are_known_and_the_memory_is_bounded() {
        let recent = Recent::new(10);
        for key in 0..1_000_u32 {
            assert!(recent.add(key), "{key}");
            assert!(!recent.add(key), "{key}");
            assert!((key.saturating_sub(9)..=key).all(|one| recent.has(one)), "{key}");
            let generations = recent.generations.lock().unwrap();
            assert!(generations.current.len() + generations.previous.len() <= 20);
        }
        assert!(!recent.has(0));
    }
}
