//! Changing an image without a daemon: layers go on top, become one, or are put on another base;
//! the configuration changes; the result is a source like any other.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{
    Config, Descriptor, Digest, Document, Encoding, History, Image, Index, Manifest, MediaType,
    Platform,
};
use layers::{Compression, LayerEdit, LayerInfo, LayerWriter, TreeOptions};
use task::{Cause, Task};

use crate::blob::{Blob, FaultCell, StreamMeter, Unverified, Watch};
use crate::bridge::{self, BlobReader, blocking};
use crate::stop::Stop;
use crate::{Error, Overlay, Result, Side, Source, scratch};

/// A layer whose compressed bytes are in a file here, checked against its digest.
#[derive(Debug, Clone)]
pub struct LayerFile {
    file: Arc<File>,
    /// What it is.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed content.
    pub diff_id: Digest,
}

impl LayerFile {
    /// Its compressed bytes from the start.
    ///
    /// # Errors
    /// [`Error::Stream`].
    pub fn open(&self) -> Result<impl Read + Send + 'static> {
        Ok(crate::overlay::FromStart::new(Arc::clone(&self.file)))
    }

    /// Its file; who reads it seeks first.
    pub(crate) fn file(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::Stream)
    }
}

/// An image on its way to another one.
pub struct Draft<'a> {
    overlay: Overlay<'a>,
    source: &'a dyn Source,
    /// The manifest; its config and layers are filled in at the end.
    pub manifest: Manifest,
    /// The configuration; its diffIDs are filled in at the end.
    pub config: Config,
    media_type: MediaType,
    layers: Vec<(Descriptor, Digest)>,
    room: PathBuf,
}

