//! Registries that repositories are fetched from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use image::Repository;
use registry_client::{Client, Credential, HostRule, Proxies, Repo};

use crate::{Error, Result};

/// A registry that repositories below a prefix are fetched from.
#[derive(Clone)]
pub struct Upstream {
    /// What the names of the repositories begin with here: `docker.io` for `docker.io/library/x`.
    pub prefix: String,
    /// The registry.
    pub registry: String,
    /// What their names begin with there.
    pub path: String,
    /// How the registry is reached.
    pub host: HostRule,
    /// Sent only to this registry and the token service that it names.
    pub credential: Option<Credential>,
    /// How long a tag is not asked for again.
    pub ttl: Duration,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({} -> {}/{})", self.prefix, self.registry, self.path)
    }
}

/// An upstream in use.
pub(crate) struct OpenUpstream {
    pub(super) upstream: Upstream,
    client: Client,
}

impl OpenUpstream {
    /// All upstreams, the longest prefix first: the first match applies.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub(crate) fn all(upstreams: &[Upstream], proxies: &Proxies) -> Result<Vec<Arc<OpenUpstream>>> {
        let mut sources = Vec::new();
        for upstream in upstreams {
            let failed = |reason: String| Error::Configuration {
                what: "an upstream",
                reason: format!("{}: {reason}", upstream.prefix),
            };
            Repository::new(&upstream.registry, "a").map_err(|e| failed(e.to_string()))?;
            Repository::new("localhost", &upstream.prefix).map_err(|e| failed(e.to_string()))?;
            let mut client = registry_client::Options {
                hosts: vec![upstream.host.clone()],
                retries: 2,
                proxies: proxies.clone(),
                ..registry_client::Options::default()
            };
            if let Some(credential) = &upstream.credential {
                client.keychain = Arc::new(credential.clone());
            }
            let client = Client::new(client).map_err(|error| failed(error.to_string()))?;
            sources.push(Arc::new(OpenUpstream { upstream: upstream.clone(), client }));
        }
        sources.sort_by_key(|source| std::cmp::Reverse(source.upstream.prefix.len()));
        Ok(sources)
    }

    /// What a repository here is called there.
    pub(super) fn remote(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(&self.upstream.prefix)?.strip_prefix('/')?;
        Some(match self.upstream.path.is_empty() {
            true => rest.to_owned(),
            false => format!("{}/{rest}", self.upstream.path),
        })
    }

    pub(super) fn repo(&self, name: &str) -> Option<Repo> {
        let path = self.remote(name)?;
        let repository = Repository::new(&self.upstream.registry, &path).ok()?;
        Some(self.client.repo(&repository))
    }
}
