//! The streams in which the host keeps messages until they are commands: one for each service, with a
//! consumer for each subscription that the deployed version has.

use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::{Context, consumer, stream};
use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::Site;
use crate::common::deploy::{self, allowing, fixture, gate, renamed};
use crate::common::http::Client;
use crate::common::nats::{await_consumers, consumers, publish, with};
use crate::common::nodes::{both_up, sites};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// The largest message of a server, without its headers.
const LARGEST: usize = 1_000_000;

/// The grants of a version of `parcels` without the subscription to `carrier.delivered`.
const GRANTS: &str = "&grant=subject:carrier.*.received&grant=subject:carrier.forwarded\
                      &grant=subject:shop.parcels.*.delivered&grant=subject:crm.parcels.*";

/// Returns the fixture `parcels` with another subscription in the place of that to `carrier.delivered`.
fn forwarding() -> Vec<u8> {
    renamed(fixture("parcels"), "carrier.delivered", "carrier.forwarded")
}

/// Returns a service like `parcels` with another carrier.
fn packets() -> Vec<u8> {
    renamed(renamed(fixture("parcels"), "parcel", "packet"), "carrier", "courier")
}

fn site(server: &NatsServer, section: &str) -> (Site, TempDir) {
    let services = [("parcels", fixture("parcels")), ("packets", packets())];
    deploy::site(&services, &format!("[nats]\nurl = '{}'\n{section}", server.url()))
}

/// Waits until this is true of the consumers.
#[track_caller]
fn await_that(server: &NatsServer, is_so: impl Fn(&[consumer::Info]) -> bool) {
    with(&server.url(), async |jetstream| {
        loop {
            let found = consumers(&jetstream).await;
            if is_so(&found) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
}

fn of<'i>(found: &'i [consumer::Info], subject: &str) -> Option<&'i consumer::Info> {
    found.iter().find(|info| info.config.filter_subject == subject)
}

/// Waits until a parcel is as this function says.
#[track_caller]
fn await_parcel(host: &Client, path: &str, is_so: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so(&host.get(path).json()) {
        assert!(Instant::now() < deadline, "{path}: {}", host.get(path).text);
        thread::yield_now();
    }
}

/// Publishes messages of this size until the stream takes no more.
async fn fill(jetstream: &Context, subject: &'static str, bytes: usize) {
    loop {
        let message = vec![b'x'; bytes].into();
        let published = async { jetstream.publish(subject, message).await?.await };
        if published.await.is_err() {
            return;
        }
    }
}

#[test]
fn a_subscription_is_not_dropped_unless_the_operator_allows_it() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server, "");
    let host = site.start();
    let refused = host.deploy(&forwarding(), &format!("?{}", &GRANTS[1..])).problem(422, "gate-refused");
    let findings = gate(&refused["report"], "compatible")["findings"].to_string();
    assert!(findings.contains("subscription:carrier.delivered: "), "{findings}");
}

#[test]
fn a_dropped_subscription_comes_back_with_its_messages() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server, "[messaging]\ndropped_subscription_ms = 600000\n");
    let host = site.start();
    publish(&server.url(), &[("carrier.A.received", "m1", json!({"grams": 7}))]);
    await_parcel(&host, "/parcels/A", |parcel| parcel["grams"] == 7);
    let allowed = format!("{}{GRANTS}", allowing(["subscription:carrier.delivered"]));
    host.deploy(&forwarding(), &allowed).ok();
    let limit = |seconds| move |info: &consumer::Info| info.config.inactive_threshold.as_secs() == seconds;
    await_that(&server, |found| of(found, "carrier.delivered").is_some_and(limit(600)));
    await_that(&server, |found| of(found, "carrier.forwarded").is_some_and(limit(0)));
    publish(&server.url(), &[("carrier.delivered", "m2", json!({"parcel": "A"}))]);
    host.roll_back("parcels", &json!({})).ok();
    await_that(&server, |found| of(found, "carrier.delivered").is_some_and(limit(0)));
    await_parcel(&host, "/parcels/A", |parcel| parcel["delivered"] == true);
}