impl std::fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl<'a> Draft<'a> {
    /// Starts from an image of a source. New layers are kept in unnamed files in `room`.
    pub fn new(source: &'a dyn Source, image: &Image, room: &Path) -> Draft<'a> {
        let layers = image.layers().map(|layer| (layer.descriptor.clone(), layer.diff_id));
        Draft {
            overlay: Overlay::new(source, image.descriptor().bare()),
            source,
            manifest: (**image.manifest()).clone(),
            config: (**image.config()).clone(),
            media_type: image.descriptor().media_type.clone(),
            layers: layers.collect(),
            room: room.to_owned(),
        }
    }

    /// Starts from nothing: an OCI image without layers for a platform. `source` is only asked
    /// for what it does not have.
    pub fn scratch(source: &'a dyn Source, platform: &Platform, room: &Path) -> Draft<'a> {
        let config = Config {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..Config::default()
        };
        let empty = Descriptor::of(MediaType::OCI_CONFIG, b"");
        Draft {
            overlay: Overlay::new(source, empty.clone()),
            source,
            manifest: Manifest::new(MediaType::OCI_MANIFEST, empty, Vec::new()),
            config,
            media_type: MediaType::OCI_MANIFEST,
            layers: Vec::new(),
            room: room.to_owned(),
        }
    }

    /// The layers, base first.
    pub fn layers(&self) -> &[(Descriptor, Digest)] {
        &self.layers
    }

    /// Puts an archive on top. A plain one is compressed, others keep their bytes. It is read as a
    /// layer and refused where it is none.
    ///
    /// # Errors
    /// [`Error::Layer`] for content that is not a layer; [`Error::File`] without space.
    pub async fn append(&mut self, archive: File, name: &str, task: &Task) -> Result<LayerInfo> {
        let (room, named) = (self.room.clone(), name.to_owned());
        let child = task.child(format!("layer {name}"));
        let (file, info) = blocking(move || {
            let kept = keep_archive(archive, &named, &room, &child)?;
            child.done();
            Ok::<_, Error>(kept)
        })
        .await?;
        let descriptor = self.typed(&info.descriptor);
        self.push(LayerFile { file, descriptor, diff_id: info.diff_id });
        Ok(info)
    }

    /// Puts a layer on top.
    pub fn push(&mut self, layer: LayerFile) {
        self.overlay.add_file(layer.descriptor.digest, layer.file);
        self.layers.push((layer.descriptor, layer.diff_id));
    }

    /// Says in the history that the archive `name` was put on top, where the history says something
    /// of each layer.
    pub fn step_of_layer(&mut self, name: &Path, made_by: &str) {
        let before = self.layers.len().saturating_sub(1);
        let told = self.config.history.iter().filter(|step| !step.empty_layer).count();
        if told == before {
            let name = name.file_name().unwrap_or_default().to_string_lossy();
            self.step(History {
                created: self.config.created.clone(),
                created_by: Some(format!("{made_by} {name}")),
                ..History::default()
            });
        }
    }

    /// Takes away layers by their numbers, the lowest layer is 0, with their steps of the history if
    /// that tells of each layer. Gives back a number that no layer has, and then changes nothing.
    pub fn drop_layers(&mut self, numbers: &BTreeSet<usize>) -> Option<usize> {
        let count = self.layers.len();
        if let Some(wrong) = numbers.iter().find(|number| **number >= count) {
            return Some(*wrong);
        }
        let stays = |at: &mut usize| {
            *at += 1;
            !numbers.contains(&(*at - 1))
        };
        let history = &mut self.config.history;
        if history.iter().filter(|step| !step.empty_layer).count() == count {
            let mut at = 0;
            history.retain(|step| step.empty_layer || stays(&mut at));
        }
        let mut at = 0;
        self.layers.retain(|_| stays(&mut at));
        None
    }

    /// Changes entries of all layers. A layer without a changed entry keeps its bytes.
    ///
    /// # Errors
    /// As [`read_layer`]; [`Error::Layer`] for content that is not a layer, or that needs what goes.
    pub async fn edit_layers(&mut self, edit: &LayerEdit, task: &Task) -> Result<()> {
        for at in 0..self.layers.len() {
            let one = std::slice::from_ref(&self.layers[at]);
            let Some(layer) = layers_of(&self.overlay, one, &self.room, task).await?.pop() else {
                continue;
            };
            let (room, edit, name) = (self.room.clone(), edit.clone(), layer.descriptor.digest);
            let child = task.child(format!("edit layer {}", name.short()));
            let encoding = layer.descriptor.media_type.layer_encoding().unwrap_or(Encoding::Plain);
            let made = blocking(move || {
                let compression = Compression { encoding, level: None };
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let out = BufWriter::new(scratch(&room)?);
                let writer = LayerWriter::new(out, compression, threads);
                let edited = layers::edit_layer(layer.open()?, writer, &edit, &child);
                let (writer, changed) = edited.map_err(of_layer(&name.to_string()))?;
                child.done();
                if !changed {
                    return Ok(None);
                }
                let (out, info) = writer.finish().map_err(of_layer(&name.to_string()))?;
                let file = out.into_inner().map_err(|error| Error::Stream(error.into_error()))?;
                Ok::<_, Error>(Some((Arc::new(file), info)))
            })
            .await?;
            if let Some((file, info)) = made {
                let descriptor = self.typed(&info.descriptor);
                self.overlay.add_file(descriptor.digest, file);
                self.layers[at] = (descriptor, info.diff_id);
            }
        }
        Ok(())
    }

    /// Puts a step behind the history.
    pub fn step(&mut self, step: History) {
        self.config.history.push(step);
    }

    /// Makes all layers one; the history becomes one step that says so.
    ///
    /// # Errors
    /// As [`read_layer`]; [`Error::Layer`] for content that is not a layer.
    pub async fn flatten(&mut self, compression: Compression, task: &Task) -> Result<()> {
        let files = layers_of(self.source, &self.layers, &self.room, task).await?;
        let (room, child) = (self.room.clone(), task.child("flatten"));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (file, info) = blocking(move || {
            let tree = tree_of(&files, &child)?;
            let out = BufWriter::new(scratch(&room)?);
            let writer = LayerWriter::new(out, compression, threads);
            let streams = files.iter().map(LayerFile::open).collect::<Result<Vec<_>>>()?;
            let merged = layers::merge(&tree, streams, writer, &TreeOptions::default(), &child);
            let (out, info) =
                merged.and_then(LayerWriter::finish).map_err(of_layer("the flattened image"))?;
            let file = out.into_inner().map_err(|error| Error::Stream(error.into_error()))?;
            child.done();
            Ok::<_, Error>((Arc::new(file), info))
        })
        .await?;
        self.layers.clear();
        let descriptor = self.typed(&info.descriptor);
        self.push(LayerFile { file, descriptor, diff_id: info.diff_id });
        Ok(())
    }

    /// Takes the lowest `count` layers away and puts those of another image in their place.
    pub fn replace_base(&mut self, count: usize, source: &'a dyn Source, base: &Image) {
        let above = self.layers.split_off(count.min(self.layers.len()));
        self.layers = base.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
        for (descriptor, _) in &mut self.layers {
            self.overlay.add_from(descriptor.digest, source);
        }
        self.layers.extend(above);
        let docker = self.media_type.is_docker();
        for (descriptor, _) in &mut self.layers {
            let foreign = descriptor.media_type.is_foreign();
            if let Some(encoding) = descriptor.media_type.layer_encoding().filter(|_| !foreign) {
                descriptor.media_type = MediaType::layer(encoding, docker);
            }
        }
    }

    /// The descriptor in this image's family of documents.
    fn typed(&self, descriptor: &Descriptor) -> Descriptor {
        let docker = self.media_type.is_docker();
        let encoding = descriptor.media_type.layer_encoding().unwrap_or(Encoding::Plain);
        Descriptor { media_type: MediaType::layer(encoding, docker), ..descriptor.clone() }
    }

    /// The image as a source. It refers to nothing: what the original referred to is not about
    /// this one.
    pub fn finish(mut self) -> Overlay<'a> {
        self.config.rootfs.diff_ids = self.layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let config_type = match self.media_type.is_docker() {
            true => MediaType::DOCKER_CONFIG,
            false => MediaType::OCI_CONFIG,
        };
        let config = Document::write(config_type, self.config);
        self.overlay.add_bytes(config.digest(), config.bytes().clone());
        self.manifest.config = config.descriptor().clone();
        self.manifest.layers = self.layers.into_iter().map(|(descriptor, _)| descriptor).collect();
        self.manifest.subject = None;
        let manifest = Document::write(self.media_type, self.manifest);
        self.overlay.add_bytes(manifest.digest(), manifest.bytes().clone());
        self.overlay.set_root(manifest.descriptor().clone());
        self.overlay
    }
}

impl<'a> Overlay<'a> {
    /// An index of documents that other sources have, over one of them.
    pub fn of_index(below: &'a dyn Source, index: &Document<Index>) -> Overlay<'a> {
        let mut overlay = Overlay::new(below, index.descriptor().clone());
        overlay.add_bytes(index.digest(), index.bytes().clone());
        overlay
    }
}

pub(crate) fn of_layer(name: &str) -> impl FnOnce(layers::Error) -> Error + use<> {
    let name = name.to_owned();
    move |error| match error {
        layers::Error::Cancelled(_) => Error::Cancelled,
        error => Error::Layer { name, source: error.into() },
    }
}

/// The tree that layers make.
fn tree_of(files: &[LayerFile], task: &Task) -> Result<layers::Tree> {
    let mut tree = layers::Tree::new();
    for layer in files {
        let read = tree.add(layer.open()?, &TreeOptions::default(), task, &mut |_| {});
        let read = read.map_err(of_layer(&layer.descriptor.digest.to_string()))?;
        same_diff_id(&layer.descriptor, layer.diff_id, read.diff_id)?;
    }
    Ok(tree)
}

pub(crate) fn same_diff_id(layer: &Descriptor, expected: Digest, found: Digest) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let source = Cause::new(image::Error::DigestMismatch { expected, found });
    Err(Error::Layer { name: layer.digest.to_string(), source })
}

/// Keeps an archive as a layer.
fn keep_archive(
    mut archive: File,
    name: &str,
    room: &Path,
    task: &Task,
) -> Result<(Arc<File>, LayerInfo)> {
    let mut head = [0; 6];
    let read = archive.by_ref().take(6).read(&mut head).map_err(Error::Stream)?;
    archive.seek(SeekFrom::Start(0)).map_err(Error::Stream)?;
    let encoding = match layers::sniff(&head[..read]) {
        Some(layers::StreamFormat::Gzip) => Some(Encoding::Gzip),
        Some(layers::StreamFormat::Zstd) => Some(Encoding::Zstd),
        // Layers have no other compressions: such layers are written again.
        _ => None,
    };
    let mut tree = layers::Tree::new();
    let options = TreeOptions::default();
    let kept = Arc::new(scratch(room)?);
    let full = |error| Error::file("writing a layer in", room)(error);
    if let Some(encoding) = encoding {
        let mut digester = image::Digester::default();
        let mut out = BufWriter::new(kept.try_clone().map_err(full)?);
        let mut copied = 0u64;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let n = archive.read(&mut buffer).map_err(Error::Stream)?;
            if n == 0 {
                break;
            }
            task.check()?;
            digester.update(&buffer[..n]);
            std::io::Write::write_all(&mut out, &buffer[..n]).map_err(full)?;
            copied += n as u64;
        }
        std::io::Write::flush(&mut out).map_err(full)?;
        let stream = crate::overlay::FromStart::new(Arc::clone(&kept));
        let read = tree.add(stream, &options, task, &mut |_| {}).map_err(of_layer(name))?;
        let media_type = MediaType::layer(encoding, false);
        let descriptor = Descriptor::new(media_type, digester.finish(), copied);
        let (diff_id, uncompressed) = (read.diff_id, read.uncompressed);
        return Ok((kept, LayerInfo { descriptor, diff_id, uncompressed }));
    }
    tree.add(&mut archive, &options, task, &mut |_| {}).map_err(of_layer(name))?;
    archive.seek(SeekFrom::Start(0)).map_err(Error::Stream)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let compression = Compression { encoding: Encoding::Gzip, level: None };
    let out = BufWriter::new(kept.try_clone().map_err(full)?);
    let mut writer = LayerWriter::new(out, compression, threads);
    let mut plain = layers::decompress(archive).map_err(of_layer(name))?;
    std::io::copy(&mut plain, &mut writer).map_err(Error::Stream)?;
    let (out, info) = writer.finish().map_err(of_layer(name))?;
    out.into_inner().map_err(|error| full(error.into_error()))?;
    Ok((kept, info))
}

