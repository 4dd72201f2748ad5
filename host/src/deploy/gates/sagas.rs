//! The gate `sagas`: the journals of the open sagas replay on the component. It never refuses a component
//! because of a saga that diverges: such a saga ends on the version that it runs on.

use futures::FutureExt as _;

use super::{Check, Examination, Finding, Gate};
use crate::deployed::GateName;
use crate::error::with_causes;
use crate::runtime::Component;
use crate::saga::{ReplayOutcome, ReplayedSaga};

/// The most open sagas that a report names: as many as an operator reads. The report counts the others.
const MAX_NAMED_SAGAS: usize = 100;

pub(super) const GATE: Gate = Gate {
    name: GateName::Sagas,
    check: Check::Component(|examination, component| check(examination, component).boxed()),
};

async fn check(examination: &mut Examination<'_>, component: &Component) -> Finding {
    let Some(sagas) = examination.examiner.sagas else {
        return Finding::skipped("no sagas run while the host starts");
    };
    let progress = examination.examiner.progress;
    match sagas.rehearse(component, |done, of| progress.reach(done, of)).await {
        Ok(rehearsed) if rehearsed.is_empty() => Finding::passed("no sagas are open"),
        Ok(rehearsed) => {
            let finding = conclude(&rehearsed);
            examination.rehearsed = rehearsed;
            finding
        }
        Err(error) => Finding::refused(format!("the open sagas cannot be read: {}", with_causes(&error))),
    }
}

fn conclude(rehearsed: &[ReplayedSaga]) -> Finding {
    let count = |of: fn(&ReplayOutcome) -> bool| rehearsed.iter().filter(|saga| of(&saga.outcome)).count();
    let clean = count(|course| matches!(course, ReplayOutcome::Clean(_)));
    let under_way = count(|course| matches!(course, ReplayOutcome::UnderWay));
    let diverged = rehearsed.len() - clean - under_way;
    let says = format!(
        "of {} open sagas {clean} move to this version; {diverged} would diverge and {under_way} are \
         running, so these end on their current version",
        rehearsed.len()
    );
    let stay = rehearsed.iter().filter_map(|saga| match &saga.outcome {
        ReplayOutcome::Diverged(why) => Some(format!("{} {} stays: {why}", saga.name(), saga.id())),
        ReplayOutcome::Clean(_) | ReplayOutcome::UnderWay => None,
    });
    let moved = rehearsed.iter().filter(|saga| matches!(saga.outcome, ReplayOutcome::Clean(_)));
    let moved = moved.map(|saga| format!("{} {} moves", saga.name(), saga.id()));
    Finding::passed(says).with(stay.chain(moved).take(MAX_NAMED_SAGAS).collect())
}
