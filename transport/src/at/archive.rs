use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Document, Index, MAX_DOCUMENT, MediaType, Node, Reference};
use serde::Serialize;
use task::{Cause, Task};
use tokio::sync::OnceCell;

use super::named::{self, FULL_NAME, REF_NAME};
use super::tar::{TarIndex, TarWriter};
use super::{docker_archive, files};
use crate::bridge::{self, blocking};
use crate::{
    Blob, Capabilities, Error, ImageSelector, Location, Origin, Plan, Result, Sink, Source,
    Unverified,
};

/// Which kind of tar file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout.
    Oci,
    /// What `docker save` writes: since version 25 an OCI image layout with a `manifest.json`
    /// beside it, before that only the latter.
    Docker,
}

impl Form {
    fn place(self, path: &Path) -> String {
        match self {
            Form::Oci => format!("the archive {}", path.display()),
            Form::Docker => format!("the Docker archive {}", path.display()),
        }
    }
}

/// `oci-archive:…` and `docker-archive:…` to read: an image in a tar file, which is indexed, not
/// unpacked. A compressed archive is uncompressed into an unnamed file beside it first.
#[derive(Debug, Clone)]
pub struct ArchiveSource {
    path: PathBuf,
    named: ImageSelector,
    form: Form,
    opened: Arc<OnceCell<Arc<ArchiveImage>>>,
}

#[derive(Debug)]
struct ArchiveImage {
    tar: TarIndex,
    root: Descriptor,
    /// How the image is named.
    named: ImageSelector,
    /// Content that lies under other names than a layout's, and content made from it.
    docker: docker_archive::Content,
    /// What refers to what, once it was asked for.
    subjects: Mutex<Option<BTreeMap<Digest, Vec<Descriptor>>>>,
}

impl ArchiveSource {
    /// An image in the archive at `path`.
    pub fn new(path: &Path, form: Form, named: ImageSelector) -> ArchiveSource {
        ArchiveSource { path: path.to_owned(), named, form, opened: Arc::default() }
    }

    /// An image in an archive that is open already; `shown` is for messages.
    pub(crate) fn over(
        file: File,
        shown: &Path,
        form: Form,
        named: &ImageSelector,
    ) -> Result<ArchiveSource> {
        let opened = choose(TarIndex::open(file, shown)?, shown, named, form)?;
        let source = ArchiveSource::new(shown, form, named.clone());
        Ok(ArchiveSource { opened: Arc::new(OnceCell::new_with(Some(Arc::new(opened)))), ..source })
    }

    async fn opened(&self) -> Result<Arc<ArchiveImage>, Cause> {
        let open = || async {
            let (path, named, form) = (self.path.clone(), self.named.clone(), self.form);
            blocking(move || open(&path, &named, form).map(Arc::new)).await
        };
        Ok(Arc::clone(self.opened.get_or_try_init(open).await?))
    }
}

/// The names in an archive.
///
/// # Errors
/// Of the archive.
pub async fn archive_names(path: &Path, form: Form) -> Result<Vec<String>, Cause> {
    let path = path.to_owned();
    blocking(move || {
        let tar = open_tar(&path)?;
        let place = form.place(&path);
        if form == Form::Docker {
            return Ok(docker_archive::names(&tar, &place)?);
        }
        let entries = layout_entries(&tar, &place)?.unwrap_or_default();
        let names = entries.iter().filter_map(|entry| entry.annotations.get(REF_NAME));
        Ok(names.cloned().collect())
    })
    .await
}

fn open_tar(path: &Path) -> Result<TarIndex> {
    let file = files::open_or_pipe(path)?.ok_or_else(|| files::absent(path))?;
    TarIndex::open(files::uncompressed(file, path)?, path)
}

/// Whether a new archive may replace what is at `path`: nothing, something that is not a file, an
/// empty file, or another archive of images.
fn replaceable(path: &Path) -> bool {
    let content = path.metadata().is_ok_and(|there| there.is_file() && there.len() > 0);
    let is_archive = |tar: TarIndex| {
        ["manifest.json", "index.json", "oci-layout"].iter().any(|name| tar.find(name).is_some())
    };
    !content || open_tar(path).is_ok_and(is_archive)
}

