//! The gate `history`: the component folds the streams in the log, or a sample of them.

use futures::FutureExt as _;
use tokio::time::timeout;

use super::folds::Folds;
use super::{Check, Examination, Finding, Gate, Origin};
use crate::deployed::GateName;
use crate::error::Chain;
use crate::model::AggregateName;
use crate::runtime::Component;

pub(super) const GATE: Gate = Gate {
    name: GateName::History,
    check: Check::Component(|examination, component| check(examination, component).boxed()),
};

async fn check(examination: &mut Examination<'_>, component: &Component) -> Finding {
    let Examination { examiner, terms, .. } = *examination;
    if component.manifest().aggregates.is_empty() {
        return Finding::skipped("the component has no aggregates");
    }
    let name = GateName::History.to_string();
    if terms.allow_breaking.contains(&name) {
        return Finding::skipped(
            "--allow-breaking history skips this gate: the component may not read the events in the log",
        );
    }
    let mut folds = Folds::default();
    let before = examination.running.service(component.manifest().service.as_str());
    let folding = folds.fold(examiner, before, component, terms.sample);
    match timeout(examiner.rules.history_limit, folding).await {
        Err(_) => Finding::refused(out_of_time(examination, &folds)).with(folds.findings()),
        Ok(Err(error)) => Finding::refused(Chain(&error).to_string()),
        Ok(Ok(())) => {
            examination.folds_alike = folds.all_alike() && terms.sample.is_none();
            conclude(examination, folds)
        }
    }
}

fn conclude(examination: &Examination<'_>, folds: Folds) -> Finding {
    let terms = &examination.terms;
    let allowed = |aggregate: &AggregateName| terms.allow_breaking.contains(&format!("state:{aggregate}"));
    let counts = folds.counts(terms.sample);
    match (folds.passed(), folds.reshaped.iter().find(|aggregate| !allowed(aggregate))) {
        (true, _) => Finding::passed(format!("the component folds {counts}")),
        (false, None) if folds.only_reshaped() => {
            Finding::passed(format!("the component folds {counts}, to other states, which is allowed"))
        }
        (false, Some(aggregate)) if folds.only_reshaped() => Finding::refused(format!(
            "the state of {aggregate} is another than on the running version, under the same version: if a \
             value is wrong, correct the component; if the states are meant to differ, raise STATE_VERSION \
             or name state:{aggregate} with --allow-breaking"
        ))
        .with(folds.findings()),
        _ => Finding::refused(
            "the component cannot fold the events in the log: make it accept the old events, or name \
             history with --allow-breaking if those aggregates may fail",
        )
        .with(folds.findings()),
    }
}

fn out_of_time(examination: &Examination<'_>, folds: &Folds) -> String {
    let instead = match examination.terms.origin {
        Origin::EarlierRelease => "skip this gate with --allow-breaking history",
        Origin::Upload => "fold fewer with --sample",
    };
    format!(
        "the component has folded only {} within {} ms: {instead}, or raise history_time_ms under [deploy] \
         in kontor.toml",
        folds.counts(examination.terms.sample),
        examination.examiner.rules.history_limit.as_millis()
    )
}