#[test]
fn a_subscription_that_several_hosts_share_is_dropped_and_comes_back_once() {
    const DAY: u64 = 86_400;
    let server = NatsServer::start();
    let [left, right] = sites(&server);
    let (mut left, right) = (left.start(), right.start());
    both_up(&left);
    left.deploy(&fixture("parcels"), &format!("?{}&grant=subject:carrier.delivered", &GRANTS[1..])).ok();
    publish(&server.url(), &[("carrier.A.received", "m1", json!({"grams": 7}))]);
    await_parcel(&right, "/parcels/A", |parcel| parcel["grams"] == 7);
    let allowed = format!("{}{GRANTS}", allowing(["subscription:carrier.delivered"]));
    right.deploy(&forwarding(), &allowed).ok();
    let limit = |seconds| move |info: &consumer::Info| info.config.inactive_threshold.as_secs() == seconds;
    await_that(&server, |found| of(found, "carrier.delivered").is_some_and(limit(DAY)));
    publish(&server.url(), &[("carrier.delivered", "m2", json!({"parcel": "A"}))]);
    left.kill();
    right.roll_back("parcels", &json!({})).ok();
    await_that(&server, |found| of(found, "carrier.delivered").is_some_and(limit(0)));
    await_parcel(&right, "/parcels/A", |parcel| parcel["delivered"] == true);
    await_that(&server, |found| of(found, "carrier.forwarded").is_some_and(limit(DAY)));
}

#[test]
fn the_consumer_of_a_dropped_subscription_goes_and_so_does_the_stream_of_a_service() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server, "[messaging]\ndropped_subscription_ms = 1\n");
    let host = site.start();
    await_that(&server, |found| found.len() == 4);
    let allowed = format!("{}{GRANTS}", allowing(["subscription:carrier.delivered"]));
    host.deploy(&forwarding(), &allowed).ok();
    await_that(&server, |found| found.len() == 4 && of(found, "carrier.delivered").is_none());
    host.undeploy("packets", "").ok();
    await_that(&server, |found| found.len() == 2);
    with(
        &server.url(),
        async |jetstream| {
            while jetstream.get_stream("kontor-messages-packets").await.is_ok() {}
        },
    );
}

#[test]
fn a_service_that_leaves_its_messages_fills_only_its_own_stream() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server, "");
    let host = site.start();
    await_that(&server, |found| found.len() == 4);
    let allowed = format!("{}{GRANTS}", allowing(["subscription:carrier.delivered"]));
    host.deploy(&forwarding(), &allowed).ok();
    with(&server.url(), async |jetstream| {
        await_consumers(&jetstream, 5).await;
        for bytes in [LARGEST, LARGEST / 100, 1] {
            fill(&jetstream, "carrier.delivered", bytes).await;
        }
    });
    publish(&server.url(), &[("courier.A.received", "m1", json!({"grams": 7}))]);
    await_parcel(&host, "/packets/A", |packet| packet["grams"] == 7);
}

#[test]
fn messages_in_the_stream_of_all_services_that_earlier_versions_had_are_taken() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server, "");
    with(&server.url(), async |jetstream| {
        let subjects = ["carrier.*.received", "carrier.delivered"].map(str::to_owned).to_vec();
        let retention = stream::RetentionPolicy::Interest;
        let name = "kontor-messages".to_owned();
        let config = stream::Config { name, subjects, retention, ..stream::Config::default() };
        let stream = jetstream.create_stream(config).await.unwrap();
        // As an earlier version has made it.
        let durable = "kontor-parcels-parcel-receive-f2bc364a".to_owned();
        let config = consumer::pull::Config {
            durable_name: Some(durable),
            filter_subject: "carrier.*.received".to_owned(),
            ..consumer::pull::Config::default()
        };
        stream.create_consumer(config).await.unwrap();
        jetstream.publish("carrier.A.received", r#"{"grams": 7}"#.into()).await.unwrap().await.unwrap();
    });
    let host = site.start();
    await_parcel(&host, "/parcels/A", |parcel| parcel["grams"] == 7);
    publish(&server.url(), &[("carrier.B.received", "m2", json!({"grams": 8}))]);
    await_parcel(&host, "/parcels/B", |parcel| parcel["grams"] == 8);
    with(&server.url(), async |jetstream| {
        let stream = jetstream.get_stream("kontor-messages-parcels").await.unwrap();
        let mut subjects = stream.cached_info().config.subjects.clone();
        subjects.sort();
        assert_eq!(subjects, ["carrier.*.received", "carrier.delivered"]);
        while jetstream.get_stream("kontor-messages").await.is_ok() {}
    });
}

#[test]
fn a_stream_with_some_messages_of_a_subject_does_not_count_as_that_of_the_subject() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server, "");
    with(&server.url(), async |jetstream| {
        let subjects = vec!["carrier.A.received".to_owned()];
        let config = stream::Config { name: "theirs".to_owned(), subjects, ..stream::Config::default() };
        jetstream.create_stream(config).await.unwrap();
    });
    let host = site.start();
    host.await_warning("the stream theirs has only some messages of the subject carrier.*.received");
    // The other subjects are not affected.
    await_that(&server, |found| found.len() == 3);
    publish(&server.url(), &[("courier.A.received", "m1", json!({"grams": 7}))]);
    await_parcel(&host, "/packets/A", |packet| packet["grams"] == 7);
}