fn open(path: &Path, named: &ImageSelector, form: Form) -> Result<ArchiveImage> {
    choose(open_tar(path)?, path, named, form)
}

fn choose(tar: TarIndex, path: &Path, named: &ImageSelector, form: Form) -> Result<ArchiveImage> {
    let place = form.place(path);
    let entries = layout_entries(&tar, &place)?;
    if form == Form::Docker {
        let (root, docker) =
            docker_archive::choose(&tar, named, &entries.unwrap_or_default(), &place)?;
        let named = docker_archive::named_as(&tar, named, &place)?;
        return Ok(ArchiveImage { tar, root, named, docker, subjects: Mutex::default() });
    }
    let entries = entries.ok_or_else(|| Error::Malformed {
        place: place.clone(),
        reason: match tar.find("manifest.json") {
            Some(_) => "it is a Docker archive: read it as docker-archive:".to_owned(),
            None => "it has no file index.json, so it is not an OCI archive".to_owned(),
        },
    })?;
    let read = |entry: &Descriptor| {
        tar.read(&blob_name(entry.digest), MAX_DOCUMENT).ok().flatten().map(Bytes::from)
    };
    let entry = named::pick_or_below(&entries, named, &place, &read)?;
    let (root, named) = (named::unnamed(entry.clone()), named::named_as(&entry, named));
    let (docker, subjects) = Default::default();
    Ok(ArchiveImage { tar, root, named, docker, subjects })
}

fn layout_entries(tar: &TarIndex, place: &str) -> Result<Option<Vec<Descriptor>>> {
    let Some(bytes) = tar.read("index.json", MAX_DOCUMENT)? else { return Ok(None) };
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
        place: place.to_owned(),
        reason: format!("its index.json is malformed: {error}"),
    })?;
    Ok(Some(index.manifests))
}

/// All manifests of an archive that refer to others, by what they refer to.
fn subjects(tar: &TarIndex, place: &str) -> Result<BTreeMap<Digest, Vec<Descriptor>>> {
    let mut found: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
    for entry in layout_entries(tar, place)?.unwrap_or_default() {
        let bytes = tar.read(&blob_name(entry.digest), MAX_DOCUMENT)?;
        let Some(bytes) = bytes.filter(|_| entry.media_type.is_node()) else { continue };
        let node = Node::read(entry.clone(), bytes).map_err(Error::from)?;
        if let Some(subject) = node.subject() {
            found.entry(subject.digest).or_default().push(named::unnamed(entry));
        }
    }
    Ok(found)
}

/// Where a blob is in an OCI image layout.
pub(crate) fn blob_name(digest: Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

#[async_trait]
impl Source for ArchiveSource {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        Ok(self.opened().await?.root.clone())
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let opened = self.opened().await?;
        if let Some(made) = opened.docker.made.get(&descriptor.digest) {
            return Ok(Unverified::whole(made.clone()));
        }
        let place = opened.docker.places.get(&descriptor.digest).copied();
        let place = place.or_else(|| opened.tar.find(&blob_name(descriptor.digest)));
        let (offset, size) =
            place.ok_or_else(|| Error::missing(descriptor, self.form.place(&self.path)))?;
        Ok(bridge::stream(opened.tar.reader(offset, size)))
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        let (opened, subject) = (self.opened().await?, subject.digest);
        let place = self.form.place(&self.path);
        blocking(move || {
            let mut known = opened.subjects.lock().unwrap_or_else(PoisonError::into_inner);
            let subjects = match &*known {
                Some(subjects) => subjects,
                None => known.insert(subjects(&opened.tar, &place)?),
            };
            Ok(subjects.get(&subject).cloned().unwrap_or_default())
        })
        .await
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }

    fn location(&self) -> Option<Location> {
        let named = self.opened.get().map_or(&self.named, |opened| &opened.named);
        let (path, named) = (self.path.clone(), named.clone());
        Some(match self.form {
            Form::Oci => Location::OciArchive(path, named),
            Form::Docker => Location::DockerArchive(path, named),
        })
    }
}

