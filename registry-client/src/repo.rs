use std::ops::Range;

use bytes::Bytes;
use image::{Descriptor, Digest, MediaType, Reference, Repository, Tag};

use crate::{Body, Client, Result};

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A movable name.
    Tag(Tag),
    /// Exact content.
    Digest(Digest),
}

impl From<&Reference> for Target {
    /// The digest wins over the tag; neither means `latest`.
    fn from(reference: &Reference) -> Target {
        match (&reference.digest, &reference.tag) {
            (Some(digest), _) => Target::Digest(*digest),
            (None, Some(tag)) => Target::Tag(tag.clone()),
            (None, None) => Target::Tag(Tag::latest()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tag(tag) => tag.fmt(f),
            Target::Digest(digest) => digest.fmt(f),
        }
    }
}

/// One repository through a [`Client`]. Cheap to clone.
#[derive(Clone)]
pub struct Repo {
    client: Client,
    repository: Repository,
}

impl Repo {
    pub(crate) fn new(client: Client, repository: Repository) -> Repo {
        Repo { client, repository }
    }

    /// Which repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What a tag or digest stands for, in one HEAD where the registry answers it fully.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn resolve(&self, target: &Target) -> Result<Descriptor> {
        let _ = (target, &self.client);
        Err(crate::unfinished())
    }

    /// A manifest or index, at most [`image::MAX_DOCUMENT`] bytes, its digest checked when asked
    /// for by digest.
    ///
    /// # Errors
    /// Of the registry; [`crate::Error::Content`] for other bytes than asked for.
    pub async fn manifest(&self, target: &Target) -> Result<(Descriptor, Bytes)> {
        let _ = target;
        Err(crate::unfinished())
    }

    /// A blob's bytes, *not verified*. Resumes by itself. Never more than `size` bytes.
    ///
    /// # Errors
    /// Of the registry, here or in the stream.
    pub async fn blob(
        &self,
        digest: Digest,
        size: Option<u64>,
        range: Option<Range<u64>>,
    ) -> Result<Body> {
        let _ = (digest, size, range);
        Err(crate::unfinished())
    }

    /// The size of a blob if the repository has it.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn has_blob(&self, digest: Digest) -> Result<Option<u64>> {
        let _ = digest;
        Err(crate::unfinished())
    }

    /// Uploads a blob. The body can be read once: on a fault of kind
    /// [`task::Kind::Unavailable`] the caller may come again with a new one.
    ///
    /// # Errors
    /// Of the registry or of the body.
    pub async fn upload(&self, descriptor: &Descriptor, body: Body) -> Result<()> {
        let _ = (descriptor, body);
        Err(crate::unfinished())
    }

    /// Makes a blob of another repository of the same registry appear in this one, without moving
    /// it; `false` when the registry would rather have it uploaded.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn mount(&self, digest: Digest, from: &Repository) -> Result<bool> {
        let _ = (digest, from);
        Err(crate::unfinished())
    }

    /// Writes a manifest under a tag or its digest. Returns the digest the registry registered it
    /// as a referrer of (`OCI-Subject`); `None` for a manifest with a subject means that the
    /// registry has no referrers API and [`Repo::add_referrer`] is needed.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn put_manifest(
        &self,
        target: &Target,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<Option<Digest>> {
        let _ = (target, media_type, bytes);
        Err(crate::unfinished())
    }

    /// Deletes a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn delete_manifest(&self, target: &Target) -> Result<()> {
        let _ = target;
        Err(crate::unfinished())
    }

    /// Deletes a blob.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn delete_blob(&self, digest: Digest) -> Result<()> {
        let _ = digest;
        Err(crate::unfinished())
    }

    /// The tags, in the registry's order; the first `limit` ones.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn tags(&self, limit: Option<usize>) -> Result<Vec<String>> {
        let _ = limit;
        Err(crate::unfinished())
    }

    /// What refers to a manifest, from the referrers API or the fallback tag.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn referrers(
        &self,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let _ = (subject, artifact_type);
        Err(crate::unfinished())
    }

    /// Adds a referrer to the fallback tag of its subject (distribution-spec, "Referrers tag
    /// schema").
    ///
    /// # Errors
    /// Of the registry.
    pub async fn add_referrer(&self, subject: Digest, referrer: &Descriptor) -> Result<()> {
        let _ = (subject, referrer);
        Err(crate::unfinished())
    }

    /// Takes a referrer out of the fallback tag of its subject.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn remove_referrer(&self, subject: Digest, referrer: Digest) -> Result<()> {
        let _ = (subject, referrer);
        Err(crate::unfinished())
    }
}
