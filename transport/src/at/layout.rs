use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Node};
use store::{Layout, Listing};
use task::{Cause, Fault, Kind, Task};

use super::{files, named};
use crate::bridge::{self, blocking};
use crate::{Blob, Capabilities, Error, ImageSelector, Location, Origin, Sink, Source, Unverified};

/// `oci:…`: an image in a directory in the OCI image layout.
#[derive(Debug, Clone)]
pub struct LayoutImage {
    path: PathBuf,
    named: ImageSelector,
    /// Where its blobs are, if not in it.
    blobs: Option<PathBuf>,
    /// Whether publishing waits for the disk.
    synced: bool,
    /// How the image is named that was found.
    found: Arc<OnceLock<ImageSelector>>,
    /// What its `index.json` said last, for many questions about it.
    listing: Arc<Mutex<Option<Arc<Listing>>>>,
}

/// The result of opening a layout.
type LayoutResult = Result<Layout, Cause>;

impl LayoutImage {
    /// An image in the layout at `path`, which need not exist to be written to.
    pub fn new(path: &Path, named: ImageSelector) -> LayoutImage {
        let (found, listing) = Default::default();
        LayoutImage { path: path.to_owned(), named, blobs: None, synced: true, found, listing }
    }

    /// The same with its blobs in a directory that several layouts share.
    #[must_use]
    pub fn sharing(self, blobs: Option<&Path>) -> LayoutImage {
        LayoutImage { blobs: blobs.map(Path::to_owned), listing: Arc::default(), ..self }
    }

    /// The same without waiting for the disk, if asked: see [`Layout::unsynced`].
    #[must_use]
    pub fn unsynced(self, unsynced: bool) -> LayoutImage {
        LayoutImage { synced: !unsynced, ..self }
    }

    fn under(&self, tag: &image::Tag) -> LayoutImage {
        LayoutImage {
            named: ImageSelector::Name(tag.to_string()),
            found: Arc::default(),
            ..self.clone()
        }
    }

    /// What opens the layout, or makes it, on another thread.
    fn opener(
        &self,
        open: fn(&Path) -> store::Result<Layout>,
    ) -> impl FnOnce() -> LayoutResult + use<> {
        let (path, blobs, synced) = (self.path.clone(), self.blobs.clone(), self.synced);
        move || {
            let mut layout = open(&path)?;
            if !synced {
                layout = layout.unsynced();
            }
            Ok(match blobs {
                Some(blobs) => layout.with_blobs(&blobs),
                None => layout,
            })
        }
    }

    /// The names of the images in the layout.
    ///
    /// # Errors
    /// Of the layout.
    pub async fn names(&self) -> Result<Vec<String>, Cause> {
        let open = self.opener(Layout::open);
        blocking(move || Ok(open()?.names()?)).await
    }

    /// Takes the image's name away; its blobs stay. `false` if there was no such name.
    ///
    /// # Errors
    /// Of the layout; [`Error::Unsupported`] for an image without a name.
    pub async fn delete(&self) -> Result<bool, Cause> {
        let (path, named) = (self.path.clone(), self.named.clone());
        blocking(move || match named {
            ImageSelector::Name(name) => Ok(Layout::open(&path)?.unname(&name)?),
            _ => Err(Error::Unsupported {
                action: "deleting an image without a name".to_owned(),
                place: format!("the layout {}", path.display()),
            }
            .into()),
        })
        .await
    }

    fn place(&self) -> String {
        format!("the layout {}", self.path.display())
    }

    /// Runs `work` on the layout, if there is one.
    async fn existing<T: Send + 'static>(
        &self,
        otherwise: T,
        work: impl FnOnce(&Layout) -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Cause> {
        let (path, open) = (self.path.clone(), self.opener(Layout::open));
        blocking(move || {
            if !path.join("oci-layout").exists() {
                return Ok(otherwise);
            }
            work(&open()?)
        })
        .await
    }

    async fn making<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Cause> {
        let create = self.opener(Layout::create);
        blocking(move || work(&create()?)).await
    }
}

