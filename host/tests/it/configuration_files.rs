//! The files that a configuration names: `kontor config check` finds one that cannot be used with the
//! sentence of a start.

use std::fs;

use serde_json::Value;

use crate::common::certificates::Certificates;
use crate::common::deploy::folder;
use crate::common::{Ended, Site, ended, kontor};

/// Returns the exit code of the check, and the errors that it has found.
fn check(site: &Site) -> (Option<i32>, Vec<String>) {
    let (file, plugins) = (site.configuration(), folder(&[]));
    let line = ["config", "check", "--json", "--config", file.to_str().unwrap(), "--plugins"];
    let Ended { status, stdout, stderr } =
        ended(&mut kontor(&[&line[..], &[plugins.path().to_str().unwrap()]].concat()));
    let found: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    let errors = found["errors"].as_array().unwrap().iter();
    (status.code(), errors.map(|error| error.as_str().unwrap().to_owned()).collect())
}

/// A section `[auth]` with an issuer whose keys are in this file, and more.
fn auth(jwks: &str, more: &str) -> String {
    format!(
        "[[auth.issuers]]\nissuer = 'https://id.example'\naudience = ['shop']\nalgorithms = ['ES256']\n\
         jwks = '{jwks}'\n{more}"
    )
}

#[test]
fn a_file_that_cannot_be_used_is_found_by_the_check_as_by_a_start() {
    let files = Certificates::new();
    let ours = files.authority("ours");
    let (certificate, key) = files.certify(&ours, "shop");
    let (_, foreign) = files.certify(&ours, "other");
    let [empty, bad_url, seed] = ["empty", "bad-url", "seed"].map(|name| files.path(name));
    fs::write(&empty, "").unwrap();
    fs::write(&bad_url, "http://nowhere").unwrap();
    fs::write(&seed, format!("SU{}", "A".repeat(56))).unwrap();
    let [certificate, key, foreign, empty, bad_url, seed] =
        [&certificate, &key, &foreign, &empty, &bad_url, &seed].map(|file| file.to_str().unwrap());
    let tls = |certificate: &str, key: &str| format!("[tls]\ncertificate = '{certificate}'\nkey = '{key}'\n");
    let oidc = |more: &str| {
        let oidc = "[auth.oidc]\nissuer = 'https://id.example'\nclient_id = 'k'\nurl = 'https://h.example'";
        auth("https://id.example/jwks", &format!("{oidc}\n{more}"))
    };
    let missing = "cannot be read: No such file";
    // The configuration, the place and the key, the file, and what is wrong with it.
    let table = [
        (tls("none", key), "2:1: tls.certificate", "none", missing),
        (tls(certificate, empty), "3:1: tls.key", empty, "has no private key in PEM"),
        (tls(certificate, foreign), "3:1: tls.key", foreign, "cannot be used with the key"),
        (tls(certificate, key) + "client_ca = 'none'", "4:1: tls.client_ca", "none", missing),
        (auth("none", ""), "1:8: auth.issuers", "none", missing),
        (auth(empty, ""), "1:8: auth.issuers", empty, "it is no JSON Web Key Set"),
        (oidc("client_secret = { file = 'none' }"), "10:1: auth.oidc.client_secret", "none", missing),
        (oidc("session_key = { file = 'none' }"), "10:1: auth.oidc.session_key", "none", missing),
        (
            "[[grants.payment.http]]\norigin = 'https://pay.example'\nmethods = ['GET']\n\
             headers.authorization = { file = 'none' }"
                .to_owned(),
            "1:18: the header authorization for https://pay.example under [[grants.payment.http]]",
            "none",
            missing,
        ),
        (
            "[secrets.payment]\nk = { file = 'none' }".to_owned(),
            "2:1: the secret secrets.payment.k",
            "none",
            missing,
        ),
        ("[nats]\nurl_file = 'none'".to_owned(), "2:1: nats.url_file", "none", missing),
        (format!("[nats]\nurl_file = '{bad_url}'"), "2:1: nats.url_file", bad_url, "address of NATS servers"),
        ("[nats]\nca = 'none'".to_owned(), "2:1: nats.ca", "none", missing),
        (format!("[nats]\nca = '{empty}'"), "2:1: nats.ca", empty, "has no certificate in PEM"),
        (format!("[nats]\ncredentials = '{empty}'"), "2:1: nats.credentials", empty, "cannot parse user JWT"),
        (format!("[nats]\ncredentials = '{seed}'"), "2:1: nats.credentials", seed, "Checksum"),
        (
            format!("[nats]\ncertificate = '{certificate}'\nkey = '{foreign}'"),
            "3:1: nats.key",
            foreign,
            "cannot be used with the key",
        ),
    ];
    let site = Site::new("");
    for (configuration, place, file, why) in table {
        site.configure(&configuration);
        let Ended { status, stderr, .. } = site.fail_to_start(folder(&[]).path());
        assert_eq!(status.code(), Some(2), "{configuration}\n{stderr}");
        let (code, errors) = check(&site);
        assert_eq!((code, errors.len()), (Some(2), 1), "{configuration}\n{errors:?}");
        for found in [&stderr, &errors[0]] {
            for part in [&format!("kontor.toml:{place} "), file, why] {
                assert!(found.contains(part), "{part} is missing for\n{configuration}\nin {found}");
            }
        }
    }
}

#[test]
fn every_file_that_cannot_be_used_is_named_at_once_and_sound_ones_are_not() {
    let files = Certificates::new();
    let ours = files.authority("ours");
    let (certificate, key) = files.certify(&ours, "shop");
    let sound = format!(
        "[tls]\ncertificate = '{0}'\nkey = '{1}'\nclient_ca = '{2}'\n\
         [nats]\nca = '{2}'\ncertificate = '{0}'\nkey = '{1}'\n",
        certificate.display(),
        key.display(),
        ours.file.display()
    );
    let site = Site::new(&sound);
    assert_eq!(check(&site), (Some(0), Vec::new()));
    fs::remove_file(&key).unwrap();
    fs::write(&ours.file, "nonsense").unwrap();
    let keys = ["tls.key", "tls.client_ca", "nats.ca", "nats.key"];
    let (_, errors) = check(&site);
    assert_eq!(errors.len(), keys.len(), "{errors:?}");
    let Ended { stderr, .. } = site.fail_to_start(folder(&[]).path());
    for key in keys {
        assert!(errors.iter().any(|error| error.contains(key)), "{key} is missing in {errors:?}");
        assert!(stderr.contains(&format!(": {key} cannot be used: ")), "{key} is missing in {stderr}");
    }
}
