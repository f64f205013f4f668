//! The same image with changed layers or descriptors of layers: manifests and indexes above them are
//! written again.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use image::{Config, Descriptor, Digest, Document, Index, Manifest, Node};
use task::{Fault, Kind, Task};

use crate::convert::like;
use crate::select::{self, MAX_DEPTH};
use crate::stop::Stop;
use crate::{Error, Overlay, Result, Select, Side, Source};

/// How many layers are changed at a time; each may use several threads.
const AT_ONCE: usize = 2;

/// What is done to layers. Their uncompressed content stays, so configs keep their bytes.
#[async_trait]
pub(crate) trait LayerChange: Sync {
    /// Whether a layer is to be changed.
    fn wants(&self, layer: &Descriptor) -> bool;
    /// Changes it; `None` if it stays as it is after all.
    async fn change(&self, layer: &Descriptor, diff_id: Digest) -> Result<Option<ChangedLayer>>;
    /// How a manifest describes a layer that was changed.
    fn describe(&self, layer: &Descriptor, changed: &Descriptor) -> Descriptor;
}

/// What a layer became.
pub(crate) struct ChangedLayer {
    pub(crate) descriptor: Descriptor,
    /// Its bytes, where they are others.
    pub(crate) file: Option<Arc<File>>,
}

/// An image with changed layers.
pub(crate) struct RewrittenImage<'a> {
    /// It lies over the source; the root is the document that was selected.
    pub(crate) overlay: Overlay<'a>,
    /// The manifests that were written again.
    pub(crate) manifests: Vec<Document<Manifest>>,
}

/// Changes the layers of the images that `select` chooses, each attempted a number of times.
///
/// # Errors
/// [`Error::Place`] if the source fails, those of the change, [`Error::Cancelled`].
pub(crate) async fn rewrite<'a>(
    source: &'a dyn Source,
    select: &Select,
    (change, attempts): (&dyn LayerChange, u32),
    task: &Task,
) -> Result<RewrittenImage<'a>> {
    let stop = Stop::new(task);
    let work = async {
        let named = source.resolve().await;
        let named = named.map_err(Error::resolve)?;
        let choice = select::choose(source, &named, select).await?;
        let mut overlay = Overlay::new(source, choice.root.clone());
        let node = match choice.node {
            Some(node) => node,
            None => select::node(source, &choice.root).await?,
        };
        if choice.made {
            overlay.add_bytes(node.digest(), node.bytes().clone());
        }
        let (done, manifests) = (BTreeMap::new(), Vec::new());
        let mut work = Work { source, change, attempts, task, done, manifests };
        let node = work.node(node, &mut overlay, *select == Select::IndexOnly, 0).await?;
        overlay.set_root(node.descriptor().clone());
        Ok(RewrittenImage { overlay, manifests: work.manifests })
    };
    tokio::select! {
        biased;
        () = stop.wait() => Err(Error::Cancelled),
        rewritten = work => rewritten,
    }
}

struct Work<'w, 'a> {
    source: &'a dyn Source,
    change: &'w dyn LayerChange,
    attempts: u32,
    task: &'w Task,
    /// What layers and documents became.
    done: BTreeMap<Digest, Descriptor>,
    manifests: Vec<Document<Manifest>>,
}

impl Work<'_, '_> {
    async fn node(
        &mut self,
        node: Node,
        overlay: &mut Overlay<'_>,
        alone: bool,
        depth: usize,
    ) -> Result<Node> {
        if depth > MAX_DEPTH {
            let what = format!("indexes nested deeper than {MAX_DEPTH}");
            return Err(Error::TooComplex { digest: node.digest(), what });
        }
        let written = match &node {
            Node::Index(_) if alone => None,
            Node::Index(index) => self.index(index, overlay, depth).await?.map(Node::Index),
            Node::Manifest(manifest) => self.manifest(manifest, overlay).await?.map(Node::Manifest),
        };
        let Some(written) = written else { return Ok(node) };
        overlay.add_bytes(written.digest(), written.bytes().clone());
        self.done.insert(node.digest(), written.descriptor().clone());
        Ok(written)
    }

