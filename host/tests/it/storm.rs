//! Three hosts on three servers, some of which are killed: every answer that a host gave is recorded on all
//! of them, once.
//!
//! The seed determines the requests, but not the moments of the kills. A long run:
//!
//!     KONTOR_STORM_SEED=7 KONTOR_STORM_SECONDS=60 \
//!         cargo nextest run --workspace -E 'test(/^storm::/)' --no-capture

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use kontor_testkit::nats::NatsServer;
use kontor_testkit::shop::laws;
use rand::prelude::*;
use serde_json::Value;

use crate::common::http::{Client, Reply};
use crate::common::traffic::{Request, stock, story};
use crate::common::{Host, Site, audit, nats, setting};

const SEED: u64 = 1;
/// The seconds of traffic. Electing another leader takes up to 6.4 of them.
const SECONDS: u64 = 10;
/// The clients. One only adds stock, to show at any time if commands are taken; each of the others handles
/// one order after another.
const CLIENTS: u64 = 6;
/// The heartbeat timeout. Late heartbeats of busy hosts are part of the storm.
const SILENCE_MS: u64 = 2_000;
/// Longer than the servers need to elect another leader and the hosts to take over the sagas of a dead one.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause of a client that is asked to come back later: shorter than the host asks for, to see when
/// commands are taken again.
const PAUSE: Duration = Duration::from_millis(100);

struct Cluster {
    hosts: [Host; 3],
    sites: [Site; 3],
    // The last field, so that the hosts are dropped first.
    servers: [NatsServer; 3],
}

impl Cluster {
    fn start() -> Self {
        let servers = NatsServer::cluster();
        let urls = servers.each_ref().map(NatsServer::url).join(",");
        let monitoring = servers.each_ref().map(NatsServer::monitoring_url);
        let site = |name| {
            Site::new(&format!(
                "name = '{name}'\nlog = 'jetstream'\n{}replicas = 3\n\
                 [jetstream]\nmonitoring = {monitoring:?}\nsilence_ms = {SILENCE_MS}\n",
                nats::configured(&urls)
            ))
        };
        let sites = ["first", "second", "third"].map(site);
        let hosts = sites.each_ref().map(Site::start);
        Self { hosts, sites, servers }
    }

    /// Returns the index of the server that leads the log.
    fn leader(&mut self) -> &mut NatsServer {
        let urls = self.servers.each_ref().map(NatsServer::url);
        let leader = nats::run(async {
            let jetstream = jetstream::new(async_nats::connect(urls.as_slice()).await.unwrap());
            let log = jetstream.get_stream("kontor-log").await.unwrap();
            log.cached_info().cluster.as_ref().unwrap().leader.clone().unwrap()
        });
        self.servers.iter_mut().find(|server| server.name() == leader).unwrap()
    }

    /// Waits until all hosts have the event at this position.
    fn reach(&self, position: u64) {
        for host in &self.hosts {
            host.follow(position - 1).next().expect("the log goes as far as that");
        }
    }

    /// Waits until all hosts have the same log and no saga runs.
    fn rest(&self) {
        let ends = self.hosts.iter().map(|host| laws::until_quiet(host).position);
        self.reach(ends.max().unwrap());
    }
}

/// A command that took effect.
struct Accepted {
    key: String,
    position: u64,
    at: Instant,
}

/// The state shared by the clients.
struct Storm {
    seed: u64,
    until: Instant,
    /// The URL of each host that runs.
    hosts: Mutex<[Client; 3]>,
}

impl Storm {
    /// Runs one client: it sends stories until the time is over. Each request goes to the next host, and on
    /// to the one after that until there is an answer.
    fn run_client(&self, client: u64) -> Vec<Accepted> {
        let mut rng = StdRng::seed_from_u64(self.seed * CLIENTS + client);
        let mut hosts = (client as usize..).map(|turn| self.hosts.lock().unwrap()[turn % 3].clone());
        let mut accepted = Vec::new();
        while Instant::now() < self.until {
            let story = if client == 0 { vec![Request::add_stock(&mut rng)] } else { story(&mut rng) };
            for request in story {
                let reply = answer(&request, &mut hosts);
                if request.outcome(&reply).is_ok() {
                    let position = reply.json()["position"].as_u64().unwrap();
                    accepted.push(Accepted { key: request.key, position, at: Instant::now() });
                }
            }
        }
        accepted
    }
}

/// Returns the first answer of any host.
#[track_caller]
fn answer(request: &Request, hosts: &mut impl Iterator<Item = Client>) -> Reply {
    let give_up = Instant::now() + LIMIT;
    let attempt = |host: Client| {
        assert!(Instant::now() < give_up, "no host has an answer to {}", request.key);
        let reply = request.send(&host).ok()?;
        if reply.status == 503 {
            thread::sleep(PAUSE);
            return None;
        }
        Some(reply)
    };
    hosts.find_map(attempt).unwrap()
}

