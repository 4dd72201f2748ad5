//! Outgoing HTTP of components, on real sockets: denied requests, requests that arrive, and the limits.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use kontor::contract::{Grants, HttpGrant, Method, SecretSource};
use kontor::error::FaultKind;
use kontor::model::{
    Caller, CommandId, CommitHash, Json, Meta, Position, Recorded, Rejection, StreamId, Version,
};
use kontor::runtime::{
    Ask, AskFailure, Awaited, Component, Context, Halt, HttpClient, HttpLimits, Outcome, Request, Resolve,
    Runtime, RuntimeLimits, SagaEnd, Step, Steps, Target, system_resolver,
};
use serde_json::{Value, json};

use crate::common::built;
use crate::common::wire::{self, read_request};

/// A server that behaves as the path of a request says.
struct Abroad {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<wire::Request>>>,
}

impl Abroad {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let abroad = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = abroad.requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let requests = requests.clone();
                thread::spawn(move || serve(BufReader::new(stream.unwrap()), &requests));
            }
        });
        abroad
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<wire::Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Serves requests until the client ends the connection.
fn serve(mut stream: BufReader<TcpStream>, requests: &Mutex<Vec<wire::Request>>) -> Option<()> {
    loop {
        let request = read_request(&mut stream)?;
        let path = request.path.clone();
        requests.lock().unwrap().push(request);
        let head = b"HTTP/1.1 200 Said\r\ntransfer-encoding: chunked\r\n\r\n";
        match path.as_str() {
            "/redirect" => wire::answer(&mut stream, 302, "location: /welcome\r\n", "")?,
            "/large" => wire::answer(&mut stream, 200, "", &"x".repeat(LIMITS.response_bytes + 1))?,
            "/full" => wire::answer(&mut stream, 200, "", &"x".repeat(LIMITS.response_bytes))?,
            "/garbage" => stream.get_mut().write_all(b"what is this?\r\n\r\n").ok()?,
            "/silent" => {}
            "/endless" => {
                stream.get_mut().write_all(head).ok()?;
                while stream.get_mut().write_all(b"4\r\nmore\r\n").is_ok() {}
            }
            "/dripping" => {
                stream.get_mut().write_all(head).ok()?;
                while stream.get_mut().write_all(b"1\r\nx\r\n").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            _ => wire::answer(&mut stream, 200, "", "welcome")?,
        }
    }
}

/// The time limit is short because tests wait for it, and long enough for any other answer on a busy machine.
const LIMITS: HttpLimits = HttpLimits {
    time: Duration::from_secs(2),
    request_bytes: 64 << 10,
    response_bytes: 64 << 10,
    concurrency: 1,
};

/// The fixture `unruly` with its permissions.
struct Bench {
    component: Component,
    client: Arc<HttpClient>,
}

impl Bench {
    /// Loads the component. It asks for the origin of `url`, and has the permissions `grants`.
    async fn new(url: &str, grants: Vec<HttpGrant>, limits: HttpLimits, resolve: &Resolve) -> Self {
        let limits = RuntimeLimits {
            http: limits,
            call_wait: Duration::from_secs(3),
            instances: 8,
            sagas: 1,
            ..RuntimeLimits::default()
        };
        let grants = BTreeMap::from([("unruly".to_owned(), Grants { http: grants, ..Grants::default() })]);
        let client = Arc::new(HttpClient::new(&grants, &limits.http, resolve).unwrap());
        let config = BTreeMap::from([("abroad".to_owned(), Json::of(&url).unwrap())]);
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outgoing");
        let runtime =
            Runtime::new(&compiled, limits, HashMap::from([("unruly".to_owned(), config)])).unwrap();
        let wasm = fs::read(built("fixtures").join("unruly.wasm")).unwrap();
        Self { component: runtime.load(wasm).await.unwrap(), client }
    }

    /// Loads the component with permission for every path of its origin.
    async fn granted(abroad: &Abroad) -> Self {
        Self::new(&abroad.url(""), vec![grant(abroad)], LIMITS, &system_resolver()).await
    }

    async fn get(&self, url: &str) -> Value {
        self.call("GET", url, json!({}), 0).await
    }

    async fn call(&self, method: &str, url: &str, headers: Value, bytes: usize) -> Value {
        self.command("call", &json!({"method": method, "url": url, "headers": headers, "bytes": bytes})).await
    }

    /// Returns the answer in the command's event.
    async fn command(&self, name: &str, payload: &Value) -> Value {
        let stream = StreamId::new("beast", "b1").unwrap();
        let target = Target { stream: &stream, state: None, since: &[] };
        let context = Context {
            command_id: "c1".into(),
            correlation_id: "r1".into(),
            time_ms: 1_700_000_000_000,
            caller: Caller::named("tester"),
            ask: Arc::new(Nobody),
            http: self.client.clone(),
        };
        let decision =
            self.component.decide(target, &name.into(), &Json::of(payload).unwrap(), &context).await;
        let said = json!(decision.unwrap().unwrap().events[0].payload);
        said.as_object().unwrap().values().next().unwrap().clone()
    }
}

/// Returns a permission for every path of the origin.
fn grant(abroad: &Abroad) -> HttpGrant {
    HttpGrant {
        origin: abroad.url("").parse().unwrap(),
        methods: vec![Method::Get, Method::Post, Method::Delete],
        private: true,
        headers: BTreeMap::new(),
    }
}

struct Nobody;

#[async_trait]
impl Ask for Nobody {
    async fn ask(&self, _: &Caller, request: Request, _: usize) -> Result<Json, AskFailure> {
        Err(AskFailure::Unavailable(format!("there is no {}", request.service)))
    }
}

#[track_caller]
fn failed(answer: &Value, code: &str) {
    let error = answer["error"].as_str().unwrap_or_else(|| panic!("expected {code}, got {answer}"));
    assert!(error.contains(code), "expected {code}, got {error}");
}

fn welcome() -> Value {
    json!({"status": 200, "body": "welcome"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_asked_for_and_granted_is_called() {
    let abroad = Abroad::open();
    let elsewhere = Abroad::open();
    let post_only = HttpGrant { methods: vec![Method::Post], ..grant(&abroad) };
    let public_only = HttpGrant { private: false, ..grant(&abroad) };
    let here = abroad.url("");
    // The permission, the URL called, and the code of the error.
    let table = [
        (vec![grant(&abroad)], "GET", here.clone(), None),
        (vec![grant(&abroad), grant(&elsewhere)], "GET", elsewhere.url("/"), Some("HttpRequestDenied")),
        (vec![grant(&elsewhere)], "GET", here.clone(), Some("HttpRequestDenied")),
        (vec![post_only], "GET", here.clone(), Some("HttpRequestDenied")),
        (vec![public_only], "GET", here.clone(), Some("DestinationIpProhibited")),
    ];
    for (grants, method, url, refusal) in table {
        let bench = Bench::new(&abroad.url(""), grants, LIMITS, &system_resolver()).await;
        let answer = bench.call(method, &url, json!({}), 0).await;
        match refusal {
            None => assert_eq!(answer, welcome()),
            Some(code) => failed(&answer, code),
        }
    }
    assert_eq!((abroad.requests().len(), elsewhere.requests().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_granted_with_a_deployment_is_called_as_long_as_that_runs() {
    let abroad = Abroad::open();
    let origin = || ("unruly".into(), abroad.url("").parse().unwrap());
    let bench = Bench::new(&abroad.url(""), Vec::new(), LIMITS, &system_resolver()).await;
    let (denied, private) = ("HttpRequestDenied", "DestinationIpProhibited");
    failed(&bench.get(&abroad.url("/")).await, denied);
    bench.client.follow([origin()]);
    failed(&bench.get(&abroad.url("/")).await, private);
    bench.client.follow([]);
    // Calls in flight end with the permissions that they began with.
    failed(&bench.get(&abroad.url("/")).await, private);
    bench.client.follow([]);
    failed(&bench.get(&abroad.url("/")).await, denied);

    let bench = Bench::granted(&abroad).await;
    bench.client.follow([origin()]);
    assert_eq!(bench.get(&abroad.url("/")).await, welcome(), "the configuration goes before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_refused_for_any_address_that_is_not_public() {
    let abroad = Abroad::open();
    let named = format!("http://gateway.test:{}", abroad.address.port());
    let private = "127.0.0.1";
    // Private addresses granted or not, the addresses of the name, and the code of the error.
    let table: [(bool, &[&str], Option<&str>); 4] = [
        (true, &[private], None),
        (false, &[private], Some("DestinationIpProhibited")),
        (false, &["1.1.1.1", private], Some("DestinationIpProhibited")),
        (true, &[], Some("DnsError")),
    ];
    for (private, addresses, refusal) in table {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let resolve: Resolve = Arc::new(move |name| {
            assert_eq!(name, "gateway.test");
            let addresses = addresses.clone();
            Box::pin(async move { Ok(addresses) })
        });
        let grant = HttpGrant { origin: named.parse().unwrap(), private, ..grant(&abroad) };
        let bench = Bench::new(&named, vec![grant], LIMITS, &resolve).await;
        let answer = bench.get(&format!("{named}/")).await;
        match refusal {
            None => assert_eq!(answer, welcome()),
            Some(code) => failed(&answer, code),
        }
    }
    assert_eq!(abroad.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_answer_ends_within_the_limits_and_the_next_one_is_good() {
    let abroad = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    let table = [
        ("/large", "HttpResponseBodySize"),
        ("/endless", "HttpResponseBodySize"),
        ("/dripping", "HttpResponseTimeout"),
        ("/silent", "HttpResponseTimeout"),
        ("/garbage", "ConnectionTerminated"),
    ];
    for (path, code) in table {
        failed(&bench.get(&abroad.url(path)).await, code);
        assert_eq!(bench.get(&abroad.url("/")).await, welcome(), "after {path}");
    }
    let full = bench.get(&abroad.url("/full")).await;
    assert_eq!(full["body"].as_str().unwrap().len(), LIMITS.response_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_not_to_be_had_is_a_failure_of_its_own() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let abroad = Abroad { address: closed, requests: Arc::default() };
    let bench = Bench::granted(&abroad).await;
    failed(&bench.get(&abroad.url("/")).await, "DestinationUnavailable");

    // A server listens there, and does not speak TLS.
    let abroad = Abroad::open();
    let secure = abroad.url("").replace("http:", "https:");
    let grant = HttpGrant { origin: secure.parse().unwrap(), ..grant(&abroad) };
    let bench = Bench::new(&secure, vec![grant], LIMITS, &system_resolver()).await;
    failed(&bench.get(&secure).await, "DestinationUnavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_limit_of_requests_at_once_the_next_one_is_refused() {
    let abroad = Abroad::open();
    let bench = Arc::new(Bench::granted(&abroad).await);
    let (held, url) = (bench.clone(), abroad.url("/silent"));
    let first = tokio::spawn(async move { held.get(&url).await });
    while abroad.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    failed(&bench.get(&abroad.url("/")).await, "ConnectionLimitReached");
    failed(&first.await.unwrap(), "HttpResponseTimeout");
    assert_eq!(bench.get(&abroad.url("/")).await, welcome());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_taken_to_its_end_whether_it_is_sent_or_refused() {
    let abroad = Abroad::open();
    let elsewhere = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    let limit = LIMITS.request_bytes;
    // The path, the size of the body, the declared length, and the outcome.
    let table = [
        (&abroad, limit, limit, Ok(200)),
        (&abroad, limit + 1, limit + 1, Err("HttpRequestBodySize")),
        (&abroad, 20, 10 * limit, Err("HttpRequestBodySize")),
        (&elsewhere, 10 * limit, 10 * limit, Err("HttpRequestDenied")),
    ];
    for (server, bytes, said, expected) in table {
        let pour = json!({"url": server.url(""), "bytes": bytes, "said": said});
        let answer = bench.command("pour", &pour).await;
        match expected {
            Ok(status) => assert_eq!(answer, json!({ "status": status })),
            Err(code) => failed(&answer, code),
        }
    }
    let arrived: Vec<usize> = abroad.requests().iter().map(|request| request.body.len()).collect();
    assert_eq!((arrived, elsewhere.requests().len()), (vec![limit], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_with_the_call_that_began_it() {
    let abroad = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    for _ in 0..3 {
        let calls = bench.command("leave", &json!({"url": abroad.url("")})).await;
        assert_eq!(calls, 0, "no instance with a request under way is used again");
    }
    assert_eq!(abroad.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_says_where_a_request_goes_what_it_follows_from_and_what_is_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "Bearer hush\n").unwrap();
    let abroad = Abroad::open();
    let headers = BTreeMap::from([("authorization".to_owned(), SecretSource::File(secret))]);
    let grants = vec![HttpGrant { headers, ..grant(&abroad) }];
    let bench = Bench::new(&abroad.url(""), grants, LIMITS, &system_resolver()).await;
    let own = json!({"authorization": "Bearer guess", "traceparent": "00-mine", "x-own": "kept"});
    assert_eq!(bench.call("POST", &abroad.url("/a?b=c"), own, 3).await, welcome());

    let [request] = &abroad.requests()[..] else { panic!("one request") };
    assert_eq!((&*request.method, &*request.path, &*request.body), ("POST", "/a?b=c", "xxx"));
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert_eq!(header("host"), Some(&*abroad.address.to_string()));
    assert_eq!(header("authorization"), Some("Bearer hush"));
    assert_eq!((header("x-request-id"), header("x-own")), (Some("r1"), Some("kept")));
    let trace: Vec<&str> = header("traceparent").unwrap().split('-').collect();
    assert_eq!(trace.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_an_answer_like_any_other() {
    let abroad = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    assert_eq!(bench.get(&abroad.url("/redirect")).await["status"], 302);
    assert_eq!(abroad.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_only_the_host_may_set_is_not_taken() {
    let abroad = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    failed(&bench.call("GET", &abroad.url("/"), json!({"host": "other.test"}), 0).await, "the header host");
    assert_eq!(abroad.requests().len(), 0);
}

/// A saga without steps.
struct NoSteps;

#[async_trait]
impl Steps for NoSteps {
    async fn steps(&mut self, _: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
        Err(Halt)
    }

    async fn pivot(&mut self, _: Step) -> Result<Result<Outcome, Rejection>, Halt> {
        Err(Halt)
    }

    async fn query(&mut self, _: String, _: Request) -> Result<Result<Json, Rejection>, Halt> {
        Err(Halt)
    }

    async fn sleep(&mut self, _: String, _: u64) -> Result<(), Halt> {
        Err(Halt)
    }

    async fn wait_for(&mut self, _: String, _: Awaited, _: u64) -> Result<Option<Recorded>, Halt> {
        Err(Halt)
    }

    async fn continue_as_new(&mut self, _: Json) -> Halt {
        Halt
    }

    fn progress(&self) -> Option<Json> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_acts_only_through_commands() {
    let abroad = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    let SagaEnd::Returned(Err(rejection)) = bench.stray(&abroad.url("/")).await else { panic!() };
    assert_eq!(rejection.code, "kept-in");
    assert!(rejection.message.contains("HttpRequestDenied"), "{rejection:?}");
    assert_eq!(abroad.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_that_sleeps_outside_of_its_steps_is_ended() {
    let abroad = Abroad::open();
    let bench = Bench::granted(&abroad).await;
    let SagaEnd::Fault(fault) = bench.stray("").await else { panic!() };
    assert_eq!(fault.kind, FaultKind::Timeout);
    assert!(fault.detail.contains("between two steps"), "{fault:?}");
}

impl Bench {
    /// Runs the saga `stray`.
    async fn stray(&self, url: &str) -> SagaEnd {
        let trigger = Recorded {
            position: Position::new(1),
            stream: StreamId::new("beast", "b1").unwrap(),
            version: Version::new(1),
            index: 0,
            hash: CommitHash::GENESIS,
            name: "strayed".into(),
            payload: Json::of(&json!({ "url": url })).unwrap(),
            meta: Arc::new(Meta {
                command: "stray".into(),
                correlation_id: "r1".into(),
                ..Meta::of(CommandId::from_key("c1"), &Caller::named("tester"))
            }),
        };
        self.component.run_saga(&"stray".into(), &"s1".into(), &trigger, Box::new(NoSteps)).await
    }
}
