//! Programs that run side by side: each printed line begins with the name of its program, a program that ends
//! is started again, and none outlives this process.

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

/// Longer than a slow machine needs to start a host that compiles its components, or servers that elect a
/// leader.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longer than the time that a host gives requests in flight to end.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// The pause before a program that has ended is started again, long enough to see the others take over.
const MISSING: Duration = Duration::from_secs(15);
/// The interval at which ended programs and interrupts are noticed.
const LOOK: Duration = Duration::from_millis(100);

/// A program to run.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Part of the line that it prints when it is ready. Its earlier lines are printed only if it fails.
    pub(crate) ready: &'static str,
}

/// The process group of programs that end with this process, however it ends. It gets no keys from the
/// terminal.
pub(crate) struct Group {
    /// The leader of the group. It ends the group when its input closes, which it does with this process.
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
        // Err: the process has ended already.
        let _ = self.guard.wait();
    }
}

/// A program that has been started.
pub(crate) struct Running {
    program: Program,
    process: Child,
    /// The time to start it again. None: it runs.
    restart_at: Option<Instant>,
}

/// Starts programs, and returns once all are ready.
pub(crate) fn start(programs: impl IntoIterator<Item = Program>, group: &Group) -> Result<Vec<Running>> {
    let mut started = Vec::new();
    for program in programs {
        let (ready, is_ready) = mpsc::channel();
        let process = program.spawn(group, ready)?;
        started.push((Running { program, process, restart_at: None }, is_ready));
    }
    let await_ready = |(running, is_ready): (Running, Receiver<()>)| match is_ready.recv_timeout(START_LIMIT)
    {
        Ok(()) => Ok(running),
        Err(_) => Err(format!("{} does not start", running.program.name).into()),
    };
    started.into_iter().map(await_ready).collect()
}

/// Starts ended programs again, until this process is interrupted.
pub(crate) fn keep_up(programs: &mut [&mut Running], group: &Group) -> Result<()> {
    while !INTERRUPTED.load(Ordering::Relaxed) {
        for program in &mut *programs {
            program.keep_up(group)?;
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks programs to end, waits for it, and kills those that take longer than `STOP_LIMIT`.
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
                println!("{:7} | does not end; it is killed", program.name);
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
        match self.restart_at {
            None => {
                if let Some(status) = self.process.try_wait()? {
                    let seconds = MISSING.as_secs();
                    println!("{:7} | ended ({status}); it is started again in {seconds} s", self.name());
                    self.restart_at = Some(Instant::now() + MISSING);
                }
            }
            Some(due) if Instant::now() >= due => {
                // Err in the reader: the receiver is dropped, because nobody waits for a restart.
                self.process = self.program.spawn(group, mpsc::channel().0)?;
                self.restart_at = None;
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

/// Prints the lines of a program after it is ready, or all of them if it ends before.
fn pass_on(prefix: &str, output: PipeReader, is_ready: &str, pid: u32, ready: &Sender<()>) {
    let mut before = Some(Vec::new());
    for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
        match &mut before {
            Some(_) if line.contains(is_ready) => {
                println!("{prefix} is ready, process {pid}");
                before = None;
                // Err: nobody waits for the program.
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

/// Makes SIGINT, SIGTERM and SIGHUP end [`keep_up`] instead of this process.
#[allow(unsafe_code, reason = "the standard library has no way to take a signal")]
pub(crate) fn take_interrupts() {
    /// SIGHUP, SIGINT and SIGTERM, which have these numbers on all systems.
    const SIGNALS: [i32; 3] = [1, 2, 15];
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }
    extern "C" fn note(_: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for number in SIGNALS {
        // SAFETY: the declaration is that of signal(2) in the C library that the standard library links, and
        // the handler only stores into an atomic.
        unsafe { signal(number, note) };
    }
}