/// The figures of a run.
struct Passed {
    accepted: Vec<Accepted>,
    begun: Instant,
    host_killed: Instant,
    leader_killed: Instant,
    ended: Instant,
}

impl Passed {
    /// The longest time without an accepted command.
    fn gap(&self, from: Instant, to: Instant) -> Duration {
        let between = self.accepted.iter().map(|accepted| accepted.at).filter(|at| (from..to).contains(at));
        let mut times: Vec<_> = between.chain([from, to]).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    fn summary(&self) -> String {
        format!(
            "{} commands accepted in {:.1?}; the longest time without one: {:.1?} after a host was killed, \
             {:.1?} after the \
             leader was",
            self.accepted.len(),
            self.ended - self.begun,
            self.gap(self.host_killed, self.leader_killed),
            self.gap(self.leader_killed, self.ended)
        )
    }
}

/// Runs traffic in four quarters: in the second a host is missing, in the third the leader of the servers as
/// well.
fn rage(cluster: &mut Cluster, seed: u64, quarter: Duration) -> Passed {
    let begun = Instant::now();
    let hosts = Mutex::new(cluster.hosts.each_ref().map(|host| Client::clone(host)));
    let storm = Storm { seed, until: begun + quarter * 4, hosts };
    let await_quarter = |number| {
        thread::sleep((begun + quarter * number).saturating_duration_since(Instant::now()));
        Instant::now()
    };
    thread::scope(|scope| {
        let storm = &storm;
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || storm.run_client(client))).collect();
        let host_killed = await_quarter(1);
        cluster.hosts[0].kill();
        let leader_killed = await_quarter(2);
        let leader = cluster.leader();
        leader.kill();
        await_quarter(3);
        leader.restart();
        cluster.hosts[0] = cluster.sites[0].start();
        storm.hosts.lock().unwrap()[0] = Client::clone(&cluster.hosts[0]);
        let accepted = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        Passed { accepted, begun, host_killed, leader_killed, ended: Instant::now() }
    })
}

/// Checks that all hosts have the same log. Returns it.
#[track_caller]
fn the_log(cluster: &Cluster) -> Vec<Value> {
    let [log, others @ ..] = cluster.hosts.each_ref().map(|host| host.events(0));
    for other in others {
        let differs = log.iter().zip(&other).find(|(one, other)| one != other);
        assert_eq!((differs, log.len()), (None, other.len()), "all hosts have the same log");
    }
    log
}

/// Checks that the commands accepted after a position took effect and nothing else did. The laws check that
/// none took effect twice.
#[track_caller]
fn check_effects(log: &[Value], after: u64, accepted: &[Accepted]) {
    let by_clients = |event: &&Value| event["position"].as_u64() > Some(after) && is_a_clients(event);
    let effects: BTreeSet<_> =
        log.iter().filter(by_clients).map(|event| event["command_id"].as_str().unwrap()).collect();
    let keys: BTreeSet<_> = accepted.iter().map(|accepted| &*accepted.key).collect();
    let lost: Vec<_> = keys.difference(&effects).collect();
    let unknown: Vec<_> = effects.difference(&keys).collect();
    assert_eq!(
        (lost, unknown),
        (vec![], vec![]),
        "(accepted without an effect, effects of what nobody sent)"
    );
}

/// Returns if a client has sent the command of an event itself, not a saga on its behalf.
fn is_a_clients(event: &Value) -> bool {
    event["actor"] == "anonymous" && event["via"].is_null()
}

#[test]
fn nothing_is_lost_or_done_twice_when_a_host_and_the_leader_of_the_servers_are_killed() {
    let (seed, seconds) = (setting("KONTOR_STORM_SEED", SEED), setting("KONTOR_STORM_SECONDS", SECONDS));
    let mut cluster = Cluster::start();
    stock(&cluster.hosts[0]);
    let stocked = cluster.hosts[0].head();
    cluster.reach(stocked);

    let passed = rage(&mut cluster, seed, Duration::from_secs(seconds) / 4);
    println!("seed {seed}: {}", passed.summary());

    cluster.reach(passed.accepted.iter().map(|accepted| accepted.position).max().unwrap());
    cluster.rest();
    println!("all sagas have ended {:.1?} later", passed.ended.elapsed());
    check_effects(&the_log(&cluster), stocked, &passed.accepted);
    cluster.hosts.iter().for_each(|host| drop(audit::check(host)));
}
