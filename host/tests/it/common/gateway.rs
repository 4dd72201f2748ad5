//! A payment gateway over HTTP, as the payment service calls it: small, but real.
//!
//! A request repeated under its idempotency key gets the same answer again. A status of 500 or more is no
//! answer, so it is not kept.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::BufReader;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::wire::{Request, answer, read_request};

pub(crate) struct Gateway {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
    hold: Arc<Hold>,
    /// `None` while the gateway is down.
    open: Option<Open>,
}

/// The requests that wait for their answers.
#[derive(Default)]
struct Hold {
    /// `None`: requests are answered at once.
    waiting: Mutex<Option<usize>>,
    released: Condvar,
}

impl Hold {
    /// Waits if answers are held back.
    fn pass(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        if let Some(waiting) = &mut *waiting {
            *waiting += 1;
        }
        drop(self.released.wait_while(waiting, |waiting| waiting.is_some()).unwrap());
    }
}

/// The listening socket's thread and the open connections.
struct Open {
    worker: JoinHandle<()>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

#[derive(Default)]
struct Books {
    /// The authorized amounts, by order.
    authorized: BTreeMap<String, u64>,
    /// The scripted statuses of the next answers, by method and order.
    scripted: HashMap<(String, String), VecDeque<u16>>,
    answered: HashMap<String, u16>,
    requests: Vec<ReceivedRequest>,
    down: bool,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) order: String,
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    pub(crate) status: u16,
}

impl Gateway {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut gateway = Self { address, books: Arc::default(), hold: Arc::default(), open: None };
        gateway.serve(listener);
        gateway
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Scripts the statuses of the next new requests with this method for an order; 0 ends the connection
    /// without an answer. After them the gateway accepts again.
    pub(crate) fn answers(&self, method: &str, order: &str, statuses: &[u16]) {
        let key = (method.to_owned(), order.to_owned());
        self.books().scripted.entry(key).or_default().extend(statuses);
    }

    /// Returns every request that arrived for an order.
    pub(crate) fn requests(&self, order: &str) -> Vec<ReceivedRequest> {
        self.books().requests.iter().filter(|request| request.order == order).cloned().collect()
    }

    /// Returns the amount authorized for an order.
    pub(crate) fn authorized(&self, order: &str) -> Option<u64> {
        self.books().authorized.get(order).copied()
    }

    /// Holds all answers back from now on.
    pub(crate) fn hold(&self) {
        *self.hold.waiting.lock().unwrap() = Some(0);
    }

    /// Returns the number of requests that have waited since then.
    pub(crate) fn waiting(&self) -> usize {
        self.hold.waiting.lock().unwrap().unwrap_or_default()
    }

    /// Gives the answers that were held back.
    pub(crate) fn release(&self) {
        *self.hold.waiting.lock().unwrap() = None;
        self.hold.released.notify_all();
    }

    /// Ends all connections and accepts no more. The gateway keeps its books.
    pub(crate) fn go_down(&mut self) {
        let Some(Open { worker, connections }) = self.open.take() else { return };
        self.books().down = true;
        // This connection wakes the worker, which then sees that it must end.
        drop(TcpStream::connect(self.address));
        worker.join().unwrap();
        for connection in connections.lock().unwrap().drain(..) {
            // Err: the client has already ended it.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Comes back up under the same address.
    pub(crate) fn come_back(&mut self) {
        self.books().down = false;
        self.serve(TcpListener::bind(self.address).unwrap());
    }

    fn serve(&mut self, listener: TcpListener) {
        let (books, hold) = (self.books.clone(), self.hold.clone());
        let connections = Arc::<Mutex<Vec<TcpStream>>>::default();
        let known = connections.clone();
        let worker = thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if books.lock().unwrap().down {
                    break;
                }
                known.lock().unwrap().push(stream.try_clone().unwrap());
                let (books, hold) = (books.clone(), hold.clone());
                thread::spawn(move || take_requests(BufReader::new(stream), &books, &hold));
            }
        });
        self.open = Some(Open { worker, connections });
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.release();
        self.go_down();
    }
}

/// Answers requests until the client ends the connection.
fn take_requests(mut stream: BufReader<TcpStream>, books: &Mutex<Books>, hold: &Hold) -> Option<()> {
    loop {
        let request = read_request(&mut stream)?;
        hold.pass();
        let status = books.lock().unwrap().take(request);
        if status == 0 {
            // Err: the client ended it first.
            let _ = stream.get_mut().shutdown(Shutdown::Both);
            return None;
        }
        answer(&mut stream, status, "content-type: application/json\r\n", "{}")?;
    }
}

impl Books {
    /// Processes a request. Returns the status of its answer.
    fn take(&mut self, Request { method, path, headers, body }: Request) -> u16 {
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let of_path = path.strip_prefix("/authorizations/");
        let order = of_path.or(body["order_id"].as_str()).unwrap_or_default().to_owned();
        let key = headers.get("idempotency-key").cloned().unwrap_or_default();
        let status = match self.answered.get(&key) {
            Some(status) => *status,
            None => self.decide(&method, &order, &body),
        };
        if (1..500).contains(&status) {
            self.answered.insert(key.clone(), status);
        }
        self.requests.push(ReceivedRequest { method, path, order, key, headers, body, status });
        status
    }

    fn decide(&mut self, method: &str, order: &str, body: &Value) -> u16 {
        let scripted = self.scripted.get_mut(&(method.to_owned(), order.to_owned()));
        if let Some(status) = scripted.and_then(VecDeque::pop_front) {
            return status;
        }
        match method {
            "DELETE" if self.authorized.remove(order).is_none() => 404,
            "DELETE" => 200,
            "PUT" if !self.authorized.contains_key(order) => 404,
            "POST" if self.authorized.contains_key(order) => 409,
            _ => {
                self.authorized.insert(order.to_owned(), body["amount"].as_u64().unwrap());
                200
            }
        }
    }
}

/// Returns the distinct idempotency keys of some requests.
pub(crate) fn keys(requests: &[ReceivedRequest]) -> HashSet<&str> {
    requests.iter().map(|request| request.key.as_str()).collect()
}
