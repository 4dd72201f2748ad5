use axum::http::Request;

use super::*;

const LOOPBACK: &str = "127.0.0.1";

fn options(text: &str) -> HttpOptions {
    toml::from_str(text).unwrap()
}

fn tcp(address: &str, local: &str) -> Peer {
    Peer::of_tcp(address.parse().unwrap(), local.parse().unwrap())
}

/// Returns the client, or the code of the problem.
fn admit(
    options: &HttpOptions,
    peer: Peer,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
) -> Result<Peer, String> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    options.admit(&parts, peer).map_err(|problem| problem.code().to_owned())
}

fn code(options: &HttpOptions, peer: Peer, headers: &[(&str, &str)]) -> String {
    admit(options, peer, "PUT", "/products/tea", headers).err().unwrap_or_default()
}

#[test]
fn a_request_must_name_this_host() {
    let options = options("hosts = ['shop.example', '192.0.2.7']");
    let here = || tcp("10.0.0.9", "10.0.0.1").over_tls(None);
    for (host, expected) in [
        ("localhost:7070", ""),
        ("localhost:", ""),
        ("localhost:70707", "invalid-header"),
        ("localhost:ocalhost$evil.example7070", "invalid-header"),
        ("LOCALHOST", ""),
        ("127.0.0.1:7070", ""),
        ("127.8.0.1", ""),
        ("[::1]:7070", ""),
        ("shop.example", ""),
        ("Shop.Example:8443", ""),
        ("10.0.0.1:7070", ""),
        ("192.0.2.7", ""),
        ("10.0.0.2:7070", "unknown-host"),
        ("evil.example:7070", "unknown-host"),
        ("shop.example.evil.example", "unknown-host"),
        ("localhost.evil.example", "unknown-host"),
        ("127.0.0.1.evil.example", "unknown-host"),
        ("0.0.0.0:7070", "unknown-host"),
        ("127.1", "unknown-host"),
        ("", "invalid-header"),
        ("ada@localhost", "invalid-header"),
        ("localhost/path", "invalid-header"),
        ("localhost, evil.example", "invalid-header"),
    ] {
        assert_eq!(code(&options, here(), &[("host", host)]), expected, "{host:?}");
    }
    assert_eq!(code(&options, here(), &[]), "invalid-header");
    assert_eq!(code(&options, here(), &[("host", "localhost"), ("host", "localhost")]), "invalid-header");
}

#[test]
fn the_authority_of_the_target_counts_and_a_host_beside_it_must_be_the_same() {
    for (uri, host, expected) in [
        ("http://localhost:7070/products", None, ""),
        ("http://evil.example:7070/products", None, "unknown-host"),
        ("http://localhost:7070/products", Some("localhost:7070"), ""),
        ("http://localhost:7070/products", Some("evil.example:7070"), "invalid-header"),
        ("http://evil.example:7070/products", Some("localhost:7070"), "invalid-header"),
    ] {
        let headers: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
        let admitted = admit(&HttpOptions::default(), tcp(LOOPBACK, LOOPBACK), "GET", uri, &headers);
        assert_eq!(admitted.err().unwrap_or_default(), expected, "{uri} {host:?}");
    }
}

#[test]
fn a_page_must_be_of_the_origin_that_it_calls() {
    let options = options("origins = ['https://app.example']");
    for (host, origin, secure, expected) in [
        ("localhost:7070", "http://localhost:7070", false, ""),
        ("localhost:7070", "http://LOCALHOST:7070", false, ""),
        ("localhost", "http://localhost:80", false, ""),
        ("localhost", "https://localhost:443", true, ""),
        ("localhost", "https://app.example", false, ""),
        ("localhost:7070", "http://localhost:3000", false, "foreign-origin"),
        ("localhost:7070", "http://127.0.0.1:7070", false, "foreign-origin"),
        ("localhost:7070", "https://localhost:7070", false, "foreign-origin"),
        ("localhost:7070", "http://localhost:7070", true, "foreign-origin"),
        ("localhost:7070", "http://app.example", false, "foreign-origin"),
        ("localhost:7070", "null", false, "foreign-origin"),
        ("localhost:7070", "", false, "foreign-origin"),
    ] {
        let peer = tcp(LOOPBACK, LOOPBACK);
        let peer = if secure { peer.over_tls(None) } else { peer };
        let headers = [("host", host), ("origin", origin)];
        assert_eq!(code(&options, peer, &headers), expected, "{host} {origin} {secure}");
    }
}

