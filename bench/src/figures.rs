//! The figures of a measurement, in a file for programs. People read the table on standard output.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

#[derive(clap::Args)]
pub(crate) struct Figures {
    /// Write the figures to this file, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Figures {
    pub(crate) fn write(&self, figures: &impl Serialize) -> anyhow::Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let text = format!("{:#}\n", serde_json::to_value(figures)?);
        fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
    }
}
