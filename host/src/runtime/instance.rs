//! One call of one instance: admission, limits, and the reuse of the instance.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::Inner;
use super::bindings::{Service, ServicePre};
use super::call::{Denied, Failed, Scope};
use super::engine::TICK;
use super::host::Halt;
use super::instance_data::{Identity, InstanceData, service_name};
use super::places::{Lane, NoPlace, Share};
use super::tally::{CallName, Counters, Tally};
use crate::error::{Chain, Fault, FaultKind};
use crate::telemetry;

/// Number of calls after which an instance is replaced, so that a component's leaks do not add up.
const MAX_CALLS: u32 = 10_000;
/// The most that one call of the host or one answer may carry: a state, its view and the events before them.
const MAX_TRANSFER_BYTES: usize = 32 << 20;
/// Memory beyond which an instance is not kept: idle instances must stay cheap.
const MAX_WARM_BYTES: usize = 16 << 20;

/// An instance that is ready for a call.
pub(super) struct Instance {
    store: Store<InstanceData>,
    exports: Service,
    calls: u32,
}

/// The reason why a call has no result.
#[derive(Debug)]
pub(super) enum CallFailure {
    Fault(Fault),
    /// The driver of the saga's steps has ended the run.
    Halted,
}

/// The time that a call has exceeded.
#[derive(Debug, thiserror::Error)]
enum Overdue {
    #[error("it took longer than {} s, waiting included", .0.as_secs_f64())]
    Call(Duration),
    #[error("it waited for {} s between two steps: a saga waits with the step sleep", .0.as_secs_f64())]
    BetweenSteps(Duration),
}

/// The instances of one component.
pub(super) struct Instances {
    inner: Arc<Inner>,
    pre: ServicePre<InstanceData>,
    identity: Option<Arc<Identity>>,
    /// The places that its service may have.
    share: Arc<Share>,
    /// A stack: the instance that ran last is in the processor's caches too.
    idle: Mutex<Vec<Instance>>,
    pub(super) counters: Counters,
}

impl Instances {
    pub(super) fn new(
        inner: Arc<Inner>,
        pre: ServicePre<InstanceData>,
        identity: Option<Arc<Identity>>,
    ) -> Self {
        let share = inner.places.share(&service_name(identity.as_deref()));
        Self { inner, pre, identity, share, idle: Mutex::default(), counters: Counters::new() }
    }

    /// Runs one call, and returns its scope too.
    pub(super) async fn call<R, F>(
        &self,
        lane: Lane,
        scope: Scope,
        call: F,
    ) -> (Result<R, CallFailure>, Scope)
    where
        R: Send,
        F: for<'a> FnOnce(&'a Service, &'a mut Store<InstanceData>) -> BoxFuture<'a, wasmtime::Result<R>>
            + Send,
    {
        let name = CallName::new(scope.call.operation(), &scope.subject);
        let (result, scope) = self.attempt(lane, scope, call).await;
        // A call that found no place has not run.
        let faults = match &result {
            Err(CallFailure::Fault(fault)) if fault.kind != FaultKind::Busy => 1,
            _ => 0,
        };
        let outages = if scope.unanswered { faults } else { 0 };
        self.counters.count(name, Tally { calls: 1, faults, outages });
        (result, scope)
    }

    async fn attempt<R, F>(&self, lane: Lane, scope: Scope, call: F) -> (Result<R, CallFailure>, Scope)
    where
        R: Send,
        F: for<'a> FnOnce(&'a Service, &'a mut Store<InstanceData>) -> BoxFuture<'a, wasmtime::Result<R>>
            + Send,
    {
        let label = (scope.call.operation(), scope.subject.clone());
        let mut place = match self.inner.places.take(&self.share, lane, scope.depth).await {
            Ok(place) => place,
            Err(refused) => return (Err(CallFailure::Fault(self.no_place(label, &refused))), scope),
        };
        let mut instance = match self.take(lane).await {
            Ok(instance) => instance,
            Err(error) => return (Err(self.failure(label, &error, false, "")), scope),
        };
        let watch = scope.watch.clone();
        self.prepare(&mut instance, scope);
        let Instance { store, exports, .. } = &mut instance;
        let running = place.drive(call(exports, store));
        let limit = self.inner.limits.call_wait;
        let result = match lane {
            Lane::Saga => {
                watch.begin();
                tokio::select! {
                    biased;
                    result = running => Ok(result),
                    () = watch.overdue(limit) => Err(Overdue::BetweenSteps(limit)),
                }
            }
            Lane::Request | Lane::Background => {
                tokio::time::timeout(limit, running).await.map_err(|_| Overdue::Call(limit))
            }
        };
        let failure = match result {
            Ok(Ok(value)) => return (Ok(value), self.finish(lane, instance)),
            Ok(Err(error)) => {
                let data = instance.store.data();
                self.failure(label, &error, data.memory.denied, data.console.take().trim_end())
            }
            Err(overdue) => CallFailure::Fault(self.fault(label, FaultKind::Timeout, overdue.to_string())),
        };
        let data = instance.store.data_mut();
        let mut scope = std::mem::take(&mut data.scope);
        scope.unanswered |= data.http.is_unanswered();
        (Err(failure), scope)
    }

    /// Returns an idle instance or a new one. A saga's run always gets a new one: its replay must not see the
    /// remains of an earlier call.
    async fn take(&self, lane: Lane) -> wasmtime::Result<Instance> {
        if lane != Lane::Saga {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(instance) = idle {
                self.inner.warm.fetch_sub(1, Ordering::Relaxed);
                return Ok(instance);
            }
        }
        // In a box: most calls need no room for it.
        self.instantiate().boxed().await
    }

