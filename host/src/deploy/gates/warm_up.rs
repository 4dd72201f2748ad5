//! The gate `warm-up`: the component answers calls, and its instances are ready for the first ones.

use futures::FutureExt as _;

use super::{Check, Finding, Gate};
use crate::deployed::GateName;
use crate::model::StreamId;
use crate::runtime::{Component, Target};

/// The calls that an aggregate answers before the component runs. As many instances are ready then.
const WARM_CALLS: usize = 4;

pub(super) const GATE: Gate =
    Gate { name: GateName::WarmUp, check: Check::Component(|_, component| check(component).boxed()) };

async fn check(component: &Component) -> Finding {
    let mut aggregates = component.manifest().aggregates.iter();
    let Some(stream) =
        aggregates.find_map(|aggregate| StreamId::new(aggregate.name.as_str(), "warm-up").ok())
    else {
        return Finding::skipped("the component has no aggregates");
    };
    let nothing = Target { stream: &stream, state: None, since: &[] };
    let calls = (0..WARM_CALLS).map(|_| component.evolve(nothing));
    match futures::future::try_join_all(calls).await {
        Ok(_) => Finding::passed(format!("{WARM_CALLS} instances answer")),
        Err(fault) => Finding::refused(format!(
            "the component fails for an aggregate without events, which has no state: {fault}: {}",
            fault.cause()
        )),
    }
}
