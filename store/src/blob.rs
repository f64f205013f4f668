//! Blobs: content by digest, in the store and in layouts.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use image::{Algorithm, Descriptor, Digest, Digester, MAX_DOCUMENT};
use rusqlite::{Connection, OptionalExtension, params};

use crate::budget::GRANT;
use crate::catalog::{Attempt, DigestKey, Kind, number};
use crate::lease::Pins;
use crate::{Error, Layout, Result, Store, file};

/// What is buffered of small writes; larger ones are not copied.
const BUFFER: usize = 64 << 10;
/// So many bytes are written out at a time while more is received.
const WRITE_OUT: u64 = 8 << 20;

/// A blob on its way in: write its bytes, then commit. Dropped without that it is forgotten.
#[derive(Debug)]
pub struct BlobWriter {
    file: BufWriter<File>,
    pub(crate) path: PathBuf,
    into: BlobHome,
    digester: Digester,
    algorithm: Algorithm,
    size: u64,
    /// How many bytes there is room for.
    granted: u64,
    /// How many bytes the kernel was asked to write out.
    started: u64,
}

#[derive(Debug)]
enum BlobHome {
    Store(Store),
    Layout(Layout),
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ask(bytes.len() as u64)?;
        let n = self.file.write(bytes)?;
        self.digester.update(&bytes[..n]);
        self.size += n as u64;
        self.start_writing();
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing at this path; otherwise recovery would remove it too.
        let _ = fs::remove_file(&self.path);
    }
}

impl BlobWriter {
    /// Asks for room before it is used up.
    fn ask(&mut self, more: u64) -> io::Result<()> {
        let BlobHome::Store(store) = &self.into else { return Ok(()) };
        if self.size + more <= self.granted || store.limit().is_none() {
            return Ok(());
        }
        let wanted = GRANT.max(more);
        store
            .make_room(wanted, &store.shared().options.task)
            .map_err(|error| io::Error::other(task::Cause::new(error)))?;
        self.granted = self.size + wanted;
        Ok(())
    }

    /// Lets the disk write while more is received: a layout is synced when its image gets its name,
    /// which would wait for all of it then.
    fn start_writing(&mut self) {
        if !matches!(self.into, BlobHome::Layout(_)) || self.size - self.started < WRITE_OUT {
            return;
        }
        // Only the side effect on dirty pages is wanted, and nothing depends on it.
        let (length, advice) = (NonZeroU64::new(WRITE_OUT), rustix::fs::Advice::DontNeed);
        let _ = rustix::fs::fadvise(self.file.get_ref(), self.started, length, advice);
        self.started += WRITE_OUT;
    }

    fn new(path: PathBuf, into: BlobHome, algorithm: Algorithm) -> Result<BlobWriter> {
        let file = file::create_new(&path, 0o600)?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let digester = Digester::new(algorithm);
        Ok(BlobWriter { file, path, into, digester, algorithm, size: 0, granted: 0, started: 0 })
    }

    /// The digest (sha256 unless the writer was asked for another) of what was written so far.
    pub fn digest(&self) -> Digest {
        self.digester.clone().finish()
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Checks what was written against what was expected, and makes it content.
    ///
    /// # Errors
    /// [`Error::Size`] and [`Error::Digest`] when it is something else than expected; then
    /// nothing remains. [`Error::File`], [`Error::Catalog`].
    pub fn commit(mut self, expected: Option<&Descriptor>) -> Result<Digest> {
        self.file.flush().map_err(|error| Error::file("writing", &self.path, error))?;
        let mut digest = self.digest();
        if let Some(expected) = expected {
            if expected.size != self.size {
                let (digest, expected, found) = (expected.digest, expected.size, self.size);
                return Err(Error::Size { digest, expected, found });
            }
            if expected.digest.algorithm() != self.algorithm {
                digest = hash_file(&self.path, expected.digest.algorithm())?.0;
            }
            if expected.digest != digest {
                return Err(Error::Digest { expected: expected.digest, found: digest });
            }
        }
        let (path, size) = (&self.path, self.size);
        match &self.into {
            BlobHome::Store(store) => store.place_blob(path, digest, size)?,
            BlobHome::Layout(layout) => layout.place_blob(path, digest)?,
        }
        Ok(digest)
    }
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Result<(Digest, u64)> {
    let file = File::open(path).map_err(|error| Error::file("opening", path, error))?;
    file::hash(algorithm, file).map_err(|error| Error::file("reading", path, error))
}

/// Reads a document and checks it; `place` is named where it is missing.
pub(crate) fn read_document(
    file: Option<File>,
    descriptor: &Descriptor,
    place: &Path,
) -> Result<Bytes> {
    let digest = descriptor.digest;
    let Some(file) = file else {
        return Err(Error::NoBlob { digest, place: place.to_owned() });
    };
    if descriptor.size > MAX_DOCUMENT {
        let (size, limit) = (descriptor.size, MAX_DOCUMENT);
        return Err(Error::document(digest, image::Error::TooLarge { digest, size, limit }));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or(0));
    let mut limited = file.take(descriptor.size + 1);
    limited.read_to_end(&mut bytes).map_err(|source| Error::Stream { digest, source })?;
    let found = bytes.len() as u64;
    if found != descriptor.size {
        return Err(Error::Size { digest, expected: descriptor.size, found });
    }
    let (found, _) = file::hash(digest.algorithm(), bytes.as_slice())
        .map_err(|source| Error::Stream { digest, source })?;
    if found != digest {
        return Err(Error::Digest { expected: digest, found });
    }
    Ok(bytes.into())
}

impl Store {
    /// Where the blob's file is, if the store has it; a derived layer has none. Read it, never
    /// change it: mode 0444.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        file::blob_path(&self.path().join("blobs"), digest)
    }

    /// Whether the store has the blob; if so it is pinned and stays.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn contains(&self, digest: Digest) -> Result<bool> {
        if self.slot.has_pinned(Kind::Blob, digest) {
            return Ok(true);
        }
        let there = self.shared().catalog.read("looking up a blob", |db| has_blob(db, digest))?;
        if there.is_none() {
            return Ok(false);
        }
        // It may go between the two transactions; what counts is the one that pins.
        self.slot.write("pinning a blob", |db, pins| Ok(pin_blob(db, pins, digest)?.is_some()))
    }

