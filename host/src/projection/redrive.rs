//! Redrive of parked streams: their events are applied in order, from the one that failed on.
//!
//! *Invariant:* the applied events of a parked stream and the version to continue with are committed
//! together, so that each event takes effect exactly once, whenever the process ends. While a stream is
//! redriven, the rest of the read model waits.

use std::slice;

use super::operate::Redrive;
use super::projector::Projector;
use super::runner::StopReason;
use super::tables::{self, Progress, Redriven};
use crate::log::{EventLog, MAX_PAGE, more_may_follow};
use crate::model::{Recorded, Rejection, StreamId};

impl Projector {
    /// Redrives one parked stream, or all of them in the order in which they were parked. Rejected with
    /// `stream-not-parked`.
    pub(super) async fn redrive(
        &mut self,
        log: &dyn EventLog,
        stream: Option<&StreamId>,
    ) -> Result<Result<Redrive, Rejection>, StopReason> {
        let streams = match stream {
            Some(stream) if self.parked.contains(stream) => vec![stream.clone()],
            Some(stream) => return Ok(Err(not_parked(stream))),
            None => self.look_up(tables::parked_in_order)?,
        };
        let mut redrive = Redrive::default();
        for stream in &streams {
            match self.redrive_stream(log, stream, &mut redrive.events).await? {
                true => redrive.streams += 1,
                false => redrive.parked += 1,
            }
        }
        Ok(Ok(redrive))
    }

    /// Redrives a stream and adds the number of its applied events to `applied`. Returns false if it stays
    /// parked.
    async fn redrive_stream(
        &mut self,
        log: &dyn EventLog,
        stream: &StreamId,
        applied: &mut u64,
    ) -> Result<bool, StopReason> {
        let mut next = Some(self.look_up(|connection| tables::unapplied(connection, stream))?);
        while let Some(version) = next {
            let page = log.read(stream, version.before(1), MAX_PAGE).await?;
            // Events after the read model's position come by its subscription.
            let more = more_may_follow(&page, MAX_PAGE)
                && page.last().is_some_and(|last| last.position < self.mark.position);
            next = page.last().filter(|_| more).map(|last| last.version.next());
            let due =
                |event: &Recorded| event.position <= self.mark.position && self.subscribed.contains(event);
            let events: Vec<_> = page.into_iter().filter(due).collect();
            let progress = self.redriven(Redriven { stream, events: events.len(), next });
            match self.attempt(&events, &progress).await? {
                Ok(()) => *applied += events.len() as u64,
                Err(_) if self.redrive_singly(&events, stream, applied).await? => {
                    self.commit(&self.redriven(Redriven { stream, events: 0, next }))?;
                }
                Err(_) => return Ok(false),
            }
        }
        self.parked.remove(stream);
        Ok(true)
    }

    /// Applies each event in a transaction of its own. Returns false if one failed; from that one on the
    /// stream stays parked.
    async fn redrive_singly(
        &mut self,
        events: &[Recorded],
        stream: &StreamId,
        applied: &mut u64,
    ) -> Result<bool, StopReason> {
        for event in events {
            let redriven = Redriven { stream, events: 1, next: Some(event.version.next()) };
            let progress = self.redriven(redriven);
            if let Err(error) = self.attempt(slice::from_ref(event), &progress).await? {
                self.park(event, &error, self.mark)?;
                return Ok(false);
            }
            *applied += 1;
        }
        Ok(true)
    }

    fn redriven<'a>(&self, redriven: Redriven<'a>) -> Progress<'a> {
        Progress { redriven: Some(redriven), ..Progress::to(self.mark) }
    }
}

fn not_parked(stream: &StreamId) -> Rejection {
    let message = format!("The stream {stream} is not parked in this read model.");
    Rejection::new("stream-not-parked", message)
}
