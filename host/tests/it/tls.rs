//! TLS: HTTP/2 and HTTP/1.1, certificates of clients, and a certificate that is replaced; also as another
//! machine sees the host.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::certificates::{Authority, Certificates};
use crate::common::curl::{Answer, curl, curl_in, text};
use crate::common::machine::Machine;
use crate::common::shop::configuration;
use crate::common::{Host, Site, ended, kontor};

/// Longer than the host needs to look at its files again.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// The name in all certificates of hosts.
const NAME: &str = "shop.example";

/// Calls a host by its name.
fn call(host: &Host, authority: &Path, path: &str, arguments: &[&str]) -> Answer {
    let port = host.url().rsplit(':').next().unwrap();
    let resolve = format!("{NAME}:{port}:127.0.0.1");
    let fixed = ["--cacert", text(authority), "--resolve", &resolve];
    curl(&format!("https://{NAME}:{port}{path}"), &[&fixed, arguments].concat())
}

/// The arguments of curl for a command.
const PUT_TEA: [&str; 4] =
    ["--request", "PUT", "--json", "{\"name\":\"Tea\",\"unit_price\":450,\"quantity\":10}"];

#[test]
fn a_host_speaks_http_2_and_http_1_over_tls_and_refuses_every_request_without() {
    let files = Certificates::new();
    let (ours, other) = (files.authority("ours"), files.authority("other"));
    let site = Site::new(&files.configuration(&ours, NAME, ""));
    let host = site.start();
    assert!(host.url().starts_with("https://127.0.0.1:"), "{}", host.url());
    for (arguments, version) in [(["--http2"], "2"), (["--http1.1"], "1.1")] {
        let put = call(
            &host,
            &ours.file,
            &format!("/products/tea-{version}"),
            &[&arguments[..], &PUT_TEA].concat(),
        );
        assert_eq!((put.status, &*put.version, &*put.error), (201, version, ""), "{put:?}");
        let events =
            call(&host, &ours.file, "/events", &[arguments[0], "--header", "accept: application/json"]);
        assert!(events.body.contains(&format!("product/tea-{version}")), "{events:?}");
        let evil = call(&host, &ours.file, "/events", &[arguments[0], "--header", "host: evil.example"]);
        assert!(evil.body.contains("unknown-host"), "{evil:?}");
        let origin = format!("origin: http://{NAME}");
        let downgraded = call(&host, &ours.file, "/", &[arguments[0], "--header", &origin]);
        assert!(downgraded.body.contains("foreign-origin"), "{downgraded:?}");
    }
    let stranger = call(&host, &other.file, "/healthz", &[]);
    assert!(stranger.error.contains("certificate"), "{stranger:?}");
    let (plain, body) = (host.url().replace("https", "http"), files.path("body"));
    fs::write(&body, "x".repeat(4 << 20)).unwrap();
    let body = format!("@{}", text(&body));
    for arguments in [&[][..], &PUT_TEA, &["--data-binary", &body, "--header", "expect:"]] {
        let refused = curl(&format!("{plain}/products/tea"), arguments);
        assert_eq!((refused.status, &*refused.error), (400, ""), "{arguments:?} {refused:?}");
        let expected = "\"detail\":\"This address speaks TLS, and the request came without it: use https:// in \
                        place of http://.\",\"code\":\"plain-http\"";
        assert!(refused.body.contains(expected), "{refused:?}");
    }
    assert!(host.stop().success());
}

#[test]
fn the_command_line_says_which_of_http_and_https_a_host_speaks() {
    let files = Certificates::new();
    let site = Site::new(&files.configuration(&files.authority("ours"), NAME, ""));
    let host = site.start();
    let (secure, plain) = (host.url().to_owned(), host.url().replace("https:", "http:"));
    let refused = ended(&mut kontor(&["plugins", "--host", &plain]));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let expected = format!("error: the host at {plain} speaks TLS: use {secure}");
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    drop(host);

    site.configure("");
    let host = site.start();
    let secure = host.url().replace("http:", "https:");
    let refused = ended(&mut kontor(&["plugins", "--host", &secure]));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let expected = format!("error: the host at {secure} does not speak TLS: use {}", host.url());
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
}