/// A tar file of images being written; it appears at its path when it is finished.
#[derive(Debug)]
pub struct Archive {
    tar: TarWriter,
    form: Form,
    entries: Mutex<Vec<Descriptor>>,
    manifest: Mutex<Vec<ManifestItem>>,
}

/// An image in Docker's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Archive {
    /// Starts an archive. The old file at `path` stays until the new one is finished; a file that
    /// is not an archive of images is not replaced.
    ///
    /// # Errors
    /// [`Error::File`] when nothing can be written there, [`Error::Malformed`] for another file.
    pub fn create(path: &Path, form: Form) -> Result<Arc<Archive>> {
        if !replaceable(path) {
            let reason = "the file there is no archive of images: it is not replaced".to_owned();
            return Err(Error::Malformed { place: form.place(path), reason });
        }
        Ok(Arc::new(Archive {
            tar: TarWriter::create(path)?,
            form,
            entries: Mutex::default(),
            manifest: Mutex::default(),
        }))
    }

    /// An image in the archive, to be copied to. Call [`Archive::finish`] after the last one.
    pub fn image(self: &Arc<Self>, named: ImageSelector) -> ArchiveSink {
        ArchiveSink { archive: Arc::clone(self), named, finish: false }
    }

    /// The archive's only image: publishing it finishes the archive.
    pub fn only_image(self: &Arc<Self>, named: ImageSelector) -> ArchiveSink {
        ArchiveSink { archive: Arc::clone(self), named, finish: true }
    }

    /// Ends the archive and gives it its name.
    ///
    /// # Errors
    /// [`Error::Malformed`] when content is missing, [`Error::File`].
    pub async fn finish(self: &Arc<Self>) -> Result<()> {
        let archive = Arc::clone(self);
        blocking(move || archive.finish_now()).await
    }

    fn finish_now(&self) -> Result<()> {
        self.complete()?;
        self.tar.finish()
    }

    /// Ends the archive, which never gets its name.
    pub(crate) fn finish_unnamed(&self) -> Result<File> {
        self.complete()?;
        self.tar.finish_unnamed()
    }

    /// Writes what comes last.
    fn complete(&self) -> Result<()> {
        if let Some(gap) = self.tar.first_gap() {
            let place = self.place();
            return Err(Error::Malformed { place, reason: format!("{gap} was not written") });
        }
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let index = Document::write(MediaType::OCI_INDEX, Index::new(entries));
        self.small("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.small("index.json", index.bytes())?;
        if self.form == Form::Docker {
            let items = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
            let manifest = serde_json::to_vec(&*items).expect("names and paths are plain text");
            self.small("manifest.json", &manifest)?;
        }
        Ok(())
    }

    fn small(&self, name: &str, content: &[u8]) -> Result<()> {
        self.tar.fill(name, content.len() as u64, content)
    }

    fn place(&self) -> String {
        self.form.place(self.tar.path())
    }

    fn add(&self, root: &Descriptor, document: &[u8], named: &ImageSelector) -> Result<()> {
        self.small(&blob_name(root.digest), document)?;
        let (name, reference) = match named {
            ImageSelector::Name(name) => (Some(name.clone()), full_name(name, self.form)?),
            _ => (None, None),
        };
        let mut entry = named::placeless(named::unnamed(root.clone()));
        entry.data = None;
        if let Some(reference) = &reference {
            let tag = reference.tag.as_ref().map(ToString::to_string).unwrap_or_default();
            entry.annotations.insert(REF_NAME.to_owned(), tag);
            entry.annotations.insert(FULL_NAME.to_owned(), reference.to_string());
        } else if let Some(name) = name {
            entry.annotations.insert(REF_NAME.to_owned(), name);
        }
        if self.form == Form::Docker {
            let Node::Manifest(manifest) = Node::read(root.clone(), document.to_vec())? else {
                return Err(self.holds_no_index());
            };
            let left = manifest.layers.iter().find(|l| !self.tar.has(&blob_name(l.digest)));
            if let Some(layer) = left {
                let action = format!("omitting layer {}, which is kept elsewhere", layer.digest);
                return Err(Error::Unsupported { action, place: self.place() });
            }
            let item = ManifestItem {
                config: blob_name(manifest.config.digest),
                repo_tags: reference.iter().map(ToString::to_string).collect(),
                layers: manifest.layers.iter().map(|layer| blob_name(layer.digest)).collect(),
            };
            self.add_item(item);
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|other| {
            other.annotations.get(REF_NAME) != entry.annotations.get(REF_NAME)
                || other.annotations.get(FULL_NAME) != entry.annotations.get(FULL_NAME)
                || (other.digest != entry.digest && !entry.annotations.contains_key(REF_NAME))
        });
        entries.push(entry);
        Ok(())
    }

    /// Several names of one image are one item.
    fn add_item(&self, item: ManifestItem) {
        let mut items = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        let same = items.iter_mut().find(|o| o.config == item.config && o.layers == item.layers);
        match same {
            Some(known) => known.repo_tags.extend(item.repo_tags),
            None => items.push(item),
        }
    }

    fn holds_no_index(&self) -> Error {
        let action = "writing an index of several platforms".to_owned();
        Error::Unsupported { action, place: self.place() }
    }
}