    /// The size in bytes of a blob, if the store has it. It is not pinned.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn blob_size(&self, digest: Digest) -> Result<Option<u64>> {
        let size = self.shared().catalog.read("looking up a blob", |db| has_blob(db, digest))?;
        Ok(size.map(i64::unsigned_abs))
    }

    /// Opens a blob for reading; it is pinned. A derived layer is written into a file without a
    /// name for that.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::File`], [`Error::Catalog`]; of a derived layer those of
    /// [`Store::write_layer`] and [`Error::Changed`], and [`Error::Cancelled`] once the task of the
    /// [`Options`](crate::Options) was cancelled.
    pub fn open_blob(&self, digest: Digest) -> Result<File> {
        let missing = || Error::NoBlob { digest, place: self.path().to_owned() };
        if !self.contains(digest)? {
            return Err(missing());
        }
        match file::open(&self.blob_path(digest))? {
            Some(file) => Ok(file),
            None => self.reproduce(digest, &self.shared().options.task)?.ok_or_else(missing),
        }
    }

    /// Reads a document (a manifest, index or config) and checks its size and digest.
    ///
    /// # Errors
    /// As [`Store::open_blob`]; [`Error::Size`], [`Error::Digest`], [`Error::Document`] when it
    /// is larger than [`MAX_DOCUMENT`].
    pub fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let file = self.open_blob(descriptor.digest)?;
        read_document(Some(file), descriptor, self.path())
    }

    /// Starts a blob.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Catalog`].
    pub fn writer(&self) -> Result<BlobWriter> {
        self.writer_for(Algorithm::Sha256)
    }

    /// Starts a blob whose digest is of this algorithm.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Catalog`].
    pub fn writer_for(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        let path = self.slot.path_in("ingest")?;
        BlobWriter::new(path, BlobHome::Store(self.clone()), algorithm)
    }

    /// Stores some bytes.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Catalog`].
    pub fn insert(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.contains(digest)? {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        write_all(&mut writer, bytes)?;
        writer.commit(None)
    }

    /// Takes over the blob in the file `source` of another layout or store on this machine, sharing
    /// its bytes on disk if that is possible and safe, and checks it. `false` if there is no such
    /// file.
    ///
    /// # Errors
    /// [`Error::Size`] and [`Error::Digest`] for a corrupted blob; then nothing remains.
    /// [`Error::File`], [`Error::Catalog`].
    pub fn adopt(&self, source: &Path, descriptor: &Descriptor) -> Result<bool> {
        if self.contains(descriptor.digest)? {
            return Ok(true);
        }
        adopt(self.writer_for(descriptor.digest.algorithm())?, source, descriptor)
    }

    /// Moves a finished file to its place and registers it, in one transaction.
    fn place_blob(&self, from: &Path, digest: Digest, size: u64) -> Result<()> {
        let to = self.blob_path(digest);
        let read_only = fs::Permissions::from_mode(0o444);
        fs::set_permissions(from, read_only).map_err(|e| Error::file("protecting", from, e))?;
        let shared = self.shared();
        self.slot.write("registering a blob", |db, pins| {
            if pin_blob(db, pins, digest)?.is_some() && to.exists() {
                return Ok(());
            }
            file::rename(from, &to)?;
            let mut insert = db.prepare_cached(
                "INSERT OR REPLACE INTO blobs(digest, size, added) VALUES(?, ?, ?)",
            )?;
            insert.execute(params![DigestKey(digest), number(size), shared.now()])?;
            mark_unsynced(db, &shared.options.boot_id, Kind::Blob, digest)?;
            pins.add(db, Kind::Blob, digest)
        })
    }
}

