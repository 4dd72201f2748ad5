//! The listeners of operators: an address and a Unix socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::common::curl::{curl, text};
use crate::common::http::Client;
use crate::common::shop::configuration;
use crate::common::{Site, ended, kontor};

#[test]
fn the_routes_of_operators_are_answered_at_their_listener_only() {
    let site = Site::new(&format!("[admin]\nlisten = '127.0.0.1:0'\n{}", configuration()));
    let mut host = site.start();
    let line = host.says("the routes of operators: ");
    let admin = Client::new(&format!("http://{}", line.trim().rsplit(' ').next().unwrap()));
    host.register("tea", 450, 10);
    for (method, path) in [
        ("GET", "/admin/plugins"),
        ("PUT", "/admin/plugins"),
        ("PATCH", "/admin/plugins"),
        ("DELETE", "/admin/plugins/report"),
        ("GET", "/admin/sagas"),
        ("POST", "/admin/sagas/7/retry"),
        ("POST", "/admin/projections/inventory/replay"),
        ("GET", "/admin/dead-letters"),
        ("GET", "/admin/nodes"),
        ("GET", "/metrics"),
        ("GET", "/events"),
        ("GET", "/streams/product/tea"),
    ] {
        host.send(method, path, &[], "").problem(404, "unknown-route");
        if method == "GET" {
            let reply = admin.get_with(path, &[("accept", "application/json")]);
            assert!(!reply.text.contains("unknown-route"), "{path}: {}", reply.text);
        }
    }
    for path in ["/", "/healthz", "/readyz", "/openapi.json", "/products/tea", "/problems/busy"] {
        assert_eq!((host.get(path).status, admin.get(path).status), (200, 200), "{path}");
    }
    let operators = |client: &Client| client.get("/openapi.json").text.contains("/admin/plugins");
    assert_eq!((operators(&host), operators(&admin)), (false, true));
}

#[test]
fn the_socket_is_for_the_user_of_the_host() {
    let site = Site::new("");
    let socket = site.data().join("kontor.sock");
    // Each user has one command, so that the second one of a caller is seen.
    let limits = "[limits]\ncaller_commands_per_second = 1\ncaller_burst = 1\n";
    site.configure(&format!("[admin]\nsocket = '{}'\n{limits}{}", socket.display(), configuration()));
    let host = site.start();
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let call = |path: &str, arguments: &[&str]| {
        curl(&format!("http://localhost{path}"), &[&["--unix-socket", text(&socket)], arguments].concat())
    };
    assert_eq!(call("/admin/nodes", &[]).status, 200);
    assert_eq!(call("/admin/nodes", &["--header", "host: evil.example"]).status, 421);
    assert_eq!(host.get("/admin/nodes").status, 200, "the socket is one more way");
    let tea = json!({"name": "Tea", "unit_price": 450, "quantity": 10});
    assert_eq!(host.put("/products/tea", &tea).status, 201);
    let put = ["--request", "PUT", "--json", &tea.to_string()];
    assert_eq!(call("/products/coffee", &put).status, 201, "the user is a caller of its own");

    // A killed host leaves the file, and the next one takes its place.
    drop(host);
    assert!(socket.exists());
    let host = site.start();
    assert_eq!(call("/admin/nodes", &[]).status, 200);
    assert!(host.stop().success());
    assert!(!socket.exists());
}

#[test]
fn a_host_and_its_exports_keep_their_files_to_their_user() {
    let site = Site::new(&configuration());
    fs::set_permissions(site.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let host = site.start();
    host.register("tea", 450, 10);
    assert!(host.log().contains("was open to other users"), "{}", host.log());
    let export = site.configuration().with_file_name("shop.jsonl");
    let mut command = kontor(&["export", text(&export), "--data", text(&site.data())]);
    let exported = ended(&mut command);
    assert!(exported.status.success(), "{}", exported.stderr);
    private(&export);
    private(&site.data());
    assert!(host.stop().success());
    private(&site.data());
}

/// Checks that nobody but the owner can use a file, or anything in a folder.
fn private(path: &Path) {
    let found = fs::symlink_metadata(path).unwrap();
    // The tests share the compiled components by a link.
    if found.is_symlink() {
        return;
    }
    let mode = found.permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    if found.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| private(&entry.unwrap().path()));
    }
}
