//! The rule of the automatic rollback: the faults of a version against those of the version before.

use super::rules::RollbackRule;
use crate::runtime::{CallName, Tallies, Tally};

/// The most kinds of calls that a reason names: a sentence stays a sentence.
const MAX_NAMED: usize = 3;

/// Returns the reason why a version is rolled back, if it is. The calls are compared name by name: a version
/// faults too often under a name if the percentage of its faults exceeds that of the version before under the
/// same name by more than the rule allows, and it is rolled back if these faults are enough together.
pub(super) fn excess(rule: RollbackRule, since: &Tallies, before: &Tallies) -> Option<String> {
    let worse = since.iter().filter_map(|(name, tally)| {
        let before = before.get(name).copied().unwrap_or_default();
        let faults = counted(*tally, before);
        is_worse(rule, Tally { faults, ..*tally }, before).then_some((faults, name, *tally, before))
    });
    let mut worse: Vec<_> = worse.collect();
    let faults: u64 = worse.iter().map(|(faults, ..)| faults).sum();
    if faults < rule.faults.max(1) {
        return None;
    }
    worse.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
    let named = worse
        .iter()
        .take(MAX_NAMED)
        .map(|(faults, name, tally, before)| clause(*faults, name, *tally, *before));
    Some(named.collect::<Vec<_>>().join("; "))
}

/// Returns the faults that count. If it is not known how the version before has done, those after an outage
/// of somebody else do not: nobody knows if it would have done better.
fn counted(since: Tally, before: Tally) -> u64 {
    if before.calls == 0 { since.faults - since.outages } else { since.faults }
}

fn is_worse(rule: RollbackRule, since: Tally, before: Tally) -> bool {
    let [faults, calls] = [since.faults, since.calls].map(u128::from);
    // Without calls, the version before has had no faults.
    let [faults_before, calls_before] = [before.faults, before.calls.max(1)].map(u128::from);
    faults * 100 * calls_before > (faults_before * 100 + u128::from(rule.percent) * calls_before) * calls
}

fn clause(faults: u64, name: &CallName, since: Tally, before: Tally) -> String {
    let now = format!("{faults} of its first {} calls of {name} faulted", since.calls);
    match before.calls {
        0 => now,
        calls => format!("{now}, {} of the last {calls} on the version before", before.faults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the numbers of the calls of a command, as calls, faults and outages.
    fn tallies<const N: usize>(of: [(&str, [u64; 3]); N]) -> Tallies {
        let named = |(command, [calls, faults, outages]): (&str, [u64; 3])| {
            (CallName::new("decide", &command.into()), Tally { calls, faults, outages })
        };
        of.into_iter().map(named).collect()
    }

    #[test]
    fn a_version_is_faulty_if_enough_calls_of_a_name_fault_that_did_not_before() {
        let rule = RollbackRule { percent: 5, faults: 5, ..RollbackRule::default() };
        // The numbers of a command, the same on the version before, and the verdict.
        let table = [
            ([0, 0, 0], None, false),
            ([4, 4, 0], None, false),
            ([5, 5, 0], None, true),
            ([99, 5, 0], None, true),
            ([100, 5, 0], None, false),
            ([1_000, 50, 0], None, false),
            // It was no better before.
            ([10, 10, 0], Some([10, 10, 0]), false),
            ([10, 10, 0], Some([100, 94, 0]), true),
            ([10, 10, 0], Some([100, 95, 0]), false),
            // It is an outage, and the version before is not known to have done better, or it is.
            ([10, 10, 10], None, false),
            ([10, 10, 5], None, true),
            ([10, 10, 10], Some([10, 0, 0]), true),
        ];
        for (since, before, faulty) in table {
            let before = before.map_or_else(Tallies::new, |before| tallies([("pay", before)]));
            let reason = excess(rule, &tallies([("pay", since)]), &before);
            assert_eq!(reason.is_some(), faulty, "{since:?} after {before:?}");
        }
    }

    #[test]
    fn faults_of_several_names_count_together_and_other_calls_do_not_hide_them() {
        let rule = RollbackRule { percent: 5, faults: 5, ..RollbackRule::default() };
        let since = tallies([("pay", [4, 3, 0]), ("refund", [2, 2, 0]), ("look", [10_000, 0, 0])]);
        let reason = excess(rule, &since, &tallies([("pay", [7, 1, 0])])).unwrap();
        let expected = "3 of its first 4 calls of decide pay faulted, 1 of the last 7 on the version before; \
                        2 of its first 2 calls of decide refund faulted";
        assert_eq!(reason, expected);
        assert_eq!(excess(rule, &since, &tallies([("refund", [2, 2, 0])])), None);
    }
}