/// Fetches layers into unnamed files in `room`, each checked against its digest.
///
/// # Errors
/// [`Error::Place`] when the source fails; [`Error::File`] when there is no room.
pub async fn layers_of(
    source: &dyn Source,
    layers: &[(Descriptor, Digest)],
    room: &Path,
    task: &Task,
) -> Result<Vec<LayerFile>> {
    let mut files = Vec::with_capacity(layers.len());
    for (descriptor, diff_id) in layers {
        let room = room.to_owned();
        let file = read_layer(source, descriptor, task, move |mut reader| {
            let file = scratch(&room)?;
            let mut out = BufWriter::new(file);
            std::io::copy(&mut reader, &mut out).map_err(Error::Stream)?;
            let file = out.into_inner().map_err(|error| Error::Stream(error.into_error()))?;
            Ok(Arc::new(file))
        })
        .await?;
        files.push(LayerFile { file, descriptor: descriptor.clone(), diff_id: *diff_id });
    }
    Ok(files)
}

/// Reads a layer's compressed bytes on a thread while they arrive; they are checked against size
/// and digest, and the reader fails at its end unless they are right.
///
/// # Errors
/// [`Error::Place`] when the source fails, or the errors of `work`.
pub async fn read_layer<T: Send + 'static>(
    source: &dyn Source,
    layer: &Descriptor,
    task: &Task,
    work: impl FnOnce(BlobReader) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shown = task.sized(format!("layer {}", layer.digest.short()), layer.size);
    let opened = Stop::new(task).guard(source.fetch(layer)).await;
    let verified = |opened: Unverified, watch| opened.verify(layer).watched(watch);
    read_opened(layer, opened, (task, shown), verified, work).await
}

