//! What repositories have, on any storage: links to blobs, manifests, tags, referrers.

pub(crate) mod collection;
pub(crate) mod parts;
pub(crate) mod protocol;
pub(crate) mod scrub;
pub(crate) mod uploads;
mod world;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use image::{Descriptor, Digest, Digester, MAX_DOCUMENT, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keys;
use crate::lock::Lock;
use crate::random::random;
use crate::storage::{Bytestream, Stat, Storage, WriteCondition, whole};
use protocol::{Child, KeepOutcome};

/// Requests to the storage at once, for one request of a client.
const AT_ONCE: usize = 16;
/// The largest object that is not a blob.
pub(crate) const SMALL: u64 = MAX_DOCUMENT + (64 << 10);

/// One manifest of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// How it is listed among the referrers of its subject.
    pub(crate) descriptor: Descriptor,
    /// What it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    /// Its children.
    #[serde(default)]
    pub(crate) children: Vec<Digest>,
}

impl Entry {
    /// What is remembered of a manifest. Of what is malformed, little.
    pub(crate) fn of(media_type: &MediaType, digest: Digest, bytes: &[u8]) -> Entry {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text =
            |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let digest_of = |value: &Value| text(&value["digest"]).and_then(|text| text.parse().ok());
        let mut descriptor = Descriptor::new(media_type.clone(), digest, bytes.len() as u64);
        descriptor.artifact_type =
            text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"]));
        if let Ok(annotations) = serde_json::from_value(document["annotations"].clone()) {
            descriptor.annotations = annotations;
        }
        let (subject, children) = (digest_of(&document["subject"]), parts::referred(&document));
        Entry { descriptor, subject, children }
    }
}

/// The manifest of a tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaggedManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

/// What repositories have.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) storage: Arc<dyn Storage>,
    /// How long a link protects content that nothing needs.
    grace: Duration,
    clock: Arc<Lock<Option<(Instant, Duration)>>>,
    /// Entries read during a collection; the content of a key never changes.
    entries: Arc<Lock<BTreeMap<String, Arc<Entry>>>>,
    /// Who collects here, and the version of the lease.
    lease: Arc<tokio::sync::Mutex<collection::Lease>>,
    /// Repositories whose untagged manifests are collected.
    tidy: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

fn json<T: Serialize>(value: &T) -> io::Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(io::Error::other)
}

impl Content {
    pub(crate) fn new(storage: Arc<dyn Storage>, grace: Duration) -> Content {
        Content {
            storage,
            grace,
            clock: Arc::default(),
            entries: Arc::default(),
            lease: Arc::new(tokio::sync::Mutex::new(collection::Lease::new(random()))),
            tidy: Arc::new(|_| false),
        }
    }

    /// Has untagged manifests collected where `tidy` says so.
    pub(crate) fn tidied(self, tidy: impl Fn(&str) -> bool + Send + Sync + 'static) -> Content {
        Content { tidy: Arc::new(tidy), ..self }
    }

    /// The storage's time, asked for now and then.
    pub(crate) async fn time(&self) -> io::Result<Duration> {
        let known = *self.clock.lock();
        if let Some((at, time)) = known.filter(|(at, _)| at.elapsed() < Duration::from_secs(60)) {
            return Ok(time + at.elapsed());
        }
        let at = Instant::now();
        let time = self.storage.now().await?;
        *self.clock.lock() = Some((at, time));
        Ok(time)
    }