    async fn instantiate(&self) -> wasmtime::Result<Instance> {
        let secret = self.inner.secret.get().copied().unwrap_or_default();
        let data = InstanceData::new(self.identity.clone(), &self.inner.limits, secret);
        let mut store = Store::new(&self.inner.engine, data);
        store.limiter(|data| &mut data.memory);
        store.set_hostcall_fuel(MAX_TRANSFER_BYTES);
        // The deadline is always one tick ahead, and this counts the ticks: a plain deadline would expire
        // while the call waits for the host. Yielding lets the thread's other tasks run beside a component
        // that computes for long.
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
        let ticks = self.inner.limits.call_time.as_millis().div_ceil(TICK.as_millis());
        // One more, because the first tick may come immediately.
        store.data_mut().ticks_left = u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1);
        store.set_epoch_deadline(1);
    }

    fn prepare(&self, instance: &mut Instance, scope: Scope) {
        self.allow_time(&mut instance.store);
        let data = instance.store.data_mut();
        data.moment.set(scope.time_ms, &scope.id);
        data.http.begin(scope.call.operation(), scope.id.clone(), scope.call.http().cloned());
        data.scope = scope;
        instance.calls += 1;
    }

    /// Keeps the instance for the next call if that is worth it, and returns the scope. An instance with a
    /// request whose answer was not awaited is dropped, and the request with it.
    fn finish(&self, lane: Lane, mut instance: Instance) -> Scope {
        let data = instance.store.data_mut();
        let scope = Scope { used_moment: data.moment.used(), ..std::mem::take(&mut data.scope) };
        let printed = data.console.take();
        let has_room =
            |identity: &Identity| identity.log_quota.take(&identity.manifest.service, printed.len());
        if !printed.is_empty() && data.identity.as_deref().is_none_or(has_room) {
            let (service, call) = (service_name(data.identity.as_deref()), &*scope.id);
            tracing::info!(target: "component", %service, call, "{}", printed.trim_end());
        }
        let limits = &self.inner.limits;
        let worth_keeping = limits.reuse
            && lane != Lane::Saga
            && instance.calls < MAX_CALLS
            && data.memory.used_bytes <= MAX_WARM_BYTES
            && !data.memory.denied
            && data.http.at_rest();
        if worth_keeping && self.inner.warm.fetch_add(1, Ordering::Relaxed) < limits.warm() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
        } else if worth_keeping {
            self.inner.warm.fetch_sub(1, Ordering::Relaxed);
        }
        scope
    }

    /// Returns the reason why a call failed. `printed`: the component's output, which holds the message of a
    /// Rust panic.
    fn failure(
        &self,
        label: (&'static str, Arc<str>),
        error: &wasmtime::Error,
        memory_denied: bool,
        printed: &str,
    ) -> CallFailure {
        if error.downcast_ref::<Halt>().is_some() {
            return CallFailure::Halted;
        }
        let denied = error.downcast_ref::<Denied>();
        let kind = if denied.is_some() {
            FaultKind::Contract
        } else if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
            FaultKind::Timeout
        } else if memory_denied {
            FaultKind::Memory
        } else {
            FaultKind::Trap
        };
        // One line per cause. The error's own debug text would add the host's backtrace if RUST_BACKTRACE is
        // set.
        let failed = error.downcast_ref::<Failed>();
        let outer = error.chain().take_while(|cause| !cause.is::<Denied>() && !cause.is::<Failed>());
        let outer = outer.map(ToString::to_string);
        // A panic of a Rust component begins with an empty line.
        let printed = Some(printed.trim().to_owned()).filter(|printed| !printed.is_empty());
        let sentence = denied.map(|denied| Chain(denied).to_string()).or(failed.map(ToString::to_string));
        let detail: Vec<String> = printed.into_iter().chain(outer).chain(sentence).collect();
        CallFailure::Fault(self.fault(label, kind, detail.join("\n")))
    }

    /// Returns the fault of a call that got no place.
    fn no_place(&self, label: (&'static str, Arc<str>), refused: &NoPlace) -> Fault {
        match refused {
            NoPlace::TooDeep => self.fault(label, FaultKind::Contract, refused.to_string()),
            // Not the component's, so it is not counted as one.
            NoPlace::Busy => {
                let service = service_name(self.identity.as_deref());
                metrics::counter!(telemetry::CALLS_REFUSED, "service" => service.to_string()).increment(1);
                self.unlogged(label, FaultKind::Busy, refused.to_string())
            }
        }
    }

    fn unlogged(
        &self,
        (operation, subject): (&'static str, Arc<str>),
        kind: FaultKind,
        detail: String,
    ) -> Fault {
        let service = service_name(self.identity.as_deref());
        Fault { service, call: format!("{operation} {subject}"), kind, detail }
    }

    /// Creates a fault and logs it. This is the only place that logs faults.
    pub(super) fn fault(&self, label: (&'static str, Arc<str>), kind: FaultKind, detail: String) -> Fault {
        let fault = self.unlogged(label, kind, detail);
        let digest = self.identity.as_ref().map(|identity| identity.digest.short());
        tracing::error!(digest, detail = %fault.detail, "fault: {fault}");
        metrics::counter!("kontor_faults_total", "service" => fault.service.to_string()).increment(1);
        fault
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        self.inner.warm.fetch_sub(idle, Ordering::Relaxed);
    }
}
