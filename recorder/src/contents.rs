//! The content of answers: files named by their digests.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use image::{Algorithm, Digest, Digester};

use crate::{Error, Result};

/// How the names of contents in the making begin.
const UNFINISHED: &str = ".new-";

/// A directory with the content of answers: `blobs/sha256/…`, as in an OCI layout.
#[derive(Debug, Clone)]
pub struct ContentDirectory(PathBuf);

impl ContentDirectory {
    /// The contents in this directory, which is made when something is written.
    pub fn new(directory: PathBuf) -> ContentDirectory {
        ContentDirectory(directory)
    }

    /// Where a content is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.0.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Opens a content after all of it was checked.
    ///
    /// # Errors
    /// It is not there, or is not what its digest says.
    pub fn open(&self, digest: Digest) -> Result<File> {
        let path = self.path(digest);
        let check = || -> io::Result<File> {
            let mut file = File::open(&path)?;
            let mut digester = Digester::new(digest.algorithm());
            io::copy(&mut file, &mut digester)?;
            if digester.finish() != digest {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "its digest is another one",
                ));
            }
            file.rewind()?;
            Ok(file)
        };
        check().map_err(Error::file("reading the recorded content", &path))
    }

    /// Keeps a content that is read from here.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn keep(&self, mut content: impl Read) -> Result<Digest> {
        let mut writer = self.writer()?;
        let mut piece = vec![0; 128 << 10];
        loop {
            let count = content.read(&mut piece).map_err(Error::file("reading", &writer.path))?;
            match count {
                0 => return writer.finish(),
                count => writer.write(&piece[..count])?,
            }
        }
    }

    /// Removes what recordings that were killed have left: unfinished contents that nobody holds.
    pub(crate) fn sweep(&self) -> Result<()> {
        let directory = self.0.join("blobs").join(Algorithm::Sha256.as_str());
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::file("reading", &directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::file("reading", &directory))?;
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                continue;
            }
            let path = entry.path();
            // Another recording may have finished it meanwhile.
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                fs::remove_file(&path).map_err(Error::file("removing", &path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn writer(&self) -> Result<Writer> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let directory = self.0.join("blobs").join(Algorithm::Sha256.as_str());
        fs::create_dir_all(&directory).map_err(Error::file("making", &directory))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let file = File::create(&path).map_err(Error::file("writing", &path))?;
        // Held as long as it is written, so that no other recording removes it.
        file.lock().map_err(Error::file("locking", &path))?;
        Ok(Writer { directory, path, file, digester: Digester::new(Algorithm::Sha256) })
    }
}

/// A content in the making; removed unless it is finished.
pub(crate) struct Writer {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    digester: Digester,
}

impl Writer {
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.digester.update(piece);
        self.file.write_all(piece).map_err(Error::file("writing", &self.path))
    }

    pub(crate) fn finish(mut self) -> Result<Digest> {
        let digester = std::mem::replace(&mut self.digester, Digester::new(Algorithm::Sha256));
        let digest = digester.finish();
        let to = self.directory.join(digest.hex());
        self.name(&to).map_err(Error::file("writing", &to))?;
        Ok(digest)
    }

    fn name(&self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, to)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing to remove once it has its name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_its_digest_says_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let contents = ContentDirectory::new(directory.path().join("c"));
        let digest = contents.keep(&b"content"[..]).unwrap();
        assert_eq!(digest, Digest::of(b"content"));
        let mut read = String::new();
        contents.open(digest).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "content");
        drop(contents.writer().unwrap());
        assert_eq!(fs::read_dir(contents.path(digest).parent().unwrap()).unwrap().count(), 1);
        // What a killed recording left goes, what another one writes now stays.
        let directory = contents.path(digest).parent().unwrap().to_owned();
        fs::write(directory.join(".new-1-0"), "half").unwrap();
        let writer = contents.writer().unwrap();
        contents.sweep().unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        assert!(writer.path.exists());
        drop(writer);
        fs::write(contents.path(digest), "other").unwrap();
        assert!(contents.open(digest).is_err());
        assert!(contents.open(Digest::of(b"x")).is_err());
    }
}