    pub(crate) async fn document<T: for<'a> Deserialize<'a>>(
        &self,
        key: &str,
    ) -> io::Result<Option<T>> {
        let Some(bytes) = whole(self.storage.as_ref(), key, SMALL).await? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| io::Error::other(format!("{key} is malformed: {error}")))
    }

    /// Whether there is such a repository.
    pub(crate) async fn is_repository(&self, name: &str) -> io::Result<bool> {
        Ok(self.storage.stat(&keys::name(name)).await?.is_some())
    }

    /// Registers a repository. This comes after the content that makes it one: a server that finds
    /// the repository empty and removes its name checks again then.
    async fn declare(&self, name: &str) -> io::Result<()> {
        if self.is_repository(name).await? {
            return Ok(());
        }
        self.storage.put(&keys::name(name), Bytes::new(), WriteCondition::Always).await.map(drop)
    }

    /// Takes names of repositories away that have nothing any more; gives back how many.
    pub(crate) async fn forget_empty(&self) -> io::Result<u64> {
        let mut count = 0;
        for name in self.storage.names(keys::NAMES, None, usize::MAX).await? {
            let (key, repository) = (format!("{}{name}", keys::NAMES), name.replace('%', "/"));
            if self.has_anything(&repository).await? {
                continue;
            }
            self.storage.delete(&key).await?;
            // A push may have seen the name meanwhile.
            match self.has_anything(&repository).await? {
                true => drop(self.storage.put(&key, Bytes::new(), WriteCondition::Always).await?),
                false => count += 1,
            }
        }
        Ok(count)
    }

    async fn has_anything(&self, repository: &str) -> io::Result<bool> {
        for directory in keys::parts(repository) {
            if !self.storage.names(&directory, None, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Size of a blob or manifest that a repository has.
    pub(crate) async fn blob(&self, name: &str, digest: Digest) -> io::Result<Option<Stat>> {
        let (link, content) = (keys::link(name, digest), keys::blob(digest));
        let both = futures::future::try_join(self.storage.stat(&link), self.storage.stat(&content));
        Ok(match both.await? {
            (Some(_), content) => content,
            (None, _) => None,
        })
    }

    /// A URL at which clients get content themselves, where that is wanted.
    pub(crate) async fn signed_url(&self, digest: Digest) -> io::Result<Option<String>> {
        self.storage.signed_url(&keys::blob(digest)).await
    }

    /// The bytes of content, or a part of them.
    pub(crate) async fn open(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
    ) -> io::Result<Option<Bytestream>> {
        self.storage.read(&keys::blob(digest), range).await
    }

    /// Makes a blob a repository has stay for a while.
    pub(crate) async fn keep(&self, name: &str, digest: Digest) -> io::Result<KeepOutcome<Digest>> {
        protocol::keep(self, &Arc::from(name), &[digest]).await
    }

    /// Makes content part of a repository; what is at `from` becomes it where it is not there.
    pub(crate) async fn adopt(
        &self,
        name: &str,
        digest: Digest,
        from: &str,
    ) -> io::Result<KeepOutcome<Digest>> {
        let to = keys::blob(digest);
        let supply = || self.storage.promote(from, &to);
        protocol::acquire(self, &Arc::from(name), digest, supply).await
    }

    /// Makes content of another repository part of this one.
    pub(crate) async fn mount(
        &self,
        name: &str,
        digest: Digest,
    ) -> io::Result<KeepOutcome<Digest>> {
        let gone = || std::future::ready(Err(io::Error::from(io::ErrorKind::NotFound)));
        match protocol::acquire(self, &Arc::from(name), digest, gone).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.storage.delete(&keys::link(name, digest)).await?;
                Ok(KeepOutcome::Missing(digest))
            }
            other => other,
        }
    }

    /// Puts small content into a repository.
    pub(crate) async fn insert(&self, name: &str, digest: Digest, bytes: &Bytes) -> io::Result<()> {
        let key = keys::blob(digest);
        let supply = || async {
            self.storage.put(&key, bytes.clone(), WriteCondition::Always).await.map(drop)
        };
        match protocol::acquire(self, &Arc::from(name), digest, supply).await? {
            KeepOutcome::Yes => Ok(()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// A manifest of a repository.
    pub(crate) async fn entry(&self, name: &str, digest: Digest) -> io::Result<Option<Entry>> {
        self.document(&keys::manifest(name, digest)).await
    }

    /// Takes a manifest whose parts (unless `lax`) are there.
    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        entry: &Entry,
        children: &[Child<Digest>],
        bytes: &Bytes,
    ) -> io::Result<KeepOutcome<Digest>> {
        let digest = entry.descriptor.digest;
        let key = keys::blob(digest);
        let supply = || async {
            self.storage.put(&key, bytes.clone(), WriteCondition::Always).await.map(drop)
        };
        let world = world::Admission { content: self, entry };
        let kept = protocol::admit(&world, &Arc::from(name), digest, children, supply).await?;
        if kept == KeepOutcome::Yes {
            if let Some(subject) = entry.subject {
                let key = format!("{}{}", keys::referrers(name, subject), keys::part(digest));
                self.storage.put(&key, json(&entry.descriptor)?, WriteCondition::Always).await?;
            }
            self.declare(name).await?;
        }
        Ok(kept)
    }

    /// The manifest of a tag.
    pub(crate) async fn tag(&self, name: &str, tag: &str) -> io::Result<Option<TaggedManifest>> {
        self.document(&keys::tag(name, tag)).await
    }

    /// Sets a tag; `false` if it is immutable and refers to another manifest.
    pub(crate) async fn set_tag(
        &self,
        name: &str,
        tag: &str,
        descriptor: &Descriptor,
        immutable: bool,
    ) -> io::Result<bool> {
        let tagged = TaggedManifest {
            digest: descriptor.digest,
            media_type: descriptor.media_type.to_string(),
            size: descriptor.size,
        };
        let key = keys::tag(name, tag);
        let when = if immutable { WriteCondition::Absent } else { WriteCondition::Always };
        if self.storage.put(&key, json(&tagged)?, when).await? {
            return Ok(true);
        }
        Ok(self.tag(name, tag).await?.is_some_and(|there| there.digest == tagged.digest))
    }

    /// Removes a tag that is there.
    pub(crate) async fn delete_tag(&self, name: &str, tag: &str) -> io::Result<bool> {
        let key = keys::tag(name, tag);
        if self.storage.stat(&key).await?.is_none() {
            return Ok(false);
        }
        self.storage.delete(&key).await?;
        self.storage.delete(&keys::pull(name, tag)).await?;
        Ok(true)
    }

    /// The tags that stand for a manifest.
    pub(crate) async fn tags_of(&self, name: &str, digest: Digest) -> io::Result<Vec<String>> {
        let tags = self.storage.names(&keys::tags(name), None, usize::MAX).await?;
        let tags = stream::iter(tags).map(|tag| async move {
            let tagged = self.tag(name, &tag).await?;
            Ok::<_, io::Error>(tagged.filter(|tagged| tagged.digest == digest).map(|_| tag))
        });
        tags.buffer_unordered(AT_ONCE).try_filter_map(|tag| async { Ok(tag) }).try_collect().await
    }

    /// Removes a manifest that is there, with its tags.
    pub(crate) async fn delete_manifest(&self, name: &str, digest: Digest) -> io::Result<bool> {
        let Some(entry) = self.entry(name, digest).await? else { return Ok(false) };
        for tag in self.tags_of(name, digest).await? {
            self.delete_tag(name, &tag).await?;
        }
        self.drop_manifest(name, digest, entry.subject).await?;
        self.storage.delete(&keys::link(name, digest)).await?;
        Ok(true)
    }

    pub(crate) async fn drop_manifest(
        &self,
        name: &str,
        digest: Digest,
        subject: Option<Digest>,
    ) -> io::Result<()> {
        if let Some(subject) = subject {
            let key = format!("{}{}", keys::referrers(name, subject), keys::part(digest));
            self.storage.delete(&key).await?;
        }
        self.storage.delete(&keys::manifest(name, digest)).await
    }

    /// Removes a blob from a repository that has it. The next collection deletes its bytes if
    /// nothing else needs them.
    pub(crate) async fn delete_blob(&self, name: &str, digest: Digest) -> io::Result<bool> {
        let there = self.blob(name, digest).await?.is_some();
        if there {
            self.storage.delete(&keys::link(name, digest)).await?;
        }
        Ok(there)
    }

    /// A page of what refers to a manifest, in the order of digests.
    pub(crate) async fn referrers(
        &self,
        name: &str,
        subject: Digest,
        after: Option<Digest>,
        limit: usize,
    ) -> io::Result<Vec<Descriptor>> {
        let directory = keys::referrers(name, subject);
        let after = after.map(keys::part);
        let names = self.storage.names(&directory, after.as_deref(), limit).await?;
        let read = stream::iter(names).map(|name| {
            let key = format!("{directory}{name}");
            async move { self.document::<Descriptor>(&key).await }
        });
        read.buffered(AT_ONCE).try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    /// The digest of content by reading it.
    pub(crate) async fn hashed(&self, key: &str, wanted: Digest) -> io::Result<Option<Digest>> {
        let Some(mut stream) = self.storage.read(key, None).await? else { return Ok(None) };
        let mut digester = Digester::new(wanted.algorithm());
        while let Some(bytes) = stream.next().await {
            digester.update(&bytes?);
        }
        Ok(Some(digester.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Directory, Memory};

    #[tokio::test]
    async fn of_two_pushes_one_has_the_tag_and_both_manifests_stay() {
        let place = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(place.path()).unwrap());
        let storages: [Arc<dyn Storage>; 2] = [Arc::new(Memory::default()), directory];
        for storage in storages {
            let content = Content::new(storage, Duration::from_secs(3600));
            let bytes = ["one", "another"].map(|text| Bytes::from(format!("{{\"a\":\"{text}\"}}")));
            let descriptors = bytes.each_ref().map(|b| Descriptor::of(MediaType::OCI_MANIFEST, b));
            let push = async |at: usize, tag: &str, immutable| {
                let (bytes, descriptor) = (&bytes[at], &descriptors[at]);
                let entry = Entry::of(&descriptor.media_type, descriptor.digest, bytes);
                assert_eq!(
                    content.put_manifest("a", &entry, &[], bytes).await.unwrap(),
                    KeepOutcome::Yes
                );
                content.set_tag("a", tag, descriptor, immutable).await.unwrap()
            };
            // At once: one of the two, whole, and both succeed.
            let both = futures::future::join(push(0, "moving", false), push(1, "moving", false));
            assert_eq!(both.await, (true, true));
            let tagged = content.tag("a", "moving").await.unwrap().unwrap();
            let winner = descriptors.iter().find(|d| d.digest == tagged.digest).unwrap();
            assert_eq!(tagged.size, winner.size);
            // One after the other: the later.
            for at in [0, 1] {
                assert!(push(at, "moving", false).await);
                let tagged = content.tag("a", "moving").await.unwrap().unwrap();
                assert_eq!(tagged.digest, descriptors[at].digest);
            }
            for descriptor in &descriptors {
                assert!(content.entry("a", descriptor.digest).await.unwrap().is_some());
                assert!(content.blob("a", descriptor.digest).await.unwrap().is_some());
            }
            // An immutable tag: of two at once, one fails.
            let (one, other) =
                futures::future::join(push(0, "v1", true), push(1, "v1", true)).await;
            assert!(one != other);
            let kept = content.tag("a", "v1").await.unwrap().unwrap().digest;
            assert_eq!(kept, descriptors[usize::from(other)].digest);
        }
    }
}
