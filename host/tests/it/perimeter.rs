//! The perimeter: no page in a browser reaches the host but its own, whatever name it has for the host.

use serde_json::json;

use crate::common::Site;
use crate::common::shop::configuration;
use crate::common::wire;

/// A command, a query, the log, and the acts of an operator.
const REQUESTS: [(&str, &str); 6] = [
    ("PUT", "/products/evil"),
    ("GET", "/products/tea"),
    ("GET", "/events"),
    ("GET", "/streams/product/tea"),
    ("GET", "/admin/plugins"),
    ("DELETE", "/admin/plugins/report"),
];

/// Headers of requests that a page elsewhere can send, with the problem of each.
const FOREIGN: [(&str, u16, &str); 10] = [
    // The page of a name that resolves to this machine: for its browser everything is of one origin.
    ("host: evil.example:7070", 421, "unknown-host"),
    ("host: evil.example\r\norigin: http://evil.example\r\nsec-fetch-site: same-origin", 421, "unknown-host"),
    ("host: HOST\r\norigin: http://evil.example", 403, "foreign-origin"),
    ("host: HOST\r\norigin: http://localhost:3000\r\nsec-fetch-site: same-site", 403, "foreign-origin"),
    ("host: HOST\r\norigin: null", 403, "foreign-origin"),
    ("host: HOST\r\nsec-fetch-site: same-site", 403, "cross-site"),
    ("host: HOST\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: cors", 403, "cross-site"),
    ("x-nothing: x", 400, "invalid-header"),
    ("host: HOST\r\nhost: HOST", 400, "invalid-header"),
    ("host: HOST\r\nhost: evil.example", 400, "invalid-header"),
];

#[test]
fn a_page_elsewhere_reads_nothing_and_changes_nothing() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 450, 10);
    let head = host.head();
    let address = host.url().strip_prefix("http://").unwrap();
    let body = json!({"name": "Evil", "unit_price": 1, "quantity": 1}).to_string();
    for (headers, status, code) in FOREIGN {
        for (method, path) in REQUESTS {
            let (headers, length) = (headers.replace("HOST", address), body.len());
            let request = format!(
                "{method} {path} HTTP/1.1\r\n{headers}\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let (answered, answer) = wire::send(host.url(), &request);
            assert_eq!(answered, status, "{request}\n\n{answer}");
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{request}\n\n{answer}");
        }
    }
    assert_eq!(host.head(), head);
    let plugins = host.get("/admin/plugins").ok();
    assert_eq!(plugins["items"].as_array().unwrap().len(), 5);
}

#[test]
fn the_host_s_own_page_and_links_to_it_work() {
    let site = Site::new(&configuration());
    let host = site.start();
    let port = host.url().rsplit(':').next().unwrap();
    let tea = json!({"name": "Tea", "unit_price": 1, "quantity": 1}).to_string();
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        let (authority, origin) = (format!("{name}:{port}"), format!("http://{name}:{port}"));
        let own = [("host", &*authority), ("origin", &*origin), ("sec-fetch-site", "same-origin")];
        let put = host.send("PUT", &format!("/products/{}", name.replace(['[', ']', ':'], "")), &own, &tea);
        assert_eq!(put.status, 201, "{name}: {}", put.text);
        let link = [
            ("host", &*authority),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(host.get_with("/", &link).status, 200, "{name}");
    }
}

#[test]
fn a_host_answers_to_its_configured_names_and_origins() {
    let http = "[http]\nhosts = ['shop.example']\norigins = ['https://app.example']\n";
    let site = Site::new(&format!("{http}{}", configuration()));
    let host = site.start();
    let named = |name: &str| host.get_with("/healthz", &[("host", name)]).status;
    assert_eq!((named("shop.example"), named("shop.example:8443"), named("evil.example")), (200, 200, 421));
    let app = [("origin", "https://app.example"), ("sec-fetch-site", "cross-site")];
    assert_eq!(host.get_with("/healthz", &app).status, 200);
}

#[test]
fn a_caller_that_sends_too_many_commands_learns_when_to_return() {
    let limits = "[limits]\ncaller_commands_per_second = 1\ncaller_burst = 3\n";
    let site = Site::new(&format!("{limits}{}", configuration()));
    let host = site.start();
    let tea = json!({"name": "Tea", "unit_price": 1, "quantity": 1});
    let statuses: Vec<_> = (0..10).map(|id| host.put(&format!("/products/tea-{id}"), &tea).status).collect();
    assert_eq!(statuses[..3], [201; 3]);
    let reply = host.put("/products/last", &tea);
    reply.problem(429, "too-many-commands");
    assert_eq!(reply.header("retry-after"), Some("1"));
    // Reads are not counted.
    assert_eq!((0..10).map(|_| host.get("/products/tea-0").status).max(), Some(200));
}
