use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use image::Repository;
use reqwest::Method;

use crate::auth::{Access, Scope};
use crate::connect::Connections;
use crate::limit::Hosts;
use crate::request::{Call, Where};
use crate::upload::Sessions;
use crate::{
    Anonymous, Credential, Error, HostRule, Keychain, Repo, Result, Resume, Route, download, pages,
};

/// Bytes on their way. Dropping it stops the transfer.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Hears a line of text.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// How a [`Client`] behaves.
#[derive(Clone)]
pub struct Options {
    /// Where credentials come from.
    pub keychain: Arc<dyn Keychain>,
    /// How registries are reached.
    pub hosts: Vec<HostRule>,
    /// Where names lead: mirrors, other locations, nowhere.
    pub routes: Vec<Route>,
    /// The `User-Agent` sent.
    pub user_agent: String,
    /// How often a request that failed for a passing reason is made again.
    pub retries: u32,
    /// Downloads, uploads and other requests (each counted by itself) at once to one host.
    pub concurrency: usize,
    /// How large uploads that were interrupted are gone on with, if they are.
    pub resume: Option<Resume>,
    /// Hears what registries warn of, each text once.
    pub warn: Option<Warn>,
    /// When to stop waiting.
    pub timeouts: Timeouts,
    /// The first pause before a retry; doubles each time, with jitter.
    pub backoff: Duration,
    /// Whether the proxies that the environment names are used.
    pub system_proxy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            keychain: Arc::new(Anonymous),
            hosts: Vec::new(),
            routes: Vec::new(),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            retries: 5,
            concurrency: 6,
            resume: None,
            warn: None,
            timeouts: Timeouts::default(),
            backoff: Duration::from_millis(200),
            system_proxy: true,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// When to stop waiting. Every wait of the client is bounded by one of these.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From a request sent to the complete head of its answer.
    pub first_byte: Duration,
    /// For a stream that gives (or takes) next to nothing.
    pub stall: Duration,
    /// From the last byte of an upload to the answer.
    pub commit: Duration,
    /// For a whole document.
    pub document: Duration,
    /// The longest pause a registry can ask for with `Retry-After`.
    pub pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(20),
            stall: Duration::from_secs(20),
            commit: Duration::from_secs(300),
            document: Duration::from_secs(40),
            pause: Duration::from_secs(60),
        }
    }
}

/// One per process: connections, tokens, limits, retries. Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) connections: Connections,
    pub(crate) hosts: Hosts,
    pub(crate) sessions: Sessions,
    /// The warnings passed on.
    pub(crate) told: Mutex<HashSet<String>>,
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// When the options contradict themselves.
    pub fn new(options: Options) -> Result<Client> {
        Ok(Client(Arc::new(Inner {
            options,
            connections: Connections::default(),
            hosts: Hosts::default(),
            sessions: Sessions::default(),
            told: Mutex::default(),
        })))
    }

    /// A repository to work with.
    pub fn repo(&self, repository: &Repository) -> Repo {
        Repo::new(self.clone(), repository.clone())
    }

    /// All repositories of a registry that offers a catalog, in its order.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn catalog(&self, registry: &str) -> Result<Vec<String>> {
        let endpoint = self.0.registry_endpoint(registry)?;
        if !endpoint.host.quirk.catalog {
            return Err(Error::NoCatalog { registry: endpoint.host.quirk.name.to_owned() });
        }
        pages::catalog(&self.0, &endpoint).await
    }

    /// Whether the registry is there and speaks the protocol.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn ping(&self, registry: &str) -> Result<()> {
        let endpoint = self.0.registry_endpoint(registry)?;
        let action = format!("asking {registry} whether it is a registry");
        let to = Where::Path("/v2/".into());
        self.0
            .send(&endpoint, &Call::new(Method::GET, to, Scope::new(Access::Any, ""), action))
            .await?;
        Ok(())
    }

    /// Whether the registry takes this credential (`login`).
    ///
    /// # Errors
    /// [`Error::Denied`] if not; others of the registry.
    pub async fn check(&self, registry: &str, credential: &Credential) -> Result<()> {
        let keychain = Arc::new(credential.clone());
        let client = Client::new(Options { keychain, ..self.0.options.clone() })?;
        client.ping(registry).await
    }

    /// Downloads any http or https URL under this client's rules (`ADD`): bounded waits,
    /// redirects, retries, resumption.
    ///
    /// # Errors
    /// Of the server.
    pub async fn download(&self, request: &Download) -> Result<Downloaded> {
        download::url(&self.0, request).await
    }
}

/// A plain URL to download.
#[derive(Debug, Clone, Default)]
pub struct Download {
    /// The URL, http or https.
    pub url: String,
    /// The `Authorization` header; only ever sent to the URL's own host.
    pub authorization: Option<String>,
    /// The ETag of what is there already: [`Downloaded::body`] is `None` if nothing changed.
    pub etag: Option<String>,
}

/// What came of a [`Download`].
pub struct Downloaded {
    /// The bytes; `None` when the server says that the `etag` asked about is still current.
    pub body: Option<Body>,
    /// The length in bytes, where the server says.
    pub size: Option<u64>,
    /// The `ETag`.
    pub etag: Option<String>,
    /// The `Last-Modified` header, in seconds since 1970.
    pub last_modified: Option<u64>,
    /// The URL after redirects.
    pub url: String,
}
