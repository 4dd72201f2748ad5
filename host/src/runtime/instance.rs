//! One call of one instance: admission, limits, and what becomes of the instance afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::{Service, ServicePre};
use super::engine::TICK;
use super::guest::{Identity, InstanceData, Scope};
use super::host::Halt;
use super::{MAX_DEPTH, Shared};
use crate::error::{Fault, FaultKind};

/// After so many calls an instance is replaced, so that whatever a component leaks does not add up.
const MAX_CALLS: u32 = 10_000;
/// An instance whose memory has grown beyond this is not kept: idle instances must stay cheap.
const MAX_WARM_BYTES: usize = 16 << 20;

/// An instance that is ready for a call.
pub(super) struct Instance {
    store: Store<InstanceData>,
    exports: Service,
    calls: u32,
}

/// Which instances a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// A command or a query, by the depth in its scope.
    Request,
    Saga,
    Background,
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallFailure {
    Fault(Fault),
    /// The steps' driver ended the run on purpose.
    Halted,
}

/// The instances of one component.
pub(super) struct Instances {
    shared: Arc<Shared>,
    pre: ServicePre<InstanceData>,
    identity: Option<Arc<Identity>>,
    /// Used as a stack: the instance that ran last is warm in the caches too.
    idle: Mutex<Vec<Instance>>,
    calls: AtomicU64,
    faults: AtomicU64,
}

/// Calls of a component, and those of them that have faulted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) faults: u64,
}

