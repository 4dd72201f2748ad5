//! `kontor export`: the log as a file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use kontor::backup::{self, Summary};
use kontor::config::Place;
use kontor::host;
use serde_json::json;

use super::backup::{STANDARD, counts, open};
use super::progress;

const EXAMPLES: &str = "\
Examples:
  kontor export shop.jsonl
  kontor export --data /var/lib/kontor - | zstd > shop.jsonl.zst
  kontor export shop.jsonl && jq -c 'select(.commit) | .commit.stream' shop.jsonl | sort | uniq -c

A host may run at the same time: the file has the log as it was at the start, with the components that its
sagas may need. The same log always gives the same file. `kontor import` restores it, into a data directory
or into NATS.";

/// Export the log to a file, as a backup or to move it to another engine
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    /// The file to write, - for standard output
    file: String,
    #[command(flatten)]
    place: Place,
}

impl Export {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let (config, runtime) = open(self.place)?;
        runtime.block_on(host::catch_up(&config))?;
        if self.file == STANDARD {
            let summary = backup::export(&config.data, BufWriter::new(out), progress::of_events("exported"))?;
            return Ok(print(&summary, &self.file, json, &mut io::stderr())?);
        }
        let summary = to_file(&config.data, Path::new(&self.file))?;
        Ok(print(&summary, &self.file, json, out)?)
    }
}

/// Exports to a file, which is replaced once the new one is complete and on disk.
fn to_file(data: &Path, file: &Path) -> anyhow::Result<Summary> {
    let failed = || format!("cannot write {}", file.display());
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let written = File::create(&partial).with_context(failed)?;
    let summary = backup::export(data, BufWriter::new(&written), progress::of_events("exported"))?;
    written.sync_all().with_context(failed)?;
    fs::rename(&partial, file).with_context(failed)?;
    Ok(summary)
}

/// Prints the summary of an export.
fn print(summary: &Summary, file: &str, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        writeln!(out, "{}", json!({ "file": file, "exported": summary }))
    } else {
        writeln!(out, "exported {} to {file}\nSHA-256 {}", counts(summary), summary.sha256)
    }
}
