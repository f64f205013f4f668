//! A registry: the distribution-spec served from memory or a directory.
//!
//! [`Registry::start`] runs one on a loopback port, with faults on request, for tests of anything
//! that talks to registries; [`serve`] runs one on a listener of the caller's.

mod answer;
mod auth;
mod blobs;
mod error;
mod fault;
mod manifests;
mod server;
mod state;
mod store;
mod uploads;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use image::{Descriptor, Digest, MediaType};

pub use error::{Error, Result};
pub use fault::{Effect, Fault};
pub use server::Record;

use server::Shared;

/// How a registry behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where content is kept; in memory if `None`.
    pub directory: Option<PathBuf>,
    /// Who may do what.
    pub auth: Auth,
    /// The port on 127.0.0.1; any free one if `None`.
    pub port: Option<u16>,
    /// Whether nothing may be deleted.
    pub keep: bool,
}

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody everything.
    #[default]
    None,
    /// Whoever knows this name and password, everything.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// Whoever has a token of the token service at `/token` of the same server, which gives
    /// tokens for what is asked to whoever knows this name and password or the refresh token.
    Bearer {
        /// The name.
        username: String,
        /// The password.
        password: String,
        /// Taken in place of name and password (OAuth 2, POST).
        refresh_token: String,
        /// Whether tokens for pulling are given to everybody.
        anonymous_pull: bool,
        /// How long a token lasts.
        lifetime: Duration,
    },
}

/// A registry on a loopback port, on a thread of its own. Ends when dropped.
pub struct Registry {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Starts a registry on 127.0.0.1.
    ///
    /// # Errors
    /// When the port or the directory cannot be used.
    pub fn start(options: Options) -> Result<Registry> {
        let port = options.port.unwrap_or(0);
        let listening = |source| Error::Listen { port, source };
        let listener = TcpListener::bind(("127.0.0.1", port)).map_err(listening)?;
        listener.set_nonblocking(true).map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let shared = Arc::new(Shared::new(options)?);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(listening)?;
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    _ = server::accept(listener, served) => {}
                    _ = stopped => {}
                }
            });
            // Connections that are still open are dropped with the runtime.
            runtime.shutdown_background();
        });
        Ok(Registry { shared, address, stop: Some(stop), thread: Some(thread) })
    }

    /// `127.0.0.1:port`, as registries are named.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes requests go wrong. Faults are looked at in the order they were added; the first that
    /// fits and is not used up acts.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.lock().push(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.faults.lock().clear();
    }

    /// The requests so far, in the order they came.
    pub fn requests(&self) -> Vec<Record> {
        self.shared.records.lock().clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.records.lock().clear();
    }

    /// Makes tokens given so far worthless.
    pub fn revoke(&self) {
        self.shared.tokens.lock().clear();
    }

    /// Puts a blob into a repository.
    ///
    /// # Errors
    /// Of the directory.
    pub fn put_blob(
        &self,
        repository: &str,
        media_type: MediaType,
        bytes: impl Into<Bytes>,
    ) -> Result<Descriptor> {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.shared.insert(descriptor.digest, &bytes)?;
        self.shared.change(repository, |repository| {
            repository.blobs.insert(descriptor.digest);
        })?;
        Ok(descriptor)
    }

    /// Puts a manifest into a repository, unchecked, under its digest and perhaps a tag.
    ///
    /// # Errors
    /// Of the directory.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: MediaType,
        bytes: impl Into<Bytes>,
    ) -> Result<Descriptor> {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.shared.insert(descriptor.digest, &bytes)?;
        let entry = manifests::entry(&descriptor.media_type, descriptor.digest, &bytes);
        self.shared.change(repository, |repository| {
            repository.manifests.insert(descriptor.digest, entry);
            if let Some(tag) = tag {
                repository.tags.insert(tag.to_owned(), descriptor.digest);
            }
        })?;
        Ok(descriptor)
    }

    /// Puts a whole image of these layers (bytes as they are, typed as gzip layers) under a tag.
    /// The diff ids of its configuration are the layers' digests.
    ///
    /// # Errors
    /// Of the directory.
    pub fn put_image(&self, repository: &str, tag: &str, layers: &[&[u8]]) -> Result<Descriptor> {
        let mut descriptors = Vec::new();
        for layer in layers {
            let bytes = Bytes::copy_from_slice(layer);
            descriptors.push(self.put_blob(repository, MediaType::OCI_LAYER_GZIP, bytes)?);
        }
        let diff_ids: Vec<_> = descriptors.iter().map(|layer| layer.digest).collect();
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.put_blob(repository, MediaType::OCI_CONFIG, config.to_string())?;
        let manifest = image::Manifest::new(MediaType::OCI_MANIFEST, config, descriptors);
        let manifest = serde_json::to_vec(&manifest).map_err(|source| Error::Json { source })?;
        self.put_manifest(repository, Some(tag), MediaType::OCI_MANIFEST, manifest)
    }

    /// The bytes of a blob or manifest, wherever it is linked.
    ///
    /// # Errors
    /// Of the directory.
    pub fn content(&self, digest: Digest) -> Result<Option<Bytes>> {
        self.shared.bytes(digest)
    }

    /// What a tag of a repository stands for.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.shared.read(repository, |repository| repository.tags.get(tag).copied()).flatten()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.address)
    }
}

/// Serves a registry on a listener until the future is dropped. [`Options::port`] is not used.
///
/// # Errors
/// When the directory cannot be used or the listener fails.
pub async fn serve(listener: tokio::net::TcpListener, options: Options) -> Result<()> {
    let shared = Arc::new(Shared::new(options)?);
    server::accept(listener, shared).await
}