impl Instances {
    pub(super) fn new(
        shared: Arc<Shared>,
        pre: ServicePre<InstanceData>,
        identity: Option<Arc<Identity>>,
    ) -> Self {
        Self {
            shared,
            pre,
            identity,
            idle: Mutex::default(),
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let [calls, faults] = [&self.calls, &self.faults].map(|count| count.load(Ordering::Relaxed));
        Tally { calls, faults }
    }

    /// Runs one call and hands its scope back.
    pub(super) async fn call<R, F>(
        &self,
        lane: Lane,
        scope: Scope,
        call: F,
    ) -> (Result<R, CallFailure>, Option<Scope>)
    where
        R: Send,
        F: for<'a> FnOnce(&'a Service, &'a mut Store<InstanceData>) -> BoxFuture<'a, wasmtime::Result<R>>
            + Send,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (result, scope) = self.attempt(lane, scope, call).await;
        if let Err(CallFailure::Fault(_)) = result {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        (result, scope)
    }

    async fn attempt<R, F>(
        &self,
        lane: Lane,
        scope: Scope,
        call: F,
    ) -> (Result<R, CallFailure>, Option<Scope>)
    where
        R: Send,
        F: for<'a> FnOnce(&'a Service, &'a mut Store<InstanceData>) -> BoxFuture<'a, wasmtime::Result<R>>
            + Send,
    {
        let label = (scope.operation, scope.subject.clone());
        let _permit = match self.admit(lane, scope.depth).await {
            Ok(permit) => permit,
            Err(detail) => return (Err(self.fault(label, FaultKind::Contract, detail)), Some(scope)),
        };
        let mut instance = match self.take(lane).await {
            Ok(instance) => instance,
            Err(error) => {
                return (Err(self.fault(label, FaultKind::Trap, format!("{error:?}"))), Some(scope));
            }
        };
        self.prepare(&mut instance, scope);
        let Instance { store, exports, .. } = &mut instance;
        let running = call(exports, store);
        let result = match lane {
            Lane::Saga => Ok(running.await),
            Lane::Request | Lane::Background => {
                tokio::time::timeout(self.shared.limits.call_wait, running).await
            }
        };
        match result {
            Ok(Ok(value)) => (Ok(value), self.finish(lane, instance)),
            Ok(Err(error)) => {
                (Err(self.failure(label, &mut instance, &error)), instance.store.data_mut().scope.take())
            }
            Err(elapsed) => {
                let failure = self.fault(label, FaultKind::Timeout, elapsed.to_string());
                (Err(failure), instance.store.data_mut().scope.take())
            }
        }
    }

    async fn admit(&self, lane: Lane, depth: usize) -> Result<OwnedSemaphorePermit, String> {
        let semaphore: &Arc<Semaphore> = match lane {
            Lane::Saga => &self.shared.sagas,
            Lane::Background => &self.shared.background,
            Lane::Request => self
                .shared
                .depths
                .get(depth)
                .ok_or_else(|| format!("services ask each other more than {MAX_DEPTH} calls deep"))?,
        };
        semaphore.clone().acquire_owned().await.map_err(|closed| closed.to_string())
    }

    /// A saga's run always gets a fresh instance: its replay must not see what an earlier call left behind.
    async fn take(&self, lane: Lane) -> wasmtime::Result<Instance> {
        if lane != Lane::Saga {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(instance) = idle {
                self.shared.warm.fetch_sub(1, Ordering::Relaxed);
                return Ok(instance);
            }
        }
        let guest = InstanceData::new(self.identity.clone(), &self.shared.limits);
        let mut store = Store::new(&self.shared.engine, guest);
        store.limiter(|guest| &mut guest.memory);
        // The deadline is always one tick ahead and this counts: a plain deadline would run on while the call waits for the
        // host. Yielding lets the thread's other tasks go on beside a component that computes for long.
        store.epoch_deadline_callback(|mut store| {
            let left = &mut store.data_mut().ticks_left;
            *left = left.saturating_sub(1);
            Ok(if *left == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        self.allow_time(&mut store);
        let exports = self.pre.instantiate_async(&mut store).await?;
        Ok(Instance { store, exports, calls: 0 })
    }

    fn allow_time(&self, store: &mut Store<InstanceData>) {
        let ticks = self.shared.limits.call_time.as_millis().div_ceil(TICK.as_millis());
        // One more, because the first tick may come at once.
        store.data_mut().ticks_left = u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1);
        store.set_epoch_deadline(1);
    }

    fn prepare(&self, instance: &mut Instance, mut scope: Scope) {
        self.allow_time(&mut instance.store);
        let guest = instance.store.data_mut();
        guest.moment.set(scope.time_ms, &scope.id);
        guest.http.begin(scope.operation, scope.id.clone(), scope.http.take());
        guest.scope = Some(scope);
        instance.calls += 1;
    }

    /// Keeps the instance for the next call if that is worth it. A request that nobody has waited for ends with its instance.
    fn finish(&self, lane: Lane, mut instance: Instance) -> Option<Scope> {
        let guest = instance.store.data_mut();
        let scope = guest.scope.take().map(|scope| Scope { used_moment: guest.moment.used(), ..scope });
        let printed = guest.console.take();
        if !printed.is_empty() {
            let (service, call) = (guest.service(), scope.as_ref().map(|scope| scope.id.clone()));
            tracing::info!(target: "component", %service, call = call.as_deref(), "{}", printed.trim_end());
        }
        let limits = &self.shared.limits;
        let worth_keeping = limits.reuse
            && lane != Lane::Saga
            && instance.calls < MAX_CALLS
            && guest.memory.used_bytes <= MAX_WARM_BYTES
            && guest.http.at_rest();
        if worth_keeping && self.shared.warm.fetch_add(1, Ordering::Relaxed) < limits.warm() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
        } else if worth_keeping {
            self.shared.warm.fetch_sub(1, Ordering::Relaxed);
        }
        scope
    }

    fn failure(
        &self,
        label: (&'static str, Arc<str>),
        instance: &mut Instance,
        error: &wasmtime::Error,
    ) -> CallFailure {
        if error.downcast_ref::<Halt>().is_some() {
            return CallFailure::Halted;
        }
        let guest = instance.store.data_mut();
        let kind = if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
            FaultKind::Timeout
        } else if guest.memory.refused {
            FaultKind::Memory
        } else {
            FaultKind::Trap
        };
        // The causes one by one: the whole error would add the host's own backtrace when RUST_BACKTRACE is set.
        let causes = error.chain().map(ToString::to_string);
        let printed = guest.console.take();
        let detail: Vec<String> = std::iter::once(printed.trim_end().to_owned()).chain(causes).collect();
        self.fault(label, kind, detail.join("\n").trim_start().to_owned())
    }

    /// Makes the fault and logs it, once and here: whoever gets it only decides what to do.
    pub(super) fn fault(
        &self,
        (operation, subject): (&'static str, Arc<str>),
        kind: FaultKind,
        detail: String,
    ) -> CallFailure {
        let service = self.identity.as_ref().map(|identity| identity.manifest.service.clone());
        let fault = Fault {
            service: service.unwrap_or_else(|| "a component that is being loaded".into()),
            call: format!("{operation} {subject}"),
            kind,
            detail,
        };
        let digest = self.identity.as_ref().map(|identity| identity.digest.short());
        tracing::error!(digest, detail = %fault.detail, "fault: {fault}");
        metrics::counter!("kontor_faults_total", "service" => fault.service.to_string()).increment(1);
        CallFailure::Fault(fault)
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        self.shared.warm.fetch_sub(idle, Ordering::Relaxed);
    }
}
