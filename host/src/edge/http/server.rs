//! Connections: accept, limits, and their end at a shutdown.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{HostContext, HttpServer, RouteError, stopped};
use crate::error::Chain;

/// The pause after a failed accept. Such failures are a lack of file descriptors or memory; another attempt
/// would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves HTTP until `shutdown` resolves. Then it accepts no new connection, ends event streams and waits for
/// sagas at once, lets requests in flight finish (for at most [`drain`](super::HttpLimits::drain)) and
/// returns.
///
/// Fails only at the start, if the routes of the deployed services conflict.
pub async fn serve(
    listener: TcpListener,
    host: Arc<HostContext>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RouteError> {
    let limits = host.limits.clone();
    let (stop, stopping) = watch::channel(false);
    let server = Arc::new(HttpServer::new(host, stopping.clone())?);
    // A permit is held for as long as its connection is open, so holding all of them means that all are
    // closed.
    let open = Arc::new(Semaphore::new(limits.connections));
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &open) => match accepted {
                Ok((stream, permit)) => {
                    tokio::spawn(connection(stream, permit, server.clone(), stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "failed to accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(limits.drain, open.acquire_many(all)).await.is_err() {
        let left = limits.connections - open.available_permits();
        tracing::warn!(left, "requests did not end in time; their connections are dropped");
    }
    Ok(())
}

/// Cancel-safe: without an accepted connection the permit goes back.
async fn accept(
    listener: &TcpListener,
    open: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = open.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Replies are written whole: waiting for more would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    server: Arc<HttpServer>,
    stopping: watch::Receiver<bool>,
) {
    let header_read = server.host.limits.header_read;
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request.map(Body::new)).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_read)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Chain(&error), "a connection ended early");
    }
}
