//! A gateway that takes money over HTTP, as the payment service calls it: small, but real.
//!
//! What is sent again under its idempotency key gets the answer that it got before; an answer of 500 and more is none, so
//! it is not kept.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::BufReader;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::wire::{Request, answer, read_request};

pub(crate) struct Gateway {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
    /// None while it is down.
    open: Option<Open>,
}

/// What makes it reachable.
struct Open {
    worker: JoinHandle<()>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

#[derive(Default)]
struct Books {
    /// By order, the amount that is authorized.
    authorized: BTreeMap<String, u64>,
    /// What is answered next, by method and order.
    scripted: HashMap<(String, String), VecDeque<u16>>,
    answered: HashMap<String, u16>,
    requests: Vec<Asked>,
    down: bool,
}

/// A request that has arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
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
        let mut gateway = Self { address, books: Arc::default(), open: None };
        gateway.serve(listener);
        gateway
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers to the next requests of this method for an order that it has not answered before. 0: it ends the
    /// connection without an answer. After them it says yes again.
    pub(crate) fn answers(&self, method: &str, order: &str, statuses: &[u16]) {
        let key = (method.to_owned(), order.to_owned());
        self.books().scripted.entry(key).or_default().extend(statuses);
    }

    /// Everything that has arrived for an order.
    pub(crate) fn asked(&self, order: &str) -> Vec<Asked> {
        self.books().requests.iter().filter(|asked| asked.order == order).cloned().collect()
    }

    /// The amount that is authorized for an order.
    pub(crate) fn authorized(&self, order: &str) -> Option<u64> {
        self.books().authorized.get(order).copied()
    }

    /// Ends all connections and takes no more. It remembers everything.
    pub(crate) fn go_down(&mut self) {
        let Some(Open { worker, connections }) = self.open.take() else { return };
        self.books().down = true;
        // It wakes the worker, which then sees that it is to end.
        drop(TcpStream::connect(self.address));
        worker.join().unwrap();
        for connection in connections.lock().unwrap().drain(..) {
            // Err: the client has ended it before.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Is there again, under the same address.
    pub(crate) fn come_back(&mut self) {
        self.books().down = false;
        self.serve(TcpListener::bind(self.address).unwrap());
    }

    fn serve(&mut self, listener: TcpListener) {
        let (books, connections) = (self.books.clone(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let known = connections.clone();
        let worker = thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if books.lock().unwrap().down {
                    break;
                }
                known.lock().unwrap().push(stream.try_clone().unwrap());
                let books = books.clone();
                thread::spawn(move || take_requests(BufReader::new(stream), &books));
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
        self.go_down();
    }
}

/// Until the client ends the connection.
fn take_requests(mut stream: BufReader<TcpStream>, books: &Mutex<Books>) -> Option<()> {
    loop {
        let request = read_request(&mut stream)?;
        let status = books.lock().unwrap().take(request);
        if status == 0 {
            // Err: the client has been quicker.
            let _ = stream.get_mut().shutdown(Shutdown::Both);
            return None;
        }
        answer(&mut stream, status, "content-type: application/json\r\n", "{}")?;
    }
}

impl Books {
    /// Carries a request out and says with which status.
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
        self.requests.push(Asked { method, path, order, key, headers, body, status });
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

/// The different keys of some requests.
pub(crate) fn keys(asked: &[Asked]) -> HashSet<&str> {
    asked.iter().map(|asked| asked.key.as_str()).collect()
}
