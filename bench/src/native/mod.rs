//! The baseline: the products of the inventory as a Rust team would write them by hand for speed. The rule is
//! a function, the state is in memory, the events go to the same log, and the reply goes out after the
//! commit.
//!
//! The work for HTTP and for the log is the same as Kontor's: the payload is read into a type that rejects
//! unknown fields, each command gets a UUID (version 7), the same kind of [`Meta`] is stored with its event,
//! and the reply has the same headers and the same body. Commands on one product take effect in order, each
//! on the version that the one before leaves, before that version is on disk. The read model is that of the
//! inventory.
//!
//! It leaves out on purpose the work that a host is for: WebAssembly and its limits, dispatch, the lookup of
//! a repeated command (its fingerprint is a constant), JSON Schema, snapshots, sagas, metrics, and rebuilding
//! the state from the log.

mod read_model;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::serve::ListenerExt as _;
use kontor::clock::{Clock as _, SystemClock};
use kontor::log::{Append, AppendError, EmbeddedLog, EventLog as _};
use kontor::model::{CommandId, Digest, Json, Meta, NewEvent, Position, StreamId, Version};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use self::read_model::ReadModel;
use crate::server::LISTENING;

const POSITION: HeaderName = HeaderName::from_static("kontor-position");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The largest quantity, 2⁵³−1, as in the inventory component.
const MAX: u64 = 9_007_199_254_740_991;

/// A fingerprint that is as long in the log as a real one.
const FINGERPRINT: u64 = 12_345_678_901_234_567_890;

/// Serve the products by hand-written code, as the baseline
#[derive(clap::Args)]
pub(crate) struct Native {
    /// The address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// The directory of the log
    #[arg(long)]
    data: PathBuf,
}

impl Native {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let log = Arc::new(EmbeddedLog::open(&self.data)?);
        let read_model = ReadModel::create(&self.data)?;
        let shop =
            Arc::new(Shop { log: log.clone(), products: RwLock::default(), digest: Digest::of(b"native") });
        let routes = Router::new()
            .route("/products/{id}", put(register))
            .route("/products/{id}/add-stock", post(add_stock))
            .with_state(shop);
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::bind(self.listen).await?;
            println!("{LISTENING}{}", listener.local_addr()?);
            std::io::stdout().flush()?;
            let listener = listener.tap_io(|stream| {
                // Err: the connection is gone already.
                let _ = stream.set_nodelay(true);
            });
            tokio::select! {
                served = axum::serve(listener, routes) => Ok(served?),
                followed = read_model.follow(log) => followed,
            }
        })
    }
}

struct Shop {
    log: Arc<EmbeddedLog>,
    products: RwLock<HashMap<String, Arc<Mutex<Slot>>>>,
    /// The digest in the events' metadata, in the place of a component's.
    digest: Digest,
}

/// The place of a product, which may not be registered yet.
struct Slot {
    stream: StreamId,
    version: Version,
    product: Option<Product>,
}

#[derive(Clone)]
struct Product {
    name: Arc<str>,
    unit_price: u64,
    available: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    name: String,
    unit_price: u64,
    quantity: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddStock {
    quantity: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Event {
    ProductRegistered { name: Arc<str>, unit_price: u64, quantity: u64 },
    StockAdded { quantity: u64 },
}

/// The body of a reply. No piece of these products is ever reserved or shipped.
#[derive(Serialize)]
struct Reply<'r> {
    id: &'r str,
    version: Version,
    position: Position,
    events: [&'r str; 1],
    state: View<'r>,
}

#[derive(Serialize)]
struct View<'r> {
    id: &'r str,
    name: &'r str,
    unit_price: u64,
    available: u64,
    reserved: u64,
    shipped: u64,
}

/// The reason why a command has no effect.
#[derive(Debug)]
enum Refusal {
    InvalidPayload(String),
    Rejected { code: &'static str, message: String },
    Append(AppendError),
    Internal(String),
}

async fn register(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Register { name, unit_price, quantity } = payload(&body)?;
    if name.is_empty() || unit_price > MAX || quantity > MAX {
        return Err(Refusal::InvalidPayload("a field is out of its range".to_owned()));
    }
    let slot = shop.slot_for(&id)?;
    let decide = move |product: Option<&Product>| match product {
        Some(_) => Err(Refusal::rejected("already-exists", "There is such a product already.")),
        None => {
            let product = Product { name: name.into(), unit_price, available: quantity };
            let event = Event::ProductRegistered { name: product.name.clone(), unit_price, quantity };
            Ok((event, product))
        }
    };
    shop.process(&slot, "register", decide).await
}

async fn add_stock(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let AddStock { quantity } = payload(&body)?;
    if !(1..=MAX).contains(&quantity) {
        return Err(Refusal::InvalidPayload("quantity is out of its range".to_owned()));
    }
    let slot = shop.slot(&id).ok_or_else(|| Refusal::rejected("not-found", "There is no such product."))?;
    let decide = move |product: Option<&Product>| match product {
        None => Err(Refusal::rejected("not-found", "There is no such product.")),
        Some(product) if quantity > MAX - product.available => {
            Err(Refusal::rejected("amount-too-large", "A product cannot have so many pieces."))
        }
        Some(product) => {
            let after = Product { available: product.available + quantity, ..product.clone() };
            Ok((Event::StockAdded { quantity }, after))
        }
    };
    shop.process(&slot, "add-stock", decide).await
}

fn payload<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::InvalidPayload(error.to_string()))
}

