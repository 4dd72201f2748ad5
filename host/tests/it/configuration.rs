//! The configuration fails closed: what does not fit keeps a host from starting, and a service from being
//! deployed.

use std::fs;

use serde_json::Value;

use crate::common::deploy::{self, folder, gate, plugin, renamed};
use crate::common::{Ended, Site, built, ended, kontor};

const RETRY: &str = "{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }";

#[test]
fn a_slip_in_a_name_keeps_the_host_from_starting() {
    let site = Site::new("");
    let table = [
        ("[services.payment]\ncard_limit = 100".to_owned(), "2:1: services.payment.card_limit", "card-limit"),
        ("\n[services.paymnet]\ncard-limit = 100".to_owned(), "2:11: services.paymnet", "payment"),
        ("[grants.oder]\nservices = []".to_owned(), "1:9: grants.oder", "order"),
        (
            format!("[retries.steps]\n  'place-ordr/pay' = {RETRY}"),
            "2:3: retries.steps.\"place-ordr/pay\"",
            "place-order",
        ),
    ];
    for (file, place, meant) in table {
        site.configure(&file);
        let Ended { status, stderr, .. } = site.fail_to_start(&built("plugins"));
        assert_eq!(status.code(), Some(2), "{file}: {stderr}");
        let expected = format!("kontor.toml:{place} is not known: did you mean {meant}?");
        assert!(stderr.contains(&expected), "{file}: {stderr}");
    }
    // The check compiles all components, so it has the last of them only.
    let (file, plugins) = (site.configuration(), built("plugins"));
    let line = ["config", "check", "--config", file.to_str().unwrap(), "--plugins"];
    let mut check = kontor(&[&line[..], &[plugins.to_str().unwrap(), "--json"]].concat());
    let Ended { status, stdout, .. } = ended(&mut check);
    assert_eq!(status.code(), Some(2), "{stdout}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert!(found["errors"][0].as_str().unwrap().contains("did you mean place-order?"), "{found}");
}

#[test]
fn a_name_of_a_service_that_may_come_later_is_a_warning() {
    let site = Site::new(&format!(
        "[services.nosuch]\nkey = 1\n[grants.nosuch]\nservices = []\n[retries.steps]\n'no/such' = {RETRY}"
    ));
    let log = site.start().log();
    for place in ["services.nosuch", "grants.nosuch", "no/such"] {
        assert!(log.contains(place), "{place} is missing in {log}");
    }
}

#[test]
fn a_component_that_asks_for_another_key_than_is_configured_is_not_deployed() {
    let (site, _plugins) =
        deploy::site(&[("inventory", plugin("inventory"))], "[services.payment]\ncard_limit = 1");
    let host = site.start();
    let problem = host.deploy(&plugin("payment"), "").problem(422, "gate-refused");
    let gate = gate(&problem["report"], "configuration");
    assert_eq!(gate["outcome"], "refused", "{gate}");
    let expected = "kontor.toml:2:1: services.payment.card_limit is not known: did you mean card-limit?";
    assert_eq!(gate["findings"], serde_json::json!([expected]));
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_line() {
    let site = Site::new("");
    for (file, expected) in [
        (
            "[services.payment]\npoints-limit = 1\ncard-limit = 'much'",
            "kontor.toml:3:1: services.payment.card-limit: it is not of type \"integer\"",
        ),
        ("listen = '127.0.0.1:0'\n[limits]\nqueue = 0", "kontor.toml:3:1: limits.queue must be at least 1"),
        ("[auth]\nnats_roles = ['A']", "kontor.toml:2:1: auth.nats_roles: \"A\" is no role"),
        (
            "[secrets.payment]\nkey = { env = 'NONE' }",
            "kontor.toml:2:1: the secret secrets.payment.key cannot",
        ),
    ] {
        site.configure(file);
        let Ended { status, stderr, .. } = site.fail_to_start(&built("plugins"));
        assert_eq!(status.code(), Some(2), "{file}: {stderr}");
        assert!(stderr.contains(expected), "{file}: {stderr}");
    }
}

#[test]
fn a_start_names_every_value_that_does_not_fit() {
    let site = Site::new("[services.payment]\npoints-limit = 'more'\ncard-limit = 'much'");
    let Ended { status, stderr, .. } = site.fail_to_start(&built("plugins"));
    assert_eq!(status.code(), Some(2), "{stderr}");
    for place in ["2:1: services.payment.points-limit", "3:1: services.payment.card-limit"] {
        assert!(stderr.contains(&format!("kontor.toml:{place}: ")), "{place} is missing in {stderr}");
    }
}

#[test]
fn a_version_without_a_saga_whose_retries_are_configured_does_not_pass_in_silence() {
    let steps = format!("[retries.steps]\n'place-order/pay' = {RETRY}\n'other/pay' = {RETRY}\n");
    let (site, _plugins) = deploy::site(&[("order", plugin("order"))], &steps);
    let host = site.start();
    for (name, outcome, says) in [
        ("place-oredr", "refused", "is not known: did you mean place-oredr?"),
        ("order-taken", "passed", "is not known, so it has no effect"),
    ] {
        let renamed = renamed(plugin("order"), "place-order", name);
        let reply = host.deploy(&renamed, "?dry-run=true&allow-breaking=saga:place-order");
        let report = reply.json();
        let gate = gate(report.get("report").unwrap_or(&report), "configuration");
        assert_eq!(gate["outcome"], outcome, "{report}");
        let expected = format!("kontor.toml:2:1: retries.steps.\"place-order/pay\" {says}");
        assert_eq!(
            gate["findings"],
            serde_json::json!([expected]),
            "the other is of no version of this service"
        );
    }
    let report = host.deploy(&plugin("order"), "?dry-run=true").ok();
    assert_eq!(gate(&report, "configuration")["outcome"], "skipped", "{report}");
}

#[test]
fn paths_of_the_file_start_at_the_file_and_secrets_do_not_stand_in_it() {
    let (site, plugins) = deploy::site(&[("payment", plugin("payment"))], "");
    let elsewhere = folder(&[]);
    fs::create_dir(elsewhere.path().join("components")).unwrap();
    fs::copy(plugins.path().join("payment.wasm"), elsewhere.path().join("components/payment.wasm")).unwrap();
    let file = elsewhere.path().join("kontor.toml");
    let check = |configuration: &str| {
        fs::write(&file, format!("plugins = 'components'\n{configuration}")).unwrap();
        let mut check = kontor(&["config", "check", "--config", file.to_str().unwrap()]);
        let Ended { status, stdout, stderr } = ended(check.current_dir(site.data()));
        (status.code(), stdout + &stderr)
    };
    let secret = "[secrets.payment]\ngateway-url = { file = 'limit' }";
    let (code, printed) = check(secret);
    assert_eq!(code, Some(2), "{printed}");
    let limit = elsewhere.path().join("limit");
    assert!(printed.contains(&format!("{} cannot be read", limit.display())), "{printed}");
    fs::write(limit, "https://gateway.example").unwrap();
    assert_eq!(check(secret), (Some(0), "nothing is wrong in this configuration\n".to_owned()));
    let (code, printed) = check(&format!("[services.payment]\ngateway-url = 'https://x.example'\n{secret}"));
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("gateway-url is in [services.payment] and in [secrets.payment]"), "{printed}");
}

#[test]
fn the_services_of_a_data_directory_are_known_to_the_check_while_its_host_runs() {
    let (site, _plugins) = deploy::site(&[("inventory", plugin("inventory"))], "");
    let _host = site.start();
    let elsewhere = folder(&[]);
    let file = elsewhere.path().join("kontor.toml");
    fs::write(&file, "plugins = 'none'\n[services.inventroy]").unwrap();
    let data = site.data();
    let check = |more: &[&str]| {
        let line = ["config", "check", "--config", file.to_str().unwrap()];
        let Ended { status, stdout, .. } = ended(&mut kontor(&[&line[..], more].concat()));
        (status.code(), stdout)
    };
    let (code, printed) = check(&[]);
    assert_eq!(code, Some(0), "{printed}");
    let place = format!("{}:2:11: services.inventroy is not known", file.display());
    assert!(printed.starts_with(&format!("warning: {place}")), "{printed}");
    let (code, printed) = check(&["--data", data.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.starts_with(&format!("error: {place}: did you mean inventory?")), "{printed}");
}
