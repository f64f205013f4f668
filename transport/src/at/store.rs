use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Node, Platform, Reference, Tag};
use store::{PendingLayer, Store};
use task::{Cause, Fault, Kind, Task};

use super::layout::adopted;
use crate::bridge::{self, blocking};
use crate::{Blob, Capabilities, Error, Location, Origin, Plan, Sink, Source, Unverified};

/// `store:…`: an image in the store of this machine.
#[derive(Debug, Clone)]
pub struct StoreImage {
    store: Store,
    name: Option<String>,
    unpacking: Option<Arc<UnpackJob>>,
}

#[derive(Debug)]
struct UnpackJob {
    /// What stops work that is done when the part has ended.
    after: Task,
    platform: Platform,
    /// Ended by the commit.
    task: Mutex<Option<Arc<Task>>>,
    /// Whether there was anything to do.
    began: AtomicBool,
    /// Whether the image was found, unpacked.
    here: AtomicBool,
    /// The layers of the image for the platform; others are only kept.
    wanted: Mutex<BTreeSet<Digest>>,
    pending: Mutex<Vec<PendingLayer>>,
}

impl StoreImage {
    /// The image of this name, kept verbatim; to read, also the beginning of a digest or of an
    /// image id. Without a name an image is only kept until it is collected.
    pub fn new(store: &Store, name: Option<&str>) -> StoreImage {
        StoreImage { store: store.clone(), name: name.map(str::to_owned), unpacking: None }
    }

    /// Also unpacks the layers for a platform while they arrive, so that the image can be run
    /// or built on at once. `task` has not begun ([`Task::later`]); its parts say what could not be unpacked.
    #[must_use]
    pub fn unpacked(mut self, platform: Platform, task: Task) -> StoreImage {
        self.unpacking = Some(Arc::new(UnpackJob {
            platform,
            after: task.hidden(),
            task: Mutex::new(Some(Arc::new(task))),
            began: AtomicBool::new(false),
            here: AtomicBool::new(false),
            wanted: Mutex::default(),
            pending: Mutex::default(),
        }));
        self
    }

    fn under(&self, tag: &Tag) -> Option<StoreImage> {
        let reference: Reference = self.name.as_ref()?.parse().ok()?;
        let name = reference.repository.tagged(tag.clone()).to_string();
        Some(StoreImage::new(&self.store, Some(&name)))
    }

    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Cause> {
        let store = self.store.clone();
        blocking(move || work(&store)).await
    }
}

/// Whether a document is there with everything below it, or a blob with its size.
fn is_whole(store: &Store, root: &Descriptor) -> Result<bool, Cause> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![root.clone()];
    while let Some(next) = todo.pop() {
        if !seen.insert(next.digest) {
            continue;
        }
        if store.blob_size(next.digest)? != Some(next.size) {
            return Ok(false);
        }
        if next.media_type.is_node() {
            let node = Node::read(next.clone(), store.read(&next)?)?;
            todo.extend(node.children());
        }
    }
    Ok(true)
}

fn write_document(store: &Store, descriptor: &Descriptor, document: &[u8]) -> Result<(), Cause> {
    use std::io::Write;
    if store.contains(descriptor.digest)? {
        return Ok(());
    }
    let mut writer = store.writer_for(descriptor.digest.algorithm())?;
    writer.write_all(document).map_err(Error::Stream)?;
    writer.commit(Some(descriptor))?;
    Ok(())
}

impl UnpackJob {
    fn task(&self) -> Arc<Task> {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.clone().unwrap_or_else(|| Arc::new(self.after.hidden()))
    }