/// What the layout's `index.json` says now, read again only if it is another one.
fn current(layout: &Layout, known: &Mutex<Option<Arc<Listing>>>) -> Result<Arc<Listing>, Cause> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(listing) = &*known
        && layout.is_current(listing)?
    {
        return Ok(Arc::clone(listing));
    }
    let listing = Arc::new(layout.listing()?);
    *known = Some(Arc::clone(&listing));
    Ok(listing)
}

/// Whether a document is there with everything below it, or a blob with its size. A document is
/// whole without layers that are kept elsewhere; such a layer itself is there only if its bytes are.
fn is_whole(layout: &Layout, root: &Descriptor) -> Result<bool, Cause> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![root.clone()];
    while let Some(next) = todo.pop() {
        if !seen.insert(next.digest) {
            continue;
        }
        let found = layout.blob_size(next.digest)?;
        let elsewhere = next.media_type.is_foreign() && next.digest != root.digest;
        if found != Some(next.size) && !(found.is_none() && elsewhere) {
            return Ok(false);
        }
        if next.media_type.is_node() {
            // A broken document is not there; it will be written again.
            let Ok(bytes) = layout.read(&next) else { return Ok(false) };
            let Ok(node) = Node::read(next, bytes) else { return Ok(false) };
            todo.extend(node.children());
        }
    }
    Ok(true)
}

fn write_document(layout: &Layout, descriptor: &Descriptor, document: &[u8]) -> Result<(), Cause> {
    use std::io::Write;
    if layout.contains(descriptor.digest)? && layout.read(&descriptor.bare()).is_ok() {
        return Ok(());
    }
    let mut writer = layout.writer_for(descriptor.digest.algorithm())?;
    writer.write_all(document).map_err(Error::Stream)?;
    writer.commit(Some(descriptor))?;
    Ok(())
}

#[async_trait]
impl Source for LayoutImage {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        let (path, named, place) = (self.path.clone(), self.named.clone(), self.place());
        let (found, open) = (Arc::clone(&self.found), self.opener(Layout::open));
        blocking(move || {
            if !path.exists() {
                return Err(files::absent(&path).into());
            }
            let layout = open()?;
            let read = |entry: &Descriptor| layout.read(entry).ok();
            let entry = named::pick_or_below(&layout.entries()?, &named, &place, &read)?;
            let _ = found.set(named::named_as(&entry, &named));
            Ok(named::unnamed(entry))
        })
        .await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let (open, digest) = (self.opener(Layout::open), descriptor.digest);
        let file = blocking(move || Ok::<_, Cause>(open()?.open_blob(digest)?)).await?;
        Ok(bridge::stream(file))
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        let (digest, known) = (subject.digest, Arc::clone(&self.listing));
        self.existing(Vec::new(), move |layout| {
            let listing = current(layout, &known)?;
            let mut found = listing.referrers(digest);
            // Other writers keep the list as an index under a name made of the digest.
            let tag = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
            if let Some(list) = listing.named(&tag).filter(|list| list.media_type.is_index()) {
                let list = named::unnamed(list.clone());
                let node = Node::read(list.clone(), layout.read(&list)?)?;
                let listed = node.children().into_iter();
                let new = |child: &Descriptor| found.iter().all(|f| f.digest != child.digest);
                let more: Vec<_> = listed.filter(new).collect();
                found.extend(more);
            }
            Ok(found)
        })
        .await
    }

    fn origin(&self) -> Origin {
        Origin::Blobs(self.blobs.clone().unwrap_or_else(|| self.path.join("blobs")))
    }

    fn location(&self) -> Option<Location> {
        let named = self.found.get().unwrap_or(&self.named);
        Some(Location::Layout(self.path.clone(), named.clone()))
    }

    fn sibling(&self, tag: &image::Tag) -> Option<Box<dyn Source>> {
        Some(Box::new(self.under(tag)))
    }
}

