//! HTTP clients, one per TLS policy, made when first needed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::redirect;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use url::Url;

use crate::hosts::{self, HostRule, Tls};
use crate::{Error, Options, Result, Secure, pinned, trouble};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Policy {
    /// For `http:` only; knows no certificates, which saves reading the system's.
    Plain,
    Tls {
        verify: bool,
        rule: Option<usize>,
    },
}

/// The HTTP clients in use.
#[derive(Default)]
pub(crate) struct Connections {
    clients: Mutex<HashMap<Policy, reqwest::Client>>,
    /// Whether any server has asked for a certificate that we do not have.
    asked: Arc<AtomicBool>,
}

impl Connections {
    /// The client for a URL. The policy is that of the URL's host, whatever named it: a redirect
    /// from an unverified host to a verified one is verified.
    pub(crate) fn client(
        &self,
        options: &Options,
        url: &Url,
        own: HostTls,
    ) -> Result<reqwest::Client> {
        let policy = match url.scheme() {
            "http" => Policy::Plain,
            _ => {
                let HostTls { tls, rule } = own;
                let special =
                    |rule: &HostRule| rule.identity.is_some() || !rule.authorities.is_empty();
                let rule = rule.filter(|index| options.hosts.get(*index).is_some_and(special));
                Policy::Tls { verify: tls == Tls::Verify, rule }
            }
        };
        options.proxies.of(url)?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&policy) {
            return Ok(client.clone());
        }
        let client = build(options, policy, &self.asked)?;
        clients.insert(policy, client.clone());
        Ok(client)
    }

    /// Whether a URL's host closes the connection because it wants a certificate of ours. With TLS
    /// 1.3 it says so after the handshake, when a request is under way that only sees the end of
    /// the connection; so this makes one without a request.
    pub(crate) async fn lacks_certificate(
        &self,
        options: &Options,
        url: &Url,
        tls: HostTls,
    ) -> bool {
        if url.scheme() != "https" || !self.asked.load(Ordering::Relaxed) {
            return false;
        }
        let none = HostRule::default();
        let rule = tls.rule.and_then(|index| options.hosts.get(index)).unwrap_or(&none);
        let Ok(secure) = Secure::new(&HostRule { tls: Some(tls.tls), ..rule.clone() }) else {
            return false;
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return false;
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ending = async {
            let stream = TcpStream::connect((host, port)).await?;
            let mut stream = secure.connect(host, stream).await?;
            stream.read_u8().await
        };
        match tokio::time::timeout(options.timeouts.connect, ending).await {
            Ok(Err(error)) => trouble::is_about_our_certificate(&error),
            _ => false,
        }
    }
}

/// The TLS policy of a URL's host.
#[derive(Clone, Copy)]
pub(crate) struct HostTls {
    pub(crate) tls: Tls,
    pub(crate) rule: Option<usize>,
}

/// `host[:port]` of a URL, as registries are named.
pub(crate) fn authority_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// Whether two URLs are of the same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// What the rules say of a host that a registry pointed at.
pub(crate) fn policy_of(options: &Options, url: &Url) -> HostTls {
    let authority = authority_of(url);
    let rule = hosts::rule_for(&options.hosts, &authority);
    let tls = hosts::tls_of(rule.map(|(_, rule)| rule), &authority);
    HostTls { tls, rule: rule.map(|(index, _)| index) }
}

fn build(options: &Options, policy: Policy, asked: &Arc<AtomicBool>) -> Result<reqwest::Client> {
    // The first provider installed in a process stays; ours or another's serves alike.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(&options.user_agent)
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .retry(reqwest::retry::never())
        .connect_timeout(options.timeouts.connect)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(2 << 20)
        .http2_initial_connection_window_size(8 << 20)
        .http2_max_header_list_size(64 << 10);
    let proxies = options.proxies.clone();
    let through = move |url: &Url| proxies.of(url).ok().flatten().cloned();
    builder = builder.no_proxy().proxy(reqwest::Proxy::custom(through));
    let unusable = |what: &str, reason: String| Error::Configuration {
        action: format!("setting up the {what}"),
        reason,
    };
    let rule = match policy {
        Policy::Plain => None,
        Policy::Tls { rule, .. } => rule.and_then(|index| options.hosts.get(index)),
    };
    let config = |made: Result<rustls::ClientConfig, String>| {
        let whose = rule.map(|rule| format!(" for {}", rule.prefix)).unwrap_or_default();
        made.map_err(|reason| unusable(&format!("TLS{whose}"), reason))
    };
    let none = HostRule::default();
    builder = match policy {
        Policy::Tls { verify: true, .. } => {
            builder.tls_backend_preconfigured(config(pinned::config(rule.unwrap_or(&none), asked))?)
        }
        Policy::Tls { verify: false, .. } => builder
            .tls_backend_preconfigured(config(pinned::unverified(rule.unwrap_or(&none), asked))?),
        Policy::Plain => builder.tls_danger_accept_invalid_certs(true),
    };
    builder.build().map_err(|error| unusable("HTTP client", task::chain(&error).join(": ")))
}