#[test]
fn a_request_in_flight_over_http_2_ends_before_the_host_does() {
    let files = Certificates::new();
    let ours = files.authority("ours");
    let site = Site::new(&files.configuration(&ours, NAME, ""));
    let host = site.start();
    let arguments = ["--http2", "--no-buffer", "--header", "accept: text/event-stream"];
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| call(&host, &ours.file, "/events", &arguments));
        // The stream is open once it is counted.
        let deadline = Instant::now() + RELOAD_LIMIT;
        while !call(&host, &ours.file, "/metrics", &[]).body.contains("route=\"/events\"") {
            assert!(Instant::now() < deadline, "the stream does not begin");
        }
        host.terminate();
        let ended = stream.join().unwrap();
        assert_eq!((ended.status, &*ended.error), (200, ""), "{ended:?}");
    });
    assert!(host.wait().success());
}

#[test]
fn a_certificate_that_is_replaced_is_used_without_a_restart_and_a_broken_one_is_not() {
    let files = Certificates::new();
    let (old, new) = (files.authority("old"), files.authority("new"));
    let site = Site::new(&files.configuration(&old, NAME, ""));
    let host = site.start();
    assert_eq!(call(&host, &old.file, "/healthz", &[]).status, 200);

    let until = |what: &str, reached: &dyn Fn() -> bool| {
        let deadline = Instant::now() + RELOAD_LIMIT;
        while !reached() {
            assert!(Instant::now() < deadline, "{what}: {}", host.log());
        }
    };
    let certificate = files.path(&format!("{NAME}.crt"));
    fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nnonsense").unwrap();
    until("a broken certificate", &|| host.log().contains("failed to load the certificate"));
    assert_eq!(call(&host, &old.file, "/healthz", &[]).status, 200);

    files.certify(&new, NAME);
    until("a new certificate", &|| call(&host, &new.file, "/healthz", &[]).status == 200);
    assert!(call(&host, &old.file, "/healthz", &[]).error.contains("certificate"));
}

#[test]
fn a_client_certificate_is_who_the_client_is() {
    let files = Certificates::new();
    let (ours, tills, other) = (files.authority("ours"), files.authority("tills"), files.authority("other"));
    // One command each, so that the second one of a caller is seen.
    let more = format!(
        "client_ca = '{}'\n[limits]\ncaller_commands_per_second = 1\ncaller_burst = 1\n",
        tills.file.display()
    );
    let site = Site::new(&files.configuration(&ours, NAME, &more));
    let host = site.start();
    let certified = |name: &str, authority: &Authority| {
        let (certificate, key) = files.certify(authority, name);
        let fixed = ["--cert", text(&certificate), "--key", text(&key)];
        call(&host, &ours.file, "/products/tea", &[&fixed[..], &PUT_TEA].concat())
    };
    let [first, second] = ["till-1", "till-2"].map(|name| certified(name, &tills).status);
    assert_eq!((first, second), (201, 409), "each certificate is a caller of its own");
    assert_eq!(
        call(&host, &ours.file, "/products/tea", &PUT_TEA).status,
        409,
        "without one it is the address"
    );
    let again = call(&host, &ours.file, "/products/tea", &[&["--include"][..], &PUT_TEA].concat());
    assert!(again.body.contains("retry-after: 1") && again.body.contains("too-many-commands"), "{again:?}");

    let stranger = certified("till-3", &other);
    assert_eq!(stranger.status, 0, "{stranger:?}");
}

#[test]
fn a_client_certificate_has_no_name_of_the_hosts_own() {
    let files = Certificates::new();
    let (ours, tills) = (files.authority("ours"), files.authority("tills"));
    let more = format!("client_ca = '{}'\n[auth]\n", tills.file.display());
    let site = Site::new(&files.configuration(&ours, NAME, &more));
    let host = site.start();
    let me = |name: &str| {
        let (certificate, key) = files.certify(&tills, name);
        // A colon begins a password, unless it is escaped.
        let certificate = text(&certificate).replace(':', "\\:");
        call(&host, &ours.file, "/auth/me", &["--cert", &certificate, "--key", text(&key)])
    };
    let till = me("till-1");
    assert!((till.status, till.body.contains("\"till-1\"")) == (200, true), "{till:?}");
    for name in ["kontor", "unix:0"] {
        let refused = me(name);
        assert_eq!(refused.status, 401, "{refused:?}");
        assert!(refused.body.contains("the name in the client's certificate"), "{refused:?}");
    }
    assert!(host.log().contains("denied a request"), "{}", host.log());
}

