//! How the drivers of containers/storage keep the layers of an image.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use image::{Digest, Digester};
use layers::copy::CopyOptions;
use layers::{ApplyOptions, Root, Whiteouts};
use task::Task;

use super::super::files;
use crate::{Error, Result};

/// The record of a layer's archive, beside what was taken of the layer.
pub(super) const RECORD_FILE: &str = "record";
/// The tree of a layer, and the archive of one.
const DIFF: &str = "diff";
const ARCHIVE: &str = "archive";
/// The mode of a base's root directory whose layer does not say it.
const ROOT: u32 = 0o555;

/// Makes a directory that others may not enter.
pub(super) fn directory(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(Error::file("creating", path))
}

/// A driver of containers/storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    /// Each layer is a tree of its own, which is stacked over the others.
    Overlay,
    /// Each layer is a tree that has all that is below it as well.
    Vfs,
}

/// The layers of a storage.
#[derive(Debug, Clone)]
pub(super) struct Trees {
    pub(super) root: PathBuf,
    pub(super) driver: Driver,
}

/// Facts of a layer that reading its archive gave.
pub(super) struct LayerSummary {
    /// The digest and the length of the uncompressed archive.
    pub(super) diff: (Digest, u64),
    /// Directories that the layer does not describe.
    pub(super) implied: Vec<PathBuf>,
}

impl Driver {
    /// The driver of this name.
    pub(super) fn named(name: &str) -> Option<Driver> {
        match name {
            // Both names are of one driver and one directory.
            "overlay" | "overlay2" => Some(Driver::Overlay),
            "vfs" => Some(Driver::Vfs),
            _ => None,
        }
    }

    /// The driver whose images a storage has.
    pub(super) fn of(root: &Path) -> Option<Driver> {
        let has = |driver: &Driver| root.join(format!("{}-images", driver.name())).is_dir();
        [Driver::Overlay, Driver::Vfs].into_iter().find(has)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Driver::Overlay => "overlay",
            Driver::Vfs => "vfs",
        }
    }

    /// Where the storage has what belongs to a layer.
    fn home(self, root: &Path, id: &str) -> PathBuf {
        match self {
            Driver::Overlay => root.join("overlay").join(id),
            Driver::Vfs => root.join("vfs/dir").join(id),
        }
    }

    /// Where the storage has the files of a layer.
    pub(super) fn files(self, root: &Path, id: &str) -> PathBuf {
        match self {
            Driver::Overlay => self.home(root, id).join(DIFF),
            Driver::Vfs => self.home(root, id),
        }
    }
}

/// Whether overlay keeps its attributes under `user.`: in a user namespace it cannot have others.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all: Vec<&str> = map.split_whitespace().collect();
    !map.is_empty() && all != ["0", "0", "4294967295"]
}

impl Trees {
    /// The directory of a list: `layers`, `images` or `containers`.
    pub(super) fn list(&self, what: &str) -> PathBuf {
        self.root.join(format!("{}-{what}", self.driver.name()))
    }

    /// Where the record of a layer's archive is.
    pub(super) fn record(&self, id: &str) -> PathBuf {
        self.list("layers").join(format!("{id}.tar-split.gz"))
    }

    /// Where what belongs to a layer is.
    pub(super) fn home(&self, id: &str) -> PathBuf {
        self.driver.home(&self.root, id)
    }

    /// Where the files of a layer are.
    pub(super) fn files(&self, id: &str) -> PathBuf {
        self.driver.files(&self.root, id)
    }

    /// Makes the directories that layers go into.
    pub(super) fn prepare(&self) -> Result<()> {
        match self.driver {
            Driver::Overlay => directory(&self.root.join("overlay/l")),
            Driver::Vfs => directory(&self.root.join("vfs/dir")),
        }
    }

    /// A failure of unpacking here.
    pub(super) fn unpack(&self, source: layers::Error) -> Error {
        Error::Unpack { place: self.root.join(self.driver.name()), source: source.into() }
    }

    /// Takes the archive of a layer into a directory. For vfs it stays packed: what is below it
    /// is known only later.
    pub(super) fn take(&self, archive: &mut impl io::Read, here: &Path) -> Result<LayerSummary> {
        match self.driver {
            Driver::Overlay => {
                let diff = here.join(DIFF);
                directory(&diff)?;
                let whiteouts = Whiteouts::Overlay;
                let user_xattr = in_user_namespace();
                let options = ApplyOptions { whiteouts, user_xattr, ..ApplyOptions::default() };
                let applied =
                    Root::open(&diff).and_then(|root| layers::apply(archive, &root, &options));
                let applied = applied.map_err(|error| self.unpack(error))?;
                let diff = (applied.diff_id, applied.uncompressed);
                Ok(LayerSummary { diff, implied: applied.implied })
            }
            Driver::Vfs => {
                let path = here.join(ARCHIVE);
                let file = File::create(&path).map_err(Error::file("creating", &path))?;
                let mut kept = ArchiveSpool { file, digester: Digester::default() };
                let length = io::copy(archive, &mut kept).map_err(Error::file("writing", &path))?;
                Ok(LayerSummary { diff: (kept.digester.finish(), length), implied: Vec::new() })
            }
        }
    }

