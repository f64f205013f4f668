//! A directory: an object is a file, its key the path. Its blobs are those of an OCI layout.
//!
//! An object is written in `tmp/` and settles as files of a layout do ([`store::IncomingFile`]): so
//! whatever instant the machine stops at, it is there whole or not at all. Servers on one directory
//! share what is in it; condition and write are one step for all of them because a lock file is
//! held.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use store::{IncomingFile, Layout};

use super::{Bytestream, Stat, Storage, WriteCondition, Writer, page};
use crate::keys;

/// Bytes read at a time.
const BLOCK: u64 = 256 << 10;
/// Where objects are written before they get their names.
const TEMPORARY: &str = "tmp";
/// Permissions of an object, as far as the process's mask allows.
const MODE: u32 = 0o666;

/// A directory of objects.
#[derive(Clone)]
pub(crate) struct Directory(Layout);

struct FileWriter {
    directory: Directory,
    path: PathBuf,
    file: Option<IncomingFile>,
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
        let layout = Layout::shelf(root).map_err(io::Error::other)?;
        fs::create_dir_all(root.join(TEMPORARY))?;
        Ok(Directory(layout))
    }

    /// The file of a key. No part of a key is empty or leads upwards.
    fn path(&self, key: &str) -> io::Result<PathBuf> {
        if let Some(digest) = keys::blob_digest(key) {
            return Ok(self.0.blob_path(digest));
        }
        let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !key.trim_end_matches('/').split('/').all(sound) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the key {key:?}")));
        }
        Ok(self.root().join(key))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// A file that has no name yet.
    fn incoming(&self) -> io::Result<IncomingFile> {
        IncomingFile::create(&self.root().join(TEMPORARY), MODE)
    }

    /// The time on the file system's clock.
    fn touched(&self) -> io::Result<SystemTime> {
        self.incoming()?.modified()
    }

    fn put_now(&self, key: &str, bytes: &[u8], condition: &WriteCondition) -> io::Result<bool> {
        let _held = match condition {
            WriteCondition::Always => None,
            WriteCondition::Absent | WriteCondition::Is(_) => {
                let lock = File::create(self.root().join(TEMPORARY).join("lock"))?;
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
                Some(lock)
            }
        };
        let holds = match condition {
            WriteCondition::Always => true,
            WriteCondition::Absent => !self.path(key)?.exists(),
            WriteCondition::Is(version) => {
                self.stat_now(key)?.and_then(|stat| stat.version).as_ref() == Some(version)
            }
        };
        if holds {
            let path = self.path(key)?;
            let mut file = self.incoming()?;
            file.write_all(bytes)?;
            file.settle(&path, self.root())?;
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
        self.root().display().to_string()
    }

    async fn now(&self) -> io::Result<Duration> {
        let directory = self.clone();
        blocking(move || {
            let modified = directory.touched()?;
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

    async fn put(&self, key: &str, bytes: Bytes, condition: WriteCondition) -> io::Result<bool> {
        let (directory, key) = (self.clone(), key.to_owned());
        blocking(move || directory.put_now(&key, &bytes, &condition)).await
    }

    async fn writer(&self, key: &str) -> io::Result<Box<dyn Writer>> {
        let (directory, path) = (self.clone(), self.path(key)?);
        let begun = self.clone();
        let file = Some(blocking(move || begun.incoming()).await?);
        Ok(Box::new(FileWriter { directory, path, file }))
    }

    async fn promote(&self, from: &str, to: &str) -> io::Result<()> {
        let (directory, from, to) = (self.clone(), self.path(from)?, self.path(to)?);
        blocking(move || {
            // The time of an object is when it got its name.
            File::options().write(true).open(&from)?.set_modified(directory.touched()?)?;
            store::settle(&from, &to, directory.root())
        })
        .await
    }

    async fn delete(&self, key: &str) -> io::Result<()> {
        let (directory, path) = (self.clone(), self.path(key)?);
        blocking(move || {
            found(fs::remove_file(&path))?;
            // Directories that became empty go, too; `place` makes them again.
            let mut above = path.parent();
            while let Some(parent) = above.filter(|parent| *parent != directory.root()) {
                let shallow = parent.parent() == Some(directory.root());
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
            "" => self.root().to_owned(),
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
    /// Removes leftovers of dead processes in `tmp/`: files without a write for `idle`.
    pub(crate) fn tidy(&self, idle: Duration) -> io::Result<()> {
        let now = self.touched()?;
        for entry in fs::read_dir(self.root().join(TEMPORARY))? {
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
        let (directory, path) = (self.directory.clone(), self.path.clone());
        blocking(move || file.settle(&path, directory.root())).await
    }

    async fn abort(self: Box<Self>) {}
}
