//! Every endpoint of the distribution-spec as a client, and nothing else.
//!
//! A [`Client`] holds connections, tokens, limits and retries; a [`Repo`] is one repository
//! through it. Retries live here and only here. Blobs come *unverified*: whoever uses them checks
//! their digest. Credentials go to the host they are stored for and, following a challenge that
//! came over TLS, to the token service it names; never along redirects, upload locations or page
//! links to another host.

mod auth;
mod client;
mod connect;
mod download;
mod error;
mod feed;
mod follow;
mod hosts;
mod journal;
mod limit;
mod manifest;
mod pace;
mod pages;
mod pinned;
mod quirks;
mod referrers;
mod registries;
mod repo;
mod request;
mod resume;
mod retry;
mod routes;
mod short_names;
mod upload;
mod wire;

pub use auth::{Anonymous, Credential, Files, Keychain};
pub use client::{Body, Client, Download, Downloaded, Options, Timeouts, Warn};
pub use error::{Error, Result};
pub use hosts::{HostRule, Identity, Tls};
pub use journal::Resume;
pub use registries::Registries;
pub use repo::{Repo, Target};
pub use routes::{Mirror, MirrorPull, Route};
pub use short_names::{
    Meaning, Mode as ShortNameMode, ShortNames, remember as remember_short_name,
};