/// Docker loads images by full names.
fn full_name(name: &str, form: Form) -> Result<Option<Reference>> {
    if form == Form::Oci {
        return Ok(None);
    }
    Ok(Some(name.parse::<Reference>()?.or_latest()))
}

/// `oci-archive:…` and `docker-archive:…` to write: one image of an [`Archive`].
#[derive(Debug, Clone)]
pub struct ArchiveSink {
    archive: Arc<Archive>,
    named: ImageSelector,
    finish: bool,
}

impl ArchiveSink {
    async fn working<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ArchiveSink) -> Result<T> + Send + 'static,
    ) -> Result<T, Cause> {
        let sink = self.clone();
        blocking(move || Ok(work(&sink)?)).await
    }
}

#[async_trait]
impl Sink for ArchiveSink {
    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        Ok(self.archive.tar.has(&blob_name(descriptor.digest)))
    }

    async fn link(&self, _descriptor: &Descriptor, _origin: &Origin) -> Result<bool, Cause> {
        Ok(false)
    }

    fn capabilities(&self) -> Capabilities {
        match self.archive.form {
            Form::Oci => Capabilities::REFERRERS,
            Form::Docker => Capabilities::ONE_IMAGE,
        }
    }

    fn expect(&self, plan: &Plan) {
        let leaves = plan.leaves().iter().map(|leaf| &leaf.descriptor);
        // What is kept elsewhere may be left out: room kept for it would end the archive there.
        let here = |content: &&Descriptor| !content.media_type.is_foreign();
        for content in leaves.filter(here).chain(plan.documents()) {
            // Writing will fail for the same reason, and say so.
            let _ = self.archive.tar.reserve(&blob_name(content.digest), content.size);
        }
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        let (name, size) = (blob_name(descriptor.digest), descriptor.size);
        let reader = bridge::reader(blob);
        self.working(move |sink| sink.archive.tar.fill(&name, size, reader)).await
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, _task: &Task) -> Result<(), Cause> {
        let root = root.clone();
        self.working(move |sink| {
            sink.archive.add(&root, &document, &sink.named)?;
            if sink.finish { sink.archive.finish_now() } else { Ok(()) }
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
        if self.archive.form == Form::Docker {
            let action = format!("attaching {}", referrer.digest);
            return Err(Error::Unsupported { action, place: self.archive.place() }.into());
        }
        let referrer = referrer.clone();
        self.working(move |sink| sink.archive.add(&referrer, &document, &ImageSelector::Only)).await
    }
}