#[async_trait]
impl Sink for LayoutImage {
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        let named = self.named.clone();
        self.existing(None, move |layout| {
            let ImageSelector::Name(name) = named else { return Ok(None) };
            let found = layout.resolve(&name)?.map(named::unnamed);
            match found {
                Some(found) if is_whole(layout, &found)? => Ok(Some(found)),
                _ => Ok(None),
            }
        })
        .await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        let descriptor = descriptor.clone();
        self.existing(false, move |layout| is_whole(layout, &descriptor)).await
    }

    async fn link(&self, descriptor: &Descriptor, origin: &Origin) -> Result<bool, Cause> {
        let Some(file) = origin.file(descriptor.digest) else { return Ok(false) };
        let descriptor = descriptor.clone();
        self.making(move |layout| adopted(layout.adopt(&file, &descriptor))).await
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        let descriptor = descriptor.clone();
        // The writer computes the digest of what it wrote and keeps nothing else.
        let reader = bridge::reader(blob.checked_by_sink());
        self.making(move |layout| {
            let mut writer = layout.writer_for(descriptor.digest.algorithm())?;
            reader.pour(&mut writer, &layout.path().join("blobs"))?;
            writer.commit(Some(&descriptor))?;
            Ok(())
        })
        .await
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, _task: &Task) -> Result<(), Cause> {
        let (root, named) = (named::placeless(root.clone()), self.named.clone());
        self.making(move |layout| {
            write_document(layout, &root, &document)?;
            match named {
                ImageSelector::Name(name) => layout.publish(Some(&name), &root)?,
                ImageSelector::Digest(digest) if digest != root.digest => {
                    let (expected, found) = (digest, root.digest);
                    return Err(image::Error::DigestMismatch { expected, found }.into());
                }
                _ => layout.publish(None, &root)?,
            }
            Ok(())
        })
        .await
    }

    async fn refer(
        &self,
        _subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        _task: &Task,
    ) -> Result<(), Cause> {
        let referrer = referrer.clone();
        self.making(move |layout| {
            write_document(layout, &referrer, &document)?;
            Ok(layout.publish(None, &referrer)?)
        })
        .await
    }

    async fn referring(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Source::referrers(self, subject).await
    }

    fn sibling(&self, tag: &image::Tag) -> Option<Box<dyn Sink>> {
        Some(Box::new(self.under(tag)))
    }
}

/// A broken copy elsewhere is not a failure: the content is fetched and checked instead.
pub(crate) fn adopted(result: store::Result<bool>) -> Result<bool, Cause> {
    match result {
        Err(error) if error.kind() == Kind::Invalid => Ok(false),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use image::Manifest;

    use super::*;

    /// Writes a manifest that refers to `subject`, listed without a name.
    fn attach(layout: &Layout, subject: &Descriptor, kind: &str) -> Descriptor {
        let empty = Descriptor::of(image::MediaType::OCI_EMPTY, b"{}");
        layout.insert(b"{}").unwrap();
        let mut manifest =
            Manifest::new(image::MediaType::OCI_MANIFEST, empty.clone(), vec![empty]);
        manifest.artifact_type = Some(kind.to_owned());
        manifest.subject = Some(subject.bare());
        let document = image::Document::write(image::MediaType::OCI_MANIFEST, manifest);
        layout.insert(document.bytes()).unwrap();
        layout.publish(None, document.descriptor()).unwrap();
        document.descriptor().clone()
    }

    #[tokio::test]
    async fn the_referrers_of_many_images_are_read_once_until_the_list_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layout");
        let layout = Layout::create(&path).unwrap();
        let subject = Descriptor::of(image::MediaType::OCI_MANIFEST, b"subject");
        let first = attach(&layout, &subject, "text/one");
        let place = LayoutImage::new(&path, ImageSelector::Only);
        let listed = async || Source::referrers(&place, &subject).await.map(|found| found.len());
        assert_eq!(listed().await.unwrap(), 1);
        // It is not read again: its bytes are gone.
        std::fs::write(layout.blob_path(first.digest), "").unwrap();
        assert_eq!(listed().await.unwrap(), 1);
        std::fs::remove_file(layout.blob_path(first.digest)).unwrap();
        attach(&layout, &subject, "text/two");
        attach(&layout, &subject, "text/three");
        assert_eq!(listed().await.unwrap(), 2);
    }
}
