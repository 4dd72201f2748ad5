//! The components of the hosts that share a log: in a NATS object store beside it, by digest. A host that
//! joins later can fetch any component that runs, is an earlier release, or has a saga that has not ended.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::object_store::{
    Config, DeleteErrorKind, GetErrorKind, InfoErrorKind, ObjectStore,
};
use async_nats::jetstream::{self, Context};
use futures::TryStreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout_at};

use crate::clock::{Stopwatch, deadline_after};
use crate::garbage::{Collection, Garbage};
use crate::model::Digest;

/// The longest time for one operation: long enough to transfer a component, and to elect a leader before.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// An object store, created on first use. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    context: Context,
    /// The name of the bucket.
    name: String,
    /// The number of servers that keep the bucket.
    replicas: usize,
    store: Arc<OnceCell<ObjectStore>>,
}

impl Bucket {
    /// Returns the object store of the hosts that share a stream.
    pub fn new(client: &Client, stream: &str, replicas: usize) -> Self {
        let context = jetstream::new(client.clone());
        Self { context, name: format!("{stream}-components"), replicas, store: Arc::default() }
    }

    /// Stores a component, unless it is stored already.
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

    /// Fetches a component. Returns none if it is not stored, or damaged.
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

    /// Collects all other components.
    pub(crate) async fn collect(
        &self,
        needed: &HashSet<Digest>,
        collection: Collection,
    ) -> io::Result<Garbage> {
        let listed = in_time(|| async {
            let objects = self.store().await?.list().await.map_err(io::Error::other)?;
            objects.try_collect::<Vec<_>>().await.map_err(io::Error::other)
        });
        let mut garbage = Garbage::default();
        for object in listed.await? {
            // Err: it is not a component.
            let Ok(digest) = object.name.parse() else { continue };
            if needed.contains(&digest) {
                continue;
            }
            if collection == Collection::Remove {
                in_time(|| async {
                    match self.store().await?.delete(&object.name).await {
                        // Another host has removed it.
                        Err(error) if error.kind() == DeleteErrorKind::NotFound => Ok(()),
                        deleted => deleted.map_err(io::Error::other),
                    }
                })
                .await?;
            }
            garbage += Garbage { items: 1, bytes: object.size as u64 };
        }
        Ok(garbage)
    }

    async fn store(&self) -> io::Result<&ObjectStore> {
        let make = async || {
            let config = Config {
                bucket: self.name.clone(),
                description: Some("The components of a Kontor log, by digest".to_owned()),
                num_replicas: self.replicas,
                ..Config::default()
            };
            // Creating it again with the same configuration changes nothing.
            self.context.create_object_store(config).await.map_err(io::Error::other)
        };
        self.store.get_or_try_init(make).await
    }
}

/// Retries an operation until [`TIME_LIMIT`]. Servers that have just created the store, or elect a leader,
/// may fail at once.
async fn in_time<T, F>(attempt: impl Fn() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let (watch, deadline) = (Stopwatch::start(), deadline_after(TIME_LIMIT));
    let late = |_| {
        let why = format!("the object store has not answered within {} s", TIME_LIMIT.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, why)
    };
    loop {
        let done = timeout_at(deadline, attempt()).await.map_err(late)?;
        if done.is_ok() || watch.elapsed() + PAUSE > TIME_LIMIT {
            return done;
        }
        sleep(PAUSE).await;
    }
}
