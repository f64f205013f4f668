//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::{Error, Result};

/// Opens a plain file for reading; anything else (a pipe, a device) is refused before it can
/// block. `None` where there is nothing.
pub(crate) fn open(path: &Path) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("opening", path)(error)),
    };
    let metadata = file.metadata().map_err(Error::file("reading", path))?;
    if metadata.is_file() {
        return Ok(Some(file));
    }
    let (place, reason) = (path.display().to_string(), "it is not a plain file".to_owned());
    Err(Error::Malformed { place, reason })
}

/// That a place of images is not there at all.
pub(crate) fn absent(path: &Path) -> Error {
    Error::file("opening", path)(std::io::Error::from(rustix::io::Errno::NOENT))
}

/// Opens a plain file for reading, or all that comes out of a pipe in an unnamed file. `None` where
/// there is nothing.
pub(crate) fn open_or_pipe(path: &Path) -> Result<Option<File>> {
    use std::io::{Seek, SeekFrom};
    use std::os::unix::fs::FileTypeExt;
    let is_pipe = fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
    if !is_pipe {
        return open(path);
    }
    let mut pipe = File::open(path).map_err(Error::file("opening", path))?;
    let mut file = unnamed("/var/tmp".as_ref())?;
    std::io::copy(&mut pipe, &mut file).map_err(Error::file("reading", path))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::file("reading", path))?;
    Ok(Some(file))
}

/// Reads a whole plain file of at most `limit` bytes; `None` where there is nothing.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(Error::file("reading", path))?;
    if content.len() as u64 > limit {
        let reason = format!("it has more than the {limit} bytes allowed");
        return Err(Error::Malformed { place: path.display().to_string(), reason });
    }
    Ok(Some(content))
}

/// The file itself, or its uncompressed content in an unnamed file beside it.
pub(crate) fn uncompressed(file: File, path: &Path) -> Result<File> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 6];
    let n = file.read_at(&mut head, 0).map_err(Error::file("reading", path))?;
    if layers::sniff(&head[..n]).is_none() {
        return Ok(file);
    }
    let mut plain = unnamed_beside(path)?;
    let malformed = |source: layers::Error| Error::Layer {
        name: path.display().to_string(),
        source: source.into(),
    };
    let mut content = layers::decompress(file).map_err(malformed)?;
    std::io::copy(&mut content, &mut plain).map_err(Error::file("uncompressing", path))?;
    Ok(plain)
}

/// A file that is gone when it is closed; beside `path`, or in `/var/tmp` where nothing can be
/// written there.
fn unnamed_beside(path: &Path) -> Result<File> {
    let opened =
        unnamed_in(parent(path), 0o600).or_else(|_| unnamed_in("/var/tmp".as_ref(), 0o600));
    opened.map_err(|error| Error::file("making room to uncompress", path)(error.into()))
}

/// A file without a name in a directory for such files.
pub(crate) fn unnamed(directory: &Path) -> Result<File> {
    if let Ok(file) = unnamed_in(directory, 0o600) {
        return Ok(file);
    }
    let path = hidden_beside(&directory.join("x"));
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = opened.map_err(Error::file("creating", &path))?;
    fs::remove_file(&path).map_err(Error::file("removing the name of", &path))?;
    Ok(file)
}

fn unnamed_in(directory: &Path, mode: u32) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(mode))?))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(".".as_ref())
}

/// A name beside `path` that nothing has yet, as far as this process goes.
fn hidden_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".part-{}-{count}", std::process::id()))
}

/// A file that is written without a name, where the file system can do that, and appears whole in
/// the place of what has its name. Dropped before that it leaves nothing, even if the process is
/// killed.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    /// Its name until it appears, where it must have one.
    temporary: Option<PathBuf>,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<NewFile> {
        if path.file_name().is_none() {
            let (place, reason) = (path.display().to_string(), "it has no file name".to_owned());
            return Err(Error::Malformed { place, reason });
        }
        if !replaceable(path) {
            let (place, reason) =
                (path.display().to_string(), "it is not a regular file".to_owned());
            return Err(Error::Malformed { place, reason });
        }
        let path = path.to_owned();
        if let Ok(file) = unnamed_in(parent(&path), 0o644) {
            return Ok(NewFile { file, path, temporary: None });
        }
        let temporary = hidden_beside(&path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&temporary);
        let file = file.map_err(Error::file("creating", &path))?;
        Ok(NewFile { file, path, temporary: Some(temporary) })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the file to the disk and gives it its name.
    pub(crate) fn appear(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::file("writing", &self.path))?;
        self.appear_unsynced()
    }

    /// Gives the file its name; the caller syncs it to disk before it counts.
    pub(crate) fn appear_unsynced(&self) -> Result<()> {
        let temporary = match &self.temporary {
            Some(temporary) => temporary.clone(),
            None => {
                let named = hidden_beside(&self.path);
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, unnamed, CWD, &named, AtFlags::SYMLINK_FOLLOW)
                    .map_err(|error| Error::file("naming", &self.path)(error.into()))?;
                named
            }
        };
        let renamed = fs::rename(&temporary, &self.path);
        if renamed.is_err() {
            // The failure that counts is reported.
            let _ = fs::remove_file(temporary);
        }
        renamed.map_err(Error::file("renaming a new file to", &self.path))
    }
}

/// Whether a new file may take the place of what is there: of no device, pipe or directory, and of
/// no link by which the system reaches them, such as `/dev/stdout`.
fn replaceable(path: &Path) -> bool {
    let link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let of_system = ["/dev", "/proc"].iter().any(|system| path.starts_with(system));
    !(link && of_system) && fs::metadata(path).map_or(true, |found| found.is_file())
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing has this name any more if the file has appeared.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Writes a small file that appears whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let new = NewFile::create(path)?;
    (&new.file).write_all(content).map_err(Error::file("writing", path))?;
    new.appear()
}

/// As [`write`], but after a loss of power the file may be empty.
pub(crate) fn write_unsynced(path: &Path, content: &[u8]) -> Result<()> {
    let new = NewFile::create(path)?;
    (&new.file).write_all(content).map_err(Error::file("writing", path))?;
    new.appear_unsynced()
}

/// Brings everything in the file system of a directory to the disk.
pub(crate) fn sync_all_in(directory: &Path) -> Result<()> {
    let opened = File::open(directory).map_err(Error::file("opening", directory))?;
    let synced = rustix::fs::syncfs(opened);
    synced.map_err(|error| Error::file("writing", directory)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_takes_the_place_of_files_and_links_to_them_only() {
        let here = tempfile::tempdir().expect("a directory");
        let (file, link) = (here.path().join("file"), here.path().join("link"));
        let (pipe, end) = (here.path().join("directory"), here.path().join("null"));
        fs::write(&file, "old").expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        std::os::unix::fs::symlink("/dev/null", &end).expect("a link");
        fs::create_dir(&pipe).expect("a directory");
        for good in [&file, &link, &here.path().join("new")] {
            write(good, b"new").expect("may be written");
            assert_eq!(fs::read(good).expect("is there"), b"new");
        }
        // Not written even if it should not be refused: a new file appears at the end only.
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let system = [Path::new("/dev/null"), &descriptor];
        for bad in system.into_iter().chain([pipe.as_path(), end.as_path()]) {
            let refused = NewFile::create(bad);
            assert!(matches!(refused, Err(Error::Malformed { .. })), "{}", bad.display());
        }
    }
}
