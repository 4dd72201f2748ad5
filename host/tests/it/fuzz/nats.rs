use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use async_nats::{HeaderName, HeaderValue};
use kontor_testkit::nats::NatsServer;
use proptest::collection::vec;
use proptest::prelude::*;

use super::near::{near, near_text};
use super::{Outcomes, run};
use crate::common::nats::site;

/// Longer than any answer takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// The messages of one case. A good request follows them.
const BATCH: u32 = 16;
/// The subject of the answers to garbage, and to the good request.
const INBOX: &str = "_INBOX.garbage";
const GOOD: &str = "_INBOX.good";

const SUBJECTS: &[&str] = &[
    "kontor.inventory.cmd.product.register",
    "kontor.order.cmd.order.create",
    "kontor.inventory.query.product",
    "kontor.report.query.orders",
    "$SRV.PING.kontor",
    "$SRV.INFO",
];
const HEADERS: &[&str] = &[
    "",
    "Kontor-Id: tea",
    "Nats-Msg-Id: m1",
    "Authorization: Bearer abc",
    "If-Match: \"7\"",
    "Prefer: wait=0",
    "Kontor-Position: 3",
    "Kontor-Actor: Ada",
    "X-Request-Id: r1",
];
const BODIES: &[&str] = &["", "{}", r#"{"id":"tea"}"#, r#"{"name":"Tea","unit_price":450,"quantity":10}"#];
const WORDS: &[&str] = &[
    ".", "*", ">", "$", "\u{e9}", "\u{0}", "\u{1}", "\t", ":", " ", ",", "\"", "1e999", "[[[[", "\\ud800",
    "null",
];

/// Messages in a form that the host's client of NATS reads: it hangs up on others, see docs/security.md.
#[derive(Clone, Debug)]
struct Garbage {
    subject: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

fn garbage() -> impl Strategy<Value = Garbage> {
    let bodies = BODIES.iter().map(|body| body.as_bytes().to_vec()).collect();
    let is_read = |line: &String| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok()
        })
    };
    let headers = vec(near_text(HEADERS, WORDS), 0..4);
    let headers = headers.prop_map(move |lines| lines.into_iter().filter(is_read).collect());
    let parts = (near_text(SUBJECTS, WORDS), headers, near(bodies, WORDS));
    parts.prop_map(|(subject, headers, body)| Garbage { subject, headers, body })
}

/// A client that writes what it likes.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: &NatsServer) -> Self {
        let address = server.url();
        let stream = TcpStream::connect(address.strip_prefix("nats://").unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.line();
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"lang":"test","version":"1"}"#;
        client.write(format!("CONNECT {options}\r\nSUB {INBOX} 1\r\nSUB {GOOD} 2\r\nPING\r\n").as_bytes());
        client
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).expect("an answer in time") > 0, "the server has hung up");
        line
    }

    fn publish(&mut self, garbage: &Garbage, reply: &str) {
        let Garbage { subject, headers, body } = garbage;
        // A subject has no blanks.
        let subject =
            subject.replace(|character: char| character.is_whitespace() || character.is_control(), ".");
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("NATS/1.0\r\n{lines}\r\n");
        let (head_bytes, total) = (head.len(), head.len() + body.len());
        let message = format!("HPUB {subject} {reply} {head_bytes} {total}\r\n{head}");
        self.write(&[message.as_bytes(), body, b"\r\n"].concat());
    }

    /// Returns the next message: its subject, its headers and its body.
    fn next(&mut self) -> (String, String, Vec<u8>) {
        let deadline = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < deadline, "no answer in time");
            let line = self.line();
            let words: Vec<_> = line.split_whitespace().collect();
            let (head, total) = match words[..] {
                ["HMSG", .., head, total] => (head.parse().unwrap(), total.parse().unwrap()),
                ["MSG", .., total] => (0, total.parse().unwrap()),
                ["PING"] => {
                    self.write(b"PONG\r\n");
                    continue;
                }
                // That a subject is none, or one of the server's own, is the server's business.
                ["PONG"] | ["-ERR", "'Invalid" | "'Permissions", ..] => continue,
                _ => panic!("{line}"),
            };
            let mut bytes = vec![0; total + 2];
            self.0.read_exact(&mut bytes).unwrap();
            bytes.truncate(total);
            let body = bytes.split_off(head);
            return (words[1].to_owned(), String::from_utf8(bytes).unwrap(), body);
        }
    }
}

#[test]
fn a_host_whose_client_of_nats_has_failed_says_so() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    // The client ends for good with this header, and takes it for no reason to connect again.
    let unreadable = b"HPUB kontor.order.query.order 28 28\r\nNATS/1.0\r\nKontor-Id: a\rb\r\n\r\n\r\n";
    let mut client = Client::connect(&server);
    client.write(unreadable);
    host.await_warning("has failed and does not connect again");
    host.register("tea", 450, 10);
}

#[test]
fn a_message_of_any_bytes_is_answered_and_the_host_stays_connected() {
    let server = NatsServer::start();
    let site = site(&server.url());
    let host = site.start();
    host.register("tea", 450, 10);
    let (client, outcomes) = (std::cell::RefCell::new(Client::connect(&server)), Outcomes::default());
    let good = Garbage {
        subject: "kontor.inventory.query.product".to_owned(),
        headers: Vec::new(),
        body: br#"{"id":"tea"}"#.to_vec(),
    };
    run(BATCH, &vec(garbage(), BATCH as usize), |messages| {
        let mut client = client.borrow_mut();
        messages.iter().for_each(|garbage| client.publish(garbage, INBOX));
        client.publish(&good, GOOD);
        loop {
            let (subject, head, body) = client.next();
            let error = head.lines().find_map(|line| line.strip_prefix("Nats-Service-Error: "));
            let status = head.lines().next().and_then(|line| line.split(' ').nth(1));
            if subject == GOOD {
                prop_assert_eq!((error, status), (None, None), "{}", String::from_utf8_lossy(&body));
                return Ok(());
            }
            outcomes.count(error.or(status).unwrap_or("success"));
            prop_assert!(error != Some("internal"), "{}", String::from_utf8_lossy(&body));
        }
    });
    let (all, understood) = outcomes.print("success");
    assert!(understood * 20 > all, "only {understood} of {all} messages did something");
    let log = host.log();
    assert!(!log.contains("panicked") && !log.contains("connection to NATS is lost"), "{log}");
}
