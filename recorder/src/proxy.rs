//! The HTTP of the proxy: requests with whole URLs, and tunnels that it sees into.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::body::{self, Body};
use crate::session::{SessionInner, plain};

/// The most that a command may send with one request.
const MOST_SENT: usize = 64 << 20;

/// Takes connections until it is dropped.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<SessionInner>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(TokioIo::new(stream), None, Arc::clone(&shared)));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the recording proxy is lost");
                tokio::task::yield_now().await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection. `base` is the server that it leads to if it is a tunnel.
fn serve<I>(
    io: I,
    base: Option<String>,
    shared: Arc<SessionInner>,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (base, shared) = (base.clone(), Arc::clone(&shared));
        async move { Ok::<_, Infallible>(answer(request, base.as_deref(), &shared).await) }
    });
    Box::pin(async move {
        let serving = http1::Builder::new().serve_connection(io, service).with_upgrades();
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection to the recording proxy ends");
        }
    })
}

async fn answer(
    mut request: Request<Incoming>,
    base: Option<&str>,
    shared: &Arc<SessionInner>,
) -> Response<Body> {
    if request.method() == Method::CONNECT {
        let upgrade = hyper::upgrade::on(&mut request);
        return match (base, request.uri().authority()) {
            (None, Some(authority)) => {
                let authority = authority.to_string();
                tokio::spawn(tunnel(upgrade, authority, Arc::clone(shared)));
                Response::new(body::full(""))
            }
            _ => plain(StatusCode::BAD_REQUEST, "a tunnel leads to one server\n".to_owned()),
        };
    }
    let Some(url) = target(request.uri(), base) else {
        let text = "a request to a proxy has a whole URL with the scheme http\n".to_owned();
        return plain(StatusCode::BAD_REQUEST, text);
    };
    let (parts, body) = request.into_parts();
    match Limited::new(body, MOST_SENT).collect().await {
        Ok(sent) => shared.answer(parts, url, sent.to_bytes()).await,
        Err(_) => {
            let why = "sends more than 64 MiB, which is not recorded";
            shared.refuse(parts.method.as_str(), url.as_str(), why)
        }
    }
}

fn target(uri: &Uri, base: Option<&str>) -> Option<Url> {
    let text = match base {
        Some(base) => {
            format!("https://{base}{}", uri.path_and_query().map_or("/", |path| path.as_str()))
        }
        None => uri.to_string(),
    };
    Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// Is the server at the end of a tunnel.
async fn tunnel(upgrade: OnUpgrade, authority: String, shared: Arc<SessionInner>) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, authority, "a tunnel is not opened"),
    };
    let host = authority.rsplit_once(':').map_or(&*authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let config = match shared.server(host) {
        Ok(config) => config,
        Err(error) => {
            shared.refuse("CONNECT", &format!("https://{authority}/"), &error.to_string());
            return;
        }
    };
    match TlsAcceptor::from(config).accept(TokioIo::new(upgraded)).await {
        Ok(stream) => serve(TokioIo::new(stream), Some(authority), shared).await,
        Err(error) => {
            let why = format!("is no TLS that trusts the recording proxy: {error}");
            shared.refuse("CONNECT", &format!("https://{authority}/"), &why);
        }
    }
}
