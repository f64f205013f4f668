//! Cache mounts travel with the cache: as the tar stream of their files, cut into pieces by
//! content, so that the next export sends what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use image::{Descriptor, Digest};
use layers::{ApplyOptions, DiffOptions, Limits, Root, Whiteouts};
use serde::{Deserialize, Serialize};
use store::Store;
use task::{Cause, Task};
use tokio::sync::mpsc;
use transport::{Source, bridge};

use super::chunk::{Chunker, MOST, SCALES};
use super::export::{Contents, compressed};
use super::import::{Imports, fetch};
use super::record::{Listing, MountRecord};
use crate::error::ErrorContext;
use crate::job::{Build, lock};
use crate::plan::{Op, RunMountKind, StepId};
use crate::step::copy::set_mode;
use crate::step::mounts::cache_name;
use crate::{Error, Result};

/// The list of a mount's pieces.
const INDEX: &str = "application/vnd.rbuild.cache.mount.v1+json.zstd";
/// One piece.
const PIECE: &str = "application/vnd.rbuild.cache.mount.piece.v1.zstd";
/// No longer list of pieces than this is read, uncompressed.
const MOST_INDEX: u64 = 32 << 20;
/// A mount larger than so many pieces does not travel: registries bound a manifest.
const MOST_PIECES: usize = 8_000;
/// Pieces fetched at a time.
const AHEAD: usize = 6;
/// Where the store remembers which blob a piece is compressed to.
const PIECES: &str = "mount-pieces-1";

/// The pieces of a mount in their order; each is a blob of the manifest.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Pieces {
    pieces: Vec<Digest>,
}

/// The cache mounts that a step has: what names each in the store, and its id.
fn named(build: &Build, step: StepId) -> BTreeMap<String, String> {
    let Op::Run(op) = &build.plan.steps[step.0].op else { return BTreeMap::new() };
    let mounts = op.mounts.iter().filter_map(|mount| match &mount.kind {
        RunMountKind::Cache { id, mode, uid, gid, .. } => {
            Some((cache_name(id, *mode, (*uid, *gid)), id.clone()))
        }
        _ => None,
    });
    mounts.collect()
}

/// The name in the store of a mount that came with a cache: only steps that depend on content of
/// that cache see it.
fn borrowed(name: &str, cache: &str) -> String {
    format!("{name} of the cache {cache}")
}

/// A cache mount of a build.
#[derive(Default)]
struct CacheMountUse {
    id: String,
    /// What the store calls it.
    name: String,
    keys: BTreeSet<Digest>,
}

/// The cache mounts of all steps, by what names each on every machine.
fn used(build: &Build) -> BTreeMap<String, CacheMountUse> {
    let mut all: BTreeMap<String, CacheMountUse> = BTreeMap::new();
    for step in (0..build.plan.steps.len()).map(StepId) {
        for (name, id) in named(build, step) {
            let used = all.entry(name.clone()).or_default();
            used.id = id;
            let borrowed =
                lock(&build.ledger.borrowed).get(&step).and_then(|all| all.get(&name).cloned());
            if used.name.is_empty() || borrowed.is_some() {
                used.name = borrowed.unwrap_or(name);
            }
            used.keys.extend(build.ancestry(step));
        }
    }
    all
}

