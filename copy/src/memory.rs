use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use image::{Descriptor, Digest, MediaType};
use task::{Cause, Task};

use crate::{Blob, Capabilities, Error, Origin, Sink, Source, Unverified};

/// Images in memory: for documents made on the spot, and for tests.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Graphs>>);

#[derive(Default)]
struct Graphs {
    blobs: BTreeMap<Digest, Bytes>,
    names: BTreeMap<String, Descriptor>,
    referrers: BTreeMap<Digest, Vec<Descriptor>>,
}

impl Memory {
    /// Nothing yet.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn lock(&self) -> MutexGuard<'_, Graphs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds content.
    pub fn insert(&self, media_type: MediaType, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.lock().blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    /// Points a name at content.
    pub fn name(&self, name: &str, root: &Descriptor) {
        self.lock().names.insert(name.to_owned(), root.clone());
    }

    /// What a name points at.
    pub fn named(&self, name: &str) -> Option<Descriptor> {
        self.lock().names.get(name).cloned()
    }

    /// Content, if it is here.
    pub fn get(&self, digest: Digest) -> Option<Bytes> {
        self.lock().blobs.get(&digest).cloned()
    }

    /// Takes content away; `false` if it was not here.
    pub fn remove(&self, digest: Digest) -> bool {
        self.lock().blobs.remove(&digest).is_some()
    }

    /// The digests of all content.
    pub fn digests(&self) -> Vec<Digest> {
        self.lock().blobs.keys().copied().collect()
    }

    /// The image of this name, to read or to write.
    pub fn image(&self, name: &str) -> MemoryImage {
        MemoryImage { memory: self.clone(), name: name.to_owned() }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// One name in a [`Memory`].
#[derive(Debug, Clone)]
pub struct MemoryImage {
    memory: Memory,
    name: String,
}

impl MemoryImage {
    /// The memory it is in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

const PLACE: &str = "memory";

#[async_trait]
impl Source for MemoryImage {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        let content = self.memory.lock();
        let known = content.names.keys().take(10).cloned().collect();
        content.names.get(&self.name).cloned().ok_or_else(|| {
            Error::NoImage { name: self.name.clone(), place: PLACE.to_owned(), known }.into()
        })
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let bytes = self.memory.get(descriptor.digest);
        bytes.map(Unverified::whole).ok_or_else(|| Error::missing(descriptor, PLACE).into())
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(self.memory.lock().referrers.get(&subject.digest).cloned().unwrap_or_default())
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }
}

#[async_trait]
impl Sink for MemoryImage {
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        Ok(self.memory.named(&self.name))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        Ok(self.memory.lock().blobs.contains_key(&descriptor.digest))
    }

    async fn link(&self, _descriptor: &Descriptor, _origin: &Origin) -> Result<bool, Cause> {
        Ok(false)
    }

    async fn put(&self, descriptor: &Descriptor, mut blob: Blob) -> Result<(), Cause> {
        let mut whole = Vec::new();
        while let Some(chunk) = blob.next().await {
            whole.extend_from_slice(&chunk?);
        }
        self.memory.lock().blobs.insert(descriptor.digest, whole.into());
        Ok(())
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, _task: &Task) -> Result<(), Cause> {
        let mut content = self.memory.lock();
        content.blobs.insert(root.digest, document);
        content.names.insert(self.name.clone(), root.clone());
        Ok(())
    }

    async fn refer(
        &self,
        subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        _task: &Task,
    ) -> Result<(), Cause> {
        let mut content = self.memory.lock();
        content.blobs.insert(referrer.digest, document);
        let list = content.referrers.entry(subject.digest).or_default();
        if !list.iter().any(|known| known.digest == referrer.digest) {
            list.push(referrer.clone());
        }
        Ok(())
    }
}
