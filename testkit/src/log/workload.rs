//! A workload whose events name the other events of their batch, and the audit that checks them.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use kontor::log::{Append, AppendError, EventLog};
use kontor::model::{CommandId, Json, NewEvent, StreamId, Version};

use super::conformance::assert_linked;
use super::{everything, meta, stream, whole_stream};

/// The payload of each event: the streams of its batch, each with the number of its events.
type Plan = Vec<(String, usize)>;

/// Appends batches of many shapes, reads each back, and calls `acknowledged` for each acknowledged batch.
/// Ends after `rounds` batches or at the first error. Workers with different names may run at the same time,
/// and again on the same log.
pub async fn work(
    log: &dyn EventLog,
    worker: &str,
    rounds: usize,
    mut acknowledged: impl FnMut(&CommandId),
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (own, other, shared) = (stream(worker), stream(&format!("{worker}-other")), stream("shared"));
    let mut heads = HashMap::new();
    for round in 0..rounds {
        let plan = match round % 4 {
            0 => vec![(&own, 1)],
            1 => vec![(&own, 3)],
            2 => vec![(&own, 2), (&other, 1)],
            _ => vec![(&shared, 1)],
        };
        let command = CommandId::new();
        append_at_head(log, &command, &plan, &mut heads).await?;
        acknowledged(&command);
        for (stream, count) in plan {
            let found = log.find(stream, &command).await?;
            assert_eq!(found.len(), count, "an acknowledged command is found in {stream}");
        }
    }
    Ok(())
}

/// Appends at the ends of the streams. Versions that are unknown or outdated are learned from the conflict.
async fn append_at_head(
    log: &dyn EventLog,
    command: &CommandId,
    plan: &[(&StreamId, usize)],
    heads: &mut HashMap<StreamId, Version>,
) -> Result<(), AppendError> {
    let payload: Plan = plan.iter().map(|(stream, count)| (stream.to_string(), *count)).collect();
    let event = NewEvent { name: "worked".into(), payload: Json::of(&payload).expect("a plan is JSON") };
    loop {
        let batch = plan.iter().map(|(stream, count)| {
            let expected = heads.get(*stream).copied().unwrap_or_default();
            let events = vec![event.clone(); *count];
            Append { events, meta: meta(command), ..Append::nothing((*stream).clone(), expected) }
        });
        match log.append(batch.collect()).await {
            Ok(_) => break,
            Err(AppendError::Conflict { stream, actual, .. }) => heads.insert(stream, actual),
            Err(error) => return Err(error),
        };
    }
    for (stream, count) in plan {
        let head = heads.entry((*stream).clone()).or_default();
        *head = head.after(*count);
    }
    Ok(())
}

/// Checks the events that [`work`] left in a log: every acknowledged command is present, every batch is
/// complete, no stream has a gap, the hashes are right, and all ways of reading agree. Returns the number of
/// batches in the log.
pub async fn audit(log: &dyn EventLog, acknowledged: &[CommandId]) -> usize {
    let events = everything(log).await;
    assert!(events.is_sorted_by(|earlier, later| earlier.position < later.position), "positions grow");
    assert_linked(&events);

    let mut streams: HashMap<&StreamId, Vec<_>> = HashMap::new();
    let mut batches: HashMap<&CommandId, HashMap<String, usize>> = HashMap::new();
    for event in &events {
        let of_stream = streams.entry(&event.stream).or_default();
        of_stream.push(event.clone());
        assert_eq!(
            event.version,
            Version::START.after(of_stream.len()),
            "{} has a gap or a repetition",
            event.stream
        );
        *batches.entry(&event.meta.command_id).or_default().entry(event.stream.to_string()).or_default() += 1;
    }
    for (stream, of_stream) in &streams {
        assert_eq!(&whole_stream(log, stream).await, of_stream, "{stream} reads as the log does");
    }
    for event in &events {
        let plan: Plan = event.payload.read().expect("the event of a worker");
        let whole: HashMap<_, _> = plan.into_iter().collect();
        assert_eq!(batches[&event.meta.command_id], whole, "batch {} is torn", event.meta.command_id);
    }
    let lost: HashSet<_> = acknowledged.iter().filter(|command| !batches.contains_key(command)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    batches.len()
}
