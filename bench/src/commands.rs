//! The way of a command without HTTP: decided by its component, appended to the log, answered from the disk.
//! One after another and on one thread, so that a program that counts instructions counts the same each time.

use std::sync::Arc;

use anyhow::anyhow;
use kontor::aggregate::{Dispatch, DispatchDeps, DispatchLimits, StateCache};
use kontor::clock::SystemClock;
use kontor::deployed::{Deployed, Registry};
use kontor::log::{EmbeddedLog, EventLog, Snapshots};
use kontor::model::{Caller, Command, CommandId, Intent, Json, Origin, Precondition, StreamId};
use kontor::runtime::HttpClient;
use serde_json::{Value, json};

use crate::component::Nobody;
use crate::in_process::{InProcess, Loaded};

/// Add stock to a product again and again, for a program that counts instructions
#[derive(clap::Args)]
pub(crate) struct Commands {
    /// Commands
    #[arg(long, default_value_t = 100)]
    commands: u32,
    #[command(flatten)]
    in_process: InProcess,
}

impl Commands {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.send())
    }

    async fn send(&self) -> anyhow::Result<()> {
        let Loaded { data, runtime: _runtime, component } = self.in_process.load("inventory").await?;
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path())?);
        let registry = Arc::new(Registry::default());
        let deployed = Deployed::new([component]);
        registry.replace(deployed.map_err(|error| anyhow!(error))?);
        let states = StateCache::new(log.clone(), Snapshots::open(data.path())?, registry.clone());
        let deps = DispatchDeps {
            log,
            states: Arc::new(states),
            registry,
            ask: Arc::new(Nobody),
            http: Arc::new(HttpClient::default()),
            clock: Arc::new(SystemClock),
        };
        let dispatch = Dispatch::new(deps, DispatchLimits::default());
        let product = json!({"name": "Blue mug", "unit_price": 1290, "quantity": 1});
        dispatch.submit(command("register", &product)?).await?;
        for _ in 0..self.commands {
            dispatch.submit(command("add-stock", &json!({"quantity": 1}))?).await?;
        }
        dispatch.close().await;
        Ok(())
    }
}

fn command(name: &str, payload: &Value) -> anyhow::Result<Command> {
    Ok(Command {
        id: CommandId::new(),
        repeatable: false,
        keyed: false,
        stream: StreamId::new("product", "mug")?,
        name: name.into(),
        payload: Json::of(payload)?,
        intent: Intent::Decide,
        precondition: Precondition::default(),
        origin: Origin {
            caller: Caller::unauthenticated_operator(),
            correlation_id: "bench".into(),
            causation_id: None,
        },
        journal: None,
    })
}
