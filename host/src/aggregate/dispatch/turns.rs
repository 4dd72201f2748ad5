//! The turns of the commands on each aggregate: one after another decides on the state that the appends
//! before it will leave.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync;

use crate::aggregate::states::AggregateState;
use crate::model::{AppendChain, CommandId, StreamId};

/// The aggregates that have commands in process.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<StreamId, Busy>>);

/// An aggregate with commands in process, and their number.
#[derive(Default)]
struct Busy {
    commands: usize,
    aggregate: Arc<Aggregate>,
}

/// An aggregate, as long as it has commands in process.
#[derive(Default)]
struct Aggregate {
    /// Held by the command that decides. Fair: it goes to the one that has waited longest.
    turn: sync::Mutex<Ahead>,
    progress: Mutex<Progress>,
}

/// The state ahead of the disk.
#[derive(Default)]
struct Ahead {
    /// The state that the appends of the chain will leave. `None`: it must be loaded.
    state: Option<AggregateState>,
    chain: AppendChain,
}

/// The appends of an aggregate that are not on disk yet.
#[derive(Default)]
struct Progress {
    /// Changes when an append fails: those that were decided on it fail too, and are decided again.
    chain: AppendChain,
    /// The number of appends of the chain without an outcome.
    pending: usize,
    /// The number of commands in process with each id.
    ids: HashMap<CommandId, usize>,
}

/// The place of a command among those on its aggregate, from its arrival to its answer.
pub(super) struct Place {
    turns: Arc<Turns>,
    aggregate: Arc<Aggregate>,
    stream: StreamId,
    id: CommandId,
}

/// The turn of a command: no other one on its aggregate decides meanwhile.
pub(super) struct Turn<'p> {
    place: &'p Place,
    ahead: sync::MutexGuard<'p, Ahead>,
}

/// The appends that a turn builds on.
#[derive(Clone, Copy)]
pub(super) struct Ground {
    pub(super) chain: AppendChain,
    /// True if all of them are on disk.
    pub(super) is_on_disk: bool,
}

impl Turns {
    /// Takes a place on an aggregate that has at most `limit` commands. `None`: it has as many.
    pub(super) fn enter(self: &Arc<Self>, stream: &StreamId, id: &CommandId, limit: usize) -> Option<Place> {
        let mut busy = self.busy();
        let Busy { commands, aggregate } = busy.entry(stream.clone()).or_default();
        if *commands >= limit {
            return None;
        }
        *commands += 1;
        *aggregate.progress().ids.entry(id.clone()).or_default() += 1;
        let (turns, aggregate) = (self.clone(), aggregate.clone());
        Some(Place { turns, aggregate, stream: stream.clone(), id: id.clone() })
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<StreamId, Busy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Aggregate {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn of the command.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let mut ahead = self.aggregate.turn.lock().await;
        let chain = self.aggregate.progress().chain;
        if ahead.chain != chain {
            *ahead = Ahead { state: None, chain };
        }
        Turn { place: self, ahead }
    }

    /// Notes the outcome of an append. If it failed, commands are decided on the state on disk from now on.
    pub(super) fn end(&self, chain: AppendChain, written: bool) {
        let mut progress = self.aggregate.progress();
        if progress.chain != chain {
            // An earlier append of the chain has failed.
            return;
        }
        match written {
            true => progress.pending -= 1,
            false => (progress.chain, progress.pending) = (AppendChain::new(), 0),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut busy = self.turns.busy();
        if let Entry::Occupied(mut entry) = busy.entry(self.stream.clone()) {
            entry.get_mut().commands -= 1;
            if entry.get().commands == 0 {
                entry.remove();
                return;
            }
        }
        drop(busy);
        if let Entry::Occupied(mut entry) = self.aggregate.progress().ids.entry(self.id.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Turn<'_> {
    /// Returns the chain of the appends that this turn builds on.
    pub(super) fn chain(&self) -> AppendChain {
        self.ahead.chain
    }

    /// Returns what this turn builds on. The appends of others can only get fewer meanwhile.
    pub(super) fn ground(&self) -> Ground {
        let (chain, progress) = (self.chain(), self.place.aggregate.progress());
        Ground { chain, is_on_disk: progress.chain == chain && progress.pending == 0 }
    }

    /// Returns the state that the pending appends will leave, if it is known.
    pub(super) fn state(&mut self) -> &mut Option<AggregateState> {
        &mut self.ahead.state
    }

    /// Returns whether another command with the same id is in process.
    pub(super) fn is_repeated(&self) -> bool {
        self.place.aggregate.progress().ids.get(&self.place.id).is_some_and(|commands| *commands > 1)
    }

    /// Notes that an append of the chain has begun.
    pub(super) fn begin(&self) {
        let mut progress = self.place.aggregate.progress();
        // If the chain has failed meanwhile, the append fails too.
        if progress.chain == self.ahead.chain {
            progress.pending += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(turns: &Arc<Turns>, key: &str) -> Option<Place> {
        turns.enter(&StreamId::new("product", "tea").unwrap(), &CommandId::from_key(key), 2)
    }

    #[tokio::test]
    async fn an_aggregate_has_so_many_commands_and_is_forgotten_without_any() {
        let turns = Arc::<Turns>::default();
        let (one, other) = (enter(&turns, "a").unwrap(), enter(&turns, "b").unwrap());
        assert!(enter(&turns, "c").is_none());
        drop(one);
        let third = enter(&turns, "c").unwrap();
        assert!(!third.turn().await.is_repeated());
        drop((other, third));
        assert!(turns.busy().is_empty());
    }

    #[tokio::test]
    async fn a_command_is_repeated_while_another_one_with_its_id_is_in_process() {
        let turns = Arc::<Turns>::default();
        let (one, same) = (enter(&turns, "a").unwrap(), enter(&turns, "a").unwrap());
        assert!(one.turn().await.is_repeated());
        drop(one);
        assert!(!same.turn().await.is_repeated());
    }

    #[tokio::test]
    async fn after_a_failed_append_the_state_is_loaded_and_nothing_is_pending() {
        let turns = Arc::<Turns>::default();
        let place = enter(&turns, "a").unwrap();
        let chain = {
            let turn = place.turn().await;
            turn.begin();
            turn.begin();
            assert!(!turn.ground().is_on_disk);
            turn.ground().chain
        };
        place.end(chain, true);
        assert!(!place.turn().await.ground().is_on_disk);
        place.end(chain, false);
        // The outcome of one that was begun in the meantime.
        place.end(chain, false);
        let mut turn = place.turn().await;
        assert!(turn.ground().is_on_disk && turn.ground().chain != chain && turn.state().is_none());
    }
}
