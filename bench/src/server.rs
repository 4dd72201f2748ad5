//! A server under test: a process with a data directory of its own. Dropping the handle ends the process and
//! removes the directory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

/// The text that both servers print first, before their address.
pub(crate) const LISTENING: &str = "listening on http://";

/// The unit of the times in `/proc/<pid>/stat`, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    /// Kept open, because the server's next line would fail otherwise.
    _output: BufReader<ChildStdout>,
    data: TempDir,
}

/// A process that ends when it is dropped, as if it had been killed.
struct Process(Child);

impl Server {
    /// Starts `command` with a new data directory under `parent`. Returns when it listens.
    pub(crate) fn start(command: Command, parent: &Path) -> anyhow::Result<Self> {
        Self::start_on(command, new_data(parent)?)
    }

    /// Starts `command` with a data directory that may have content. Returns when it listens.
    pub(crate) fn start_on(mut command: Command, data: TempDir) -> anyhow::Result<Self> {
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let process = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let mut process = Process(process);
        let output = process.0.stdout.take().context("the server's output is not piped")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim_end().strip_prefix(LISTENING).and_then(|address| address.parse().ok());
        let address = address.with_context(|| format!("{command:?} says {line:?}, not where it listens"))?;
        Ok(Self { process, address, _output: output, data })
    }

    /// Kills the server. Returns its data directory, for another start.
    pub(crate) fn kill(self) -> TempDir {
        let Self { process, data, .. } = self;
        drop(process);
        data
    }

    /// Returns the memory of the server that is in use now: all of it, and the part that is its own, in
    /// bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<[u64; 2]> {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
        let kilobytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let of = |field| kilobytes(field).with_context(|| format!("{path} has no {field}"));
        Ok([of("VmRSS:")? * 1_024, of("RssAnon:")? * 1_024])
    }

    /// Returns the server's data directory.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Returns the processor time that the server has used so far, to 10 ms.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        cpu_time(self.process.0.id())
    }
}

/// Returns the processor time that a process has used so far, to 10 ms.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    // The name, which may have blanks, ends with the last parenthesis. The fields after it begin with the
    // state; the twelfth and thirteenth are utime and stime.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// Makes an empty data directory under `parent`.
pub(crate) fn new_data(parent: &Path) -> anyhow::Result<TempDir> {
    fs::create_dir_all(parent)?;
    tempfile::tempdir_in(parent).with_context(|| format!("{} cannot hold the data", parent.display()))
}

impl Drop for Process {
    fn drop(&mut self) {
        // Err: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
