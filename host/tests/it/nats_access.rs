//! NATS servers with access control: the host authenticates in each of the ways that `[nats]` offers, and
//! reports why it is not let in.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kontor_testkit::nats::NatsServer;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::shop::configuration;
use crate::common::{Site, built};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts a host whose log is on a server with access control, and then one with the credentials `stranger`,
/// which the server must turn away for `reason`. `url`: with `AT` in place of the server's address.
fn check(server: &str, url: &str, section: &str, stranger: (&str, &str), reason: &str) {
    let mut server = NatsServer::start_with(server);
    let address = server.url().replace("nats://", "");
    let nats =
        |url: &str, section: &str| format!("[nats]\nurl = '{}'\n{section}\n", url.replace("AT", &address));
    let monitoring = format!("[jetstream]\nmonitoring = ['{}']\n", server.monitoring_url());
    let site =
        Site::new(&format!("log = 'jetstream'\n{}{}{monitoring}", configuration(), nats(url, section)));
    let host = site.start();
    host.register("tea", 450, 10);
    // A connection that is made again is accepted again.
    server.restart();
    let deadline = Instant::now() + LIMIT;
    while host.post("/products/tea/add-stock", &[], &json!({"quantity": 1})).status == 503 {
        assert!(Instant::now() < deadline, "{}", host.get("/readyz").text);
        thread::yield_now();
    }

    let other = Site::new(&format!("{}{}", configuration(), nats(stranger.0, stranger.1)));
    other.start().await_warning(reason);
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn by_a_name_and_a_password() {
    let server = "authorization { user: kontor, password: \"p@ss:word\" }\n";
    let right = "nats://kontor:p%40ss%3Aword@AT";
    check(server, right, "", ("nats://kontor:password@AT", ""), "authorization violation");
}

#[test]
fn by_a_token() {
    let server = "authorization { token: \"s3cret\" }\n";
    check(server, "nats://s3cret@AT", "", ("nats://AT", ""), "authorization violation");
}

#[test]
fn by_the_seed_of_an_nkey() {
    let (folder, ours, other) = (TempDir::new().unwrap(), KeyPair::new_user(), KeyPair::new_user());
    let section = |name: &str, key: &KeyPair| {
        let seed = format!("{}\n", key.seed().unwrap());
        format!("credentials = '{}'", written(folder.path(), name, &seed))
    };
    let server = format!("authorization {{ users: [ {{ nkey: {} }} ] }}\n", ours.public_key());
    let stranger = section("other.nk", &other);
    check(
        &server,
        "nats://AT",
        &section("ours.nk", &ours),
        ("nats://AT", &stranger),
        "authorization violation",
    );
}

/// Returns a JWT as `nsc` makes it: claims about a subject, signed by its issuer.
fn vouched(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": name,
        "nats": claims,
    });
    let encoded = [header, body].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = encoded.join(".");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

#[test]
fn by_a_file_of_credentials() {
    let folder = TempDir::new().unwrap();
    let [operator, account, system] =
        [KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account()];
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let server = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        vouched(&operator, &operator, "operator", &json!({"type": "operator", "version": 2})),
        system.public_key(),
        system.public_key(),
        vouched(&operator, &system, "SYS", &json!({"type": "account", "version": 2})),
        account.public_key(),
        vouched(&operator, &account, "shop", &json!({"type": "account", "version": 2, "limits": unlimited})),
    );
    let section = |name: &str, issuer: &KeyPair| {
        let user = KeyPair::new_user();
        let rights = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            vouched(issuer, &user, name, &rights),
            user.seed().unwrap()
        );
        format!("credentials = '{}'", written(folder.path(), &format!("{name}.creds"), &text))
    };
    let (ours, other) = (section("kontor", &account), section("other", &KeyPair::new_account()));
    check(&server, "nats://AT", &ours, ("nats://AT", &other), "authorization violation");
}

#[test]
fn by_a_certificate() {
    let folder = TempDir::new().unwrap();
    let key = || rcgen::KeyPair::generate().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
        (written(folder.path(), &format!("{name}.pem"), &authority.pem()), authority)
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let certified = |name: &str, (_, authority): &(String, CertifiedIssuer<'_, rcgen::KeyPair>)| {
        let key = key();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        let file = |kind: &str, text: &str| written(folder.path(), &format!("{name}.{kind}"), text);
        (file("crt", &certificate.pem()), file("key", &key.serialize_pem()))
    };
    let (certificate, key) = certified("server", &ours);
    let server = format!(
        "tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", ca_file: \"{}\", verify: true }}\n",
        ours.0
    );
    let section = |ca: &str, (certificate, key): &(String, String)| {
        format!("ca = '{ca}'\ncertificate = '{certificate}'\nkey = '{key}'")
    };
    let right = section(&ours.0, &certified("kontor", &ours));
    let unknown_server = section(&other.0, &certified("kontor", &ours));
    check(
        &server,
        "tls://AT",
        &right,
        ("tls://AT", &unknown_server),
        "invalid peer certificate: UnknownIssuer",
    );
    let unknown_host = section(&ours.0, &certified("other", &other));
    check(&server, "tls://AT", &right, ("tls://AT", &unknown_host), "UnknownCA");
}

#[test]
fn credentials_that_cannot_be_used_keep_the_host_from_starting() {
    let folder = TempDir::new().unwrap();
    let table = [
        (folder.path().join("missing").display().to_string(), "No such file"),
        (written(folder.path(), "empty.creds", ""), "credentials"),
    ];
    for (file, reason) in table {
        let nats = format!("[nats]\nurl = 'nats://127.0.0.1:1'\ncredentials = '{file}'\n");
        let refused = Site::new(&format!("{}{nats}", configuration())).fail_to_start(&built("plugins"));
        let known = refused.stderr.contains(&file) && refused.stderr.contains(reason);
        assert!(known, "{}", refused.stderr);
    }
}
