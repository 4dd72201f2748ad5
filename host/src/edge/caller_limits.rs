//! The limits of one caller: commands a second, and failed sign-ins a minute.
//!
//! A caller is its subject; as long as nobody has signed in, it is what its connection proves, or else its
//! address. Each has a token bucket (GCRA): one number, the time at which the bucket is full again.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::clock::Stopwatch;
use crate::contract::{Problem, ProblemCode};
use crate::identity::Peer;
use crate::model::{Actor, Caller};

/// Maximum number of callers whose buckets are kept, about 150 bytes each. Beyond it the bucket that was used
/// the longest time ago is dropped, as if it were full.
const CALLERS: usize = 16_384;
/// Maximum number of sign-ins of one address that may fail at once, and the time after which one more may:
/// enough for typing errors, and too few for guessing.
const SIGN_INS: Rate = Rate::new(10, Duration::from_secs(6));
/// The part of an IPv6 address that belongs to one client: providers give away whole networks of this size.
const CLIENT_PREFIX: u32 = 64;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time for one.
    interval_ns: u64,
    /// The time for a whole bucket.
    burst_ns: u64,
}

/// The buckets of all callers.
pub struct CallerLimits {
    commands: Rate,
    callers: Cache<Sender, Arc<Bucket>>,
    /// By address.
    sign_ins: Cache<IpAddr, Arc<Bucket>>,
    /// The time that the buckets count from.
    started: Stopwatch,
}

/// The sender of a request, as the limits and the host's log know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// The caller that has signed in, or what the connection proves.
    Named(Actor),
    /// A client that nothing names.
    At(IpAddr),
}

/// The time at which the bucket is full again, in nanoseconds.
#[derive(Default)]
struct Bucket(AtomicU64);

impl Rate {
    /// Returns a rate of one in each interval, and `burst` at once.
    pub const fn new(burst: u32, interval: Duration) -> Self {
        let interval_ns = interval.as_nanos() as u64;
        Self { interval_ns, burst_ns: interval_ns.saturating_mul(burst as u64) }
    }

    /// Returns the rate of a number in each second, and `burst` at once.
    pub fn per_second(rate: u32, burst: u32) -> Self {
        Self::new(burst, Duration::from_secs(1) / rate.max(1))
    }
}

impl CallerLimits {
    /// Returns full buckets. `commands`: of one caller.
    pub fn new(commands: Rate) -> Self {
        let (callers, sign_ins) = (Cache::new(CALLERS), Cache::new(CALLERS));
        Self { commands, callers, sign_ins, started: Stopwatch::start() }
    }

    /// Counts a command. Fails if its sender has sent too many.
    pub(super) fn take_command(&self, sender: Sender) -> Result<(), Problem> {
        let one = match sender {
            Sender::At(address) => Sender::At(network(address)),
            named => named,
        };
        let Ok(bucket) = self.callers.get_or_insert_with(&one, full);
        bucket.take(self.commands, self.now()).map_err(|wait| {
            too_many(ProblemCode::TooManyCommands, "This caller sends more commands than it may.", wait)
        })
    }

    /// Fails if too many sign-ins of an address have failed. `None`: the client has no address.
    pub(super) fn check_sign_in(&self, address: Option<IpAddr>) -> Result<(), Problem> {
        let bucket = address.and_then(|address| self.sign_ins.get(&network(address)));
        let waits = bucket.and_then(|bucket| bucket.next(SIGN_INS, self.now()).err());
        waits.map_or(Ok(()), |wait| {
            let detail = "Too many sign-ins from this address have failed.";
            Err(too_many(ProblemCode::TooManySignIns, detail, wait))
        })
    }

