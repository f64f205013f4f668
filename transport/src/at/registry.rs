use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use image::{Descriptor, Digest, Reference, Tag};
use registry_client::{Client, Repo, Target};
use serde::Deserialize;
use task::{Cause, Fault, Kind, Task};

use crate::{Blob, Capabilities, Error, Location, Origin, Sink, Source, Unverified};

/// `docker://…`: an image in a repository on a registry.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    /// For reading, by way of mirrors.
    repo: Repo,
    /// For writing.
    own: Repo,
    reference: Reference,
    /// Whether it lies beside what was named, where it need not be.
    beside: bool,
    /// What HEAD said the name points at.
    told: Arc<Mutex<Option<Descriptor>>>,
}

impl Registry {
    /// The image of this name; `latest` where it has neither tag nor digest.
    pub fn new(client: &Client, reference: &Reference) -> Registry {
        let reference = reference.clone().or_latest();
        let repo = client.repo(&reference.repository);
        let own = repo.clone().writing();
        let repo = repo.reading_image(&Target::from(&reference));
        let told = Arc::default();
        Registry { client: client.clone(), repo, own, reference, beside: false, told }
    }

    /// The image's name.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The repository's tags in the registry's order, the first `limit` ones.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn tags(&self, limit: Option<usize>) -> Result<Vec<String>, Cause> {
        Ok(self.repo.tags(limit).await?)
    }

    /// Deletes what the name says: a digest takes the manifest and all its tags, a tag only
    /// itself where the registry can do that.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn delete(&self) -> Result<(), Cause> {
        Ok(self.own.delete_manifest(&self.target()).await?)
    }

    fn target(&self) -> Target {
        Target::from(&self.reference)
    }

    fn under(&self, tag: &Tag) -> Registry {
        let reference = self.reference.repository.tagged(tag.clone());
        Registry { beside: true, ..Registry::new(&self.client, &reference) }
    }

    /// What lies beside something else, if it is there.
    async fn probe(repo: &Repo, reference: &Reference) -> Result<Option<Descriptor>, Cause> {
        let Some(tag) = &reference.tag else { return Ok(None) };
        Ok(repo.probe(tag).await?)
    }

    fn tell(&self, told: &Descriptor) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.clone());
    }

    fn was_told(&self, of: &Descriptor) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_ref() == Some(of)
    }

    async fn put_document(
        &self,
        target: &Target,
        descriptor: &Descriptor,
        document: Bytes,
    ) -> Result<(), Cause> {
        let subject = subject(&document);
        let put = self.own.put_manifest(target, &descriptor.media_type, document).await;
        let registered = put.map_err(rejected(descriptor.digest))?;
        match subject {
            Some(subject) if registered.is_none() => {
                Ok(self.own.add_referrer(subject, descriptor).await?)
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.reference)
    }
}

/// Registries answer 400 or 404 to a manifest whose parts they miss.
fn rejected(digest: Digest) -> impl FnOnce(registry_client::Error) -> Cause {
    move |error| match &error {
        registry_client::Error::Answer { status: 400 | 404 | 422, .. } => {
            Error::Rejected { digest, source: error.into() }.into()
        }
        _ => error.into(),
    }
}

fn subject(document: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct ReferrerManifest {
        subject: Option<SubjectField>,
    }
    #[derive(Deserialize)]
    struct SubjectField {
        digest: Digest,
    }
    let referring: ReferrerManifest = serde_json::from_slice(document).ok()?;
    Some(referring.subject?.digest)
}

#[async_trait]
impl Source for Registry {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        if self.beside {
            let found = Registry::probe(&self.repo, &self.reference).await?;
            return found.ok_or_else(|| {
                let (name, place) = (self.reference.to_string(), "the registry".to_owned());
                Error::NoImage { name, place, known: Vec::new() }.into()
            });
        }
        let told = self.repo.resolve(&self.target()).await?;
        self.tell(&told);
        Ok(told)
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        if descriptor.media_type.is_node() {
            let (found, bytes) = self.repo.manifest(&Target::Digest(descriptor.digest)).await?;
            let same = found.size == descriptor.size && found.media_type == descriptor.media_type;
            if !same && self.was_told(descriptor) {
                let place = self.reference.repository.registry().to_owned();
                return Err(Error::Relabelled { found: Box::new(found), place }.into());
            }
            return Ok(Unverified::whole(bytes));
        }
        let body = self.repo.blob(descriptor.digest, Some(descriptor.size), None).await?;
        Ok(Unverified::new(body.map(|chunk| chunk.map_err(Cause::new))))
    }

    async fn fetch_part(
        &self,
        descriptor: &Descriptor,
        part: Range<u64>,
    ) -> Result<Option<Unverified>, Cause> {
        let body = self.repo.blob_part(descriptor.digest, descriptor.size, part).await?;
        Ok(body.map(|body| Unverified::new(body.map(|chunk| chunk.map_err(Cause::new)))))
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(self.repo.referrers(subject.digest, None).await?)
    }

    fn origin(&self) -> Origin {
        Origin::Registry(self.reference.repository.clone())
    }

    fn location(&self) -> Option<Location> {
        Some(Location::Registry(self.reference.clone()))
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Source>> {
        Some(Box::new(self.under(tag)))
    }
}

#[async_trait]
impl Sink for Registry {
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        if self.beside {
            return Registry::probe(&self.own, &self.reference).await;
        }
        match self.own.resolve(&self.target()).await {
            Ok(descriptor) => Ok(Some(descriptor)),
            // Who may only push learns here that reading is denied, and pushes.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        if !descriptor.media_type.is_node() {
            let size = self.own.has_blob(descriptor.digest).await?;
            return Ok(size == Some(descriptor.size));
        }
        match self.own.resolve(&Target::Digest(descriptor.digest)).await {
            Ok(found) => Ok(found.digest == descriptor.digest),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn link(&self, descriptor: &Descriptor, origin: &Origin) -> Result<bool, Cause> {
        let ours = &self.reference.repository;
        match origin {
            Origin::Registry(from) if from.registry() == ours.registry() && from != ours => {
                // Where mounting is not possible or not allowed the content is sent.
                Ok(self.own.mount(descriptor.digest, from).await.unwrap_or(false))
            }
            _ => Ok(false),
        }
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        if descriptor.media_type.is_node() {
            let document = blob.read().await?;
            let target = Target::Digest(descriptor.digest);
            return self.put_document(&target, descriptor, document).await;
        }
        let body = blob.map(|chunk| chunk.map_err(registry_client::Error::source));
        Ok(self.own.upload(descriptor, body.boxed()).await?)
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, _task: &Task) -> Result<(), Cause> {
        if let Some(digest) = self.reference.digest
            && digest != root.digest
        {
            let (expected, found) = (digest, root.digest);
            return Err(image::Error::DigestMismatch { expected, found }.into());
        }
        let target = match &self.reference.tag {
            Some(tag) => Target::Tag(tag.clone()),
            None => Target::Digest(root.digest),
        };
        self.put_document(&target, root, document).await
    }

    async fn refer(
        &self,
        _subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        _task: &Task,
    ) -> Result<(), Cause> {
        self.put_document(&Target::Digest(referrer.digest), referrer, document).await
    }

    async fn referring(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        match self.repo.referrers(subject.digest, None).await {
            Ok(found) => Ok(found),
            // Who may only push learns here that reading is denied, and pushes.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Sink>> {
        Some(Box::new(self.under(tag)))
    }
}
