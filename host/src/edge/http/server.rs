//! Connections: accept, limits, and their end at a shutdown.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::listen::{Connection, Door, Listeners};
use super::peer::Peer;
use super::tls::{HTTP_2, Tls};
use super::{HostContext, HttpServer, RouteError};
use crate::error::Chain;

/// The pause after a failed accept. Such failures are a lack of file descriptors or memory; another attempt
/// would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Maximum number of open connections to a listener of the operators: some programs and people.
const ADMIN_CONNECTIONS: usize = 256;
/// Maximum number of requests in flight on one connection of HTTP/2. A browser sends a hundred at once.
const HTTP_2_STREAMS: u32 = 128;
/// The time after which a silent connection of HTTP/2 is asked for a sign of life, and the time to answer.
const HTTP_2_PING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));

/// The connections to one listener.
struct Reception {
    door: Door,
    server: Arc<HttpServer>,
    /// Maximum number of open connections.
    most: usize,
    /// A permit is held for as long as its connection is open, so holding all of them means that all are
    /// closed.
    open: Arc<Semaphore>,
}

/// The protocol of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

/// Serves HTTP until `shutdown` resolves. Then it accepts no new connection, ends event streams and waits for
/// sagas at once, lets requests in flight finish (for at most [`drain`](super::HttpLimits::drain)) and
/// returns.
///
/// Fails only at the start, if the routes of the deployed services conflict.
pub async fn serve(
    listeners: Listeners,
    host: Arc<HostContext>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RouteError> {
    let (stop, stopping) = watch::channel(false);
    let mut receptions = Vec::new();
    for door in listeners.doors {
        let most = if door.is_admin { ADMIN_CONNECTIONS } else { host.limits.connections };
        let server = Arc::new(HttpServer::new(host.clone(), door.routes, stopping.clone())?);
        receptions.push(Reception { door, server, most, open: Arc::new(Semaphore::new(most)) });
    }
    let mut receiving: JoinSet<()> = receptions.into_iter().map(Reception::receive).collect();
    let reloading = listeners.tls.map(|tls| tokio::spawn(tls.reload()));
    shutdown.await;
    stop.send_replace(true);
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    while receiving.join_next().await.is_some() {}
    Ok(())
}

impl Reception {
    /// Accepts connections until the host shuts down, and waits until they are closed.
    async fn receive(self) {
        let mut stop = pin!(self.server.stopped());
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.accept() => match accepted {
                    Ok((connection, peer, permit)) => {
                        let (tls, server) = (self.door.tls.clone(), self.server.clone());
                        tokio::spawn(async move {
                            let _permit = permit;
                            serve_connection(connection, tls, peer, server).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(error = %Chain(&error), "failed to accept a connection; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        let Self { door, server, most, open } = self;
        // Closes the listener.
        drop(door);
        let closed = open.acquire_many(u32::try_from(most).unwrap_or(u32::MAX));
        if tokio::time::timeout(server.host.limits.drain, closed).await.is_err() {
            let left = most.saturating_sub(open.available_permits());
            tracing::warn!(left, "requests did not end in time; their connections are dropped");
        }
    }

    /// Cancel-safe: without an accepted connection the permit goes back.
    async fn accept(&self) -> io::Result<(Connection, Peer, OwnedSemaphorePermit)> {
        let permit = self.open.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (connection, peer) = self.door.accept().await?;
        Ok((connection, peer, permit))
    }
}

async fn serve_connection(
    connection: Connection,
    tls: Option<Arc<Tls>>,
    peer: Peer,
    server: Arc<HttpServer>,
) {
    let ended = match (connection, tls) {
        (Connection::Unix(stream), _) => answer_all(stream, Protocol::Http1, peer, server).await,
        (Connection::Tcp(stream), None) => answer_all(stream, Protocol::Http1, peer, server).await,
        (Connection::Tcp(stream), Some(tls)) => match tls.accept(stream).await {
            Ok((stream, subject)) => {
                let http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
                let protocol = if http_2 { Protocol::Http2 } else { Protocol::Http1 };
                answer_all(stream, protocol, peer.over_tls(subject), server).await
            }
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Chain(&*error), "a connection ended early");
    }
}

/// Answers the requests of one connection.
async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    protocol: Protocol,
    peer: Peer,
    server: Arc<HttpServer>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let header_read = server.host.limits.header_read;
    let stopped = server.stopped();
    let (request, requests) = watch::channel(());
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(server.host.limits.write));
    let stream = TokioIo::new(Box::pin(stream));
    let service = service_fn(move |received: hyper::Request<hyper::body::Incoming>| {
        if protocol == Protocol::Http2 {
            request.send_replace(());
        }
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.answer(received.map(Body::new), peer).await) }
    });
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // A client may close its side once it has sent a request.
            builder.timer(TokioTimer::new()).header_read_timeout(header_read).half_close(true);
            serve_until(builder.serve_connection(stream, service), stopped).await?;
        }
        Protocol::Http2 => {
            let (ping, answer) = HTTP_2_PING;
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(HTTP_2_STREAMS)
                .keep_alive_interval(ping)
                .keep_alive_timeout(answer);
            let end = async {
                tokio::select! {
                    () = stopped => {}
                    // HTTP/1.1 has the time limit of a head.
                    () = idle(requests, header_read) => {}
                }
            };
            serve_until(builder.serve_connection(stream, service), end).await?;
        }
    }
    Ok(())
}

/// Serves a connection until it ends, or until `end` resolves: then requests in flight are answered first.
async fn serve_until<C: GracefulConnection>(
    connection: C,
    end: impl Future<Output = ()>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Resolves when no request has begun for the whole of `limit`.
async fn idle(mut requests: watch::Receiver<()>, limit: Duration) {
    // Err: the service is gone, and the connection with it.
    while let Ok(Ok(())) = tokio::time::timeout(limit, requests.changed()).await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_no_request_begins_for_the_limit() {
        const LIMIT: Duration = Duration::from_secs(75);
        let (request, requests) = watch::channel(());
        let mut idle = pin!(idle(requests, LIMIT));
        for _ in 0..3 {
            let almost = LIMIT - Duration::from_secs(1);
            assert!(tokio::time::timeout(almost, idle.as_mut()).await.is_err());
            request.send_replace(());
        }
        assert!(tokio::time::timeout(LIMIT + Duration::from_secs(1), idle).await.is_ok());
    }
}
