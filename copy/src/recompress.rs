//! The same image with its layers compressed otherwise. Configs keep their bytes, because they
//! name layers by their uncompressed content, which is checked on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use image::{Config, Descriptor, Digest, Document, Encoding, Index, Manifest, MediaType, Node};
use layers::LayerWriter;
use task::{Cause, Fault, Kind, Task};

use crate::blob::{FaultCell, Metering, Watch};
use crate::bridge::{self, blocking};
use crate::convert::like;
use crate::select::{self, MAX_DEPTH};
use crate::stop::Stop;
use crate::{
    CopyOptions, Error, Layers, Overlay, Recompress, Result, Select, Side, Source, scratch,
};

/// How many layers are compressed at a time; each uses several threads.
const AT_ONCE: usize = 2;
/// Annotations that describe the bytes of one compression.
const OF_THE_BYTES: [&str; 2] =
    ["io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/"];

/// Compresses the layers of the images that `select` chooses and lays the result over the source.
/// The root is then the selected document. If all layers are already as requested, nothing changes.
///
/// The new layers are in unnamed files in [`Recompress::room`] as long as the overlay lives.
///
/// # Errors
/// [`Error::Place`] if the source fails, [`Error::Layer`] for a layer that does not match its
/// config, [`Error::File`] without space, [`Error::Cancelled`].
pub async fn recompress<'a>(
    source: &'a dyn Source,
    select: &Select,
    how: &Recompress,
    attempts: u32,
    task: &Task,
) -> Result<Overlay<'a>> {
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
        let mut work = Work { source, how, attempts, task, stop: &stop, done: BTreeMap::new() };
        let node = work.node(node, &mut overlay, *select == Select::IndexOnly, 0).await?;
        overlay.set_root(node.descriptor().clone());
        Ok(overlay)
    };
    tokio::select! {
        biased;
        () = stop.wait() => Err(Error::Cancelled),
        overlay = work => overlay,
    }
}

/// As [`recompress`], with what the options of a copy say about it.
pub(crate) async fn for_copy<'a>(
    source: &'a dyn Source,
    options: &CopyOptions,
    how: &Recompress,
    task: &Task,
) -> Result<(Overlay<'a>, CopyOptions)> {
    let before = source.resolve().await;
    let before = before.map_err(Error::resolve)?;
    let overlay = recompress(source, &options.select, how, options.attempts, task).await?;
    let after = overlay.resolve().await.map_err(Error::resolve)?;
    let select = match options.select {
        Select::IndexOnly => Select::IndexOnly,
        _ => Select::All,
    };
    if options.preserve_digests && overlay.changes() && before.digest != after.digest {
        let reason = format!("the layers of {} have another compression", before.digest);
        return Err(Error::WouldChange { reason });
    }
    if options.referrers && before.digest != after.digest {
        let listed = source.referrers(&before).await;
        let listed = listed.map_err(Error::at("listing referrers", Side::Source))?;
        if !listed.is_empty() {
            task.warn(format!(
                "the referrers of {} stay behind: the copy has another digest",
                before.digest
            ));
        }
    }
    let mut format = options.format;
    if format.is_none() && how.compression.encoding == Encoding::Zstd && overlay.changes() {
        // Docker's own documents have no zstd layers.
        format = Some(crate::Format::Oci);
    }
    Ok((overlay, CopyOptions { select, format, recompress: None, ..options.clone() }))
}

