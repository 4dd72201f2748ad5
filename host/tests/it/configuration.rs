//! The configuration fails closed: what does not fit keeps a host from starting, and a service from being
//! deployed.

use std::fs;

use serde_json::Value;

use crate::common::deploy::{self, folder, gate, plugin};
use crate::common::{Ended, Site, built, ended, kontor};

const RETRY: &str = "{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }";

#[test]
fn a_slip_in_a_name_keeps_the_host_from_starting() {
    let site = Site::new("");
    let table = [
        ("[services.payment]\ncard_limit = 100".to_owned(), "services.payment.card_limit", "card-limit"),
        ("[services.paymnet]\ncard-limit = 100".to_owned(), "services.paymnet", "payment"),
        ("[grants.oder]\nservices = []".to_owned(), "grants.oder", "order"),
        (format!("[retries.steps]\n'place-ordr/pay' = {RETRY}"), "\"place-ordr/pay\"", "place-order"),
    ];
    for (file, place, meant) in table {
        site.configure(&file);
        let Ended { status, stderr, .. } = site.fail_to_start(&built("plugins"));
        assert_eq!(status.code(), Some(2), "{file}: {stderr}");
        let expected = format!("{place} is not known: did you mean {meant}?");
        assert!(stderr.contains(&expected), "{file}: {stderr}");

        let file = site.configuration();
        let plugins = built("plugins");
        let line = ["config", "check", "--config", file.to_str().unwrap(), "--plugins"];
        let mut check = kontor(&[&line[..], &[plugins.to_str().unwrap(), "--json"]].concat());
        let Ended { status, stdout, .. } = ended(&mut check);
        assert_eq!(status.code(), Some(2), "{stdout}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert!(found["errors"][0].as_str().unwrap().contains(&expected), "{found}");
    }
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
    let expected = "services.payment.card_limit is not known: did you mean card-limit?";
    assert_eq!(gate["findings"], serde_json::json!([expected]));
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
    assert!(printed.starts_with("warning: services.inventroy is not known"), "{printed}");
    let (code, printed) = check(&["--data", data.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.starts_with("error: services.inventroy is not known: did you mean inventory?"));
}
