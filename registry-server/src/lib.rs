//! A registry: the distribution-spec served from memory, a directory, or a bucket of an object store
//! that any number of servers share.
//!
//! [`Registry::start`] runs one on a loopback port (with the feature `testing` it has faults on
//! request and remembers what it was asked, for tests of whatever talks to registries); [`serve`] runs one on a listener of the caller's; [`Admin`] looks after
//! the storage of one.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//!
//! use registry_server::{Options, Registry};
//!
//! let registry = Registry::start(Options::default())?;
//! registry.put_image("team/app", "1", &[b"layer"])?;
//!
//! let mut connection = std::net::TcpStream::connect(registry.address())?;
//! connection.write_all(b"GET /v2/team/app/tags/list HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
//! let mut answer = String::new();
//! connection.read_to_string(&mut answer)?;
//! assert!(answer.ends_with(r#"{"name":"team/app","tags":["1"]}"#), "{answer}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod config;
mod content;
mod duration;
mod error;
#[cfg(feature = "testing")]
mod fault;
mod http;
mod inner;
mod keys;
mod limit;
mod lock;
mod maintenance;
mod metrics;
mod notify;
mod options;
mod pattern;
mod quota;
mod random;
mod retention;
mod rules;
mod storage;
mod tls;
mod upstream;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use image::{Descriptor, Digest, MediaType};
use tokio::sync::watch;

pub use access::jwt::Key;
pub use access::{Access, Action, Auth, Passwords, Rule, Tokens};
pub use config::{Config, Files};
pub use content::collection::Garbage;
pub use content::protocol::CollectionReport;
pub use content::scrub::ScrubReport;
pub use error::{Error, Result};
#[cfg(feature = "testing")]
pub use fault::{Effect, Fault};
#[cfg(feature = "testing")]
pub use http::script::RecordedRequest;
pub use maintenance::Admin;
pub use options::{Clock, Immutable, Limits, Log, Options};
pub use pattern::Pattern;
pub use quota::Quota;
pub use retention::{ExpiredTag, Retention};
pub use rules::Renewal;
pub use storage::Bucket;
pub use tls::Tls;
pub use upstream::peers::Peers;
pub use upstream::source::Upstream;

use content::Entry;
use http::connection;
use inner::RegistryInner;

/// A registry on a loopback port, on a thread of its own. Ends when dropped.
pub struct Registry {
    shared: Arc<RegistryInner>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    handle: tokio::runtime::Handle,
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
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(listening)?;
        let shared = {
            let _entered = runtime.enter();
            RegistryInner::new(options)
        };
        let shared = match shared {
            Ok(shared) => Arc::new(shared),
            Err(error) => {
                // Dropping it would wait, which not every caller may.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let served = Arc::clone(&shared);
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let mut told = stopped.clone();
                tokio::select! {
                    _ = connection::accept(listener, served, stopped) => {}
                    _ = told.wait_for(|stop| *stop) => {}
                }
            });
            // Connections that are still open are dropped with the runtime.
            runtime.shutdown_background();
        });
        Ok(Registry { shared, address, stop, handle, thread: Some(thread) })
    }

    /// Has the registry's own threads do something, whatever thread this is.
    fn ask<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl Future<Output = std::io::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.handle.spawn(async move { sender.send(work.await) });
        let gone = |_| Err(std::io::Error::other("the registry has ended"));
        receiver.recv().unwrap_or_else(gone).map_err(self.shared.failed(action))
    }

    /// `127.0.0.1:port`, as registries are named.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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
        let (content, digest) = (self.shared.content.clone(), descriptor.digest);
        let repository = repository.to_owned();
        self.ask("writing content to", async move {
            content.insert(&repository, digest, &bytes).await
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
        let entry = Entry::of(&descriptor.media_type, descriptor.digest, &bytes);
        let content = self.shared.content.clone();
        let (repository, tag) = (repository.to_owned(), tag.map(str::to_owned));
        self.ask("writing a manifest to", async move {
            content.put_manifest(&repository, &entry, &[], &bytes).await?;
            if let Some(tag) = tag {
                content.set_tag(&repository, &tag, &entry.descriptor, false).await?;
            }
            Ok(())
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
        let content = self.shared.content.clone();
        self.ask("reading content from", async move {
            storage::whole(content.storage.as_ref(), &keys::blob(digest), u64::MAX).await
        })
    }

    /// The manifest of a tag in a repository.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        let content = self.shared.content.clone();
        let (repository, tag) = (repository.to_owned(), tag.to_owned());
        let asked =
            self.ask("reading a tag from", async move { content.tag(&repository, &tag).await });
        asked.ok().flatten().map(|tagged| tagged.digest)
    }
}

#[cfg(feature = "testing")]
impl Registry {
    /// Makes requests fail. Faults are tried in the order they were added; the first that matches
    /// and is not used up applies.
    pub fn fault(&self, fault: Fault) {
        self.shared.script.faults.lock().push(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.script.faults.lock().clear();
    }

    /// The requests so far, in the order they came.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.script.records.lock().clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.script.records.lock().clear();
    }

    /// Makes tokens given so far worthless.
    pub fn revoke(&self) {
        self.shared.tokens.lock().clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.send_replace(true);
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

/// Serves a registry on a listener until `stop` is over; requests that run then are ended first.
/// [`Options::port`] is not used.
///
/// # Errors
/// When the storage cannot be used or the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let shared = Arc::new(RegistryInner::new(options)?);
    let now = shared.content.storage.now().await;
    now.map_err(shared.failed("using"))?;
    let (tell, told) = watch::channel(false);
    let tidying = tokio::spawn(maintenance::tidy(Arc::clone(&shared)));
    let following = tokio::spawn(maintenance::follow(Arc::clone(&shared)));
    let accepting = connection::accept(listener, shared, told);
    let stopping = async {
        stop.await;
        tell.send_replace(true);
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = accepting => result,
        () = stopping => Ok(()),
    };
    tidying.abort();
    following.abort();
    result
}
