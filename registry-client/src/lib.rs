//! Every endpoint of the distribution-spec as a client, and nothing else.
//!
//! A [`Client`] holds connections, tokens, limits and retries; a [`Repo`] is one repository through
//! it. Retries are here and only here. Blobs are *unverified*: the caller checks their digest.
//! Credentials go to the host they are stored for and, following a challenge over TLS, to the token
//! service that it names; never along redirects, upload locations or page links to another host.
//!
//! ```
//! use std::sync::Arc;
//!
//! use registry_client::{Client, Credential, Options};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! let registry = registry_server::Registry::start(registry_server::Options::default())?;
//! registry.put_image("team/app", "1", &[b"layer"])?;
//!
//! let keychain = Arc::new(Credential::Anonymous);
//! let client = Client::new(Options { keychain, ..Options::default() })?;
//! let name = format!("{}/team/app:1", registry.address()).parse::<image::Reference>()?;
//! let repo = client.repo(&name.repository);
//! assert!(repo.has_blob(image::Digest::of(b"layer")).await?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod auth;
mod call;
mod client;
mod connect;
mod download;
mod error;
mod feed;
mod follow;
mod hosts;
mod inner;
mod journal;
mod limit;
mod manifest;
mod options;
mod pace;
mod pages;
mod parameters;
mod pinned;
mod proxy;
mod quirks;
mod referrers;
mod registries;
mod repo;
mod request;
mod resume;
mod retry;
mod routes;
mod secure;
mod sessions;
mod short_names;
mod target;
mod trouble;
mod upload;
mod wire;

pub use auth::{Anonymous, AuthFiles, Credential, CredentialOverride, Keychain};
pub use client::Client;
pub use download::{Download, DownloadResponse};
pub use error::{Error, Flaw, Result};
pub use hosts::{ClientIdentity, HostRule, Tls};
pub use journal::Resume;
pub use options::{Body, Options, Timeouts, Warn};
pub use pace::RateLimit;
pub use parameters::TlsParameters;
pub use proxy::Proxies;
pub use registries::Registries;
pub use repo::Repo;
pub use routes::{Mirror, MirrorPull, Route};
pub use secure::Secure;
pub use short_names::{
    Mode as ShortNameMode, NameResolution, ShortNames, remember as remember_short_name,
};
pub use target::Target;

/// Parsers of what registries send, for `fuzz/`.
#[cfg(fuzzing)]
pub mod fuzzing {
    use reqwest::header::{self, HeaderMap, HeaderValue};

    /// Reads a text as every header there is.
    pub fn headers(text: &str) {
        let _ = crate::auth::Challenge::parse(text);
        let Ok(value) = HeaderValue::from_str(text) else { return };
        for name in [
            header::LINK,
            header::CONTENT_RANGE,
            header::RANGE,
            header::RETRY_AFTER,
            header::WARNING,
        ] {
            let mut map = HeaderMap::new();
            map.insert(name, value.clone());
            let _ = crate::wire::next_link(&map);
            let _ = crate::wire::content_range(&map);
            let _ = crate::wire::upload_range(&map);
            let _ = crate::wire::retry_after(&map);
            let _ = crate::wire::warnings(&map);
        }
    }
}
