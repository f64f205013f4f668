//! How a file arrives: written under a name of its own, brought to the disk, given its name.
//!
//! Whatever instant the machine stops at, the name has all of the new bytes, the old content, or
//! does not exist.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::file::random;

/// How often a directory that vanishes is made again.
const TRIES: usize = 16;

/// A file on its way in. Dropped before it has its name, it was never there.
#[derive(Debug)]
pub struct IncomingFile {
    file: File,
    path: PathBuf,
}

impl IncomingFile {
    /// Begins a file in a directory of the file system where it will stay. Until it has its name
    /// it is called `.tmp-` and something random there.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(directory: &Path, mode: u32) -> io::Result<IncomingFile> {
        let path = directory.join(format!(".tmp-{}", random()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(mode).open(&path)?;
        Ok(IncomingFile { file, path })
    }

    /// The time the file was written to last, on the clock of the file system.
    ///
    /// # Errors
    /// Of the file system.
    pub fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// Gives the file its name, replacing what had it. After a loss of power it may be empty, or
    /// not there.
    ///
    /// # Errors
    /// Of the file system; then nothing changed.
    pub fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }

    /// Brings the file to the disk and gives it its name as [`settle`] does.
    ///
    /// # Errors
    /// Of the file system.
    pub fn settle(self, to: &Path, root: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        settle(&self.path, to, root)
    }
}

impl Write for IncomingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        // Once it has its name there is nothing at this path.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives a file that is on the disk another name, replacing what had it, and brings the name to the
/// disk. Directories that are missing below `root` are made.
///
/// # Errors
/// Of the file system.
pub fn settle(from: &Path, to: &Path, root: &Path) -> io::Result<()> {
    let parent = to.parent().unwrap_or(root);
    // Another process may take the directory away while it is empty.
    for _ in 0..TRIES {
        match fs::rename(from, to) {
            Ok(()) => return File::open(parent)?.sync_all(),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => make(parent, root)?,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Makes a directory with those above it, each on the disk before it is used.
fn make(directory: &Path, root: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|above| *above != root);
    let missing: Vec<_> = missing.take_while(|above| !above.exists()).collect();
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Ok(()) => File::open(directory.parent().unwrap_or(root))?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // What is above went away again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let (root, to) = (home.path(), home.path().join("a/b/c"));
        let mut file = IncomingFile::create(root, 0o644).unwrap();
        file.write_all(b"one").unwrap();
        assert!(!to.exists());
        file.settle(&to, root).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"one");

        let mut file = IncomingFile::create(root, 0o644).unwrap();
        file.write_all(b"two").unwrap();
        drop(file);
        assert_eq!(fs::read(&to).unwrap(), b"one");
        assert!(settle(&root.join("none"), &to, root).is_err());
        settle(&to, &root.join("d"), root).unwrap();
        let left = fs::read_dir(root).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "d"], "nothing is left of what was not finished");
        // What is in the way stays, and so does nothing else.
        let file = IncomingFile::create(root, 0o644).unwrap();
        assert!(file.settle(&root.join("a"), root).is_err());
        assert_eq!(fs::read_dir(root).unwrap().count(), 2);
    }
}
