//! A directory: an object is a file, its key the path. `blobs/<algorithm>/<hex>` is where an OCI
//! layout keeps blobs, too.
//!
//! An object is written under a name of its own in `tmp/`, brought to the disk, and renamed into
//! place; then its directory is brought to the disk. So whatever instant the machine stops at, an
//! object is there whole or not at all. Servers on one directory share what is in it; condition
//! and write are one step for all of them because a lock file is held.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::{Bytestream, Stat, Storage, When, Writer, page};
use crate::random;

/// Bytes read at a time.
const BLOCK: u64 = 256 << 10;
/// How often a place that vanishes is made again.
const TRIES: usize = 16;
/// Where objects are written before they get their names.
const TEMPORARY: &str = "tmp";

/// A directory of objects.
#[derive(Clone)]
pub(crate) struct Directory(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// Tells the files of processes on one directory apart.
    process: String,
    next: AtomicU64,
}

struct FileWriter {
    directory: Directory,
    key: String,
    temporary: PathBuf,
    file: Option<File>,
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Directory {
    /// Opens a directory, which is made if need be.
    pub(crate) fn open(root: &Path) -> io::Result<Directory> {
        fs::create_dir_all(root.join("blobs/sha256"))?;
        fs::create_dir_all(root.join(TEMPORARY))?;
        let layout = root.join("oci-layout");
        if !layout.exists() {
            fs::write(&layout, r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        let inner = Inner { root: root.to_owned(), process: random(), next: AtomicU64::new(0) };
        Ok(Directory(Arc::new(inner)))
    }

    /// The file of a key. No part of a key is empty or leads upwards.
    fn path(&self, key: &str) -> io::Result<PathBuf> {
        let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !key.trim_end_matches('/').split('/').all(sound) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the key {key:?}")));
        }
        Ok(self.0.root.join(key))
    }

    fn temporary(&self) -> PathBuf {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.root.join(TEMPORARY).join(format!("{}-{number}", self.0.process))
    }

    /// Moves a file to its place, and both to the disk.
    fn place(&self, temporary: &Path, key: &str) -> io::Result<()> {
        let path = self.path(key)?;
        let parent = path.parent().unwrap_or(&self.0.root);
        // Another process may take the directory away while it is empty.
        for _ in 0..TRIES {
            match fs::rename(temporary, &path) {
                Ok(()) => return File::open(parent)?.sync_all(),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) => self.make(parent)?,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Makes a directory with those above it, each on the disk before it is used.
    fn make(&self, directory: &Path) -> io::Result<()> {
        let missing = directory.ancestors().take_while(|above| *above != self.0.root);
        let missing: Vec<_> = missing.take_while(|above| !above.exists()).collect();
        for directory in missing.into_iter().rev() {
            match fs::create_dir(directory) {
                Ok(()) => File::open(directory.parent().unwrap_or(&self.0.root))?.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // What is above went away again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn put_now(&self, key: &str, bytes: &[u8], when: &When) -> io::Result<bool> {
        let _held = match when {
            When::Always => None,
            When::Absent | When::Is(_) => {
                let lock = File::create(self.0.root.join(TEMPORARY).join("lock"))?;
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
                Some(lock)
            }
        };
        let holds = match when {
            When::Always => true,
            When::Absent => !self.path(key)?.exists(),
            When::Is(version) => {
                self.stat_now(key)?.and_then(|stat| stat.version).as_ref() == Some(version)
            }
        };
        if holds {
            let temporary = self.temporary();
            let mut file = File::create_new(&temporary)?;
            let written = file
                .write_all(bytes)
                .and_then(|()| file.sync_data())
                .and_then(|()| self.place(&temporary, key));
            if written.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            written?;
        }
        Ok(holds)
    }

    fn stat_now(&self, key: &str) -> io::Result<Option<Stat>> {
        stat(&self.path(key)?, key.to_owned())
    }
}

/// `None` where nothing is there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

fn stat(path: &Path, key: String) -> io::Result<Option<Stat>> {
    let Some(metadata) = found(fs::metadata(path))?.filter(fs::Metadata::is_file) else {
        return Ok(None);
    };
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    let version = Some(format!("{inode}-{}", modified.as_nanos()));
    Ok(Some(Stat { key, size: metadata.len(), modified, version }))
}

/// Everything below a directory of the file system, one directory at a time.
fn below(path: &Path, prefix: &str, all: &mut Vec<Stat>) -> io::Result<()> {
    let Some(entries) = found(fs::read_dir(path))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !(prefix.is_empty() && name == TEMPORARY) {
                below(&entry.path(), &format!("{prefix}{name}/"), all)?;
            }
        } else if kind.is_file() {
            all.extend(stat(&entry.path(), format!("{prefix}{name}"))?);
        }
    }
    Ok(())
}

#[async_trait]
impl Storage for Directory {
    fn name(&self) -> String {
        self.0.root.display().to_string()
    }

    async fn now(&self) -> io::Result<Duration> {
        let directory = self.clone();
        blocking(move || {
            let path = directory.temporary();
            let file = File::create_new(&path)?;
            let modified = file.metadata()?.modified()?;
            fs::remove_file(&path)?;
            Ok(modified.duration_since(UNIX_EPOCH).unwrap_or_default())
        })
        .await
    }

    async fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        let (directory, key) = (self.clone(), key.to_owned());
        blocking(move || directory.stat_now(&key)).await
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> io::Result<Option<Bytestream>> {
        let path = self.path(key)?;
        let opened = blocking(move || {
            let Some(file) = found(File::open(path))? else { return Ok(None) };
            let length = file.metadata()?.len();
            Ok(Some((Arc::new(file), length)))
        });
        let Some((file, length)) = opened.await? else { return Ok(None) };
        let range = range.unwrap_or(0..length);
        let blocks = stream::try_unfold(range, move |left| {
            let file = Arc::clone(&file);
            async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let mut block = vec![0; BLOCK.min(left.end - left.start) as usize];
                let (block, count) = blocking(move || {
                    file.read_exact_at(&mut block, left.start)?;
                    let count = block.len() as u64;
                    Ok((block, count))
                })
                .await?;
                Ok(Some((Bytes::from(block), left.start + count..left.end)))
            }
        });
        Ok(Some(blocks.boxed()))
    }

    async fn put(&self, key: &str, bytes: Bytes, when: When) -> io::Result<bool> {
        let (directory, key) = (self.clone(), key.to_owned());
        blocking(move || directory.put_now(&key, &bytes, &when)).await
    }

    async fn writer(&self, key: &str) -> io::Result<Box<dyn Writer>> {
        self.path(key)?;
        let (directory, key) = (self.clone(), key.to_owned());
        let temporary = directory.temporary();
        let path = temporary.clone();
        let file = Some(blocking(move || File::create_new(path)).await?);
        Ok(Box::new(FileWriter { directory, key, temporary, file }))
    }

    async fn promote(&self, from: &str, to: &str) -> io::Result<()> {
        let (directory, from, to) = (self.clone(), self.path(from)?, to.to_owned());
        blocking(move || {
            // The time of an object is when it got its name.
            File::options().write(true).open(&from)?.set_modified(directory.touched()?)?;
            directory.place(&from, &to)
        })
        .await
    }

    async fn delete(&self, key: &str) -> io::Result<()> {
        let (directory, path) = (self.clone(), self.path(key)?);
        blocking(move || {
            found(fs::remove_file(&path))?;
            // Directories that became empty go, too; `place` makes them again.
            let mut above = path.parent();
            while let Some(parent) = above.filter(|parent| *parent != directory.0.root) {
                let shallow = parent.parent() == Some(directory.0.root.as_path());
                if shallow || fs::remove_dir(parent).is_err() {
                    break;
                }
                above = parent.parent();
            }
            Ok(())
        })
        .await
    }

    async fn names(
        &self,
        directory: &str,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<String>> {
        let (path, after) = (self.path(directory)?, after.map(str::to_owned));
        blocking(move || {
            let Some(entries) = found(fs::read_dir(path))? else { return Ok(Vec::new()) };
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().into_string();
                if let (true, Ok(name)) = (entry.file_type()?.is_file(), name) {
                    names.push(name);
                }
            }
            names.sort_unstable();
            Ok(page(names.into_iter(), after.as_deref(), limit))
        })
        .await
    }

    async fn walk(
        &self,
        directory: &str,
    ) -> io::Result<Pin<Box<dyn Stream<Item = io::Result<Stat>> + Send + '_>>> {
        let path = match directory {
            "" => self.0.root.clone(),
            directory => self.path(directory)?,
        };
        let prefix = directory.to_owned();
        let all = blocking(move || {
            let mut all = Vec::new();
            below(&path, &prefix, &mut all)?;
            Ok(all)
        });
        Ok(stream::iter(all.await?.into_iter().map(Ok)).boxed())
    }
}

impl Directory {
    /// The time on the file system's clock.
    fn touched(&self) -> io::Result<std::time::SystemTime> {
        let path = self.temporary();
        let modified = File::create_new(&path)?.metadata()?.modified();
        fs::remove_file(&path)?;
        modified
    }

    /// Removes what processes that died left in `tmp/`: files that nobody wrote to for `idle`.
    pub(crate) fn tidy(&self, idle: Duration) -> io::Result<()> {
        let now = self.touched()?;
        for entry in fs::read_dir(self.0.root.join(TEMPORARY))? {
            let entry = entry?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let old = modified.is_ok_and(|at| now.duration_since(at).unwrap_or_default() > idle);
            if old && entry.file_name() != "lock" {
                found(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Writer for FileWriter {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let mut file =
            self.file.take().ok_or_else(|| io::Error::other("an earlier write failed"))?;
        let file = blocking(move || {
            file.write_all(&bytes)?;
            Ok(file)
        });
        self.file = Some(file.await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> io::Result<()> {
        let file = self.file.take().ok_or_else(|| io::Error::other("an earlier write failed"))?;
        let (directory, temporary) = (self.directory.clone(), self.temporary.clone());
        let key = self.key.clone();
        blocking(move || {
            file.sync_data()?;
            directory.place(&temporary, &key)
        })
        .await
    }

    async fn abort(self: Box<Self>) {}
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing left under this name.
        let _ = fs::remove_file(&self.temporary);
    }
}
