//! `kontor import`: makes a log from a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use anyhow::Context as _;
use kontor::backup::{self, Destination};
use kontor::config::Place;
use kontor::host::Storage;
use serde_json::json;

use super::backup::{STANDARD, counts, open};
use super::progress;

const EXAMPLES: &str = "\
Examples:
  kontor import shop.jsonl --data /var/lib/kontor
  kontor import shop.jsonl --log jetstream --nats-url nats://127.0.0.1:4222 --data copy
  zstd -dc shop.jsonl.zst | kontor import -

The log must be empty, or hold the beginning of the file: an import that was interrupted is resumed. Every
event keeps its position, and at the end all events are read again and compared. No host may run on the log
in the meantime.";

/// Import a log from a file that `kontor export` has written
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Import {
    /// The file to read, - for standard input
    file: String,
    #[command(flatten)]
    place: Place,
}

impl Import {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let (config, runtime) = open(self.place)?;
        let import = |input: &mut dyn BufRead| {
            runtime.block_on(async {
                let Storage { log, store, .. } = Storage::open(&config).await?;
                let to = Destination { log: &*log, store: &store, data: &config.data };
                anyhow::Ok(backup::import(to, input, progress::of_events("imported")).await?)
            })
        };
        let imported = if self.file == STANDARD {
            import(&mut io::stdin().lock())?
        } else {
            let file = || File::open(&self.file).with_context(|| format!("cannot read {}", self.file));
            // The whole file is checked before anything is written.
            backup::check(BufReader::new(file()?)).with_context(|| format!("cannot import {}", self.file))?;
            import(&mut BufReader::new(file()?))?
        };
        let before = imported.there_before;
        if json {
            writeln!(out, "{}", json!({ "imported": imported.summary, "there_before": before }))?;
        } else {
            let before = if before > 0 { format!(", {before} of them earlier") } else { String::new() };
            writeln!(out, "imported {}{before}; read again and compared", counts(&imported.summary))?;
        }
        Ok(())
    }
}
