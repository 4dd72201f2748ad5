//! The trial of a new release, and its traces after an automatic rollback.

use serde::{Deserialize, Serialize};

use super::deployment::{Release, Running};
use crate::clock::Time;
use crate::model::{Actor, Digest, Position, StreamId};

/// The streams that stay with a newer component than the one that runs, because that one cannot fold them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "KeptStreams")]
pub struct Kept {
    /// The newer component, which was rolled back.
    pub digest: Digest,
    /// The streams.
    pub streams: Vec<StreamId>,
}

/// The circumstances under which a release has replaced another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The release that ran before.
    pub replaced: Release,
    /// The streams that the release before could not fold either.
    pub inherited: Vec<StreamId>,
    /// The position of the deployment in the log.
    pub after: Position,
}

/// The circumstances under which a release came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Return {
    /// The newer component, which was rolled back.
    pub from: Digest,
    /// The position in the log behind which the newer component may have written events.
    pub after: Position,
}

impl Running {
    pub(super) fn new(release: Release, since: Time, by: Actor, note: Option<String>) -> Self {
        let (kept, trial, returned) = (None, None, None);
        Self { release, since, by, note, before: Vec::new(), kept, trial, returned }
    }

    /// Returns a release as it runs after its deployment in the place of another one. If that is the same
    /// component, with other grants, nothing begins anew.
    pub(super) fn put_on_trial(self, replaced: Option<&Self>, after: Position) -> Self {
        let Some(replaced) = replaced else { return self };
        if replaced.release.digest == self.release.digest {
            let Self { kept, trial, returned, .. } = replaced.clone();
            return Self { kept, trial, returned, ..self };
        }
        let inherited = replaced.kept.iter().flat_map(|kept| kept.streams.iter().cloned()).collect();
        Self { trial: Some(Trial { replaced: replaced.release.clone(), inherited, after }), ..self }
    }

    /// Returns a release as it runs after a rollback.
    pub(super) fn returned_from(
        self,
        from: Digest,
        streams: Vec<StreamId>,
        replaced: Option<&Self>,
        position: Position,
    ) -> Self {
        let deployed = replaced.and_then(|replaced| replaced.trial.as_ref()).map(|trial| trial.after);
        let before = replaced.and_then(|replaced| replaced.returned.as_ref()).map(|before| before.after);
        let after = deployed.or(before).unwrap_or(position);
        let kept = (!streams.is_empty()).then_some(Kept { digest: from, streams });
        Self { kept, returned: Some(Return { from, after }), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deployment::tests::deployed;
    use super::super::deployment::{Deployments, Happened};
    use super::*;
    use crate::model::Version;

    fn rolled_back(to: &str, from: &str, kept: &[&str]) -> Happened {
        let kept = kept.iter().map(|stream| StreamId::parse(stream).unwrap()).collect();
        let (from, reason) = (Release::example(from).digest, "faults".to_owned());
        Happened::RolledBack { to: Release::example(to), from, reason, note: None, kept }
    }

    #[test]
    fn trials_and_kept_streams_follow_from_the_events() {
        let back = || rolled_back("1", "2", &["order/a"]);
        // The number of kept streams; of a trial the release before, the number of streams that it could not
        // fold, and the position of the deployment; and the position behind which the version that was rolled
        // back may have written.
        type Expected<'a> = (usize, Option<(&'a str, usize, u64)>, Option<u64>);
        let table: [(Vec<Happened>, Expected<'_>); 7] = [
            (vec![deployed("1")], (0, None, None)),
            (vec![deployed("1"), deployed("2")], (0, Some(("1", 0, 2)), None)),
            // The same component, with other grants.
            (vec![deployed("1"), deployed("2"), deployed("2")], (0, Some(("1", 0, 2)), None)),
            (vec![deployed("1"), deployed("2"), back()], (1, None, Some(2))),
            (vec![deployed("1"), deployed("2"), back(), deployed("1")], (1, None, Some(2))),
            // More streams stay after calls that had begun before.
            (
                vec![deployed("1"), deployed("2"), back(), rolled_back("1", "2", &["order/a", "order/b"])],
                (2, None, Some(2)),
            ),
            (vec![deployed("1"), deployed("2"), back(), deployed("3")], (0, Some(("1", 1, 4)), None)),
        ];
        for (number, (events, expected)) in table.into_iter().enumerate() {
            let mut deployments = Deployments::default();
            for (at, happened) in (1..).zip(events) {
                let place = (Version::new(at), Position::new(at));
                deployments.happen(place, Time(7), &"ada".into(), happened);
            }
            let Running { kept, trial, returned, .. } = &deployments.running["order"];
            let trial = trial
                .as_ref()
                .map(|trial| (&*trial.replaced.version, trial.inherited.len(), trial.after.get()));
            let kept = kept.as_ref().map_or(0, |kept| kept.streams.len());
            let returned = returned.as_ref().map(|returned| returned.after.get());
            assert_eq!((kept, trial, returned), expected, "row {number}");
        }
    }
}
