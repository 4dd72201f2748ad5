//! `kontor export` and `kontor import`: a log becomes a file and a file a log, for both kinds of logs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use kontor::model::Digest;
use kontor_testkit::nats::NatsServer;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::nats::with_log;
use crate::common::shop::{UNDELIVERABLE, configuration, order};
use crate::common::{Ended, Host, Site, audit, built, ended, kontor};

/// Returns an export or import command for the log of a site.
fn on(site: &Site, command: &str, file: &str) -> Command {
    let mut command = kontor(&[command, file, "--json"]);
    command.arg("--config").arg(site.configuration()).arg("--data").arg(site.data());
    command
}

/// Runs a command that must succeed. Returns its report.
#[track_caller]
fn done(mut command: Command) -> Value {
    let Ended { status, stdout, stderr } = ended(&mut command);
    assert_eq!(status.code(), Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Runs a command that must fail. Returns its error.
#[track_caller]
fn refused(mut command: Command) -> String {
    let Ended { status, stdout, stderr } = ended(&mut command);
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    stderr
}

struct Exports(TempDir);

impl Exports {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Exports the log of a site.
    #[track_caller]
    fn of(&self, site: &Site, name: &str) -> Vec<u8> {
        done(on(site, "export", &self.file(name)));
        fs::read(self.file(name)).unwrap()
    }
}

/// Places orders, of which one is cancelled.
fn trade(host: &Host) {
    host.register("apple", 300, 10);
    for quantity in 1..=3 {
        host.place(&order(&[("apple", quantity)])).ok();
    }
    host.place(&order(&[("apple", 1)]).sent_to(UNDELIVERABLE));
}

fn nothing_deployed(folder: &TempDir) -> PathBuf {
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    plugins
}

#[test]
fn a_log_moves_into_nats_and_back_and_stays_the_same() {
    let (exports, server) = (Exports::new(), NatsServer::start());
    let embedded = Site::new(&configuration());
    let host = embedded.start();
    trade(&host);
    let orders = audit::check(&host);
    let events = host.events(0);
    let beside_a_host = exports.of(&embedded, "one.jsonl");
    assert!(host.stop().success());
    assert!(exports.of(&embedded, "two.jsonl") == beside_a_host, "the same log gives the same file");

    // Only with the components from the export.
    let plugins = nothing_deployed(&exports.0);
    let shared = Site::with_plugins(&plugins, &with_log(&server));
    let report = done(on(&shared, "import", &exports.file("one.jsonl")));
    assert_eq!((&report["imported"]["events"], &report["there_before"]), (&events.len().into(), &0.into()));
    assert!(exports.of(&shared, "nats.jsonl") == beside_a_host, "every event is what and where it was");

    let elsewhere = Site::with_plugins(&plugins, &with_log(&server));
    assert!(
        exports.of(&elsewhere, "elsewhere.jsonl") == beside_a_host,
        "with what other hosts need to run it"
    );

    let back = Site::with_plugins(&plugins, &configuration());
    done(on(&back, "import", &exports.file("nats.jsonl")));
    assert!(exports.of(&back, "back.jsonl") == beside_a_host, "every event is what and where it was");

    for site in [shared, back] {
        let host = site.start();
        assert_eq!(host.events(0)[..events.len()], events);
        assert_eq!(audit::check(&host), orders);
        trade_on(&host);
    }
}

/// Checks that reservations survived and that new orders get only what is left.
fn trade_on(host: &Host) {
    assert_eq!(host.stock("apple"), (4, 6));
    host.place(&order(&[("apple", 4)])).ok();
    host.place(&order(&[("apple", 1)])).problem(409, "insufficient-stock");
}

/// Returns an export with some events and the site it came from.
fn exported(exports: &Exports) -> (Site, Vec<u8>) {
    let site = Site::new(&configuration());
    let host = site.start();
    trade(&host);
    audit::check(&host);
    assert!(host.stop().success());
    let export = exports.of(&site, "whole.jsonl");
    (site, export)
}

#[test]
fn an_import_takes_only_a_whole_export_into_an_empty_log() {
    let exports = Exports::new();
    let (site, export) = exported(&exports);
    let half = exports.file("half.jsonl");
    let middle = export.len() - export.len() / 20;
    fs::write(&half, &export[..middle]).unwrap();
    let other = Site::new(&configuration());

    let error = refused(on(&other, "import", &half));
    assert!(error.contains("before it is complete") && error.contains("copy or make it again"), "{error}");
    let error = refused(on(&other, "export", &exports.file("none.jsonl")));
    assert!(error.contains("holds no event log"), "nothing has been made: {error}");
    assert!(!Path::new(&exports.file("none.jsonl")).exists());
    let error = refused(on(&other, "import", "Cargo.toml"));
    assert!(error.contains("no export of a log"), "{error}");

    let host = other.start();
    let error = refused(on(&other, "import", &exports.file("whole.jsonl")));
    assert!(error.contains("in use by another process"), "{error}");
    host.register("pear", 1, 1);
    assert!(host.stop().success());
    let error = refused(on(&other, "import", &exports.file("whole.jsonl")));
    assert!(error.contains("has events already, and from position"), "{error}");

    // Importing a log that is complete already is harmless.
    let report = done(on(&site, "import", &exports.file("whole.jsonl")));
    assert_eq!(report["there_before"], report["imported"]["events"]);
}

#[test]
fn a_log_and_its_export_are_verified_and_damage_is_named() {
    let (exports, server) = (Exports::new(), NatsServer::start());
    let (site, export) = exported(&exports);
    let verify = |site: &Site, file: Option<&str>| {
        let mut command = kontor(&["verify", "--json"]);
        command.args(file).arg("--config").arg(site.configuration()).arg("--data").arg(site.data());
        command
    };
    let whole = exports.file("whole.jsonl");
    let log = done(verify(&site, None));
    assert!(log["verified"]["events"].as_u64().unwrap() > 20, "{log}");
    assert_eq!(done(verify(&site, Some(&whole)))["verified"], log["verified"], "the export is the same log");
    let shared = Site::with_plugins(&nothing_deployed(&exports.0), &with_log(&server));
    done(on(&shared, "import", &whole));
    assert_eq!(done(verify(&shared, None))["verified"], log["verified"], "so is the copy of a shared log");

    // An export whose checksum has been made to fit.
    let damaged = exports.file("damaged.jsonl");
    let text = String::from_utf8(export).unwrap().replacen("\"unit_price\":300", "\"unit_price\":299", 1);
    let (lines, end) = text.trim_end().rsplit_once('\n').unwrap();
    let lines = format!("{lines}\n");
    let mut end: Value = serde_json::from_str(end).unwrap();
    end["end"]["sha256"] = Digest::of(lines.as_bytes()).to_string().into();
    fs::write(&damaged, format!("{lines}{end}\n")).unwrap();
    for command in ["verify", "import"] {
        let Ended { status, stderr, .. } = ended(&mut on(&shared, command, &damaged));
        assert_eq!(status.code(), Some(1));
        assert!(stderr.contains("its hash does not follow from the commit before"), "{stderr}");
    }

    let database = Connection::open(site.data().join("events.db")).unwrap();
    database.execute_batch("UPDATE events SET payload = '{}' WHERE position = 3").unwrap();
    let Ended { status, stdout, stderr } = ended(&mut verify(&site, None));
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("the log is damaged at position 3: the hash"), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["damaged"]["position"], 3);
}

#[test]
fn an_import_that_was_broken_off_goes_on_where_it_ended() {
    let (exports, server) = (Exports::new(), NatsServer::start());
    let (_, export) = exported(&exports);
    let half = exports.file("half.jsonl");
    fs::write(&half, &export[..export.len() - 2_000]).unwrap();
    for configuration in [configuration(), with_log(&server)] {
        let site = Site::new(&configuration);
        // Input from a pipe cannot be checked in advance.
        let mut from_pipe = on(&site, "import", "-");
        from_pipe.stdin(File::open(&half).unwrap());
        let error = refused(from_pipe);
        assert!(error.contains("before it is complete"), "{error}");
        let mut to_pipe = on(&site, "export", "-");
        assert_ne!(to_pipe.output().unwrap().stdout, export);
        // The first orders without the last ones are another business.
        let Ended { status, stderr, .. } = site.fail_to_start(&built("plugins"));
        assert!(stderr.contains("has only the beginning of an export"), "{stderr}");
        assert_eq!(status.code(), Some(1));

        let report = done(on(&site, "import", &exports.file("whole.jsonl")));
        let (before, events) = (&report["there_before"], &report["imported"]["events"]);
        assert!(0 < before.as_u64().unwrap() && before.as_u64() < events.as_u64(), "{report}");
        let mut to_pipe = on(&site, "export", "-");
        assert!(to_pipe.output().unwrap().stdout == export);
        site.start();
    }
}
