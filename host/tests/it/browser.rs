//! Pages in a real browser: nothing gets into the host, and nothing gets out.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::json;
use tempfile::TempDir;

use crate::common::oidc::try_page;
use crate::common::shop::configuration;
use crate::common::{Host, Site, wire};

/// Everything that the page tries. The results become its text.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const target = 'TARGET';
const json = {'content-type': 'application/json'};
const evil = '{"name":"Evil","unit_price":1,"quantity":1}', more = '{"quantity":7}';
const attempts = {
  put: () => fetch(target + '/products/evil', {method: 'PUT', headers: json, body: evil}),
  post: () => fetch(target + '/products/tea/add-stock', {method: 'POST', headers: json, body: more}),
  bare: () => fetch(target + '/products/tea/add-stock', {method: 'POST', body: new Blob([more])}),
  simple: () => fetch(target + '/products/tea/add-stock', {method: 'POST', mode: 'no-cors', body: new Blob([more])}),
  events: () => fetch(target + '/events', {headers: {accept: 'application/json'}}),
  opaque: () => fetch(target + '/events', {mode: 'no-cors', headers: {accept: 'application/json'}}),
  stream: () => fetch(target + '/streams/product/tea'),
  plugins: () => fetch(target + '/admin/plugins'),
  undeploy: () => fetch(target + '/admin/plugins/report', {method: 'DELETE'}),
};
async function run() {
  const results = [];
  for (const [name, attempt] of Object.entries(attempts)) {
    try {
      const reply = await attempt();
      const text = await reply.text();
      results.push(`${name}=${reply.status}/${(text.match(/"code":"([a-z-]+)"/) || ['', text.length])[1]}`);
    } catch (error) {
      results.push(`${name}=failed`);
    }
  }
  navigator.sendBeacon(target + '/products/tea/add-stock', new Blob([more]));
  document.body.textContent = 'results: ' + results.join(' ') + ' end';
}
run();
</script></body>"#;

/// Serves the page at `/attack`, and passes every other request on to the host: as its name now resolves to
/// the host's address, for the browser that is the same server. Returns its port.
fn attacker(host: &Host, page: impl Fn(u16) -> String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (page, address) = (page(port), host.url().strip_prefix("http://").unwrap().to_owned());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (page, address) = (page.clone(), address.clone());
            thread::spawn(move || pass_on(BufReader::new(stream.unwrap()), &page, &address));
        }
    });
    port
}

fn pass_on(mut client: BufReader<TcpStream>, page: &str, address: &str) -> Option<()> {
    loop {
        let request = wire::read_request(&mut client)?;
        if request.path == "/attack" {
            wire::answer(&mut client, 200, "content-type: text/html\r\n", page)?;
            continue;
        }
        let headers = request.headers.iter().filter(|(name, _)| *name != "connection");
        let headers: String = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (method, path, body) = (request.method, request.path, request.body);
        let mut host = TcpStream::connect(address).ok()?;
        let passed = format!("{method} {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n{body}");
        host.write_all(passed.as_bytes()).ok()?;
        let mut answer = Vec::new();
        host.read_to_end(&mut answer).ok()?;
        client.get_mut().write_all(&answer).ok()?;
        return None;
    }
}

/// Opens a page in the browser. Returns the page as it has become. `None`: there is no browser.
fn open(url: &str) -> Option<String> {
    let profile = TempDir::new().unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]);
    chromium.args(["--no-proxy-server", "--host-resolver-rules=MAP evil.example 127.0.0.1"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    let output = chromium.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the results of the page.
fn results(page: &str) -> Vec<(&str, &str)> {
    let text = page.split_once("results: ").and_then(|(_, rest)| rest.split_once(" end"));
    let (text, _) = text.unwrap_or_else(|| panic!("the page has no results: {page}"));
    text.split(' ').map(|result| result.split_once('=').unwrap()).collect()
}

/// Opens a page that attacks a host. Checks that the host is as before, and the result of each attempt.
fn check(target: impl Fn(&Host) -> String, origin: &str, expected: impl Fn(&str) -> String) {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 450, 10);
    let head = host.head();
    let port = attacker(&host, |_| PAGE.replace("TARGET", &target(&host)));
    let Some(page) = open(&format!("http://{origin}:{port}/attack")) else {
        eprintln!("skipped: there is no chromium");
        return;
    };
    for (attempt, result) in results(&page) {
        assert_eq!(result, expected(attempt), "{attempt} of {page}");
    }
    assert_eq!(host.head(), head, "{page}");
    assert_eq!(host.get("/admin/plugins").ok()["items"].as_array().unwrap().len(), 5);
}

#[test]
fn a_page_whose_name_resolves_to_this_machine_gets_nothing() {
    // For the browser it is of the same origin as the host.
    check(|_| String::new(), "evil.example", |_| "421/unknown-host".to_owned());
}

#[test]
fn a_page_of_another_port_of_this_machine_gets_nothing() {
    check(
        |host| host.url().to_owned(),
        "127.0.0.1",
        |attempt| match attempt {
            // The browser gets the refusal and shows nothing of it.
            "simple" | "opaque" => "0/0".to_owned(),
            _ => "failed".to_owned(),
        },
    );
}

#[test]
fn a_page_elsewhere_gets_nothing() {
    check(
        |host| host.url().to_owned(),
        "evil.example",
        |attempt| match attempt {
            "simple" | "opaque" => "0/0".to_owned(),
            _ => "failed".to_owned(),
        },
    );
}

#[test]
fn the_host_s_own_page_works_in_a_browser() {
    let site = Site::new(&configuration());
    let host = site.start();
    let Some(page) = open(&format!("{}/", host.url())) else {
        eprintln!("skipped: there is no chromium");
        return;
    };
    // The page lists the routes that it has fetched.
    assert!(page.contains("/products/{id}"), "{page}");
}

#[test]
fn the_page_fits_a_desk_and_a_phone_by_day_and_by_night_and_needs_no_mouse() {
    let site = Site::new(&format!("{}[auth]\n", configuration()));
    let host = site.start();
    let token = fs::read_to_string(site.data().join("operator.token")).unwrap();
    let Some(seen) = try_page(host.url(), token.trim()) else { return };
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), 4);
    for look in seen {
        assert_eq!(look["misfits"], json!([]), "{look:#}");
        assert_eq!(
            look["outline"][0], "solid",
            "the field for the token shows that it has the focus: {look}"
        );
    }
}
