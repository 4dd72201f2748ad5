//! A host as its users have it: the real program with the shop's real components, in its own process, on a
//! data directory that outlives it, and called over HTTP.

pub(crate) mod audit;
pub(crate) mod certificates;
pub(crate) mod curl;
pub(crate) mod deploy;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod machine;
pub(crate) mod nats;
pub(crate) mod nodes;
pub(crate) mod oidc;
pub(crate) mod report;
pub(crate) mod shop;
pub(crate) mod traffic;
pub(crate) mod watch;
pub(crate) mod wire;

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use self::http::Client;

/// Longer than a slow machine takes to compile five components.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longer than a host gives requests in flight to end.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// The files of a test's hosts: configuration, data and components. Hosts come and go on it, one at a time.
pub(crate) struct Site {
    folder: TempDir,
    plugins: PathBuf,
    /// The environment variables of the hosts.
    variables: Vec<(&'static str, String)>,
}

/// A running host. It is killed when dropped.
pub(crate) struct Host {
    process: Child,
    url: String,
    client: Client,
    /// `None` while a thread reads it.
    stdout: Option<BufReader<ChildStdout>>,
    log: PathBuf,
}

/// The result of a program that ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    /// A site with the shop's components and this `kontor.toml`.
    pub(crate) fn new(configuration: &str) -> Self {
        Self::with_plugins(&built("plugins"), configuration)
    }

    /// A site with the components of a directory.
    pub(crate) fn with_plugins(plugins: &Path, configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kontor.toml"), configuration).unwrap();
        let site = Self { folder, plugins: plugins.to_owned(), variables: Vec::new() };
        site.make_data();
        site
    }

    fn make_data(&self) {
        // Compiling the components takes seconds in a debug build, so all hosts share the compiled code.
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        fs::create_dir_all(&compiled).unwrap();
        fs::create_dir(self.data()).unwrap();
        symlink(compiled, self.data().join("compiled")).unwrap();
    }

    /// Empties the data directory, as after the loss of a disk.
    pub(crate) fn lose_data(&self) {
        fs::remove_dir_all(self.data()).unwrap();
        self.make_data();
    }

    /// Adds an environment variable for the hosts of this site.
    pub(crate) fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Replaces `kontor.toml` for the hosts started from now on.
    pub(crate) fn configure(&self, configuration: &str) {
        fs::write(self.configuration(), configuration).unwrap();
    }

    /// Returns the path of `kontor.toml`.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.path().join("kontor.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts a host. Returns once it answers.
    pub(crate) fn start(&self) -> Host {
        self.start_with(&[])
    }

    /// Starts a host with additional flags.
    pub(crate) fn start_with(&self, flags: &[&str]) -> Host {
        let log = self.folder.path().join("host.log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let mut serve = self.serve(&self.plugins);
        if !flags.contains(&"--listen") {
            serve.args(["--listen", "127.0.0.1:0"]);
        }
        let mut process = serve.args(flags).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (first, stdout) = next_line(stdout);
        // The line is text or JSON.
        let url = first.split([' ', '"', '\n']).find(|word| word.starts_with("http"));
        let url = url.unwrap_or_else(|| {
            let _ = process.kill();
            panic!("the host did not start: {first}{}", read(&log))
        });
        Host { process, client: Client::new(url), url: url.to_owned(), stdout: Some(stdout), log }
    }

    /// Starts a host with these components, which must fail. Returns its result.
    pub(crate) fn fail_to_start(&self, plugins: &Path) -> Ended {
        ended(self.serve(plugins).args(["--listen", "127.0.0.1:0"]))
    }

    fn serve(&self, plugins: &Path) -> Command {
        let mut serve = kontor(&["serve", "--config", "kontor.toml"]);
        serve.current_dir(self.folder.path());
        serve.envs(self.variables.iter().map(|(name, value)| (name, value)));
        serve.arg("--data").arg(self.data()).arg("--plugins").arg(plugins);
        serve
    }
}

impl Host {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the next line of output that contains `text`.
    pub(crate) fn says(&mut self, text: &str) -> String {
        loop {
            let (line, stdout) = next_line(self.stdout.take().unwrap());
            assert!(!line.is_empty(), "the host has ended without a word of {text:?}");
            self.stdout = Some(stdout);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Returns everything logged so far.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Kills the process, as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks the host to stop.
    pub(crate) fn terminate(&self) {
        rustix::process::kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// Waits until the host has ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let (done, end) = mpsc::channel();
        let pid = Pid::from_child(&self.process);
        thread::spawn(move || {
            if end.recv_timeout(STOP_LIMIT).is_err() {
                // Err: it ended at this very moment.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        });
        let status = self.process.wait().unwrap();
        done.send(()).expect("the host did not end when it was asked to");
        status
    }

    /// Asks the host to stop and waits until it has ended.
    pub(crate) fn stop(self) -> ExitStatus {
        self.terminate();
        self.wait()
    }
}

impl std::ops::Deref for Host {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Err: it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("the log of the host:\n{}", read(&self.log));
        }
    }
}

/// Returns a command that runs `kontor` without the settings of this shell.
pub(crate) fn kontor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontor"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// Runs a program to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Returns a directory that `cargo xtask build` leaves in cargo's target directory.
pub(crate) fn built(name: &str) -> PathBuf {
    // The test runs from <target>/<profile>/deps/.
    let test = env::current_exe().unwrap();
    let folder = test.ancestors().nth(3).map(|target| target.join(name));
    folder.filter(|folder| folder.is_dir()).expect("run `cargo xtask build` first")
}

/// Returns a call of Python with the packages in a folder.
pub(crate) fn python(packages: &Path) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages);
    python
}

/// Returns a number from the environment, or the default.
pub(crate) fn setting<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}"))
    })
}

fn next_line(mut stdout: BufReader<ChildStdout>) -> (String, BufReader<ChildStdout>) {
    let (sender, line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = sender.send((line, stdout));
    });
    line.recv_timeout(START_LIMIT).expect("the host said nothing in time")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}
