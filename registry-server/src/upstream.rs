//! Pull-through caches: repositories below a prefix belong to another registry and are fetched on
//! demand.

mod flight;
mod origin;
pub(crate) mod peers;
pub(crate) mod source;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use image::{Descriptor, Digest};
use registry_client::{Repo, Target};
use serde_json::Value;
use task::{Fault, Kind};

use crate::content::{Content, Entry};
use crate::http::answer::{Answer, error};
use crate::lock::Lock;
use crate::metrics::Metrics;
use crate::rules::CurrentRules;
use crate::storage::{Bytestream, page, whole};
use crate::{Options, Result, keys};
pub(crate) use flight::ByteRange;
use flight::Flights;
use origin::{OpenError, Origins};
use peers::{OpenPeers, Peer};
use source::OpenUpstream;

/// Sizes of blobs that are remembered.
const SIZES: usize = 100_000;

/// How a blob of an upstream can be served.
pub(crate) enum UpstreamBlob {
    /// It is in the storage now.
    Stored,
    /// It comes, of this size.
    Arriving(Bytestream, Option<u64>),
    /// The upstream does not have it.
    Unknown,
    /// The upstream cannot be asked.
    Failed(Box<Answer>),
}

/// All upstreams.
pub(crate) struct Upstreams {
    rules: CurrentRules,
    content: Content,
    metrics: Arc<Metrics>,
    flights: Flights,
    peers: Option<Arc<OpenPeers>>,
    /// Who asks an upstream for something, so that others wait for the answer.
    asking: Lock<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    sizes: Lock<HashMap<Digest, u64>>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Upstreams {
    pub(crate) fn new(
        options: &Options,
        rules: CurrentRules,
        content: Content,
        metrics: Arc<Metrics>,
    ) -> Result<Upstreams> {
        let flights = Flights::new(options, content.clone());
        let peers = OpenPeers::new(&options.peers, &options.proxies)?.map(Arc::new);
        let (asking, sizes) = (Lock::default(), Lock::default());
        Ok(Upstreams { rules, content, metrics, flights, peers, asking, sizes })
    }

    /// The servers beside this one to ask first.
    async fn before(&self, name: &str, digest: Digest) -> Vec<Peer> {
        match &self.peers {
            Some(peers) => peers.before(name, digest).await,
            None => Vec::new(),
        }
    }

    /// The upstream of a repository.
    pub(crate) fn of(&self, name: &str) -> Option<Arc<OpenUpstream>> {
        let rules = self.rules.get();
        rules.sources.iter().find(|source| source.remote(name).is_some()).cloned()
    }

    /// What a repository that a client names by its registry is called here.
    pub(crate) fn namespaced(&self, space: &str, name: &str) -> Option<String> {
        let rules = self.rules.get();
        let mut sources = rules.sources.iter();
        let source =
            sources.find(|s| s.upstream.registry == space && s.upstream.path.is_empty())?;
        Some(format!("{}/{name}", source.upstream.prefix))
    }

    /// Has one task at a time ask for something.
    async fn alone(&self, what: String) -> tokio::sync::OwnedMutexGuard<()> {
        let mutex = {
            let mut asking = self.asking.lock();
            asking.retain(|_, mutex| Arc::strong_count(mutex) > 1);
            Arc::clone(asking.entry(what).or_default())
        };
        mutex.lock_owned().await
    }

    /// Whether a manifest is here and need not be asked for.
    async fn current(
        &self,
        source: &OpenUpstream,
        name: &str,
        reference: &str,
    ) -> io::Result<bool> {
        if let Ok(digest) = reference.parse::<Digest>() {
            return Ok(self.content.entry(name, digest).await?.is_some());
        }
        let Some(set) = self.content.storage.stat(&keys::tag(name, reference)).await? else {
            return Ok(false);
        };
        Ok(set.modified + source.upstream.ttl > self.content.time().await?)
    }

    /// Sees to it that a manifest is here. An answer is that to give instead.
    pub(crate) async fn manifest(
        &self,
        source: &OpenUpstream,
        name: &str,
        reference: &str,
    ) -> io::Result<Option<Answer>> {
        let target: Target = match (reference.parse(), reference.parse::<image::Tag>()) {
            (Ok(digest), _) => Target::Digest(digest),
            (_, Ok(tag)) => Target::Tag(tag),
            _ => return Ok(None),
        };
        if self.current(source, name, reference).await? {
            count(&self.metrics.hits);
            return Ok(None);
        }
        let _alone = self.alone(format!("{name} {reference}")).await;
        if self.current(source, name, reference).await? {
            count(&self.metrics.hits);
            return Ok(None);
        }
        count(&self.metrics.misses);
        let Some(repo) = source.repo(name) else { return Ok(None) };
        match self.fetch(&repo, name, &target).await? {
            Ok(()) => Ok(None),
            Err(failure) => {
                count(&self.metrics.upstream_errors);
                tracing::warn!(error = %chained(&failure), name, reference, "asking an upstream");
                let there = match &target {
                    Target::Tag(tag) => self.content.tag(name, tag.as_str()).await?.is_some(),
                    Target::Digest(_) => false,
                };
                match failure.kind() {
                    Kind::NotFound => {
                        if there {
                            self.content.delete_tag(name, reference).await?;
                        }
                        Ok(Some(error(
                            404,
                            "MANIFEST_UNKNOWN",
                            "the upstream has no such manifest",
                        )))
                    }
                    Kind::Denied => Ok(Some(error(403, "DENIED", "the upstream refuses"))),
                    // What was current a while ago is better than nothing.
                    _ if there => Ok(None),
                    _ => Ok(Some(unreachable())),
                }
            }
        }
    }

    /// Fetches a manifest; its children are fetched on demand.
    async fn fetch(
        &self,
        repo: &Repo,
        name: &str,
        target: &Target,
    ) -> io::Result<std::result::Result<(), registry_client::Error>> {
        let resolved = match target {
            Target::Digest(_) => None,
            Target::Tag(_) => match repo.resolve(target).await {
                Ok(descriptor) => Some(descriptor),
                Err(error) => return Ok(Err(error)),
            },
        };
        // Others may be asking for it by its digest.
        let _alone = match &resolved {
            Some(descriptor) => Some(self.alone(format!("{name} {}", descriptor.digest)).await),
            None => None,
        };
        let known = match &resolved {
            Some(descriptor) => self.content.entry(name, descriptor.digest).await?,
            None => None,
        };
        let descriptor = match known {
            Some(entry) => entry.descriptor,
            None => {
                let by_digest = resolved.map(|descriptor| Target::Digest(descriptor.digest));
                match self.document(repo, name, by_digest.as_ref().unwrap_or(target)).await {
                    Ok((descriptor, bytes)) => {
                        let entry = Entry::of(&descriptor.media_type, descriptor.digest, &bytes);
                        self.content.put_manifest(name, &entry, &[], &bytes).await?;
                        entry.descriptor
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        if let Target::Tag(tag) = target {
            self.content.set_tag(name, tag.as_str(), &descriptor, false).await?;
        }
        Ok(Ok(()))
    }

    /// A manifest, of a server beside this one where one has it.
    async fn document(
        &self,
        repo: &Repo,
        name: &str,
        target: &Target,
    ) -> std::result::Result<(Descriptor, bytes::Bytes), registry_client::Error> {
        if let Target::Digest(digest) = target {
            for peer in self.before(name, *digest).await {
                match peer.repo.manifest(target).await {
                    Ok(found) => {
                        count(&self.metrics.peers);
                        return Ok(found);
                    }
                    Err(error) => {
                        self.peers.iter().for_each(|all| all.refused(peer.address, &error));
                    }
                }
            }
        }
        repo.manifest(target).await
    }

    /// How large a blob is, where a manifest here says so.
    async fn size(&self, name: &str, digest: Digest) -> io::Result<Option<u64>> {
        if let Some(size) = self.sizes.lock().get(&digest) {
            return Ok(Some(*size));
        }
        let directory = keys::manifest(name, digest);
        let directory = directory.rsplit_once('/').map_or("", |(directory, _)| directory);
        let names = self.content.storage.names(&format!("{directory}/"), None, 1_000).await?;
        for manifest in names.iter().filter_map(|name| keys::digest(name)) {
            let Some(entry) = self.content.entry(name, manifest).await? else { continue };
            if !entry.children.contains(&digest) {
                continue;
            }
            let key = keys::blob(manifest);
            let storage = self.content.storage.as_ref();
            let bytes = whole(storage, &key, image::MAX_DOCUMENT).await?.unwrap_or_default();
            self.learn(&bytes);
            return Ok(self.sizes.lock().get(&digest).copied());
        }
        Ok(None)
    }

    /// Remembers the sizes a manifest tells.
    fn learn(&self, manifest: &[u8]) {
        let document: Value = serde_json::from_slice(manifest).unwrap_or_default();
        let layers = document["layers"].as_array().into_iter().flatten();
        let mut sizes = self.sizes.lock();
        if sizes.len() >= SIZES {
            sizes.clear();
        }
        for part in layers.chain([&document["config"]]) {
            let digest = part["digest"].as_str().and_then(|text| text.parse().ok());
            if let (Some(digest), Some(size)) = (digest, part["size"].as_u64()) {
                sizes.insert(digest, size);
            }
        }
    }

    /// A blob that is not here, or the rest of it.
    pub(crate) async fn blob(
        &self,
        source: &OpenUpstream,
        (name, digest): (&str, Digest),
        range: ByteRange,
    ) -> io::Result<UpstreamBlob> {
        let Some(repo) = source.repo(name) else { return Ok(UpstreamBlob::Unknown) };
        if let Some((stream, size)) = self.flights.join(name, digest, range) {
            count(&self.metrics.hits);
            return Ok(UpstreamBlob::Arriving(stream, size));
        }
        let _alone = self.alone(format!("{name} {digest}")).await;
        if let Some((stream, size)) = self.flights.join(name, digest, range) {
            count(&self.metrics.hits);
            return Ok(UpstreamBlob::Arriving(stream, size));
        }
        if self.content.blob(name, digest).await?.is_some() {
            return Ok(UpstreamBlob::Stored);
        }
        let size = self.size(name, digest).await?;
        let peers = (self.peers.clone(), self.before(name, digest).await);
        let mut origins = Origins::new((digest, size), peers, repo);
        match origins.open(0).await {
            Ok(body) => {
                let metrics = Arc::clone(&self.metrics);
                count(if origins.is_peer() { &metrics.peers } else { &metrics.misses });
                let largest = self.rules.get().limits.blob;
                let coming = (body, origins, largest);
                let wanted = (size, range);
                let stream = self.flights.start(name, digest, wanted, coming, metrics).await?;
                Ok(UpstreamBlob::Arriving(stream, size))
            }
            Err(OpenError::Nobody) => Ok(UpstreamBlob::Unknown),
            Err(OpenError::Upstream(failure)) => {
                count(&self.metrics.misses);
                count(&self.metrics.upstream_errors);
                tracing::warn!(error = %chained(&failure), name, %digest, "asking an upstream");
                Ok(match failure.kind() {
                    Kind::NotFound => UpstreamBlob::Unknown,
                    Kind::Denied => {
                        UpstreamBlob::Failed(Box::new(error(403, "DENIED", "the upstream refuses")))
                    }
                    _ => UpstreamBlob::Failed(Box::new(unreachable())),
                })
            }
        }
    }

    /// The tags there; `None` where the upstream cannot be asked, and those here must do.
    pub(crate) async fn tags(
        &self,
        source: &OpenUpstream,
        name: &str,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Option<Vec<String>>> {
        let Some(repo) = source.repo(name) else { return Ok(None) };
        match repo.tags(None).await {
            Ok(mut tags) => {
                tags.sort_unstable();
                tags.dedup();
                Ok(Some(page(tags.into_iter(), after, limit)))
            }
            Err(error) => {
                count(&self.metrics.upstream_errors);
                tracing::warn!(error = %chained(&error), name, "asking an upstream for tags");
                Ok(None)
            }
        }
    }

    /// What refers to a manifest there.
    pub(crate) async fn referrers(
        &self,
        source: &OpenUpstream,
        name: &str,
        subject: Digest,
    ) -> io::Result<Vec<Descriptor>> {
        let Some(repo) = source.repo(name) else { return Ok(Vec::new()) };
        match repo.referrers(subject, None).await {
            Ok(referrers) => Ok(referrers),
            Err(error) => {
                count(&self.metrics.upstream_errors);
                tracing::warn!(error = %chained(&error), name, "asking an upstream for referrers");
                self.content.referrers(name, subject, None, 500).await
            }
        }
    }
}

/// An error with its causes.
fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unreachable() -> Answer {
    error(502, "UNAVAILABLE", "the upstream cannot be reached now")
}
