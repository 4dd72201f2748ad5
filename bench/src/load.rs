//! The load generator: each connection sends its request again as soon as it is answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::Connection;

/// What came back.
#[derive(Default)]
pub(crate) struct Answers {
    /// From the first byte sent to the last one read, in microseconds, of the requests answered with 2xx.
    pub(crate) latencies_us: Vec<u32>,
    /// Requests answered with anything else.
    pub(crate) errors: u64,
    /// The first of these answers.
    pub(crate) first_error: Option<String>,
}

impl Answers {
    fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// Sends `requests`, one a connection, again and again for as long as `duration` says.
///
/// One thread serves all connections: on a small machine the generator must not crowd out what it measures.
pub(crate) fn run(address: SocketAddr, requests: &[Arc<[u8]>], duration: Duration) -> io::Result<Answers> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let until = Instant::now() + duration;
        let mut connections = JoinSet::new();
        for request in requests {
            connections.spawn(repeat(address, request.clone(), until));
        }
        let mut all = Answers::default();
        while let Some(answers) = connections.join_next().await {
            all.add(answers??);
        }
        Ok(all)
    })
}

async fn repeat(address: SocketAddr, request: Arc<[u8]>, until: Instant) -> io::Result<Answers> {
    let mut connection = Connection::open(address).await?;
    let mut answers = Answers::default();
    let mut sent = Instant::now();
    while sent < until {
        let status = connection.exchange(&request).await?;
        let answered = Instant::now();
        if (200..300).contains(&status) {
            let took_us = (answered - sent).as_micros();
            answers.latencies_us.push(u32::try_from(took_us).unwrap_or(u32::MAX));
        } else {
            answers.errors += 1;
            answers.first_error.get_or_insert_with(|| connection.last_reply());
        }
        sent = answered;
    }
    Ok(answers)
}