#[test]
fn another_machine_reaches_the_host_over_tls_only() {
    let Some(machine) = Machine::connect() else {
        eprintln!("skipped: a network namespace can be made only by root");
        return;
    };
    let files = Certificates::new();
    let ours = files.authority("ours");
    let site = Site::new(&files.configuration(&ours, NAME, "[auth]\n"));
    let host = site.start_with(&["--listen", &format!("{}:0", machine.here)]);
    let port = host.url().rsplit(':').next().unwrap();
    let resolve = format!("{NAME}:{port}:{}", machine.here);
    let url = |host: &str| format!("https://{host}:{port}/healthz");
    let (ca, name) = (["--cacert", text(&ours.file)], &["--resolve", &resolve][..]);
    let answered = |url: &str, arguments: &[&str]| curl_in(&machine.name, url, arguments);
    let right = answered(&url(NAME), &[&ca, name].concat());
    assert_eq!((right.status, &*right.version), (200, "2"), "{right:?}");
    // The certificate is not for the address, but the host is.
    assert_eq!(answered(&url(&machine.here), &["--insecure"]).status, 200);
    let evil = [&ca, name, &["--header", "host: evil.example"]].concat();
    assert!(answered(&url(NAME), &evil).body.contains("unknown-host"));
    let plain = answered(&format!("http://{}:{port}/products", machine.here), &[]);
    assert!((plain.status, plain.body.contains("\"plain-http\"")) == (400, true), "{plain:?}");
}

#[test]
fn behind_a_proxy_only_the_proxy_is_answered() {
    let Some(machine) = Machine::connect() else {
        eprintln!("skipped: a network namespace can be made only by root");
        return;
    };
    let proxies = |network: &str| {
        format!("[http]\nhosts = ['{NAME}']\ntrusted_proxies = ['{network}']\n[auth]\n{}", configuration())
    };
    let site = Site::new(&proxies("198.18.0.0/16"));
    let listen = format!("{}:0", machine.here);
    let host = site.start_with(&["--listen", &listen]);
    let client = ["--header", "x-forwarded-for: 192.0.2.1", "--header", "x-forwarded-proto: https"];
    let named = ["--header", "x-forwarded-host: shop.example", "--header", "origin: https://shop.example"];
    let url = format!("{}/healthz", host.url());
    assert_eq!(curl_in(&machine.name, &url, &[client, named].concat()).status, 200);
    drop(host);

    site.configure(&proxies("192.0.2.0/24"));
    let host = site.start_with(&["--listen", &listen]);
    let url = format!("{}/healthz", host.url());
    let refused = curl_in(&machine.name, &url, &[client, named].concat());
    assert!((refused.status, refused.body.contains("tls-required")) == (403, true), "{refused:?}");
    // This machine itself needs no TLS, but it is no proxy either.
    let spoofed = curl(&url, &[client, named].concat());
    assert!((spoofed.status, spoofed.body.contains("tls-required")) == (403, true), "{spoofed:?}");
}

#[test]
fn a_host_that_other_machines_could_reach_says_what_to_write() {
    let folder = TempDir::new().unwrap();
    let mut serve = kontor(&["serve", "--listen", "0.0.0.0:0", "--plugins", "nowhere"]);
    let refused = ended(serve.current_dir(folder.path()));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    for line in [
        "error: listening on 0.0.0.0:0 is refused, because other machines can reach it; write into the \
         configuration:",
        "[tls]",
        "certificate = \"certificate.pem\"",
        "key = \"key.pem\"",
        "trusted_proxies = [\"10.0.0.0/8\"]",
        "[auth]",
        "or listen on a loopback address such as 127.0.0.1:7070",
    ] {
        assert!(refused.stderr.lines().any(|found| found == line), "{line} is missing in {}", refused.stderr);
    }
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is created");
}