/// Reads a part of a layer, whose content its table of contents checks; `None` where the place
/// does not give parts.
pub(crate) async fn read_part<T: Send + 'static>(
    source: &dyn Source,
    (layer, part): (&Descriptor, Range<u64>),
    task: &Task,
    work: impl FnOnce(BlobReader) -> Result<T> + Send + 'static,
) -> Result<Option<T>> {
    let size = part.end - part.start;
    let opened = match Stop::new(task).guard(source.fetch_part(layer, part)).await {
        Ok(None) => return Ok(None),
        Ok(Some(opened)) => Ok(opened),
        Err(cause) => Err(cause),
    };
    let shown = task.sized(format!("part of layer {}", layer.digest.short()), size);
    let checked = |opened: Unverified, watch| opened.checked_by_table(layer.digest, size, watch);
    read_opened(layer, opened, (task, shown), checked, work).await.map(Some)
}

/// Opens a part of a layer, whose content its table of contents checks; `None` where the place does
/// not give parts. The reader fails once `task` is cancelled. Call it on the runtime, move the reader
/// to a thread.
///
/// # Errors
/// [`Error::Place`] when the source fails.
pub async fn open_part(
    source: &dyn Source,
    layer: &Descriptor,
    part: Range<u64>,
    task: &Task,
) -> Result<Option<BlobReader>> {
    let size = part.end - part.start;
    let stop = Stop::new(task);
    let opened = stop.guard(source.fetch_part(layer, part)).await;
    let reading = Error::at(format!("reading layer {}", layer.digest), Side::Source);
    let Some(opened) = opened.map_err(reading)? else { return Ok(None) };
    let shown = task.sized(format!("part of layer {}", layer.digest.short()), size);
    let stop = Box::pin(async move { stop.wait().await });
    let (metering, fault) = (StreamMeter::new(shown), FaultCell::default());
    let watch = Watch { meter: metering, fault, stop };
    Ok(Some(bridge::reader(opened.checked_by_table(layer.digest, size, watch))))
}

async fn read_opened<T: Send + 'static>(
    layer: &Descriptor,
    opened: Result<Unverified, Cause>,
    (task, shown): (&Task, Task),
    checked: impl FnOnce(Unverified, Watch) -> Blob,
    work: impl FnOnce(BlobReader) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stop = Stop::new(task);
    let reading = || Error::at(format!("reading layer {}", layer.digest), Side::Source);
    let metering = StreamMeter::new(shown);
    let unverified = opened.map_err(|cause| match cause.kind() {
        task::Kind::Cancelled => Error::Cancelled,
        _ => reading()(cause),
    })?;
    let fault = FaultCell::default();
    let watch =
        Watch { meter: metering.clone(), fault: fault.clone(), stop: Box::pin(stop.wait()) };
    let reader = bridge::reader(checked(unverified, watch));
    let done = blocking(move || work(reader)).await;
    match (done, fault.take()) {
        (Ok(done), _) => {
            metering.end(Task::done);
            Ok(done)
        }
        (Err(_), Some(cause)) if cause.kind() == task::Kind::Cancelled => Err(Error::Cancelled),
        (Err(_), Some(cause)) => Err(reading()(cause)),
        (Err(error), None) => Err(error),
    }
}
