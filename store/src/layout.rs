//! A plain OCI image layout directory (image-spec, image-layout.md).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use image::{Descriptor, Digest, Document, Image, Index, MAX_DOCUMENT, MediaType, Node, Platform};

use crate::blob::read_document;
use crate::{Error, Result, file, select};

/// The annotation that names a manifest in `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, where containerd and Docker keep it; the one above is then only the tag.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A directory in the OCI image layout. Cheap to clone. Writers exclude each other with a lock on
/// the directory; readers see the old or the new `index.json`.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    /// Where the blobs are.
    blobs: PathBuf,
    /// Whether what is named is on the disk before its name.
    synced: bool,
}

impl Layout {
    /// Opens a layout.
    ///
    /// # Errors
    /// [`Error::Layout`] if it is none, or of a version other than 1.
    pub fn open(root: &Path) -> Result<Layout> {
        let refuse = |reason: String| Error::Layout { path: root.to_owned(), reason };
        let Some(marker) = read_small(&root.join("oci-layout"))? else {
            let reason = match root.is_dir() {
                true => "it has no file oci-layout, so it is none",
                false => "there is no such directory",
            };
            return Err(refuse(reason.to_owned()));
        };
        let marker: serde_json::Value = serde_json::from_slice(&marker)
            .map_err(|error| refuse(format!("its file oci-layout is malformed: {error}")))?;
        match marker.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
            Some(version) if version == "1" || version.starts_with("1.") => {}
            other => return Err(refuse(format!("its version is {other:?}, not 1"))),
        }
        Ok(Layout { root: root.to_owned(), blobs: root.join("blobs"), synced: true })
    }

    /// The same layout with its blobs, manifests among them, in a directory that others share.
    #[must_use]
    pub fn with_blobs(mut self, blobs: &Path) -> Layout {
        blobs.clone_into(&mut self.blobs);
        self
    }

    /// The same layout, whose [`Layout::publish`] does not wait for the disk: should the power be lost
    /// soon after, what was published may be incomplete.
    #[must_use]
    pub fn unsynced(mut self) -> Layout {
        self.synced = false;
        self
    }

    /// Opens a layout, and makes one where there is nothing or an empty directory.
    ///
    /// # Errors
    /// [`Error::Layout`] if there is something else, [`Error::File`].
    pub fn create(root: &Path) -> Result<Layout> {
        fs::create_dir_all(root).map_err(|error| Error::file("creating", root, error))?;
        let layout = Layout { root: root.to_owned(), blobs: root.join("blobs"), synced: true };
        let _lock = layout.lock()?;
        if read_small(&root.join("oci-layout"))?.is_some() {
            return Layout::open(root);
        }
        let ours = ["blobs", "index.json", "oci-layout"];
        let odd = file::list(root)?.into_iter().find(|name| {
            !name.to_str().is_some_and(|name| ours.contains(&name) || name.starts_with(".tmp-"))
        });
        if let Some(odd) = odd {
            let reason = format!("it is not a layout and not empty: it holds {odd:?}");
            return Err(Error::Layout { path: root.to_owned(), reason });
        }
        file::make_dir(&root.join("blobs"), 0o755)?;
        // Not synced: nothing is named yet, and what an interruption leaves empty is made again.
        if read_small(&root.join("index.json"))?.is_none() {
            let empty = Document::write(MediaType::OCI_INDEX, Index::new(Vec::new()));
            file::replace_unsynced(&root.join("index.json"), empty.bytes(), 0o644)?;
        }
        // Last: what has this file is a whole layout.
        layout.mark()?;
        Ok(layout)
    }

    /// Opens a directory with the blobs of a layout whose names are kept elsewhere, with other
    /// files beside them. It is created if missing, and several processes may do so at once; no
    /// lock is taken, for file systems that have none.
    ///
    /// # Errors
    /// [`Error::Layout`] for a layout of a version other than 1, [`Error::File`].
    pub fn shelf(root: &Path) -> Result<Layout> {
        let layout = Layout { root: root.to_owned(), blobs: root.join("blobs"), synced: true };
        let directory = layout.blobs.join("sha256");
        fs::create_dir_all(&directory).map_err(|e| Error::file("creating", &directory, e))?;
        if read_small(&root.join("oci-layout"))?.is_none() {
            layout.mark()?;
        }
        Layout::open(root)
    }

    /// Says that it is a layout. Not synced: what a loss of power leaves empty is written again.
    fn mark(&self) -> Result<()> {
        let marker = br#"{"imageLayoutVersion":"1.0.0"}"#;
        file::replace_unsynced(&self.root.join("oci-layout"), marker, 0o644)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The directory of the blobs.
    pub(crate) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// Where the blob's file is, if the layout has it.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        file::blob_path(&self.blobs, digest)
    }

    /// Whether the layout has a file for the blob; its bytes are not looked at.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn contains(&self, digest: Digest) -> Result<bool> {
        Ok(self.blob_size(digest)?.is_some())
    }

    /// The size in bytes of the blob's file, if there is one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn blob_size(&self, digest: Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("looking for", &path, error)),
        }
    }

    /// Opens a blob for reading; its bytes are not checked.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::File`].
    pub fn open_blob(&self, digest: Digest) -> Result<File> {
        let missing = || Error::NoBlob { digest, place: self.root.clone() };
        file::open(&self.blob_path(digest))?.ok_or_else(missing)
    }

    /// Reads a document and checks its size and digest.
    ///
    /// # Errors
    /// As [`crate::Store::read`].
    pub fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        read_document(file::open(&self.blob_path(descriptor.digest))?, descriptor, &self.root)
    }

    /// Stores some bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn insert(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.writer()?;
        std::io::Write::write_all(&mut writer, bytes)
            .map_err(|error| Error::file("writing", &self.root, error))?;
        writer.commit(None)
    }

    /// The entries of `index.json`, as they stand there.
    ///
    /// # Errors
    /// [`Error::Layout`], [`Error::File`].
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        Ok(self.index()?.manifests)
    }

    /// The names in the layout, in the order of `index.json`.
    ///
    /// # Errors
    /// As [`Layout::entries`].
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = self.entries()?;
        Ok(entries.iter().filter_map(|entry| name_of(entry).map(str::to_owned)).collect())
    }

    /// What a name points at. An entry of that name wins over one whose full name
    /// (containerd's annotation) it is.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] when several different manifests have the name; as
    /// [`Layout::entries`].
    pub fn resolve(&self, name: &str) -> Result<Option<Descriptor>> {
        let entries = self.entries()?;
        for annotation in [REF_NAME, CONTAINERD_NAME] {
            let named = |entry: &&Descriptor| {
                entry.annotations.get(annotation).is_some_and(|value| value == name)
            };
            let found: BTreeMap<Digest, &Descriptor> =
                entries.iter().filter(named).map(|entry| (entry.digest, entry)).collect();
            if found.len() > 1 {
                let candidates = found.keys().take(5).map(ToString::to_string).collect();
                return Err(Error::Ambiguous { name: name.to_owned(), candidates });
            }
            if let Some(found) = found.into_values().next() {
                return Ok(Some(found.clone()));
            }
        }
        Ok(None)
    }

    /// The only manifest of the layout, whatever its name.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] when there are several, [`Error::NoName`] when there is none; as
    /// [`Layout::entries`].
    pub fn single(&self) -> Result<Descriptor> {
        let mut entries = self.entries()?;
        let digests: BTreeSet<Digest> = entries.iter().map(|entry| entry.digest).collect();
        match (digests.len(), entries.pop()) {
            (1, Some(only)) => Ok(only),
            (_, None) => Err(Error::NoName { name: String::new(), place: self.root.clone() }),
            (_, Some(last)) => Err(Error::Ambiguous {
                name: String::new(),
                candidates: entries
                    .iter()
                    .chain([&last])
                    .take(5)
                    .map(|entry| {
                        name_of(entry).map_or_else(|| entry.digest.to_string(), str::to_owned)
                    })
                    .collect(),
            }),
        }
    }

    /// The image below a descriptor: of an index, the one that serves the platform best.
    ///
    /// # Errors
    /// As [`crate::Store::image`].
    pub fn image(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Image> {
        select::image(&|descriptor| self.read(descriptor), descriptor, platform)
    }

    /// The manifests in `index.json` that refer to a subject.
    ///
    /// # Errors
    /// As [`Layout::entries`] and [`Layout::read`].
    pub fn referrers(&self, subject: Digest) -> Result<Vec<Descriptor>> {
        Ok(self.listing()?.referrers(subject))
    }

    /// All that `index.json` says and what its manifests refer to, read once for many questions.
    ///
    /// # Errors
    /// As [`Layout::entries`] and [`Layout::read`].
    pub fn listing(&self) -> Result<Listing> {
        let stamp = self.stamp()?;
        let mut listing = Listing { stamp, names: HashMap::new(), subjects: HashMap::new() };
        let mut seen = BTreeSet::new();
        for entry in self.entries()? {
            if let Some(name) = name_of(&entry) {
                listing.names.entry(name.to_owned()).or_insert_with(|| entry.clone());
            }
            let new = entry.media_type.is_node() && seen.insert(entry.digest);
            if !new || !self.contains(entry.digest)? {
                continue;
            }
            let digest = entry.digest;
            let node = Node::read(entry.clone(), self.read(&entry)?)
                .map_err(|source| Error::document(digest, source))?;
            if let Some(subject) = node.subject() {
                let referrers = listing.subjects.entry(subject.digest).or_default();
                referrers.push(crate::name::describe(&node));
            }
        }
        listing.subjects.values_mut().for_each(|all| all.sort_by_key(|one| one.digest));
        Ok(listing)
    }

    /// Whether `index.json` is still the one that was read.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn is_current(&self, listing: &Listing) -> Result<bool> {
        Ok(self.stamp()? == listing.stamp)
    }

    /// Another file has other numbers: `index.json` is replaced, never changed.
    fn stamp(&self) -> Result<Stamp> {
        let path = self.root.join("index.json");
        let about = fs::symlink_metadata(&path)
            .map_err(|error| Error::file("looking for", &path, error))?;
        Ok(Stamp {
            file: (about.dev(), about.ino()),
            size: about.size(),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }

    /// Gives a manifest or index, whose parts must all be there, a name; without one it is listed
    /// only. What had the name before loses it. Should the power be lost, `index.json` is the one
    /// before or this one, and everything it names is on the disk (but see [`Layout::unsynced`]).
    ///
    /// # Errors
    /// [`Error::MissingChild`], the errors of [`Layout::read`] and [`Layout::entries`].
    pub fn publish(&self, name: Option<&str>, root: &Descriptor) -> Result<()> {
        self.require_whole(root)?;
        let mut entry = root.clone();
        match name {
            Some(name) => {
                // A full name that came with the descriptor names something else from here on.
                entry.annotations.remove(CONTAINERD_NAME);
                entry.annotations.insert(REF_NAME.to_owned(), name.to_owned())
            }
            None => entry.annotations.remove(REF_NAME),
        };
        let _lock = self.lock()?;
        let mut index = self.index()?;
        if name.is_none() && index.manifests.iter().any(|other| other.digest == root.digest) {
            return Ok(());
        }
        let replaced = index.manifests.iter().position(|other| {
            let same = other.digest == root.digest && name_of(other).is_none();
            same || (name.is_some() && name_of(other) == name)
        });
        let at = replaced.unwrap_or(index.manifests.len());
        index.manifests.retain(|other| {
            let same = other.digest == root.digest && name_of(other).is_none();
            !same && (name.is_none() || name_of(other) != name)
        });
        let at = at.min(index.manifests.len());
        index.manifests.insert(at, entry);
        // One wait brings all blobs and the list that names them to the disk.
        let list = Document::write(MediaType::OCI_INDEX, index);
        let list = file::fresh(&self.root, list.bytes(), 0o644)?;
        if self.synced {
            file::sync_file_system(&self.root)?;
            if !self.blobs.starts_with(&self.root) {
                file::sync_file_system(&self.blobs)?;
            }
        }
        let path = self.root.join("index.json");
        list.rename(&path).map_err(|error| Error::file("writing", &path, error))?;
        self.sweep();
        Ok(())
    }

    /// Removes what copies left that were killed; with the layout's lock held. What cannot be
    /// removed stays until the next time.
    fn sweep(&self) {
        let temporary = |directory: &Path| {
            let names = file::list(directory).unwrap_or_default();
            let ours = names.into_iter().filter(|n| n.to_string_lossy().starts_with(".tmp-"));
            ours.map(|name| directory.join(name)).collect::<Vec<_>>()
        };
        for path in temporary(&self.blobs) {
            // A writer holds a lock on its file.
            let left = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if left {
                let _ = fs::remove_file(&path);
            }
        }
        // These are written under the lock that we hold.
        temporary(&self.root).iter().for_each(|path| drop(fs::remove_file(path)));
    }

    /// Takes a name away, and lists its manifest no longer; blobs stay. `false` if there was no
    /// such name.
    ///
    /// # Errors
    /// As [`Layout::entries`].
    pub fn unname(&self, name: &str) -> Result<bool> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| name_of(entry) != Some(name));
        if index.manifests.len() == before {
            return Ok(false);
        }
        let list = Document::write(MediaType::OCI_INDEX, index);
        file::replace(&self.root.join("index.json"), list.bytes(), 0o644)?;
        Ok(true)
    }

    /// Checks that everything below a root is there, with the declared size.
    fn require_whole(&self, root: &Descriptor) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![root.clone()];
        while let Some(descriptor) = todo.pop() {
            let digest = descriptor.digest;
            if !seen.insert(digest) {
                continue;
            }
            match self.blob_size(digest)? {
                None if descriptor.media_type.is_foreign() => {}
                None => {
                    let (root, media_type) = (root.digest, descriptor.media_type.to_string());
                    return Err(Error::MissingChild { root, child: digest, media_type });
                }
                Some(found) if found != descriptor.size => {
                    return Err(Error::Size { digest, expected: descriptor.size, found });
                }
                Some(_) => {}
            }
            if descriptor.media_type.is_node() {
                let bytes = self.read(&descriptor)?;
                let node = Node::read(descriptor, bytes)
                    .map_err(|source| Error::document(digest, source))?;
                todo.extend(node.children());
            }
        }
        Ok(())
    }

    fn index(&self) -> Result<Index> {
        let refuse = |reason: String| Error::Layout { path: self.root.clone(), reason };
        let path = self.root.join("index.json");
        let Some(bytes) = read_small(&path)? else {
            // It is empty where the power was lost before anything got a name.
            return match path.exists() {
                true => Ok(Index::new(Vec::new())),
                false => Err(refuse("it has no file index.json".to_owned())),
            };
        };
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| refuse(format!("its index.json is malformed: {error}")))?;
        match index.schema_version {
            2 => Ok(index),
            other => Err(refuse(format!("the schemaVersion of its index.json is {other}, not 2"))),
        }
    }

    fn lock(&self) -> Result<File> {
        let root = &self.root;
        let lock = File::open(root).map_err(|error| Error::file("opening", root, error))?;
        lock.lock().map_err(|error| Error::file("locking", root, error))?;
        Ok(lock)
    }
}

/// What an `index.json` said.
#[derive(Debug)]
pub struct Listing {
    stamp: Stamp,
    names: HashMap<String, Descriptor>,
    subjects: HashMap<Digest, Vec<Descriptor>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Listing {
    /// The manifests that refer to a subject, by their digests.
    pub fn referrers(&self, subject: Digest) -> Vec<Descriptor> {
        self.subjects.get(&subject).cloned().unwrap_or_default()
    }

    /// The first entry of this name.
    pub fn named(&self, name: &str) -> Option<&Descriptor> {
        self.names.get(name)
    }
}

/// The name of an entry of `index.json`.
fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str).filter(|name| !name.is_empty())
}

/// Reads a file of at most a document's size; `None` if there is none, or nothing in it.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(file) = file::open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::file("reading", path, error))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let odd = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 4 MiB");
        return Err(Error::file("reading", path, odd));
    }
    Ok((!bytes.is_empty()).then_some(bytes))
}
