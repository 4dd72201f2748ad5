//! One decision of a component, and the same code as a part of this program.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use async_trait::async_trait;
use kontor::model::{Caller, Json, StreamId};
use kontor::runtime::{Ask, AskFailure, Component, Context, HttpClient, Request, Target};
use kontor_sdk::prelude as sdk;
use serde_json::json;

use crate::figures::Figures;
use crate::in_process::{InProcess, Loaded};
use crate::report::median;

/// The code of the inventory's aggregate.
#[allow(dead_code, reason = "only the registration of a product is measured")]
#[path = "../../plugins/inventory/src/product.rs"]
mod product;

use product::{Product, ProductCommand};

/// The command that is decided.
const COMMAND: &str = "register";

/// Compare decisions of a component to the same code without WebAssembly, in turns
#[derive(clap::Args)]
pub(crate) struct Decisions {
    /// Bytes of the command
    #[arg(long, default_value_t = 400)]
    bytes: usize,
    /// Decisions of each round
    #[arg(long, default_value_t = 20_000)]
    decisions: u32,
    /// Rounds of each
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    #[command(flatten)]
    in_process: InProcess,
    #[command(flatten)]
    figures: Figures,
}

impl Decisions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        ensure!(self.rounds > 0 && self.decisions > 0, "rounds and decisions must be at least 1");
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.measure())
    }

    async fn measure(&self) -> anyhow::Result<()> {
        let Loaded { component, .. } = &self.in_process.load("inventory").await?;
        let empty = json!({"name": "", "unit_price": 1290, "quantity": 3}).to_string();
        let name = "x".repeat(self.bytes.saturating_sub(empty.len()));
        let payload = Json::of(&json!({"name": name, "unit_price": 1290, "quantity": 3}))?;
        let subject = Subject { stream: StreamId::new("product", "mug")?, payload, context: context() };
        ensure!(
            subject.by_component(component).await? == subject.natively()?,
            "the component and the native code decide differently: they do not do the same work"
        );
        let (mut with, mut without) = (Vec::new(), Vec::new());
        // The first round warms both up.
        for round in 0..=self.rounds {
            let begun = Instant::now();
            for _ in 0..self.decisions {
                black_box(subject.by_component(component).await?);
            }
            let between = Instant::now();
            for _ in 0..self.decisions {
                black_box(subject.natively()?);
            }
            if round > 0 {
                let us = |seconds: f64| seconds * 1e6 / f64::from(self.decisions);
                with.push(us((between - begun).as_secs_f64()));
                without.push(us(between.elapsed().as_secs_f64()));
            }
        }
        let [with, without] = [with, without].map(|all| median(all.into_iter()));
        println!("a command of {} bytes, medians of {} rounds", subject.payload.as_str().len(), self.rounds);
        println!("component  {with:6.2} µs a decision");
        println!("native     {without:6.2} µs a decision");
        println!("component to native: {:.2} times", with / without);
        self.figures.write(&json!({"component_us": with, "native_us": without, "ratio": with / without}))
    }
}

/// The decided command.
struct Subject {
    stream: StreamId,
    payload: Json,
    context: Context,
}

/// The event, the state and the view, in texts.
type Decided = [String; 3];

impl Subject {
    async fn by_component(&self, component: &Component) -> anyhow::Result<Decided> {
        let target = Target { stream: &self.stream, state: None, since: &[] };
        let decided = component.decide(target, &COMMAND.into(), &self.payload, &self.context).await?;
        let decision = decided.map_err(|rejection| anyhow!("{rejection}"))?;
        let (event, after) = decision.events.first().zip(decision.after).context("nothing has happened")?;
        Ok([event.payload.as_str().to_owned(), text(&after.state)?, after.view.as_str().to_owned()])
    }

    /// Does what the SDK does in a component.
    fn natively(&self) -> anyhow::Result<Decided> {
        use sdk::Aggregate as _;
        let context = sdk::Context {
            aggregate: Product::NAME,
            aggregate_id: self.stream.id().to_owned(),
            command_id: self.context.command_id.to_string(),
            correlation_id: self.context.correlation_id.to_string(),
            time_ms: self.context.time_ms,
            caller: sdk::Caller::default(),
        };
        let tagged = format!("{{{:?}:{}}}", COMMAND, self.payload.as_str());
        let command: ProductCommand = serde_json::from_str(&tagged)?;
        let events = Product::decide(None, command, &context).map_err(|_| anyhow!("it is rejected"))?;
        let event = events.into_iter().next().context("nothing has happened")?;
        let written = serde_json::to_string(&event)?;
        let (_, payload) = written.trim_end_matches('}').split_once(':').context("an event has a payload")?;
        let payload = format!("{payload}}}");
        let mut state = Product::default();
        state.evolve(event);
        let view = serde_json::to_string(&state.view(self.stream.id()))?;
        Ok([payload, serde_json::to_string(&state)?, view])
    }
}

fn text(bytes: &[u8]) -> anyhow::Result<String> {
    Ok(std::str::from_utf8(bytes)?.to_owned())
}

fn context() -> Context {
    Context {
        command_id: "0190a000-0000-7000-8000-000000000000".into(),
        correlation_id: "bench".into(),
        time_ms: 1_704_067_200_000,
        caller: Caller::unauthenticated_operator(),
        ask: Arc::new(Nobody),
        http: Arc::new(HttpClient::default()),
    }
}

/// Answers nothing, because a product asks nobody.
pub(crate) struct Nobody;

#[async_trait]
impl Ask for Nobody {
    async fn ask(&self, _: &Caller, _: Request, _: usize) -> Result<Json, AskFailure> {
        Err(AskFailure::Unavailable("there is nobody to ask".to_owned()))
    }
}
