//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Error, Result};

/// Opens a plain file for reading; anything else (a pipe, a device) is refused before it can
/// block. `None` where there is nothing.
pub(crate) fn open(path: &Path) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
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
    use rustix::fs::{Mode, OFlags};
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = |directory: &Path| rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600));
    let opened = open(beside.unwrap_or(Path::new("."))).or_else(|_| open(Path::new("/var/tmp")));
    match opened {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(error) => Err(Error::file("making room to uncompress", path)(error.into())),
    }
}

/// A new file in the directory of `path`, which `path` can become in one step.
pub(crate) fn temporary_beside(path: &Path) -> Result<(PathBuf, File)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().ok_or_else(|| Error::Malformed {
        place: path.display().to_string(),
        reason: "it has no file name".to_owned(),
    })?;
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{count}.part", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let mut options = OpenOptions::new();
        match options.read(true).write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("creating", path)(error)),
        }
    }
}

/// Brings a finished temporary file to the disk and gives it its name.
pub(crate) fn appear(file: &File, temporary: &Path, path: &Path) -> Result<()> {
    file.sync_all().map_err(Error::file("writing", path))?;
    fs::rename(temporary, path).map_err(Error::file("renaming a new file to", path))
}

/// Writes a small file that appears whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    let (temporary, mut file) = temporary_beside(path)?;
    let written = file.write_all(content).map_err(Error::file("writing", path));
    let result = written.and_then(|()| appear(&file, &temporary, path));
    if result.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    result
}