    /// Counts a sign-in that has failed.
    pub(super) fn note_failed_sign_in(&self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        let Ok(bucket) = self.sign_ins.get_or_insert_with(&network(address), full);
        // Err: the bucket is empty, and the next check says so.
        let _ = bucket.take(SIGN_INS, self.now());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Sender {
    /// Returns the sender of a request. `subject`: the caller, if it has signed in. `proven`: what its
    /// connection proves.
    pub(super) fn of(subject: Option<&Actor>, proven: Option<&Peer>, address: Option<IpAddr>) -> Self {
        match (subject.cloned().or_else(|| proven.and_then(Peer::name)), address) {
            (Some(name), _) => Self::Named(name),
            (None, Some(address)) => Self::At(address),
            // All clients without an address prove something.
            (None, None) => Self::Named(Caller::default().actor()),
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Bucket {
    /// Takes one. Fails with the time after which there is one again.
    fn take(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let next = after(full_at, rate, now)?;
            match self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => full_at = changed,
            }
        }
    }

    /// Fails like [`Bucket::take`], and takes nothing.
    fn next(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        after(self.0.load(Ordering::Relaxed), rate, now).map(drop)
    }
}

/// Returns the time at which the bucket is full after one more is taken. Fails with the time to wait if there
/// is none.
fn after(full_at: u64, rate: Rate, now: u64) -> Result<u64, Duration> {
    let next = full_at.max(now).saturating_add(rate.interval_ns);
    match next.saturating_sub(now).checked_sub(rate.burst_ns) {
        None | Some(0) => Ok(next),
        Some(wait) => Err(Duration::from_nanos(wait)),
    }
}

fn full() -> Result<Arc<Bucket>, std::convert::Infallible> {
    Ok(Arc::default())
}

/// Returns the address that stands for all of one client.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let host_bits = u128::BITS - CLIENT_PREFIX;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
    }
}

fn too_many(code: ProblemCode, detail: &str, wait: Duration) -> Problem {
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    Problem::new(code, detail).with_retry_after(u64::try_from(seconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sender(subject: Option<&str>, at: &str) -> Sender {
        Sender::of(subject.map(Actor::from).as_ref(), None, Some(address(at)))
    }

    fn admitted(limits: &CallerLimits, subject: Option<&str>, at: &str) -> bool {
        limits.take_command(sender(subject, at)).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let limits = CallerLimits::new(Rate::per_second(2, 3));
        let sent = |count: usize| (0..count).filter(|_| admitted(&limits, Some("ann"), "10.0.0.1")).count();
        assert_eq!(sent(10), 3);
        let problem = limits.take_command(sender(Some("ann"), "10.0.0.1")).unwrap_err();
        assert_eq!((problem.code(), problem.retry_after_s()), ("too-many-commands", Some(1)));
        for (wait_ms, expected) in [(499, 0), (1, 1), (1_000, 2), (1_000_000, 3)] {
            tokio::time::advance(Duration::from_millis(wait_ms)).await;
            assert_eq!(sent(10), expected, "after {wait_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_its_own_bucket() {
        let limits = CallerLimits::new(Rate::per_second(1, 1));
        for (subject, address, expected) in [
            (Some("ann"), "10.0.0.1", true),
            (Some("ann"), "10.0.0.2", false),
            (Some("bob"), "10.0.0.1", true),
            (None, "10.0.0.1", true),
            (None, "10.0.0.1", false),
            (None, "10.0.0.2", true),
            (None, "2001:db8::1", true),
            (None, "2001:db8::2", false),
            (None, "2001:db8:0:1::1", true),
        ] {
            assert_eq!(admitted(&limits, subject, address), expected, "{subject:?} {address}");
        }
        let till = Peer::Certificate { subject: "till-7".into() };
        for proven in [Some(&Peer::Socket { uid: 7 }), Some(&Peer::Nats), Some(&till), None] {
            let sender = || Sender::of(None, proven, None);
            assert!(limits.take_command(sender()).is_ok(), "{proven:?}");
            assert!(limits.take_command(sender()).is_err(), "{proven:?}");
        }
    }

    #[test]
    fn the_log_names_a_sender_by_the_best_that_is_known() {
        let (subject, till) = (Actor::from("ann"), Peer::Certificate { subject: "till-7".into() });
        let (at, forged) = (Some(address("2001:db8::1")), Peer::Certificate { subject: "unix:7".into() });
        for (subject, proven, at, expected) in [
            (Some(&subject), Some(&till), at, "ann"),
            (None, Some(&till), at, "till-7"),
            (None, None, at, "2001:db8::1"),
            (None, Some(&forged), at, "2001:db8::1"),
            (None, Some(&Peer::Socket { uid: 7 }), None, "unix:7"),
            (None, Some(&Peer::Nats), None, "nats"),
        ] {
            assert_eq!(Sender::of(subject, proven, at).to_string(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sign_ins_of_an_address_stop_after_ten_failures() {
        let limits = CallerLimits::new(Rate::per_second(1, 1));
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|at| Some(address(at)));
        for _ in 0..10 {
            limits.check_sign_in(one).unwrap();
            limits.note_failed_sign_in(one);
        }
        let problem = limits.check_sign_in(one).unwrap_err();
        assert_eq!((problem.code(), problem.retry_after_s()), ("too-many-sign-ins", Some(6)));
        limits.check_sign_in(other).unwrap();
        limits.check_sign_in(None).unwrap();
        tokio::time::advance(Duration::from_secs(6)).await;
        limits.check_sign_in(one).unwrap();
    }
}
