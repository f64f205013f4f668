//! Connections: plain or TLS, HTTP/1.1 or HTTP/2 (over TLS by ALPN, else with prior knowledge).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::inner::RegistryInner;
use crate::{Error, Result};

/// How long the head of a request, and a TLS handshake, may take.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may read nothing of an answer.
const UNREAD: Duration = Duration::from_secs(120);
/// How long running requests may take after the server is stopped.
const DRAIN: Duration = Duration::from_secs(25);

/// A connection that can end with a reset.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
    /// When to give up a client that takes nothing.
    stalled: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Socket {
    /// Ends a wait of a client that reads nothing, sooner or later.
    fn bounded(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Serves connections until told to stop; then those that are open end their requests.
pub(crate) async fn accept(
    listener: TcpListener,
    shared: Arc<RegistryInner>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => match error.kind() {
                // One connection that broke before it began is no reason to stop.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => continue,
                // Too many open files: others will be closed.
                _ if matches!(error.raw_os_error(), Some(23 | 24)) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                _ => return Err(Error::Listen { port: 0, source: error }),
            },
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let (shared, tls, stop) = (Arc::clone(&shared), shared.rules().tls.clone(), stop.clone());
        connections.spawn(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let socket = Socket { stream, reset: Arc::clone(&reset), stalled: None };
            match tls {
                None => serve(socket, shared, client, reset, stop).await,
                Some(tls) => {
                    let shaken = tokio::time::timeout(HEAD, tls.accept(socket)).await;
                    if let Ok(Ok(socket)) = shaken {
                        serve(socket, shared, client, reset, stop).await;
                    }
                }
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("requests that did not end in time are cut off");
    }
    Ok(())
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    shared: Arc<RegistryInner>,
    client: SocketAddr,
    reset: Arc<AtomicBool>,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
        async move { shared.respond(request, client, &reset).await }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(HEAD);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
