use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Repository, Tag};
use task::{Cause, Task};

use crate::{Blob, Capabilities, Location, Plan, Unverified};

/// Where content is, so that a neighbour can take it from there without a copy through us.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A repository; another one on the same registry can mount its blobs.
    Registry(Repository),
    /// A directory that holds `<algorithm>/<hex>` files; a place on the same file system can link
    /// them.
    Blobs(PathBuf),
    /// Not a place to link from.
    Elsewhere,
}

impl Origin {
    /// The file in which a neighbour on this machine keeps a blob.
    pub fn file(&self, digest: Digest) -> Option<PathBuf> {
        match self {
            Origin::Blobs(root) => Some(root.join(digest.algorithm().as_str()).join(digest.hex())),
            _ => None,
        }
    }
}

/// A place to read an image from. One value is one image in that place.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the name points at. Changes nothing in the place.
    async fn resolve(&self) -> Result<Descriptor, Cause>;
    /// What the name points at as it leaves the place: a store that keeps layers unpacked writes
    /// them first, and `task` shows that. Elsewhere the same as [`Source::resolve`].
    async fn seal(&self, task: &Task) -> Result<Descriptor, Cause> {
        let _ = task;
        self.resolve().await
    }
    /// The digest the image had before this place took it apart, where it did.
    async fn original(&self) -> Result<Option<Digest>, Cause> {
        Ok(None)
    }
    /// Opens content; nothing about it is checked yet. Changes nothing in the place.
    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause>;
    /// Opens a part of content (bytes from the start), where the place has it at hand without what
    /// lies before it; elsewhere `None`, and the content is fetched whole.
    async fn fetch_part(
        &self,
        descriptor: &Descriptor,
        part: Range<u64>,
    ) -> Result<Option<Unverified>, Cause> {
        let (_, _) = (descriptor, part);
        Ok(None)
    }
    /// The manifests whose subject this is (distribution-spec, "Listing Referrers").
    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause>;
    /// Where this is, for a neighbour to link from.
    fn origin(&self) -> Origin;
    /// What the user would write to name this place; a policy decides by it. `None` only matches
    /// a policy's default.
    fn location(&self) -> Option<Location> {
        None
    }
    /// The same place under another tag, where it has several; signatures of the older form lie
    /// there.
    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Source>> {
        let _ = tag;
        None
    }
}

/// A place to write an image to. One value is one name in that place.
///
/// Nothing is visible under the name before [`Sink::publish`], which is one step.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What the name points at now, if that is cheap to know; used to do nothing at all when it
    /// is right already.
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        Ok(None)
    }
    /// Whether the content is there already.
    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause>;
    /// Takes the content from a neighbour, if that is possible: a cross-repository mount, a
    /// reflink. `false` means: send it.
    async fn link(&self, descriptor: &Descriptor, origin: &Origin) -> Result<bool, Cause>;
    /// Writes content. The blob fails at its end unless it is what the descriptor says, and then
    /// this must fail too and keep nothing.
    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause>;
    /// Stores the root document and names it. Everything it refers to was put before; content
    /// that turns out to be missing is [`task::Kind::NotFound`].
    /// What takes long reports to the task of the copy.
    async fn publish(&self, root: &Descriptor, document: Bytes, task: &Task) -> Result<(), Cause>;
    /// Stores a document that has a subject and makes it found by [`Source::referrers`].
    async fn refer(
        &self,
        subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        task: &Task,
    ) -> Result<(), Cause> {
        let _ = subject;
        self.publish(referrer, document, task).await
    }
    /// What refers to a manifest here already, so that it is not sent again. A place that does not
    /// know says nothing.
    async fn referring(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        let _ = subject;
        Ok(Vec::new())
    }
    /// The same place under another tag, where it has several; signatures of the older form are
    /// put there.
    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Sink>> {
        let _ = tag;
        None
    }
    /// Hears what is about to come, so that a place can arrange it the same way every time, or
    /// do more with some of it.
    fn expect(&self, plan: &Plan) {
        let _ = plan;
    }
    /// Whether the place keeps the index that an image was chosen from beside the image; the
    /// index is put before the image is published.
    fn keeps_index(&self) -> bool {
        false
    }
    /// What the place can hold; looked at before anything moves.
    fn capabilities(&self) -> Capabilities;
}

/// Decides whether an image may be used; asked before anything of it moves.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Passes, or fails with the reason why not. `root` is what the source's name points at, or
    /// the image chosen from it; `task` is the copy, which the check must not outlive.
    async fn check(&self, source: &dyn Source, root: &Descriptor, task: &Task)
    -> Result<(), Cause>;

    /// Whether an image of a place has passed before, by the rules that hold now: it need not be
    /// looked at again. To say no is always right.
    async fn passed(&self, _place: &Location, _root: &Digest) -> bool {
        false
    }
}

/// The gate that lets everything through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

#[async_trait]
impl Gate for Open {
    async fn check(
        &self,
        _source: &dyn Source,
        _root: &Descriptor,
        _task: &Task,
    ) -> Result<(), Cause> {
        Ok(())
    }

    async fn passed(&self, _place: &Location, _root: &Digest) -> bool {
        true
    }
}
