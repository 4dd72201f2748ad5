//! Programs that run side by side: each line that they print has the name of who prints it, one that ends is started again,
//! and none is left behind.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// Longer than a slow machine takes to start a host that compiles its components, or servers that look for a leader.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longer than a host lets requests in flight take to end.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// Until a program that has ended is started again: time to see what the others do without it.
const MISSING: Duration = Duration::from_secs(15);
/// How often it is looked whether a program or everything has ended.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Stands in the line that it prints when it is ready. What it says before is shown only if it fails.
    pub(crate) ready: &'static str,
}

/// The process group of programs that end with this process, however it ends. Keys pressed in the terminal do not reach it.
pub(crate) struct Group {
    /// Its leader, which waits for the end of its input, and so for that of this process.
    guard: Child,
}

impl Group {
    pub(crate) fn new() -> Result<Self> {
        let mut guard = Command::new("sh");
        guard.args(["-c", "read _; kill -TERM 0"]).stdin(Stdio::piped()).process_group(0);
        Ok(Self { guard: guard.spawn()? })
    }

    fn id(&self) -> Result<i32> {
        Ok(i32::try_from(self.guard.id())?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // Err: it has ended already.
        let _ = self.guard.wait();
    }
}

/// A program that has been started.
pub(crate) struct Running {
    program: Program,
    process: Child,
    /// When it is started again, if it has ended.
    again: Option<Instant>,
}

/// Starts programs and returns when all are ready.
pub(crate) fn start(programs: impl IntoIterator<Item = Program>, group: &Group) -> Result<Vec<Running>> {
    let mut started = Vec::new();
    for program in programs {
        let (ready, told) = mpsc::channel();
        let process = program.spawn(group, ready)?;
        started.push((Running { program, process, again: None }, told));
    }
    let await_ready = |(running, told): (Running, Receiver<()>)| match told.recv_timeout(START_LIMIT) {
        Ok(()) => Ok(running),
        Err(_) => Err(format!("{} does not start", running.program.name).into()),
    };
    started.into_iter().map(await_ready).collect()
}

/// Starts again what ends, until this process is interrupted.
pub(crate) fn keep_up(programs: &mut [&mut Running], group: &Group) -> Result<()> {
    while !INTERRUPTED.load(Ordering::Relaxed) {
        for program in &mut *programs {
            program.keep_up(group)?;
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks programs to end, and waits for that.
pub(crate) fn stop(programs: &mut [Running]) -> Result<()> {
    for Running { process, .. } in &mut *programs {
        if process.try_wait()?.is_none() {
            Command::new("kill").args(["-TERM", &process.id().to_string()]).status()?;
        }
    }
    let give_up = Instant::now() + STOP_LIMIT;
    for Running { program, process, .. } in programs {
        while process.try_wait()?.is_none() {
            if Instant::now() > give_up {
                println!("{:7} | does not end, and is killed", program.name);
                process.kill()?;
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

impl Running {
    pub(crate) fn name(&self) -> &str {
        &self.program.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn keep_up(&mut self, group: &Group) -> Result<()> {
        match self.again {
            None => {
                if let Some(status) = self.process.try_wait()? {
                    let seconds = MISSING.as_secs();
                    println!("{:7} | has ended ({status}), and starts again in {seconds} s", self.name());
                    self.again = Some(Instant::now() + MISSING);
                }
            }
            Some(due) if Instant::now() >= due => {
                // Nobody waits for it this time.
                self.process = self.program.spawn(group, mpsc::channel().0)?;
                self.again = None;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl Program {
    fn spawn(&self, group: &Group, ready: Sender<()>) -> Result<Child> {
        let (output, input) = std::io::pipe()?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).process_group(group.id()?).stdin(Stdio::null());
        let process = command.stdout(input.try_clone()?).stderr(input).spawn();
        let process = process.map_err(|error| format!("{} does not start: {error}", self.path.display()))?;
        let (name, is_ready, pid) = (self.name.clone(), self.ready, process.id());
        thread::spawn(move || pass_on(&format!("{name:7} |"), output, is_ready, pid, &ready));
        Ok(process)
    }
}

/// Prints what a program says from when it is ready on, or everything if it never is.
fn pass_on(prefix: &str, output: PipeReader, is_ready: &str, pid: u32, ready: &Sender<()>) {
    let mut before = Some(Vec::new());
    for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
        match &mut before {
            Some(_) if line.contains(is_ready) => {
                println!("{prefix} is ready, process {pid}");
                before = None;
                // Err: nobody waits for it.
                let _ = ready.send(());
            }
            Some(lines) => lines.push(line),
            None => println!("{prefix} {line}"),
        }
    }
    for line in before.into_iter().flatten() {
        println!("{prefix} {line}");
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP end [`keep_up`] instead of this process.
#[allow(unsafe_code, reason = "the standard library has no way to take a signal")]
pub(crate) fn take_interrupts() {
    /// POSIX, and the same on all systems.
    const SIGNALS: [i32; 3] = [1, 2, 15];
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }
    extern "C" fn note(_: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for number in SIGNALS {
        // SAFETY: this is the signal(2) of the C library that Rust's own stands on, and storing into an atomic is all that the handler does.
        unsafe { signal(number, note) };
    }
}
