use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use image::{Descriptor, Digest, MediaType, Repository, Tag};
use reqwest::Method;
use tokio::time::{Instant, timeout_at};

use crate::auth::{Access, Scope};
use crate::call::{Call, Endpoint, RequestTarget};
use crate::inner::ClientInner;
use crate::limit::Lane;
use crate::routes::Use;
use crate::{Body, Error, RateLimit, Result, Target, download, manifest, pages, referrers, upload};

/// One repository through a [`crate::Client`]. Cheap to clone.
#[derive(Clone)]
pub struct Repo {
    inner: Arc<ClientInner>,
    repository: Repository,
    /// What the user named the image by whose parts are read.
    named: Option<Use>,
}

impl Repo {
    pub(crate) fn new(inner: Arc<ClientInner>, repository: Repository) -> Repo {
        Repo { inner, repository, named: None }
    }

    /// Which repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The same for reading an image under the name that the user gave, which decides which mirrors
    /// serve its parts; without this each part counts as named itself.
    #[must_use]
    pub fn reading_image(mut self, named: &Target) -> Repo {
        self.named = Some(Use::Image(named.clone()));
        self
    }

    /// The same for writing: all requests go to the registry itself, under the original name.
    #[must_use]
    pub fn writing(mut self) -> Repo {
        self.named = Some(Use::Writing);
        self
    }

    fn inner(&self) -> &Arc<ClientInner> {
        &self.inner
    }

    /// Says something to the user, each text once.
    pub(crate) fn warn(&self, text: &str) {
        self.inner.warn(text);
    }

    /// Where it is written.
    fn primary(&self) -> Result<Endpoint> {
        self.inner().primary(&self.repository)
    }

    /// Asks the mirrors and then the registry itself; the last one's error counts. A mirror that
    /// does not answer is left out for a while, or every part of an image would wait for it. All
    /// mirrors together have a quarter of the client's patience, so that several dead ones cost no
    /// more time than one.
    async fn reading<T, F: Future<Output = Result<T>>>(
        &self,
        part: Use,
        ask: impl Fn(Endpoint) -> F,
    ) -> Result<T> {
        let r#use = self.named.as_ref().unwrap_or(&part);
        let (mirrors, own) = self.inner().endpoints(&self.repository, r#use)?;
        let end = Instant::now() + self.inner().options.patience / 4;
        for mirror in mirrors {
            let host = Arc::clone(&mirror.host);
            if host.is_lost() || Instant::now() >= end {
                continue;
            }
            match timeout_at(end, ask(mirror)).await {
                Err(_) => {
                    tracing::debug!(host = host.authority, "the mirror did not answer in time");
                    host.lost();
                }
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => {
                    tracing::debug!(%error, host = host.authority, "the mirror did not help");
                    if matches!(error, Error::Connection { .. } | Error::Timeout { .. }) {
                        host.lost();
                    }
                }
            }
        }
        ask(own).await
    }

    /// The reference of an image at a place: another name if it is the image the user named and the
    /// place has one for it.
    fn there<'a>(&self, endpoint: &'a Endpoint, target: &'a Target) -> &'a Target {
        let parts = matches!(&self.named, Some(Use::Image(named)) if named != target);
        endpoint.place.image.as_ref().filter(|_| !parts).unwrap_or(target)
    }

    /// The descriptor of a tag or digest, in one HEAD if the registry answers it fully.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn resolve(&self, target: &Target) -> Result<Descriptor> {
        self.reading(Use::Image(target.clone()), |endpoint| async move {
            let target = self.there(&endpoint, target);
            manifest::resolve(self.inner(), &endpoint, target).await
        })
        .await
    }

    /// The descriptor of an optional tag: a registry that refuses to answer has no such tag.
    ///
    /// # Errors
    /// The registry cannot be reached, or wants to be left alone.
    pub async fn probe(&self, tag: &Tag) -> Result<Option<Descriptor>> {
        let target = Target::Tag(tag.clone());
        let (_, endpoint) =
            self.inner().endpoints(&self.repository, &Use::Image(target.clone()))?;
        manifest::probe(self.inner(), &endpoint, self.there(&endpoint, &target)).await
    }