    /// Gives what came of a layer its place over the ones below it, base first.
    pub(super) fn place(
        &self,
        id: &str,
        below: &[String],
        (here, implied): (&Path, &[PathBuf]),
        task: &Task,
    ) -> Result<()> {
        let from = match self.driver {
            Driver::Overlay => {
                self.inherit(&here.join(DIFF), implied, below)?;
                self.link(id, below, here)?;
                here.to_owned()
            }
            Driver::Vfs => self.whole(below.last().map(String::as_str), here, task)?,
        };
        let (staged, record) = (here.join(RECORD_FILE), self.record(id));
        fs::rename(&staged, &record).map_err(Error::file("renaming", &staged))?;
        // No list has it: what is there was left by someone who did not come to the end.
        let home = self.home(id);
        if home.exists() {
            fs::remove_dir_all(&home).map_err(Error::file("removing", &home))?;
        }
        fs::rename(&from, &home).map_err(Error::file("renaming", &from))
    }

    /// The tree of a layer with all that is below it.
    fn whole(&self, below: Option<&str>, here: &Path, task: &Task) -> Result<PathBuf> {
        let (path, archive) = (here.join(DIFF), here.join(ARCHIVE));
        directory(&path)?;
        let mode = fs::Permissions::from_mode(ROOT);
        fs::set_permissions(&path, mode).map_err(Error::file("changing", &path))?;
        let file = File::open(&archive).map_err(Error::file("opening", &archive))?;
        let fill = || {
            let tree = Root::open(&path)?;
            if let Some(id) = below {
                let (below, top) = (Root::open(&self.files(id))?, Path::new(""));
                let all = CopyOptions::default();
                layers::copy::copy(&below, top, &tree, top, &all, task)?;
                layers::inherit(&tree, &[top.to_owned()], &below)?;
            }
            let options = ApplyOptions { whiteouts: Whiteouts::Delete, ..ApplyOptions::default() };
            layers::apply(file, &tree, &options)
        };
        fill().map_err(|error| self.unpack(error))?;
        Ok(path)
    }

    /// Writes how overlay finds the layer and the ones below it.
    fn link(&self, id: &str, below: &[String], from: &Path) -> Result<()> {
        let private = ["work", "merged"].into_iter().chain(below.is_empty().then_some("empty"));
        for name in private {
            directory(&from.join(name))?;
        }
        let link = link(id);
        let write = |name: &str, text: &str| {
            let path = from.join(name);
            fs::write(&path, text).map_err(Error::file("writing", &path))
        };
        write("link", &link)?;
        if let Some(parent) = below.last() {
            write("lower", &self.lower(parent)?)?;
        }
        let path = self.root.join("overlay/l").join(link);
        let _ = fs::remove_file(&path);
        symlink(format!("../{id}/diff"), &path).map_err(Error::file("creating", &path))
    }

    /// The layers below a child of `parent`, as overlay names them.
    fn lower(&self, parent: &str) -> Result<String> {
        let home = self.home(parent);
        let read = |name: &str| -> Result<Option<String>> {
            let text = files::read(&home.join(name), 1 << 20)?;
            Ok(text.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
        };
        let link = read("link")?.ok_or_else(|| files::absent(&home.join("link")))?;
        Ok(match read("lower")? {
            Some(lower) => format!("l/{link}:{lower}"),
            None => format!("l/{link}"),
        })
    }

    /// Gives directories that the layer does not describe the attributes that they have below.
    fn inherit(&self, diff: &Path, implied: &[PathBuf], below: &[String]) -> Result<()> {
        if implied.is_empty() {
            return Ok(());
        }
        if below.is_empty() {
            let root = implied.iter().any(|path| path.as_os_str().is_empty());
            let mode = fs::Permissions::from_mode(if root { ROOT } else { return Ok(()) });
            return fs::set_permissions(diff, mode).map_err(Error::file("changing", diff));
        }
        let named = |source: layers::Error| Error::Layer {
            name: diff.display().to_string(),
            source: source.into(),
        };
        let root = Root::open(diff).map_err(named)?;
        // The layer that has a directory last says what it is.
        for id in below {
            let lower = Root::open(&self.files(id)).map_err(named)?;
            layers::inherit(&root, implied, &lower).map_err(named)?;
        }
        Ok(())
    }
}

/// An archive that is kept and digested as it passes.
struct ArchiveSpool {
    file: File,
    digester: Digester,
}

impl io::Write for ArchiveSpool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.digester.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The short name of a layer's directory, which keeps the options of a mount short: 26 letters
/// and digits that follow from its id.
fn link(id: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let pairs = id.as_bytes().chunks(2).take(26);
    let number = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok();
        text.and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0)
    };
    pairs.map(|pair| char::from(LETTERS[number(pair) % 32])).collect()
}

#[cfg(test)]
mod tests {
    use task::{Fault as _, Kind};

    use super::*;

    #[test]
    fn a_copy_that_is_cancelled_ends_the_copying_of_the_files_below_a_layer_of_vfs() {
        let scene = tempfile::tempdir().unwrap();
        let trees = Trees { root: scene.path().to_owned(), driver: Driver::Vfs };
        fs::create_dir_all(trees.files("below")).unwrap();
        fs::write(trees.files("below").join("file"), "x").unwrap();
        let place = |name: &str, task: &Task| {
            let here = scene.path().join(name);
            fs::create_dir_all(trees.record(name).parent().unwrap()).unwrap();
            fs::create_dir(&here).unwrap();
            fs::write(here.join(RECORD_FILE), "").unwrap();
            fs::write(here.join(ARCHIVE), [0; 1024]).unwrap();
            trees.place(name, &["below".to_owned()], (&here, &[]), task)
        };
        let task = Task::silent();
        place("first", &task.hidden()).unwrap();
        assert_eq!(fs::read_to_string(trees.files("first").join("file")).unwrap(), "x");
        task.canceller().cancel();
        let refused = place("second", &task.hidden()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Cancelled, "{refused}");
        assert!(!trees.files("second").exists());
    }
}