/// Size of a blob that is there.
pub(crate) fn has_blob(db: &Connection, digest: Digest) -> Attempt<Option<i64>> {
    let mut query = db.prepare_cached("SELECT size FROM blobs WHERE digest = ?")?;
    Ok(query.query_row([DigestKey(digest)], |row| row.get(0)).optional()?)
}

/// Pins a blob if it is there, and says how large it is.
pub(crate) fn pin_blob(
    db: &Connection,
    pins: &mut Pins<'_>,
    digest: Digest,
) -> Attempt<Option<i64>> {
    let size = has_blob(db, digest)?;
    if size.is_some() {
        pins.add(db, Kind::Blob, digest)?;
    }
    Ok(size)
}

/// Notes that something new may not be on disk yet, and that it is no longer condemned.
pub(crate) fn mark_unsynced(
    db: &Connection,
    boot_id: &str,
    kind: Kind,
    digest: Digest,
) -> Attempt<()> {
    let mut insert =
        db.prepare_cached("INSERT INTO unsynced(boot, kind, digest) VALUES(?, ?, ?)")?;
    insert.execute(params![boot_id, kind, DigestKey(digest)])?;
    let mut pardon = db.prepare_cached("DELETE FROM condemned WHERE kind = ? AND digest = ?")?;
    pardon.execute(params![kind, DigestKey(digest)])?;
    Ok(())
}

fn write_all(writer: &mut BlobWriter, bytes: &[u8]) -> Result<()> {
    writer.write_all(bytes).map_err(|error| Error::file("writing", &writer.path, error))
}

/// Copies the file `source` in through a writer: as a reflink if the file system can, else byte by
/// byte. Never as a hard link: the owner of the other name could change the content. The bytes are
/// always checked, in the store's own file.
fn adopt(mut writer: BlobWriter, source: &Path, descriptor: &Descriptor) -> Result<bool> {
    let Some(from) = file::open(source)? else { return Ok(false) };
    let metadata = from.metadata().map_err(|error| Error::file("reading", source, error))?;
    if metadata.len() != descriptor.size {
        let (digest, expected, found) = (descriptor.digest, descriptor.size, metadata.len());
        return Err(Error::Size { digest, expected, found });
    }
    let shares = rustix::fs::ioctl_ficlone(writer.file.get_ref().as_fd(), from.as_fd()).is_ok();
    if shares {
        let own = File::open(&writer.path);
        let own = own.map_err(|error| Error::file("opening", &writer.path, error))?;
        let copied = io::copy(&mut own.take(descriptor.size + 1), &mut writer.digester);
        writer.size = copied.map_err(|error| Error::file("reading", &writer.path, error))?;
    } else {
        let mut buffer = vec![0; file::CHUNK];
        let mut from = from.take(descriptor.size + 1);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => write_all(&mut writer, &buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::file("reading", source, error)),
            }
        }
    }
    writer.commit(Some(descriptor))?;
    Ok(true)
}

impl Layout {
    /// Starts a blob.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn writer(&self) -> Result<BlobWriter> {
        self.writer_for(Algorithm::Sha256)
    }

    /// Starts a blob whose digest is of this algorithm.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn writer_for(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        let blobs = self.blobs();
        fs::create_dir_all(blobs).map_err(|error| Error::file("creating", blobs, error))?;
        loop {
            let path = blobs.join(format!(".tmp-{}", file::random()));
            let writer = BlobWriter::new(path, BlobHome::Layout(self.clone()), algorithm)?;
            // Locked as long as it is written, so that what a killed copy left can be told from it;
            // where files cannot be locked nothing is taken for left over.
            let _ = writer.file.get_ref().lock_shared();
            // A cleanup may have been quicker than the lock.
            if writer.path.exists() {
                return Ok(writer);
            }
        }
    }

    /// Takes over the blob in the file `source` as [`Store::adopt`] does.
    ///
    /// # Errors
    /// As [`Store::adopt`].
    pub fn adopt(&self, source: &Path, descriptor: &Descriptor) -> Result<bool> {
        if self.contains(descriptor.digest)? {
            return Ok(true);
        }
        adopt(self.writer_for(descriptor.digest.algorithm())?, source, descriptor)
    }

    /// Takes over a blob of the store, sharing its bytes on disk where that is possible and safe.
    /// `false` if the store does not have it.
    ///
    /// # Errors
    /// As [`Store::adopt`].
    pub fn adopt_from(&self, store: &Store, descriptor: &Descriptor) -> Result<bool> {
        if !store.contains(descriptor.digest)? {
            return Ok(false);
        }
        self.adopt(&store.blob_path(descriptor.digest), descriptor)
    }

    fn place_blob(&self, from: &Path, digest: Digest) -> Result<()> {
        let to = self.blob_path(digest);
        if let Some(directory) = to.parent() {
            file::make_dir(directory, 0o755)?;
        }
        let plain = fs::Permissions::from_mode(0o644);
        fs::set_permissions(from, plain).map_err(|e| Error::file("protecting", from, e))?;
        file::rename(from, &to).map(|_| ())
    }
}
