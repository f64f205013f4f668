//! A repository in memory, with tags beside each other as a registry has them.

#![allow(dead_code, reason = "no test needs all of it")]

pub(crate) mod registry;

use async_trait::async_trait;
use bytes::Bytes;
use image::{Config, Descriptor, Document, Manifest, MediaType, Reference, Tag};
use task::{Cause, Task};
use transport::at::{Memory, MemoryImage};
use transport::{Blob, Capabilities, Location, Origin, Sink, Source, Unverified};

/// One name of a repository in memory.
pub(crate) struct Place {
    pub(crate) memory: Memory,
    pub(crate) name: Reference,
    inner: MemoryImage,
}

impl Place {
    pub(crate) fn new(memory: &Memory, name: Reference) -> Place {
        let inner = memory.image(&name.to_string());
        Place { memory: memory.clone(), name, inner }
    }

    fn under(&self, tag: &Tag) -> Place {
        Place::new(&self.memory, self.name.repository.tagged(tag.clone()))
    }
}

#[async_trait]
impl Source for Place {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        self.inner.resolve().await
    }
    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        self.inner.fetch(descriptor).await
    }
    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        self.inner.referrers(subject).await
    }
    fn origin(&self) -> Origin {
        self.inner.origin()
    }
    fn location(&self) -> Option<Location> {
        Some(Location::Registry(self.name.clone()))
    }
    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Source>> {
        Some(Box::new(self.under(tag)))
    }
}

#[async_trait]
impl Sink for Place {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        self.inner.contains(descriptor).await
    }
    async fn link(&self, descriptor: &Descriptor, origin: &Origin) -> Result<bool, Cause> {
        self.inner.link(descriptor, origin).await
    }
    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        self.inner.put(descriptor, blob).await
    }
    async fn publish(&self, root: &Descriptor, document: Bytes, task: &Task) -> Result<(), Cause> {
        self.inner.publish(root, document, task).await
    }
    async fn refer(
        &self,
        subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        task: &Task,
    ) -> Result<(), Cause> {
        self.inner.refer(subject, referrer, document, task).await
    }
    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Sink>> {
        Some(Box::new(self.under(tag)))
    }
}

/// A small image whose content depends on `seed`: its manifest, config and layer.
pub(crate) fn image(seed: &str) -> (Document<Manifest>, Vec<(Descriptor, Bytes)>) {
    // An empty tar archive with the seed behind its end.
    let mut layer = vec![0; 1024];
    layer.extend_from_slice(seed.as_bytes());
    let layer = Bytes::from(layer);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &layer);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [descriptor.digest] },
    });
    let config: Config = serde_json::from_value(config).expect("a config");
    let config = Document::write(MediaType::OCI_CONFIG, config);
    let manifest = Manifest::new(
        MediaType::OCI_MANIFEST,
        config.descriptor().clone(),
        vec![descriptor.clone()],
    );
    let blobs = vec![(descriptor, layer), (config.descriptor().clone(), config.bytes().clone())];
    (Document::write(MediaType::OCI_MANIFEST, manifest), blobs)
}
