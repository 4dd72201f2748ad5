//! An operator's client of a host: one request after another, answered with JSON.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::http::{Connection, request, request_of};

/// The permissions that the order service asks for.
const GRANTS: &str = "grant=service:inventory&grant=service:payment&grant=service:delivery\
    &grant=command:delivery.cancel&grant=command:delivery.hold&grant=command:delivery.resume\
    &grant=command:delivery.schedule&grant=command:payment.authorize&grant=command:payment.cancel\
    &grant=command:payment.change&grant=command:product.change-reservation\
    &grant=command:product.release&grant=command:product.reserve";

pub(crate) struct Api {
    runtime: Runtime,
    connection: RefCell<Connection>,
}

impl Api {
    /// Opens a connection of its own. The host closes it after a while without requests.
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = RefCell::new(runtime.block_on(Connection::open(address))?);
        Ok(Self { runtime, connection })
    }

    /// Sends a GET. Returns the status and the body, whatever they are.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.send(&request("GET", path, ""))
    }

    /// Returns the page of the log after a position, and the position for the next page, or `None` if this
    /// was the last.
    pub(crate) fn page(&self, after: u64) -> anyhow::Result<(Vec<Value>, Option<u64>)> {
        let path = format!("/events?limit=1000&after={after}");
        let page = request_of("application/json", "GET", &path, "accept: application/json\r\n", b"");
        let (200, mut page) = self.send(&page)? else { bail!("the log cannot be read") };
        let Value::Array(events) = page["items"].take() else { bail!("a page of the log is a list") };
        Ok((events, page["next"].as_u64()))
    }

    /// Deploys a version of the order service and returns the report of its gates. An example of
    /// `parameters`: `dry-run=true&`.
    pub(crate) fn deploy(&self, wasm: &[u8], parameters: &str) -> anyhow::Result<Value> {
        let path = format!("/admin/plugins?{parameters}{GRANTS}");
        match self.send(&request_of("application/wasm", "PUT", &path, "", wasm))? {
            (200, report) => Ok(report),
            (status, problem) => bail!("the deployment was answered with {status} {problem:#}"),
        }
    }

    fn send(&self, request: &Arc<[u8]>) -> anyhow::Result<(u16, Value)> {
        let mut connection = self.connection.borrow_mut();
        let status = self.runtime.block_on(connection.exchange(request))?;
        let body = serde_json::from_slice(connection.body());
        Ok((status, body.with_context(|| format!("{status} without JSON"))?))
    }
}