/// Adds the cache mounts of the build to what is exported. A mount that changes meanwhile, or
/// that cannot be had, is left out with a warning.
pub(super) async fn export(
    build: &Arc<Build>,
    imports: &Imports,
    listing: &mut Listing,
    contents: &mut Contents,
    task: &Arc<Task>,
) -> Result<()> {
    for (name, CacheMountUse { id, name: own, keys }) in used(build) {
        task.check()?;
        let (store, threads) = (build.env.store.clone(), build.env.threads);
        let child = Arc::new(task.child(format!("cache mount {id}")));
        let working = Arc::clone(&child);
        let packed = bridge::blocking(move || {
            let mut packed = pack(&store, &own, 0, threads, &working);
            for scale in 1..=SCALES {
                if !matches!(packed, Err(Error::TooLarge)) {
                    break;
                }
                packed = pack(&store, &own, scale, threads, &working);
            }
            packed
        })
        .await;
        match packed {
            Ok(Some((record, blobs))) => {
                listing.mounts.push(MountRecord { id: name, keys, ..record });
                contents.add(blobs);
                if let Some(child) = Arc::into_inner(child) {
                    child.done();
                }
            }
            Ok(None) => pass_on(build, imports, &name, listing, contents, &child).await?,
            Err(Error::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(error) => {
                let why = task::chain(&error).join(": ");
                child.warn(format!("cache mount {id} is not exported: {why}"));
            }
        }
    }
    Ok(())
}

/// A mount that is not on this machine goes on from where it is.
async fn pass_on(
    build: &Arc<Build>,
    imports: &Imports,
    id: &str,
    listing: &mut Listing,
    contents: &mut Contents,
    task: &Task,
) -> Result<()> {
    let Some((cache, record, index)) = imports.mount(id, |_, _| true) else { return Ok(()) };
    let source = imports.source(cache);
    let pieces = pieces(&build.env.store, &*source, index, task).await?;
    let known = pieces.iter().map(|digest| imports.blob(cache, *digest).cloned());
    let Some(mut blobs) = known.collect::<Option<Vec<Descriptor>>>() else { return Ok(()) };
    blobs.push(index.clone());
    for blob in &blobs {
        contents.remote.insert(blob.digest, Arc::clone(&source));
    }
    contents.add(blobs);
    listing.mounts.push(record.clone());
    Ok(())
}

/// Cuts a mount of this machine into pieces, which are in the store then.
fn pack(
    store: &Store,
    id: &str,
    scale: u32,
    threads: usize,
    task: &Task,
) -> Result<Option<(MountRecord, Vec<Descriptor>)>> {
    let action = "packing";
    let Some(used) = store.cache_mount_used(id).during(action)? else { return Ok(None) };
    let Some(mount) = store.peek_cache_mount(id).during(action)? else {
        return Err(Error::InUse { name: format!("cache mount {id}"), by: "another build" });
    };
    let root = Root::open(mount.path()).during(action)?;
    let mut pieces: Vec<Descriptor> = Vec::new();
    let mut failure = None;
    let mut chunker = Chunker::new(scale, |bytes: &[u8]| {
        if pieces.len() == MOST_PIECES {
            failure = Some(Error::TooLarge);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match piece(store, bytes) {
            Ok(descriptor) => pieces.push(descriptor),
            Err(error) => {
                failure = Some(error);
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(())
    });
    let options = DiffOptions::default();
    let archived = layers::archive(&root, Path::new(""), &mut chunker, &options, task);
    let finished = chunker.finish();
    if let Some(failure) = failure {
        return Err(failure);
    }
    archived.during(action)?;
    finished.map_err(Error::file(action, mount.path()))?;
    let list = Pieces { pieces: pieces.iter().map(|piece| piece.digest).collect() };
    let list = serde_json::to_vec(&list).unwrap_or_default();
    let index = compressed(store, &list, INDEX, threads)?;
    let own = root.metadata(Path::new("")).during(action)?;
    let attributes = (own.st_mode & 0o7777, own.st_uid, own.st_gid);
    let (id, keys) = (id.to_owned(), BTreeSet::new());
    let record = MountRecord { id, used, index: index.digest, attributes, keys };
    pieces.push(index);
    Ok(Some((record, pieces)))
}

/// The blob of one piece: compressed now, unless that was done before and is still there.
fn piece(store: &Store, bytes: &[u8]) -> Result<Descriptor> {
    let plain = Digest::of(bytes);
    let action = "packing a piece";
    let known = store.memo(PIECES, plain.as_bytes()).during(action)?;
    let known: Option<(Digest, u64)> = known.and_then(|known| serde_json::from_slice(&known).ok());
    if let Some((digest, size)) = known
        && store.blob_size(digest).during(action)? == Some(size)
    {
        return Ok(Descriptor::new(PIECE.into(), digest, size));
    }
    let descriptor = compressed(store, bytes, PIECE, 1)?;
    let value = serde_json::to_vec(&(descriptor.digest, descriptor.size)).unwrap_or_default();
    store.set_memo(PIECES, plain.as_bytes(), &value).during(action)?;
    Ok(descriptor)
}

async fn pieces(
    store: &Store,
    source: &dyn Source,
    index: &Descriptor,
    task: &Task,
) -> Result<Vec<Digest>> {
    fetch(store, source, index, task).await?;
    let (store, digest) = (store.clone(), index.digest);
    bridge::blocking(move || {
        let action = "reading the chunk list of a cache mount";
        let file = store.open_blob(digest).during(action)?;
        let reader = layers::decompress(file).during(action)?.take(MOST_INDEX);
        let pieces: Pieces = serde_json::from_reader(io::BufReader::new(reader))
            .map_err(|source| Error::Document { action: action.to_owned(), source })?;
        match pieces.pieces.len() {
            ..=MOST_PIECES => Ok(pieces.pieces),
            count => Err(Error::malformed(
                "the chunk list of a cache mount",
                format!("it has {count} chunks, more than {MOST_PIECES}"),
            )),
        }
    })
    .await
}

impl Build {
    /// The keys of a step and of everything it depends on, as far as they are known.
    fn ancestry(&self, step: StepId) -> BTreeSet<Digest> {
        let (mut open, mut seen, mut keys) = (vec![step], BTreeSet::new(), BTreeSet::new());
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                keys.extend(self.origin_of(id).map(|key| key.0));
                open.extend(self.plan.steps[id.0].inputs());
            }
        }
        keys
    }

    /// Restores the cache mounts of a step from imported caches that have newer ones. It skips
    /// mounts that this machine has itself, and caches without anything that the step depends on. A
    /// failure costs time, not the build.
    pub(crate) async fn bring_mounts(self: &Arc<Self>, id: StepId, task: &Arc<Task>) {
        let named = named(self, id);
        if self.request.cache.from.is_empty() || named.is_empty() {
            return;
        }
        let imports = self.imports(task).await;
        let keys = self.ancestry(id);
        for (name, shown) in named {
            let store = &self.env.store;
            if store.cache_mount_used(&name).is_ok_and(|used| used.is_some()) {
                continue;
            }
            let fits = |cache: usize, record: &MountRecord| {
                !keys.is_disjoint(&record.keys) || imports.has_any(cache, &keys)
            };
            let Some(found) = imports.mount(&name, fits) else { continue };
            let own = borrowed(&name, imports.called(found.0));
            // The second caller finds it done.
            let alone = Arc::clone(lock(&self.ledger.mounts).entry(own.clone()).or_default());
            let mut done = alone.lock().await;
            if !std::mem::replace(&mut *done, true)
                && let Err(error) = bring(store, imports, found, &own, &shown, task).await
            {
                let why = task::chain(&error).join(": ");
                task.warn(format!("cache mount {shown} is not imported: {why}"));
            }
            if store.cache_mount_used(&own).is_ok_and(|used| used.is_some()) {
                lock(&self.ledger.borrowed).entry(id).or_default().insert(name, own);
            }
        }
    }

    /// What the store calls those cache mounts of a step that came with a cache.
    pub(crate) fn borrowed_of(&self, id: StepId) -> BTreeMap<String, String> {
        lock(&self.ledger.borrowed).get(&id).cloned().unwrap_or_default()
    }
}

/// A mount of a cache: which cache, its record, the blob that lists its pieces.
type MountMatch<'a> = (usize, &'a MountRecord, &'a Descriptor);

async fn bring(
    store: &Store,
    imports: &Imports,
    (cache, record, index): MountMatch<'_>,
    name: &str,
    shown: &str,
    task: &Arc<Task>,
) -> Result<()> {
    let action = "unpacking";
    let here = store.cache_mount_used(name).during(action)?;
    if here.is_some_and(|here| here >= record.used) {
        return Ok(());
    }
    let source = imports.source(cache);
    let pieces = pieces(store, &*source, index, task).await?;
    let listed = pieces.iter().map(|digest| {
        let missing = || {
            Error::malformed(
                "the chunk list of a cache mount",
                format!("chunk {digest} is not in the manifest"),
            )
        };
        imports.blob(cache, *digest).cloned().ok_or_else(missing)
    });
    let listed = listed.collect::<Result<Vec<Descriptor>>>()?;
    let child = Arc::new(task.child(format!("cache mount {shown} from the cache")));
    let limits = Limits {
        total: Some((MOST as u64) << SCALES).map(|most| most * listed.len() as u64),
        ..Limits::default()
    };
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Cause>>(2);
    let (store, working) = (store.clone(), Arc::clone(&child));
    let (name, record) = (name.to_owned(), record.clone());
    let unpacking = tokio::task::spawn_blocking(move || {
        unpack(&store, receiver, limits, &name, &record, &working)
    });
    let mut arriving = stream::iter(listed)
        .map(|piece| {
            let source = Arc::clone(&source);
            async move { source.fetch(&piece).await?.verify(&piece).read().await }
        })
        .buffered(AHEAD);
    while let Some(piece) = arriving.next().await {
        let over = piece.is_err();
        if sender.send(piece).await.is_err() || over {
            break;
        }
    }
    drop(sender);
    if !unpacking.await?? {
        child.note("it is in use, or newer here");
    }
    if let Some(child) = Arc::into_inner(child) {
        child.done();
    }
    Ok(())
}

/// Makes a cache mount of what arrives; `false` if the one that is here is in use, or newer.
fn unpack(
    store: &Store,
    receiver: mpsc::Receiver<Result<Bytes, Cause>>,
    limits: Limits,
    name: &str,
    record: &MountRecord,
    task: &Task,
) -> Result<bool> {
    let action = "unpacking";
    let active = store.begin().during(action)?;
    let stream = layers::decompress(PieceReader { receiver, piece: Bytes::new() });
    let options = ApplyOptions { whiteouts: Whiteouts::Literal, limits, ..ApplyOptions::default() };
    let root = active.root().during(action)?;
    layers::apply(task.reading(stream.during(action)?), &root, &options).during(action)?;
    let top = active.dir().join("fs");
    disarm(&top)?;
    let (mode, uid, gid) = record.attributes;
    std::os::unix::fs::chown(&top, Some(uid), Some(gid))
        .map_err(Error::file("setting the owner of", &top))?;
    set_mode(&top, mode & HARMLESS)?;
    store.adopt_cache_mount(name, record.used, &active).during(action)
}

/// The permission bits that files of a cache may have: no set-id bits.
const HARMLESS: u32 = 0o1777;

/// Removes from the files of an unused directory everything that grants rights: set-id bits,
/// capabilities, devices.
fn disarm(top: &Path) -> Result<()> {
    let mut open = vec![top.to_owned()];
    while let Some(directory) = open.pop() {
        let listing = |error| Error::file("listing", &directory)(error);
        for entry in std::fs::read_dir(&directory).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(Error::file("examining", &path))?;
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_block_device() || kind.is_char_device() {
                std::fs::remove_file(&path).map_err(Error::file("removing", &path))?;
            } else if kind.is_file() {
                let stat = entry.metadata().map_err(Error::file("examining", &path))?;
                let mode = std::os::unix::fs::MetadataExt::mode(&stat);
                if mode & 0o6000 != 0 {
                    set_mode(&path, mode & HARMLESS)?;
                }
                // Most have none; a process that cannot remove it could not have set it.
                let _ = rustix::fs::lremovexattr(&path, c"security.capability");
            }
        }
    }
    Ok(())
}

/// Reads pieces one after the other as one stream; each was checked as a whole.
struct PieceReader {
    receiver: mpsc::Receiver<Result<Bytes, Cause>>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(cause)) => return Err(io::Error::other(cause)),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