    /// The remaining rate limit that the registry reports with a manifest; `None` if it reports
    /// none.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn rate_limit(&self, target: &Target) -> Result<Option<RateLimit>> {
        let endpoint = self.primary()?;
        manifest::resolve(self.inner(), &endpoint, target).await?;
        Ok(endpoint.host.pace.left())
    }

    /// A manifest or index, at most [`image::MAX_DOCUMENT`] bytes, its digest checked when asked
    /// for by digest.
    ///
    /// # Errors
    /// Of the registry; [`crate::Error::Content`] for other bytes than asked for.
    pub async fn manifest(&self, target: &Target) -> Result<(Descriptor, Bytes)> {
        self.reading(Use::Image(target.clone()), |endpoint| async move {
            let target = self.there(&endpoint, target);
            manifest::read(self.inner(), &endpoint, target).await
        })
        .await
    }

    /// A blob's bytes, *not verified*. Resumes by itself after a fault that may pass. Never more
    /// than `size` bytes where that is known; `range` selects a part, and what lies before it is
    /// received and dropped where the registry does not answer ranges.
    ///
    /// # Errors
    /// Of the registry, here or in the stream.
    pub async fn blob(
        &self,
        digest: Digest,
        size: Option<u64>,
        range: Option<Range<u64>>,
    ) -> Result<Body> {
        self.reading(Use::Image(Target::Digest(digest)), |endpoint| {
            let range = range.clone();
            async move { download::blob(self.inner(), &endpoint, digest, size, range).await }
        })
        .await
    }

    /// A part of a blob of `size` bytes, as [`Repo::blob`]; `None` where the registry does not answer
    /// ranges (RFC 9110, section 14.2: it may send the whole).
    ///
    /// # Errors
    /// As [`Repo::blob`].
    pub async fn blob_part(
        &self,
        digest: Digest,
        size: u64,
        part: Range<u64>,
    ) -> Result<Option<Body>> {
        self.reading(Use::Image(Target::Digest(digest)), |endpoint| {
            let part = part.clone();
            async move { download::part(self.inner(), &endpoint, digest, size, part).await }
        })
        .await
    }

    /// The size of a blob if the repository has it. For writers: mirrors are not queried, and the
    /// token allows writing too.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn has_blob(&self, digest: Digest) -> Result<Option<u64>> {
        upload::has(self.inner(), &self.primary()?, digest, Lane::Small, None).await
    }

    /// Uploads a blob. The body must be open already (not wait for its turn at the same
    /// registry) and can be read once: on a fault of kind [`task::Kind::Unavailable`] the caller
    /// may come again with a new one. Blobs of up to 256 KiB are repeated here.
    ///
    /// # Errors
    /// Of the registry or of the body ([`Error::Source`]).
    pub async fn upload(&self, descriptor: &Descriptor, body: Body) -> Result<()> {
        upload::upload(self.inner(), &self.primary()?, descriptor, body).await
    }

    /// Makes a blob of another repository of the same registry appear in this one, without moving
    /// it; `false` when the registry would rather have it uploaded. The session it opened for
    /// that is used by the [`Repo::upload`] that follows.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn mount(&self, digest: Digest, from: &Repository) -> Result<bool> {
        upload::mount(self.inner(), &self.primary()?, digest, from).await
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
        manifest::write(self.inner(), &self.primary()?, target, media_type, bytes).await
    }

    /// Deletes a tag, or a manifest with all its tags; a manifest that refers to another is taken out
    /// of the list of referrers where the registry does not keep that itself.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn delete_manifest(&self, target: &Target) -> Result<()> {
        let endpoint = self.primary()?;
        let subject = match target {
            Target::Tag(_) => None,
            Target::Digest(digest) => self.subject(&endpoint, *digest).await,
        };
        let path = format!("/v2/{}/manifests/{target}", endpoint.path());
        let action = format!("deleting {}{}", endpoint.path(), target.suffix());
        self.delete(&endpoint, path, action).await?;
        let (Some(subject), Target::Digest(digest)) = (subject, target) else { return Ok(()) };
        match referrers::listed(self.inner(), &endpoint, subject, None).await? {
            Some(_) => Ok(()),
            None => self.remove_referrer(subject, *digest).await,
        }
    }

    /// What a manifest refers to, if it can be read.
    async fn subject(&self, endpoint: &Endpoint, digest: Digest) -> Option<Digest> {
        let found = manifest::read(self.inner(), endpoint, &Target::Digest(digest)).await;
        let (descriptor, bytes) = found.ok()?;
        referrers::subject_of(descriptor, bytes)
    }

    /// Deletes a blob.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn delete_blob(&self, digest: Digest) -> Result<()> {
        let endpoint = self.primary()?;
        let path = format!("/v2/{}/blobs/{digest}", endpoint.path());
        let action = format!("deleting blob {digest} of {}", endpoint.path());
        self.delete(&endpoint, path, action).await
    }

    async fn delete(&self, endpoint: &Endpoint, path: String, action: String) -> Result<()> {
        let scope = Scope::new(Access::Delete, endpoint.path());
        let call = Call::new(Method::DELETE, RequestTarget::Path(path), scope, action);
        match self.inner().send_repeatable(endpoint, &call).await {
            // An attempt before this one was cut off and did it.
            Err((Error::Answer { status: 404, .. }, true)) => Ok(()),
            Err((error, _)) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// The `Authorization` header that the registry takes from us for this repository; `None` where
    /// it wants none.
    ///
    /// # Errors
    /// Of the registry; [`Error::Denied`] when it does not take our credentials.
    pub async fn authorization(&self, push: bool) -> Result<Option<String>> {
        let endpoint = self.primary()?;
        let access = if push { Access::Push } else { Access::Pull };
        let scope = Scope::new(access, endpoint.path());
        let action = format!("asking for a token for {}", endpoint.path());
        let to = RequestTarget::Path("/v2/".into());
        let call = Call::new(Method::GET, to, scope.clone(), action.clone());
        self.inner().send(&endpoint, &call).await?;
        let header = self.inner().authorization(&endpoint, &scope, &action).await?;
        Ok(header.and_then(|header| header.to_str().ok().map(str::to_owned)))
    }

    /// The tags, in the registry's order; the first `limit` ones.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn tags(&self, limit: Option<usize>) -> Result<Vec<String>> {
        self.reading(Use::Reading, |endpoint| async move {
            pages::tags(self.inner(), &endpoint, limit).await
        })
        .await
    }

    /// What refers to a manifest, from the referrers API or the fallback tag. A registry that does
    /// not say has none; the user is warned.
    ///
    /// # Errors
    /// The registry cannot be reached, or wants to be left alone.
    pub async fn referrers(
        &self,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let r#use = self.named.as_ref().unwrap_or(&Use::Reading);
        let (_, endpoint) = self.inner().endpoints(&self.repository, r#use)?;
        let listed = referrers::listed(self.inner(), &endpoint, subject, artifact_type);
        let host = &endpoint.host;
        let known =
            host.refers.load(Ordering::Relaxed) || host.is_without_referrers(endpoint.path());
        let mut found = if known {
            match listed.await? {
                Some(found) => found,
                None => referrers::tagged_or_none(self, subject).await?,
            }
        } else {
            // Until it is known to have the API both are asked for at once: one wait, not two.
            let tagged = referrers::tagged_or_none(self, subject);
            let (listed, tagged) = futures::join!(listed, tagged);
            match listed? {
                Some(found) => found,
                None => tagged?,
            }
        };
        if let Some(kind) = artifact_type {
            found.retain(|referrer| referrer.artifact_type.as_deref() == Some(kind));
        }
        Ok(found)
    }

    /// What refers to a manifest, from the referrers API alone; `None` where there is none.
    ///
    /// # Errors
    /// The registry cannot be reached, or wants to be left alone.
    pub async fn api_referrers(&self, subject: Digest) -> Result<Option<Vec<Descriptor>>> {
        let r#use = self.named.as_ref().unwrap_or(&Use::Reading);
        let (_, endpoint) = self.inner().endpoints(&self.repository, r#use)?;
        referrers::listed(self.inner(), &endpoint, subject, None).await
    }

    /// What refers to a manifest, from the fallback tag alone.
    ///
    /// # Errors
    /// The registry cannot be reached, or wants to be left alone.
    pub async fn tagged_referrers(&self, subject: Digest) -> Result<Vec<Descriptor>> {
        referrers::tagged_or_none(self, subject).await
    }

    /// Adds a referrer to the fallback tag of its subject (distribution-spec, "Referrers Tag
    /// Schema"). Its descriptor should carry the artifact type and annotations of the manifest.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn add_referrer(&self, subject: Digest, referrer: &Descriptor) -> Result<()> {
        referrers::update(&self.clone().writing(), subject, |referrers| {
            let missing = referrers.iter().all(|known| known.digest != referrer.digest);
            if missing {
                referrers.push(referrer.clone());
            }
            missing
        })
        .await
    }

    /// Takes a referrer out of the fallback tag of its subject.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn remove_referrer(&self, subject: Digest, referrer: Digest) -> Result<()> {
        referrers::update(&self.clone().writing(), subject, |referrers| {
            let before = referrers.len();
            referrers.retain(|known| known.digest != referrer);
            referrers.len() != before
        })
        .await
    }
}
