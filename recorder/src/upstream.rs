//! The way out of the proxy: what commands without it could reach, and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{NoProxy, Proxy, redirect};
use url::Url;

use crate::{Error, Result};

/// How long a server may take to answer, and to send the next piece.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the requests of a command may go.
#[derive(Debug, Clone)]
pub(crate) struct EgressPolicy {
    /// Names that mean these addresses.
    pub(crate) hosts: Vec<(String, IpAddr)>,
    /// The address that stands for the loopback of this machine, if that may be reached.
    pub(crate) machine: Option<IpAddr>,
    /// Whether an address may be reached.
    pub(crate) reaches: fn(IpAddr) -> bool,
}

impl EgressPolicy {
    fn target(&self, address: IpAddr) -> Option<IpAddr> {
        if self.machine == Some(address) {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        (self.reaches)(address).then_some(address)
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let given = self.hosts.iter().filter(|(host, _)| host.eq_ignore_ascii_case(name));
        let mut found: Vec<IpAddr> = given.map(|(_, address)| *address).collect();
        if found.is_empty() {
            let all = tokio::net::lookup_host((name, 0)).await?;
            found = all.map(|address| address.ip()).collect();
        }
        let targets = found.into_iter().filter_map(|address| self.target(address));
        let targets: Vec<_> = targets.map(|address| SocketAddr::new(address, 0)).collect();
        match targets.is_empty() {
            true => Err(io::Error::other("commands must not reach its address")),
            false => Ok(targets),
        }
    }
}

struct Resolver(Arc<EgressPolicy>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let way = Arc::clone(&self.0);
        Box::pin(async move {
            let found = way.resolve(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What sends requests on.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: reqwest::Client,
    policy: Arc<EgressPolicy>,
}

impl Upstream {
    /// `proxies` are the variables that name the proxies to use.
    pub(crate) fn new(
        policy: EgressPolicy,
        proxies: &BTreeMap<String, String>,
    ) -> Result<Upstream> {
        // The first one installed in the process stays; either way there is one then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let way = Arc::new(policy);
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .http1_only()
            .http1_title_case_headers()
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .dns_resolver(Arc::new(Resolver(Arc::clone(&way))));
        let value = |lower: &str| {
            let upper = lower.to_ascii_uppercase();
            proxies.get(lower).or_else(|| proxies.get(&upper)).filter(|value| !value.is_empty())
        };
        let except = value("no_proxy").and_then(|list| NoProxy::from_string(list));
        type Make = fn(&str) -> reqwest::Result<Proxy>;
        let kinds: [(&str, Make); 3] = [
            ("http_proxy", |url| Proxy::http(url)),
            ("https_proxy", |url| Proxy::https(url)),
            ("all_proxy", |url| Proxy::all(url)),
        ];
        for (name, make) in kinds {
            let Some(url) = value(name) else { continue };
            let proxy = make(url).map_err(|error| Error::setup(format!("{name}: {error}")))?;
            client = client.proxy(proxy.no_proxy(except.clone()));
        }
        Ok(Upstream { client: client.build().map_err(Error::setup)?, policy: way })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, String> {
        let mut url = url.clone();
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = literal {
            let target = self.policy.target(address);
            let target = target.ok_or("commands must not reach its address")?;
            let _ = url.set_ip_host(target);
        }
        let request = self.client.request(method, url).headers(headers).body(body);
        request.send().await.map_err(|error| {
            let mut text = String::new();
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                text = error.to_string();
                cause = error.source();
            }
            text
        })
    }
}
