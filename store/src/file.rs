//! The few file operations on which everything here is built.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use image::{Algorithm, Digest, Digester};

use crate::{Error, IncomingFile, Result};

/// How much is read or written at once.
pub(crate) const CHUNK: usize = 256 << 10;

/// A path of a digest below a directory: `sha256/<hex>`.
pub(crate) fn blob_path(blobs: &Path, digest: Digest) -> PathBuf {
    blobs.join(digest.algorithm().as_str()).join(digest.hex())
}

/// Creates a directory if it is not there.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Error::file("creating", path, error)),
        Ok(()) => Ok(()),
    }
}

/// Creates a file that must not exist.
pub(crate) fn create_new(path: &Path, mode: u32) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    options.open(path).map_err(|error| Error::file("creating", path, error))
}

/// Opens a regular file for reading; `None` if there is nothing. Links, pipes and devices are
/// not followed, opened or waited for.
pub(crate) fn open(path: &Path) -> Result<Option<File>> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("opening", path, error)),
        Ok(file) => file,
    };
    let metadata = file.metadata().map_err(|error| Error::file("reading", path, error))?;
    if !metadata.is_file() {
        let odd = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(Error::file("opening", path, odd));
    }
    Ok(Some(file))
}

/// Digest and length of the rest of a stream.
pub(crate) fn hash(algorithm: Algorithm, mut from: impl Read) -> io::Result<(Digest, u64)> {
    let mut digester = Digester::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((digester.finish(), size)),
            Ok(n) => {
                digester.update(&buffer[..n]);
                size += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes everything that is dirty on the file system of `path` to its disk.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(|error| Error::file("opening", path, error))?;
    rustix::fs::syncfs(&directory).map_err(|error| Error::file("syncing", path, error))
}

/// Writes a small file so that a reader sees the old or the new content, never half.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let written = fresh(directory, bytes, mode)?.settle(path, directory);
    written.map_err(|error| Error::file("writing", path, error))
}

/// As [`replace`], but after a loss of power the file may be empty or not there.
pub(crate) fn replace_unsynced(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let written = fresh(directory, bytes, mode)?.rename(path);
    written.map_err(|error| Error::file("writing", path, error))
}

/// A small file that has no name yet, nor is on the disk.
pub(crate) fn fresh(directory: &Path, bytes: &[u8], mode: u32) -> Result<IncomingFile> {
    let written = IncomingFile::create(directory, mode).and_then(|mut file| {
        io::Write::write_all(&mut file, bytes)?;
        Ok(file)
    });
    written.map_err(|error| Error::file("writing into", directory, error))
}

/// Moves a file or directory; `false` if there was nothing to move.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<bool> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("moving", from, error)),
        Ok(()) => Ok(true),
    }
}

/// Removes a file if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// Removes a file or a whole tree, whatever its permissions; another process may help.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.is_dir() {
        return remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => return Ok(()),
        Err(_) => open_up(path, metadata.dev()),
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// Gives the owner every permission on the directories of a tree, so that it can be removed.
fn open_up(path: &Path, device: u64) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if !metadata.is_dir() || metadata.dev() != device {
        return;
    }
    // Where this fails the removal fails too, and says so.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        open_up(&entry.path(), device);
    }
}

/// Names in a directory; none if there is no directory.
pub(crate) fn list(path: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("listing", path, error)),
        Ok(entries) => entries,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    names.collect::<io::Result<_>>().map_err(|error| Error::file("listing", path, error))
}

/// Bytes that a tree occupies on disk, hard links counted once.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = todo.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()) {
            continue;
        }
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        }
    }
    bytes
}

/// A unique name: 128 random bits in hexadecimal.
pub(crate) fn random() -> String {
    task::random_id().split_off(32)
}

/// A lock on a file that can be replaced: once locked, it is checked to be the file at the path.
///
/// `Ok(None)`: another holds it, or the file is gone.
pub(crate) fn try_lock(path: &Path, exclusive: bool, create: bool) -> Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("opening", path, error)),
            Ok(file) => file,
        };
        match if exclusive { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Error::file("locking", path, error)),
        }
        let held = file.metadata().map_err(|error| Error::file("locking", path, error))?;
        match fs::metadata(path) {
            Ok(there) if there.ino() == held.ino() && there.dev() == held.dev() => {
                return Ok(Some(file));
            }
            _ => {}
        }
    }
}
