//! HTTP clients, one per TLS policy, made when first needed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use reqwest::{Identity, redirect};
use url::Url;

use crate::hosts::{self, HostRule, Tls};
use crate::{Error, Options, Result, pinned};

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
pub(crate) struct Connections(Mutex<HashMap<Policy, reqwest::Client>>);

impl Connections {
    /// The client for a URL. The policy is that of the URL's host, whoever named it: a redirect
    /// from an unverified host to a verified one is verified.
    pub(crate) fn client(&self, options: &Options, url: &Url, own: Own) -> Result<reqwest::Client> {
        let policy = match url.scheme() {
            "http" => Policy::Plain,
            _ => {
                let Own { tls, rule } = own;
                let special =
                    |rule: &HostRule| rule.identity.is_some() || !rule.authorities.is_empty();
                let rule = rule.filter(|index| options.hosts.get(*index).is_some_and(special));
                Policy::Tls { verify: tls == Tls::Verify, rule }
            }
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&policy) {
            return Ok(client.clone());
        }
        let client = build(options, policy)?;
        clients.insert(policy, client.clone());
        Ok(client)
    }
}

/// The TLS policy of a URL's host.
#[derive(Clone, Copy)]
pub(crate) struct Own {
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

/// What the rules say of a host that a registry pointed at.
pub(crate) fn policy_of(options: &Options, url: &Url) -> Own {
    let authority = authority_of(url);
    let rule = hosts::rule_for(&options.hosts, &authority);
    let tls = rule.and_then(|(_, rule)| rule.tls).unwrap_or(hosts::default_tls(&authority));
    Own { tls, rule: rule.map(|(index, _)| index) }
}

fn build(options: &Options, policy: Policy) -> Result<reqwest::Client> {
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
    if !options.system_proxy {
        builder = builder.no_proxy();
    }
    let unusable = |what: &str, reason: String| Error::Configuration {
        action: format!("setting up the {what}"),
        reason,
    };
    let rule = match policy {
        Policy::Plain => None,
        Policy::Tls { rule, .. } => rule.and_then(|index| options.hosts.get(index)),
    };
    builder = match (policy, rule) {
        (Policy::Tls { verify: true, .. }, Some(rule)) => {
            let config = pinned::config(rule)
                .map_err(|reason| unusable(&format!("TLS for {}", rule.prefix), reason))?;
            builder.tls_backend_preconfigured(config)
        }
        (Policy::Tls { verify, .. }, _) => builder.tls_danger_accept_invalid_certs(!verify),
        (Policy::Plain, _) => builder.tls_danger_accept_invalid_certs(true),
    };
    // Without verification, a certificate of our own may still be asked for.
    if let (Policy::Tls { verify: false, .. }, Some(rule)) = (policy, rule)
        && let Some(identity) = &rule.identity
    {
        let pem = [identity.certificate.as_slice(), b"\n", &identity.key].concat();
        builder = builder.identity(Identity::from_pem(&pem).map_err(|error| {
            let reason = task::chain(&error).join(": ");
            unusable(&format!("client certificate for {}", rule.prefix), reason)
        })?);
    }
    builder.build().map_err(|error| unusable("HTTP client", task::chain(&error).join(": ")))
}
