use std::ops::Range;

use async_trait::async_trait;
use image::{Descriptor, Digest, Tag};
use task::Cause;

use crate::{Error, Location, Origin, Source, Unverified};

/// A source whose name was resolved before.
pub struct ResolvedSource<'a> {
    inner: &'a dyn Source,
    named: Descriptor,
}

impl<'a> ResolvedSource<'a> {
    /// The same source, whose name points at this.
    pub fn new(inner: &'a dyn Source, named: Descriptor) -> ResolvedSource<'a> {
        ResolvedSource { inner, named }
    }
}

#[async_trait]
impl Source for ResolvedSource<'_> {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        Ok(self.named.clone())
    }

    async fn original(&self) -> Result<Option<Digest>, Cause> {
        self.inner.original().await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        self.inner.fetch(descriptor).await
    }

    async fn fetch_part(
        &self,
        descriptor: &Descriptor,
        part: Range<u64>,
    ) -> Result<Option<Unverified>, Cause> {
        self.inner.fetch_part(descriptor, part).await
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        self.inner.referrers(subject).await
    }

    fn origin(&self) -> Origin {
        self.inner.origin()
    }

    fn location(&self) -> Option<Location> {
        self.inner.location()
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Source>> {
        self.inner.sibling(tag)
    }
}

/// The actual type of a name's document if the place declared another: after this failure the
/// caller starts again with it, because the document counts.
pub(crate) fn relabelled(error: &Error) -> Option<Descriptor> {
    let Error::Place { source, .. } = error else { return None };
    match source.downcast_ref::<Error>() {
        Some(Error::Relabelled { found, .. }) => Some((**found).clone()),
        _ => None,
    }
}
