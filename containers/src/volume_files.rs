//! The files of volumes: as an archive, from an archive, and how much room they take.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use layers::{ApplyOptions, DiffOptions, Root, Whiteouts};
use task::Task;

use crate::{Error, Result, Volumes};

impl Volumes {
    /// Writes the files of a volume as a tar stream, owners and modes included.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; the files cannot be read; `out` fails.
    pub fn export(&self, name: &str, out: &mut dyn Write, task: &Task) -> Result<()> {
        let root = Root::open(&self.get(name)?.path)?;
        let user_xattr = runtime::in_user_namespace();
        let options = DiffOptions { user_xattr, live: true, ..DiffOptions::default() };
        layers::archive(&root, Path::new(""), out, &options, task)?;
        Ok(())
    }

    /// Adds the files of a tar stream, compressed or not, to those of a volume.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; the stream is malformed.
    pub fn import(&self, name: &str, archive: impl Read + Send, task: &Task) -> Result<()> {
        let root = Root::open(&self.get(name)?.path)?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            user_xattr: runtime::in_user_namespace(),
            ..ApplyOptions::default()
        };
        layers::apply(task.reading(archive), &root, &options)?;
        // What is there is not laid over with what an image has.
        self.settle(name, task)
    }

    /// Bytes that the files of a volume take. Files with several names count once.
    ///
    /// # Errors
    /// [`Error::NoVolume`], [`Error::File`].
    pub fn size(&self, name: &str) -> Result<u64> {
        let mut left = vec![self.get(name)?.path];
        let (mut seen, mut bytes) = (std::collections::HashSet::new(), 0);
        while let Some(directory) = left.pop() {
            let entries = match std::fs::read_dir(&directory) {
                // A container that writes to it removes things.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(Error::file("reading", &directory))?,
            };
            for entry in entries.flatten() {
                let Ok(found) = entry.metadata() else { continue };
                if found.is_dir() {
                    left.push(entry.path());
                }
                if found.nlink() == 1 || found.is_dir() || seen.insert((found.dev(), found.ino())) {
                    bytes += found.blocks() * 512;
                }
            }
        }
        Ok(bytes)
    }
}
