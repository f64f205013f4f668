use std::sync::Arc;

use futures::StreamExt as _;
use image::Repository;
use reqwest::Method;
use task::{Fault as _, Kind};

use crate::auth::{Access, Scope};
use crate::call::{Call, RequestTarget};
use crate::download::{self, Download, DownloadResponse};
use crate::inner::ClientInner;
use crate::{Credential, Error, Options, Repo, Result, pages};

/// One per process: connections, tokens, limits, retries. Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<ClientInner>);

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// When the options contradict themselves.
    pub fn new(options: Options) -> Result<Client> {
        Ok(Client(Arc::new(ClientInner::new(options))))
    }

    /// A repository to work with.
    pub fn repo(&self, repository: &Repository) -> Repo {
        Repo::new(Arc::clone(&self.0), repository.clone())
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
        let action = format!("checking whether {registry} is a registry");
        let to = RequestTarget::Path("/v2/".into());
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
    pub async fn download(&self, request: &Download) -> Result<DownloadResponse> {
        download::url(&self.0, request).await
    }

    /// Reads a small file as [`Client::download`]; `None` if the server has none. Of a file that is
    /// longer than `limit` bytes only the beginning is read.
    ///
    /// # Errors
    /// Of the server.
    pub async fn read_file(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let request = Download { url: url.to_owned(), ..Download::default() };
        let answer = match self.download(&request).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        if let Some(mut body) = answer.body {
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > limit {
                    break;
                }
            }
        }
        Ok(Some(bytes))
    }
}