    fn end(&self, end: impl FnOnce(Task)) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task.and_then(Arc::into_inner) {
            end(task);
        }
    }

    /// Whether the image for the platform is unpacked, or there is none.
    fn is_done(&self, store: &Store, root: &Descriptor) -> Result<bool, Cause> {
        let image = match store.image(root, &self.platform) {
            Ok(image) => image,
            Err(error) if error.kind() == Kind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match image.chain_id() {
            Some(chain) => Ok(store.has_snapshot(chain.into())?),
            None => Ok(true),
        }
    }

    fn wants(&self, descriptor: &Descriptor) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        descriptor.media_type.layer_encoding().is_some() && wanted.contains(&descriptor.digest)
    }

    fn receive(
        &self,
        store: &Store,
        descriptor: &Descriptor,
        stream: impl std::io::Read,
    ) -> Result<(), Cause> {
        let task = self.task();
        if !self.began.swap(true, Ordering::Relaxed) {
            task.begin();
        }
        let layer = store.put_layer(descriptor, stream, &task)?;
        for skipped in layer.skipped() {
            task.warn(skipped.clone());
        }
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(layer);
        Ok(())
    }

    fn commit(&self, store: &Store, root: &Descriptor) -> Result<(), Cause> {
        let bytes = store.read(root)?;
        if let Node::Manifest(manifest) = Node::read(root.clone(), bytes)?
            && !manifest.config.media_type.is_config()
        {
            return Ok(());
        }
        let image = match store.image(root, &self.platform) {
            Ok(image) => image,
            // An index of other platforms is welcome; there is nothing to unpack in it.
            Err(store::Error::NoPlatform { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let pending =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let task = self.task();
        store.commit_image(&image, pending, &task)?;
        Ok(())
    }
}

impl Drop for UnpackJob {
    fn drop(&mut self) {
        if !*self.began.get_mut() && *self.here.get_mut() {
            self.end(Task::reused);
        }
    }
}

#[async_trait]
impl Source for StoreImage {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        let name = self.name.clone().unwrap_or_default();
        self.on_store(move |store| {
            let found = match store.resolve(&name)? {
                Some(found) => Some(found),
                None => store.find(&name)?,
            };
            let place = || format!("the store {}", store.path().display());
            let missing = |name| Error::NoImage { name, place: place(), known: Vec::new() };
            found.ok_or_else(|| missing(name).into())
        })
        .await
    }

    /// Layers that were never compressed are before they leave.
    async fn seal(&self, task: &Task) -> Result<Descriptor, Cause> {
        let found = self.resolve().await?;
        let root = found.clone();
        if self.on_store(move |store| Ok(store.is_sealed(&root)?)).await? {
            return Ok(found);
        }
        let task = task.child("compressing layers");
        self.on_store(move |store| {
            let sealed = store.seal(&found, &task)?;
            task.done();
            Ok(sealed)
        })
        .await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let digest = descriptor.digest;
        let file = self.on_store(move |store| Ok(store.open_blob(digest)?)).await?;
        Ok(bridge::stream(file))
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        let digest = subject.digest;
        self.on_store(move |store| Ok(store.referrers(digest)?)).await
    }

    fn origin(&self) -> Origin {
        Origin::Blobs(self.store.path().join("blobs"))
    }

    fn location(&self) -> Option<Location> {
        self.name.clone().map(Location::Store)
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Source>> {
        self.under(tag).map(|image| Box::new(image) as Box<dyn Source>)
    }
}

#[async_trait]
impl Sink for StoreImage {
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        let (name, unpacking) = (self.name.clone(), self.unpacking.clone());
        self.on_store(move |store| {
            let Some(name) = name else { return Ok(None) };
            let found = store.resolve(&name)?;
            match (&found, unpacking) {
                (Some(root), Some(unpacking)) if !unpacking.is_done(store, root)? => Ok(None),
                (Some(_), Some(unpacking)) => {
                    unpacking.here.store(true, Ordering::Relaxed);
                    Ok(found)
                }
                _ => Ok(found),
            }
        })
        .await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::REFERRERS
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        let descriptor = descriptor.clone();
        self.on_store(move |store| is_whole(store, &descriptor)).await
    }

    async fn link(&self, descriptor: &Descriptor, origin: &Origin) -> Result<bool, Cause> {
        let unpacks = self.unpacking.as_ref().is_some_and(|unpacking| unpacking.wants(descriptor));
        let Some(file) = origin.file(descriptor.digest).filter(|_| !unpacks) else {
            return Ok(false);
        };
        let descriptor = descriptor.clone();
        self.on_store(move |store| adopted(store.adopt(&file, &descriptor))).await
    }

    fn expect(&self, plan: &Plan) {
        if let Some(unpacking) = &self.unpacking {
            let layers = plan.layers_for(&unpacking.platform);
            let mut wanted = unpacking.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.extend(layers.into_iter().map(|layer| layer.digest));
        }
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        let descriptor = descriptor.clone();
        let unpacking = self.unpacking.clone().filter(|unpacking| unpacking.wants(&descriptor));
        // The writer computes the digest of what it wrote and keeps nothing else.
        let reader = bridge::reader(blob.checked_by_sink());
        self.on_store(move |store| {
            if let Some(unpacking) = unpacking {
                return unpacking.receive(store, &descriptor, reader);
            }
            let mut writer = store.writer_for(descriptor.digest.algorithm())?;
            reader.pour(&mut writer, &store.path().join("blobs"))?;
            writer.commit(Some(&descriptor))?;
            Ok(())
        })
        .await
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, _task: &Task) -> Result<(), Cause> {
        let (root, name, unpacking) = (root.clone(), self.name.clone(), self.unpacking.clone());
        self.on_store(move |store| {
            write_document(store, &root, &document)?;
            if let Some(unpacking) = unpacking {
                unpacking.commit(store, &root)?;
                unpacking.end(Task::done);
            }
            match name {
                Some(name) => store.publish(&name, &root)?,
                None => store.publish_untagged(&root)?,
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
        self.on_store(move |store| {
            write_document(store, &referrer, &document)?;
            Ok(store.publish_untagged(&referrer)?)
        })
        .await
    }

    async fn referring(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Source::referrers(self, subject).await
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Sink>> {
        self.under(tag).map(|image| Box::new(image) as Box<dyn Sink>)
    }
}
