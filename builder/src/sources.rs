//! Where a build's own files are, and how they are fetched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;

use crate::context::Contexts;
use crate::context::git::Surroundings;
use crate::plan::copy::without_credentials;
use crate::step::mounts::reveal;
use crate::{Agent, Error, Request, Result};

/// Where the Dockerfile is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum DockerfileAt {
    /// [`Request::dockerfile`] has it.
    #[default]
    Given,
    /// In the main context: of this name, or the usual one that is there.
    Context(Option<String>),
    /// Behind an `http` address.
    Url(String),
}

impl fmt::Debug for DockerfileAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DockerfileAt::Given => f.write_str("Given"),
            DockerfileAt::Context(name) => f.debug_tuple("Context").field(name).finish(),
            DockerfileAt::Url(url) => {
                f.debug_tuple("Url").field(&without_credentials(url)).finish()
            }
        }
    }
}

/// An `http` address of an archive or file; its debug form shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(pub String);

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpUrl").field(&without_credentials(&self.0)).finish()
    }
}

/// A stream that is read once.
#[derive(Clone)]
pub struct Stream(Arc<Mutex<Option<Box<dyn Read + Send>>>>);

impl Stream {
    /// What comes out of a reader.
    pub fn new(reader: impl Read + Send + 'static) -> Stream {
        Stream(Arc::new(Mutex::new(Some(Box::new(reader)))))
    }

    /// The reader, for the first who asks.
    pub(crate) fn take(&self) -> Option<Box<dyn Read + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stream {}

/// The contexts of a request whose Dockerfile was in one of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(pub(crate) Arc<OnceLock<Arc<Contexts>>>);

/// Bytes no download is larger than unless the user says so.
pub(crate) const DOWNLOAD_LIMIT: u64 = 16 << 30;

/// How files from elsewhere are fetched; part of a [`Request`].
#[derive(Debug, Clone)]
pub struct Sources {
    /// Where the Dockerfile is (see [`crate::complete`]).
    pub dockerfile: DockerfileAt,
    /// Bytes no download is larger than.
    pub download_limit: u64,
    /// Where the programs `git` and `ssh` are looked for.
    pub search_path: OsString,
    pub(crate) opened: Opened,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            dockerfile: DockerfileAt::default(),
            download_limit: DOWNLOAD_LIMIT,
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            opened: Opened::default(),
        }
    }
}

impl Sources {
    /// What git works with: the agent `default` of `--ssh`, and the secrets `GIT_AUTH_TOKEN` and
    /// `GIT_AUTH_HEADER`, alone or followed by `.HOST`.
    pub(crate) fn surroundings(&self, request: &Request) -> Result<Surroundings> {
        let mut authorization = Vec::new();
        for (id, secret) in &request.secrets {
            let host = |prefix: &str| {
                let rest = id.strip_prefix(prefix)?;
                if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
            };
            if let Some(host) = host("GIT_AUTH_HEADER") {
                authorization.push((host.to_owned(), header(id, &reveal(id, secret)?)?));
            } else if let Some(host) = host("GIT_AUTH_TOKEN") {
                let token = header(id, &reveal(id, secret)?)?;
                let pair = format!("x-access-token:{token}");
                let basic = base64::prelude::BASE64_STANDARD.encode(pair);
                authorization.push((host.to_owned(), format!("Basic {basic}")));
            }
        }
        Ok(Surroundings {
            search_path: self.search_path.clone(),
            agent: match request.ssh.get("default") {
                Some(Agent::Socket(socket)) => Some(socket.clone()),
                _ => None,
            },
            keys_alone: matches!(request.ssh.get("default"), Some(Agent::Keys(_))),
            proxies: request.proxy.clone().into_iter().collect(),
            authorization,
        })
    }

    /// `Authorization` headers of downloads by host: the secrets `HTTP_AUTH_TOKEN_HOST` and
    /// `HTTP_AUTH_HEADER_HOST`.
    pub(crate) fn http_authorization(&self, request: &Request) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for (id, secret) in &request.secrets {
            if let Some(host) = id.strip_prefix("HTTP_AUTH_HEADER_") {
                all.insert(host.to_owned(), header(id, &reveal(id, secret)?)?);
            } else if let Some(host) = id.strip_prefix("HTTP_AUTH_TOKEN_") {
                let token = header(id, &reveal(id, secret)?)?;
                all.entry(host.to_owned()).or_insert(format!("Bearer {token}"));
            }
        }
        Ok(all)
    }
}

/// A secret as part of a header.
fn header(id: &str, secret: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(secret).map(str::trim).unwrap_or_default();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("secret {id:?} is no text of one line")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Secret, SourceFile};

    #[test]
    fn secrets_become_headers_by_host() {
        let mut request = Request::new(SourceFile::default(), Context::Empty);
        for (id, value) in [
            ("GIT_AUTH_TOKEN", "t1"),
            ("GIT_AUTH_HEADER.h.example", "basic x"),
            ("HTTP_AUTH_TOKEN_h.example", "t2\n"),
            ("HTTP_AUTH_HEADER_i.example", "Digest y"),
            ("other", "z"),
        ] {
            request.secrets.insert(id.to_owned(), Secret::Value(value.into()));
        }
        let git = request.sources.surroundings(&request).unwrap().authorization;
        assert!(git.contains(&("h.example".to_owned(), "basic x".to_owned())), "{git:?}");
        let basic = "Basic eC1hY2Nlc3MtdG9rZW46dDE=".to_owned();
        assert!(git.contains(&(String::new(), basic)), "{git:?}");
        let http = request.sources.http_authorization(&request).unwrap();
        assert_eq!(http["h.example"], "Bearer t2");
        assert_eq!(http["i.example"], "Digest y");
        request.secrets.insert("GIT_AUTH_TOKEN".to_owned(), Secret::Value(b"a\nb".to_vec()));
        assert!(request.sources.surroundings(&request).is_err());
    }
}