    async fn index(
        &mut self,
        index: &Document<Index>,
        overlay: &mut Overlay<'_>,
        depth: usize,
    ) -> Result<Option<Document<Index>>> {
        let mut manifests = index.manifests.clone();
        for child in &mut manifests {
            if !child.media_type.is_node() {
                continue;
            }
            if !self.done.contains_key(&child.digest) {
                let node = select::node(self.source, child).await?;
                Box::pin(self.node(node, overlay, false, depth + 1)).await?;
            }
            if let Some(new) = self.done.get(&child.digest) {
                *child = like(child, new);
            }
        }
        // What says in an annotation which image it is about says so still.
        for child in &mut manifests {
            let Some(about) = child.annotations.get_mut(select::ABOUT) else { continue };
            let new = about.parse::<Digest>().ok().and_then(|digest| self.done.get(&digest));
            if let Some(new) = new {
                *about = new.digest.to_string();
            }
        }
        if manifests == index.manifests {
            return Ok(None);
        }
        let mut written = (**index).clone();
        written.manifests = manifests;
        let document = Document::write(index.descriptor().media_type.clone(), written);
        let described = like(index.descriptor(), document.descriptor());
        Ok(Some(document.described(described)))
    }

    async fn manifest(
        &mut self,
        manifest: &Document<Manifest>,
        overlay: &mut Overlay<'_>,
    ) -> Result<Option<Document<Manifest>>> {
        let change = self.change;
        let wanted = |layer: &Descriptor| change.wants(layer);
        if !manifest.config.media_type.is_config() || !manifest.layers.iter().any(wanted) {
            return Ok(None);
        }
        let diff_ids = self.diff_ids(manifest).await?;
        let mut todo: BTreeMap<Digest, (&Descriptor, Digest)> = BTreeMap::new();
        for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
            if wanted(layer) && !self.done.contains_key(&layer.digest) {
                todo.insert(layer.digest, (layer, *diff_id));
            }
        }
        let this = &*self;
        let work = stream::iter(todo.into_values()).map(|(layer, diff_id)| async move {
            Ok::<_, Error>((layer.digest, this.layer(layer, diff_id).await?))
        });
        let new: Vec<_> = work.buffer_unordered(AT_ONCE).try_collect().await?;
        for (old, changed) in new {
            let Some(ChangedLayer { descriptor, file }) = changed else { continue };
            if let Some(file) = file {
                overlay.add_file(descriptor.digest, file);
            }
            self.done.insert(old, descriptor);
        }
        let mut written = (**manifest).clone();
        for layer in &mut written.layers {
            if let Some(new) = self.done.get(&layer.digest).filter(|_| wanted(layer)) {
                *layer = change.describe(layer, new);
            }
        }
        if written == **manifest {
            return Ok(None);
        }
        let document = Document::write(manifest.descriptor().media_type.clone(), written);
        let described = like(manifest.descriptor(), document.descriptor());
        let document = document.described(described);
        self.manifests.push(document.clone());
        Ok(Some(document))
    }

    async fn diff_ids(&self, manifest: &Document<Manifest>) -> Result<Vec<Digest>> {
        let at = || Error::at(format!("reading config {}", manifest.config.digest), Side::Source);
        let unverified = self.source.fetch(&manifest.config).await.map_err(at())?;
        let bytes = unverified.verify(&manifest.config).read().await.map_err(at())?;
        let config = Document::<Config>::read(manifest.config.clone(), bytes);
        let config = config.map_err(|error| at()(error.into()))?;
        image::Image::new(manifest.clone(), config.clone())?;
        Ok(config.into_value().rootfs.diff_ids)
    }

    async fn layer(&self, layer: &Descriptor, diff_id: Digest) -> Result<Option<ChangedLayer>> {
        let mut attempt = 1;
        loop {
            match self.change.change(layer, diff_id).await {
                Err(error) if error.kind() == Kind::Unavailable && attempt < self.attempts => {
                    attempt += 1;
                    let why = task::chain(&error).join(": ");
                    let of = self.attempts;
                    self.task.note(format!("trying again ({attempt} of {of}): {why}"));
                }
                end => return end,
            }
        }
    }
}
