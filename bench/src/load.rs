//! The load generator: each connection repeats its work as soon as it is done, or work is due at a fixed
//! rate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::Connection;
use crate::latencies::Latencies;

/// The requests that a connection sends, each when the one before is answered. The work succeeds only if all
/// do.
pub(crate) type Work = Vec<Arc<[u8]>>;

/// The answers to some work.
#[derive(Default)]
pub(crate) struct Answers {
    /// The latencies of the work that succeeded: from the first byte sent, or from the moment when the work
    /// was due, to the last byte read.
    pub(crate) latencies: Latencies,
    /// The number of pieces of work that failed, because a request was not answered with 2xx.
    pub(crate) errors: u64,
    /// The number of those that were refused with the time to wait before another try.
    pub(crate) refused: u64,
    /// The first answer that was not 2xx.
    pub(crate) first_error: Option<String>,
}

impl Answers {
    /// Adds the outcome of work that began at a moment, or was due then. `refusal`: the answer that was not
    /// 2xx.
    fn add(&mut self, begun: Instant, refusal: Option<String>) {
        match refusal {
            None => self.latencies.add(begun.elapsed()),
            Some(reply) => {
                self.errors += 1;
                self.refused += u64::from(says_when_to_retry(&reply));
                self.first_error.get_or_insert(reply);
            }
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.latencies.add_all(&other.latencies);
        self.errors += other.errors;
        self.refused += other.refused;
        self.first_error = self.first_error.or(other.first_error);
        self
    }

    pub(crate) fn show_first_error(&self) {
        if let Some(reply) = &self.first_error {
            eprintln!("the first of {} errors: {reply}", self.errors);
        }
    }
}

/// Makes each of `connections` connections do one piece of `work` after another for `duration`.
///
/// One thread serves all connections: on a small machine the generator must not crowd out what it measures.
pub(crate) fn run(
    address: SocketAddr,
    connections: usize,
    duration: Duration,
    work: impl Fn(usize) -> Work + Clone + Send + 'static,
) -> io::Result<Answers> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let until = Instant::now() + duration;
        let mut running = JoinSet::new();
        for connection in 0..connections {
            let work = work.clone();
            running.spawn(repeat(address, until, move || work(connection)));
        }
        let mut all = Answers::default();
        while let Some(answers) = running.join_next().await {
            all = all.and(answers??);
        }
        Ok(all)
    })
}

async fn repeat(address: SocketAddr, until: Instant, work: impl Fn() -> Work) -> io::Result<Answers> {
    let mut connection = Connection::open(address).await?;
    let mut answers = Answers::default();
    while Instant::now() < until {
        let work = work();
        let sent = Instant::now();
        answers.add(sent, refusal(&mut connection, &work).await?);
    }
    Ok(answers)
}

/// The rate at which work is due, whether or not earlier work is done.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: u32,
    pub(crate) seconds: u32,
}

/// Does work at a pace. If all `connections` wait for an answer when work is due, its latency includes the
/// delay. A connection that breaks counts as an error and is replaced.
pub(crate) fn run_at(
    address: SocketAddr,
    connections: usize,
    pace: Pace,
    work: impl Fn() -> Work + Clone + Send + 'static,
) -> io::Result<Answers> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (begun, next) = (Instant::now(), Arc::new(AtomicU32::new(0)));
        let mut running = JoinSet::new();
        for _ in 0..connections {
            running.spawn(keep_pace(address, (begun, pace), next.clone(), work.clone()));
        }
        let mut all = Answers::default();
        while let Some(answers) = running.join_next().await {
            all = all.and(answers??);
        }
        Ok(all)
    })
}

async fn keep_pace(
    address: SocketAddr,
    (begun, pace): (Instant, Pace),
    next: Arc<AtomicU32>,
    work: impl Fn() -> Work,
) -> io::Result<Answers> {
    let mut connection = Connection::open(address).await?;
    let mut answers = Answers::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= pace.per_second * pace.seconds {
            return Ok(answers);
        }
        let due = begun + Duration::from_secs(number.into()) / pace.per_second;
        tokio::time::sleep_until(due.into()).await;
        match refusal(&mut connection, &work()).await {
            Ok(refusal) => answers.add(due, refusal),
            Err(error) => {
                answers.add(due, Some(error.to_string()));
                connection = Connection::open(address).await?;
            }
        }
    }
}

/// Returns whether a reply is a refusal because of too much load.
fn says_when_to_retry(reply: &str) -> bool {
    ["HTTP/1.1 429", "HTTP/1.1 503"].iter().any(|status| reply.starts_with(status))
        && reply.to_ascii_lowercase().contains("\r\nretry-after:")
}

/// Sends one request after another until one is not answered with 2xx. Returns that answer, or `None` if all
/// are.
async fn refusal(connection: &mut Connection, work: &Work) -> io::Result<Option<String>> {
    for request in work {
        let status = connection.exchange(request).await?;
        if !(200..300).contains(&status) {
            return Ok(Some(connection.last_reply()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::http::request;

    /// Runs work at a pace over one connection at a time to a server that takes `pause` for each answer, and
    /// closes the connection after `answers` answers.
    fn at_a_pace(pace: Pace, pause: Duration, answers: usize) -> Answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for _ in 0..answers {
                    // Each request comes in one piece.
                    if stream.read(&mut [0; 1_024]).unwrap() == 0 {
                        break;
                    }
                    thread::sleep(pause);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            }
        });
        run_at(address, 1, pace, || vec![request("GET", "/", "")]).unwrap()
    }

    #[test]
    fn the_wait_for_a_free_connection_is_part_of_the_latency() {
        let answers = at_a_pace(Pace { per_second: 50, seconds: 1 }, Duration::from_millis(30), usize::MAX);
        assert_eq!((answers.latencies.count(), answers.errors), (50, 0));
        // The last one is due after 980 ms, and the server needs 1,500 for all.
        let longest = answers.latencies.quantile_us(1.0);
        assert!(longest >= 520_000, "{longest}");
    }

    #[test]
    fn a_refusal_says_when_to_retry() {
        for (reply, expected) in [
            ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            ("HTTP/1.1 500 Internal Server Error\r\nretry-after: 1\r\n\r\n", false),
        ] {
            assert_eq!(says_when_to_retry(reply), expected, "{reply}");
        }
    }

    #[test]
    fn a_connection_that_breaks_is_an_error_and_the_load_goes_on() {
        let answers = at_a_pace(Pace { per_second: 50, seconds: 1 }, Duration::ZERO, 4);
        assert_eq!((answers.latencies.count(), answers.errors), (40, 10));
    }
}