impl Shop {
    fn slot(&self, id: &str) -> Option<Arc<Mutex<Slot>>> {
        self.products.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn slot_for(&self, id: &str) -> Result<Arc<Mutex<Slot>>, Refusal> {
        let stream =
            StreamId::new("product", id).map_err(|error| Refusal::InvalidPayload(error.to_string()))?;
        let slot = || Arc::new(Mutex::new(Slot { stream, version: Version::START, product: None }));
        let mut products = self.products.write().unwrap_or_else(PoisonError::into_inner);
        Ok(products.entry(id.to_owned()).or_insert_with(slot).clone())
    }

    /// Decides and appends under the product's lock, so that the appends have the order of the decisions, and
    /// waits for the disk without it. Once an append has failed, later ones fail for their version.
    async fn process(
        &self,
        slot: &Mutex<Slot>,
        command: &str,
        decide: impl FnOnce(Option<&Product>) -> Result<(Event, Product), Refusal>,
    ) -> Result<Response, Refusal> {
        let command_id = CommandId::new();
        let (appending, stream, version, event, product) = {
            let mut slot = lock(slot);
            let (event, product) = decide(slot.product.as_ref())?;
            let append = self.append(&slot, command, &command_id, &event)?;
            let appending = self.log.append(vec![append]);
            slot.version = slot.version.next();
            slot.product = Some(product.clone());
            (appending, slot.stream.clone(), slot.version, event, product)
        };
        let position = appending.await.map_err(Refusal::Append)?.position;
        reply(&command_id, &stream, version, position, event.name(), &product)
    }

    fn append(&self, slot: &Slot, command: &str, id: &CommandId, event: &Event) -> Result<Append, Refusal> {
        let payload = Json::of(event).map_err(|error| Refusal::Internal(error.to_string()))?;
        let meta = Meta {
            command_id: id.clone(),
            command: command.into(),
            fingerprint: FINGERPRINT,
            correlation_id: id.as_str().into(),
            causation_id: None,
            digest: Some(self.digest),
            time_ms: SystemClock.now_ms(),
            actor: "anonymous".into(),
            ..Meta::default()
        };
        let events = vec![NewEvent { name: event.name().into(), payload }];
        Ok(Append { events, meta: Arc::new(meta), ..Append::nothing(slot.stream.clone(), slot.version) })
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::ProductRegistered { .. } => "product-registered",
            Self::StockAdded { .. } => "stock-added",
        }
    }
}

fn reply(
    command_id: &CommandId,
    stream: &StreamId,
    version: Version,
    position: Position,
    event: &str,
    product: &Product,
) -> Result<Response, Refusal> {
    let Product { name, unit_price, available } = product;
    let view = View {
        id: stream.id(),
        name,
        unit_price: *unit_price,
        available: *available,
        reserved: 0,
        shipped: 0,
    };
    let body = Reply { id: stream.id(), version, position, events: [event], state: view };
    let internal = |error: &dyn std::error::Error| Refusal::Internal(error.to_string());
    let body = serde_json::to_vec(&body).map_err(|error| internal(&error))?;
    let status = if version == Version::START.next() { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(POSITION, position.get().into());
    let etag = HeaderValue::try_from(format!("\"{version}\"")).map_err(|error| internal(&error))?;
    headers.insert(header::ETAG, etag);
    let request_id = HeaderValue::try_from(command_id.as_str()).map_err(|error| internal(&error))?;
    headers.insert(REQUEST_ID, request_id);
    Ok(response)
}

impl Refusal {
    fn rejected(code: &'static str, message: &str) -> Self {
        Self::Rejected { code, message: message.to_owned() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, detail) = match self {
            Self::InvalidPayload(detail) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-payload", detail),
            Self::Rejected { code: code @ "not-found", message } => (StatusCode::NOT_FOUND, code, message),
            Self::Rejected { code, message } => (StatusCode::CONFLICT, code, message),
            Self::Append(error) => (StatusCode::SERVICE_UNAVAILABLE, "not-appended", error.to_string()),
            Self::Internal(detail) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", detail),
        };
        let body = serde_json::json!({ "status": status.as_u16(), "code": code, "detail": detail });
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