#[test]
fn a_page_of_another_site_may_only_link_to_the_host() {
    for (method, site, mode, destination, expected) in [
        ("GET", "none", "navigate", "document", ""),
        ("GET", "same-origin", "cors", "empty", ""),
        ("PUT", "same-origin", "cors", "empty", ""),
        ("GET", "cross-site", "navigate", "document", ""),
        ("GET", "same-site", "navigate", "document", ""),
        ("GET", "cross-site", "navigate", "iframe", "cross-site"),
        ("GET", "cross-site", "no-cors", "image", "cross-site"),
        ("GET", "same-site", "cors", "empty", "cross-site"),
        ("POST", "cross-site", "navigate", "document", "cross-site"),
        ("PUT", "cross-site", "cors", "empty", "cross-site"),
        ("PUT", "same-site", "cors", "empty", "cross-site"),
        ("PUT", "", "", "", "cross-site"),
    ] {
        let fetch = [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", destination)];
        let headers: Vec<_> = [("host", "localhost:7070")].into_iter().chain(fetch).collect();
        let admitted = admit(&HttpOptions::default(), tcp(LOOPBACK, LOOPBACK), method, "/", &headers);
        assert_eq!(admitted.err().unwrap_or_default(), expected, "{method} {fetch:?}");
    }
}

#[test]
fn a_host_name_has_no_scheme_and_no_port() {
    for (name, valid) in [
        ("shop.example", true),
        ("shop", true),
        ("10.0.0.1", true),
        ("https://shop.example", false),
        ("shop.example:443", false),
        ("ada@shop.example", false),
        ("shop.example/", false),
        ("", false),
    ] {
        assert_eq!(HostName::try_from(name.to_owned()).is_ok(), valid, "{name:?}");
    }
}

#[test]
fn a_connection_from_elsewhere_has_tls_or_comes_from_a_trusted_proxy() {
    let options = options("trusted_proxies = ['10.0.0.0/8', '2001:db8::/32']");
    for (address, secure, expected) in [
        ("127.0.0.1", false, ""),
        ("::1", false, ""),
        ("10.0.0.9", false, ""),
        ("::ffff:10.0.0.9", false, ""),
        ("2001:db8::9", false, ""),
        ("11.0.0.9", false, "tls-required"),
        ("2001:db9::9", false, "tls-required"),
        ("11.0.0.9", true, ""),
    ] {
        let peer = tcp(address, "10.0.0.1");
        let peer = if secure { peer.over_tls(None) } else { peer };
        assert_eq!(code(&options, peer, &[("host", "localhost")]), expected, "{address} {secure}");
    }
    assert_eq!(code(&options, Peer::of_user(7), &[("host", "localhost")]), "");
}

#[test]
fn the_client_is_the_last_address_before_the_trusted_proxies() {
    let options = options("trusted_proxies = ['10.0.0.0/8']");
    for (proxy, forwarded, client) in [
        ("10.0.0.9", &[][..], "10.0.0.9"),
        ("10.0.0.9", &["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.9", &["192.0.2.1:5000"], "192.0.2.1"),
        ("10.0.0.9", &["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.9", &["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.9", &["198.51.100.1", "192.0.2.1, 10.0.0.8"], "192.0.2.1"),
        ("10.0.0.9", &["no address, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.9", &["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ("127.0.0.1", &["192.0.2.1"], "127.0.0.1"),
    ] {
        let forwarded = forwarded.iter().map(|value| ("x-forwarded-for", *value));
        let headers: Vec<_> = [("host", "localhost")].into_iter().chain(forwarded).collect();
        let peer = admit(&options, tcp(proxy, LOOPBACK), "GET", "/", &headers).unwrap();
        assert_eq!(peer.address, Some(client.parse().unwrap()), "{proxy} {headers:?}");
    }
    let headers = [("host", "localhost"), ("x-forwarded-for", "unknown")];
    assert_eq!(code(&options, tcp("10.0.0.9", LOOPBACK), &headers), "invalid-header");
}

#[test]
fn a_trusted_proxy_says_which_host_and_scheme_its_client_has_named() {
    let options = options("hosts = ['shop.example']\ntrusted_proxies = ['10.0.0.0/8']");
    let shop = [("host", "localhost"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.example")];
    let evil = [("host", "localhost"), ("x-forwarded-host", "shop.example, evil.example")];
    let origin = [("origin", "https://shop.example")];
    for (proxy, headers, expected) in [
        ("10.0.0.9", [&shop[..], &origin].concat(), ""),
        ("10.0.0.9", [&shop[..2], &origin].concat(), "foreign-origin"),
        ("10.0.0.9", evil.to_vec(), "unknown-host"),
        // A page whose name resolves to the machine of the proxy.
        ("10.0.0.9", vec![("host", "evil.example"), ("x-forwarded-host", "shop.example")], "unknown-host"),
        ("127.0.0.1", [&shop[..], &origin].concat(), "foreign-origin"),
        ("127.0.0.1", evil.to_vec(), ""),
    ] {
        assert_eq!(code(&options, tcp(proxy, LOOPBACK), &headers), expected, "{proxy} {headers:?}");
    }
    let peer = admit(&options, tcp("10.0.0.9", LOOPBACK), "GET", "/", &shop).unwrap();
    assert!(peer.secure);
}

#[test]
fn the_certificate_of_a_proxy_is_not_its_client_s() {
    let options = options("trusted_proxies = ['10.0.0.0/8']");
    let proxy = || tcp("10.0.0.9", LOOPBACK).over_tls(Some("proxy".into()));
    let direct = admit(&options, proxy(), "GET", "/", &[("host", "localhost")]).unwrap();
    assert!(direct.proven.is_some());
    let headers = [("host", "localhost"), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(admit(&options, proxy(), "GET", "/", &headers).unwrap().proven, None);
}