struct Work<'w, 'a> {
    source: &'a dyn Source,
    how: &'w Recompress,
    attempts: u32,
    task: &'w Task,
    stop: &'w Stop,
    /// What layers and documents became.
    done: BTreeMap<Digest, Descriptor>,
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
        let wanted = |layer: &&Descriptor| self.is_wanted(layer);
        if !manifest.config.media_type.is_config() || manifest.layers.iter().find(wanted).is_none()
        {
            return Ok(None);
        }
        let diff_ids = self.diff_ids(manifest).await?;
        let mut todo: BTreeMap<Digest, (&Descriptor, Digest)> = BTreeMap::new();
        for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
            if self.is_wanted(layer) && !self.done.contains_key(&layer.digest) {
                todo.insert(layer.digest, (layer, *diff_id));
            }
        }
        let this = &*self;
        let work = stream::iter(todo.into_values()).map(|(layer, diff_id)| async move {
            Ok::<_, Error>((layer.digest, this.layer(layer, diff_id).await?))
        });
        let new: Vec<_> = work.buffer_unordered(AT_ONCE).try_collect().await?;
        for (old, (file, descriptor)) in new {
            overlay.add_file(descriptor.digest, file);
            self.done.insert(old, descriptor);
        }
        let mut written = (**manifest).clone();
        for layer in &mut written.layers {
            if let Some(new) = self.done.get(&layer.digest).filter(|_| self.is_wanted(layer)) {
                let docker = layer.media_type.is_docker();
                let encoding = self.how.compression.encoding;
                layer.media_type = MediaType::layer(encoding, docker);
                (layer.digest, layer.size, layer.data) = (new.digest, new.size, None);
                layer
                    .annotations
                    .retain(|key, _| !OF_THE_BYTES.iter().any(|of| key.starts_with(of)));
                layer.annotations.extend(new.annotations.clone());
            }
        }
        if written == **manifest {
            return Ok(None);
        }
        let document = Document::write(manifest.descriptor().media_type.clone(), written);
        let described = like(manifest.descriptor(), document.descriptor());
        Ok(Some(document.described(described)))
    }

    fn is_wanted(&self, layer: &Descriptor) -> bool {
        let Some(encoding) = layer.media_type.layer_encoding() else { return false };
        if layer.media_type.is_foreign() {
            return false;
        }
        match self.how.layers {
            Layers::Plain => encoding == Encoding::Plain,
            Layers::Others => {
                let table = layer.annotations.keys().any(|key| key.starts_with(OF_THE_BYTES[0]));
                encoding != self.how.compression.encoding || self.how.chunked && !table
            }
            Layers::All => true,
        }
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

    async fn layer(&self, layer: &Descriptor, diff_id: Digest) -> Result<(Arc<File>, Descriptor)> {
        let mut attempt = 1;
        loop {
            match self.once(layer, diff_id).await {
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

    async fn once(&self, layer: &Descriptor, diff_id: Digest) -> Result<(Arc<File>, Descriptor)> {
        let short = layer.digest.short();
        let metering = Metering::new(self.task.sized(format!("recompress {short}"), layer.size));
        let reading = || Error::at(format!("reading layer {}", layer.digest), Side::Source);
        let unverified = self.source.fetch(layer).await.map_err(reading())?;
        let fault = FaultCell::default();
        let watch = Watch {
            metering: metering.clone(),
            fault: fault.clone(),
            stop: Box::pin(self.stop.wait()),
        };
        let reader = bridge::reader(unverified.verify(layer).watched(watch));
        let how = self.how.clone();
        let written = blocking(move || write(reader, &how)).await;
        let name = layer.digest.to_string();
        let (file, info) = match (written, fault.take()) {
            (Ok(written), _) => written,
            (Err(_), Some(cause)) if cause.kind() == Kind::Cancelled => {
                return Err(Error::Cancelled);
            }
            (Err(_), Some(cause)) => return Err(reading()(cause)),
            (Err(Error::Layer { source, .. }), None) => return Err(Error::Layer { name, source }),
            (Err(error), None) => return Err(error),
        };
        if info.diff_id != diff_id {
            let (expected, found) = (diff_id, info.diff_id);
            let source = Cause::new(image::Error::DigestMismatch { expected, found });
            return Err(Error::Layer { name, source });
        }
        metering.end(Task::done);
        Ok((Arc::new(file), info.descriptor))
    }
}

fn write(reader: bridge::BlobReader, how: &Recompress) -> Result<(File, layers::LayerInfo)> {
    let broken = |error: layers::Error| Error::Layer { name: String::new(), source: error.into() };
    let file = scratch(&how.room)?;
    let mut plain = layers::decompress(reader).map_err(broken)?;
    let full = |error: std::io::Error| Error::file("writing a layer in", &how.room)(error);
    if how.chunked {
        let out = BufWriter::new(file);
        let (out, info) =
            layers::write_chunked(plain, out, how.compression.level).map_err(broken)?;
        return Ok((out.into_inner().map_err(|error| full(error.into_error()))?, info));
    }
    let mut writer = LayerWriter::new(BufWriter::new(file), how.compression, how.threads);
    std::io::copy(&mut plain, &mut writer)
        .map_err(|error| broken(layers::Error::Read { source: error }))?;
    let (out, info) = writer.finish().map_err(broken)?;
    let mut file = out.into_inner().map_err(|error| full(error.into_error()))?;
    file.flush().map_err(full)?;
    Ok((file, info))
}
