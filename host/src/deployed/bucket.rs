//! The components of the hosts that share a log: in an object store beside it, by digest. What is there stays, so a host that
//! comes later can have whatever a saga has begun on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::object_store::{Config, GetErrorKind, InfoErrorKind, ObjectStore};
use async_nats::jetstream::{self, Context};
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};

use crate::model::Digest;

/// For a component on its way, electing a leader included.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// An object store that is made when it is used first. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    context: Context,
    /// Of the bucket.
    name: String,
    /// How many servers keep it.
    replicas: usize,
    store: Arc<OnceCell<ObjectStore>>,
}

impl Bucket {
    /// Of the hosts that share a stream.
    pub fn new(client: &Client, stream: &str, replicas: usize) -> Self {
        let context = jetstream::new(client.clone());
        Self { context, name: format!("{stream}-components"), replicas, store: Arc::default() }
    }

    /// Puts a component there, unless it is there already.
    pub(crate) async fn put(&self, wasm: &[u8]) -> io::Result<()> {
        let name = Digest::of(wasm).to_string();
        in_time(|| async {
            let store = self.store().await?;
            match store.info(&name).await {
                Ok(info) if !info.deleted => return Ok(()),
                Err(error) if error.kind() != InfoErrorKind::NotFound => return Err(io::Error::other(error)),
                _ => {}
            }
            let mut bytes = wasm;
            store.put(name.as_str(), &mut bytes).await.map(drop).map_err(io::Error::other)
        })
        .await
    }

    /// None if it is not there.
    pub(crate) async fn get(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        in_time(|| async {
            let mut object = match self.store().await?.get(digest.to_string()).await {
                Ok(object) => object,
                Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io::Error::other(error)),
            };
            let mut wasm = Vec::new();
            object.read_to_end(&mut wasm).await?;
            Ok(Some(wasm).filter(|wasm| Digest::of(wasm) == digest))
        })
        .await
    }

    async fn store(&self) -> io::Result<&ObjectStore> {
        let make = async || {
            let config = Config {
                bucket: self.name.clone(),
                description: Some("The components of a Kontor log, by digest".to_owned()),
                num_replicas: self.replicas,
                ..Config::default()
            };
            // As often as it is made alike, it is the same.
            self.context.create_object_store(config).await.map_err(io::Error::other)
        };
        self.store.get_or_try_init(make).await
    }
}

/// Tries until it works. Servers that have just made the store, or look for a leader, may refuse at once.
async fn in_time<T, F>(attempt: impl Fn() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let give_up = Instant::now() + PATIENCE;
    let late = |_| {
        let why = format!("no answer of the object store in {} s", PATIENCE.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, why)
    };
    loop {
        let done = timeout_at(give_up, attempt()).await.map_err(late)?;
        if done.is_ok() || Instant::now() + PAUSE > give_up {
            return done;
        }
        sleep(PAUSE).await;
    }
}
