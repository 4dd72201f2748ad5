//! Comparison in turns: rounds of the same load on one server after another.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;

use crate::figures::Figures;
use crate::load::{self, Answers, Pace, Work};
use crate::report::{Report, Round};

/// Load that is not counted, before every round: caches fill, connections are made, instances get warm.
const WARM_UP: Duration = Duration::from_secs(2);

/// The options of a comparison.
#[derive(clap::Args)]
pub(crate) struct Turns {
    /// Connections; each sends its next request when the one before is answered
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Measured seconds of each round
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds of each server
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// The program to measure
    #[arg(long, default_value = "../target/release/kontor")]
    pub(crate) kontor: PathBuf,
    /// The directory of its components
    #[arg(long, default_value = "../target/plugins")]
    pub(crate) plugins: PathBuf,
    /// Directory for the data directories of the servers: on the disk to be measured
    #[arg(long, default_value = "../target")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) figures: Figures,
}

impl Turns {
    /// Fails if there is nothing to measure, or fewer than `at_least` products.
    pub(crate) fn check(&self, products: usize, at_least: usize) -> anyhow::Result<()> {
        ensure!(
            products >= at_least && self.connections > 0 && self.rounds > 0 && self.seconds > 0,
            "connections, seconds and rounds must be at least 1, products at least {at_least}"
        );
        Ok(())
    }

    /// Returns the command that serves the shop.
    pub(crate) fn serve(&self) -> Command {
        let mut command = Command::new(&self.kontor);
        command.arg("serve").arg("--plugins").arg(&self.plugins);
        command
    }

    /// Returns the measured time of a round.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Returns the time of a round with its warm-up.
    pub(crate) fn whole(&self) -> Duration {
        WARM_UP + self.duration()
    }

    pub(crate) fn warm_up(
        &self,
        server: SocketAddr,
        work: impl Fn(usize) -> Work + Clone + Send + 'static,
    ) -> io::Result<()> {
        load::run(server, self.connections, WARM_UP, work).map(drop)
    }

    /// Measures a server that has just been started. `used` returns the processor time so far of all
    /// processes that serve.
    pub(crate) fn round(
        &self,
        server: SocketAddr,
        work: impl Fn(usize) -> Work + Clone + Send + 'static,
        used: impl Fn() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Round> {
        self.warm_up(server, work.clone())?;
        self.measure(used, || load::run(server, self.connections, self.duration(), work))
    }

    /// Returns a pace for the measured time, of one piece of work a second.
    pub(crate) fn pace(&self) -> Pace {
        Pace { per_second: 1, seconds: u32::try_from(self.seconds).unwrap_or(u32::MAX) }
    }

    /// Measures a server like [`Turns::round`], with work that is due at a pace, whether or not earlier work
    /// is done.
    pub(crate) fn round_at(
        &self,
        server: SocketAddr,
        pace: Pace,
        work: impl Fn(usize) -> Work + Clone + Send + Sync + 'static,
        used: impl Fn() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Round> {
        self.warm_up(server, work.clone())?;
        let next = Arc::new(AtomicUsize::new(0));
        let work = move || work(next.fetch_add(1, Ordering::Relaxed));
        self.measure(used, || load::run_at(server, self.connections, pace, work))
    }

    /// Runs the load of a round.
    fn measure(
        &self,
        used: impl Fn() -> anyhow::Result<Duration>,
        load: impl FnOnce() -> io::Result<Answers>,
    ) -> anyhow::Result<Round> {
        let before = used()?;
        let answers = load()?;
        let cpu = used()? - before;
        answers.show_first_error();
        Ok(Round::new(answers, self.duration(), cpu))
    }

    pub(crate) fn print(&self, report: &Report) -> anyhow::Result<()> {
        report.print();
        self.figures.write(&report.figures())
    }
}
