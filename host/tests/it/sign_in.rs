//! Signing in over TLS: an operator at a terminal, and a user at a browser.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::common::certificates::Certificates;
use crate::common::curl::text;
use crate::common::oidc::{Provider, sign_in};
use crate::common::{Ended, Site, ended, kontor};

#[test]
fn an_operator_signs_in_over_tls_once_and_then_only_names_the_profile() {
    let files = Certificates::new();
    let (ours, other) = (files.authority("ours"), files.authority("other"));
    let site = Site::new(&files.configuration(&ours, "127.0.0.1", "[auth]\n"));
    let host = site.start();
    let token = site.data().join("operator.token");
    let home = TempDir::new().unwrap();
    let run = |folder: &Path, arguments: &[&str]| {
        ended(kontor(arguments).current_dir(folder).env("XDG_CONFIG_HOME", home.path()))
    };
    let elsewhere = TempDir::new().unwrap();
    let login = ["login", "shop", "--host", host.url(), "--token-file", text(&token)];

    for ca in [&[][..], &["--ca", text(&other.file)]] {
        let Ended { status, stderr, .. } = run(elsewhere.path(), &[&login, ca].concat());
        assert_eq!(status.code(), Some(4), "{stderr}");
        assert!(stderr.contains("certificate"), "{stderr}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is stored of a failed sign-in");

    // The file of the authority is named as the directory of the sign-in has it.
    let folder = files.path("");
    let signed_in = run(&folder, &[&login[..], &["--ca", "ours.pem"]].concat());
    let expected = format!("{} knows you as operator (operator). The profile shop is in", host.url());
    assert!(signed_in.stdout.starts_with(&expected), "{} {}", signed_in.stdout, signed_in.stderr);
    let profiles = home.path().join("kontor/profiles.toml");
    assert_eq!(fs::metadata(&profiles).unwrap().permissions().mode() & 0o777, 0o600);

    let plugins = run(elsewhere.path(), &["plugins", "--profile", "shop"]);
    assert!(plugins.status.success() && plugins.stdout.contains("inventory"), "{}", plugins.stderr);
    let ca = ["--ca", text(&ours.file)];
    let stranger = run(elsewhere.path(), &[&["plugins", "--host", host.url()][..], &ca].concat());
    assert_eq!(stranger.status.code(), Some(3), "{}", stranger.stderr);
    // Without a profile of its own name, another host gets neither the token nor the authority.
    let other_host = host.url().replace("127.0.0.1", "localhost");
    let other_host = run(elsewhere.path(), &["plugins", "--profile", "shop", "--host", &other_host]);
    assert_eq!(other_host.status.code(), Some(2), "{}", other_host.stderr);
}

/// Returns the hash of the public key of a certificate, from the file of its private key.
fn hash_of_key(file: &Path) -> String {
    let key = KeyPair::from_pem(&fs::read_to_string(file).unwrap()).unwrap();
    BASE64.encode(Sha256::digest(key.subject_public_key_info()))
}

#[test]
fn a_browser_that_signs_in_over_tls_has_a_cookie_for_this_host_and_no_script() {
    let provider = Provider::start(&json!({"sub": "ann", "roles": ["admins"]}));
    let files = Certificates::new();
    let ours = files.authority("ours");
    // A port that nobody listens at: the issuer sends the browser back to it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (url, issuer) = (format!("https://localhost:{port}"), provider.url());
    let auth = format!(
        "[[auth.issuers]]\nissuer = '{issuer}'\naudience = ['api']\njwks = '{issuer}/jwks'\n\
         algorithms = ['RS256']\nroles = 'roles'\nroles_map = {{ admins = 'operator' }}\n\
         [auth.oidc]\nissuer = '{issuer}'\nclient_id = 'kontor'\nurl = '{url}'\n\
         client_secret = {{ env = 'CLIENT_SECRET' }}\n"
    );
    let site = Site::new(&files.configuration(&ours, "localhost", &auth));
    let site = site.with_variable("CLIENT_SECRET", "hush");
    let host = site.start_with(&["--listen", &format!("127.0.0.1:{port}")]);
    let key = hash_of_key(&files.path("localhost.key"));
    let Some(seen) = sign_in(&url, "ann", Some(&key)) else { return };
    assert_eq!((&seen["me"]["subject"], &seen["me"]["roles"]), (&json!("ann"), &json!(["operator"])));

    let cookies = |of: &str| -> Vec<Value> {
        let all = seen[of].as_array().unwrap().iter();
        all.filter(|cookie| cookie["name"].as_str().unwrap().contains("kontor")).cloned().collect()
    };
    let [cookie] = &*cookies("cookies") else { panic!("one cookie, as the sign-in has ended: {seen:#}") };
    let attributes = ["name", "domain", "path", "secure", "httpOnly", "sameSite"].map(|name| &cookie[name]);
    // A domain without a dot in front: the cookie goes to no other name.
    assert_eq!(json!(attributes), json!(["__Host-kontor", "localhost", "/", true, true, "Lax"]));
    assert_eq!(seen["seen_by_scripts"], "");
    let statuses = ["without_csrf", "with_wrong_csrf", "with_csrf", "sign_out"].map(|name| &seen[name]);
    assert_eq!(statuses, [403, 403, 201, 204], "{seen:#}");
    assert_eq!((&seen["after"]["subject"], cookies("cookies_after")), (&Value::Null, vec![]));
    assert!(host.stop().success());
}
