//! Walking a tree and digesting what would be copied of it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dockerfile::Ignore;
use image::{Algorithm, Digest, Digester};
use layers::copy::{self, Keep};
use layers::{FileType, Mode, OFlags, Root, Stat};
use rustix::fs::{AtFlags, openat, readlinkat, statat};
use task::Task;

use super::Tree;
use super::digests::Identity;
use crate::plan::key::KeyBuilder;
use crate::why::{FileFact, mark32};
use crate::{Error, Result};

/// Decides which paths below one source are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter<'a> {
    /// The ignore file of the tree.
    pub(crate) ignore: Option<&'a Ignore>,
    /// The source, relative to the root of the tree.
    pub(crate) base: &'a str,
    /// `--exclude`.
    pub(crate) exclude: Option<&'a Ignore>,
    /// What the patterns of `--exclude` see in front of a path: where the source is below the
    /// pivot of `--parents`.
    pub(crate) prefix: &'a str,
}

impl Filter<'_> {
    /// Whether `path`, relative to the source, is taken.
    pub(crate) fn keep(&self, path: &Path, is_dir: bool) -> Keep {
        if path.as_os_str().is_empty() {
            return Keep::Yes;
        }
        let below = path.to_string_lossy();
        let behind = |front: &str| match front {
            "" => below.clone(),
            front => format!("{front}/{below}").into(),
        };
        let ignored = one(self.ignore, || behind(self.base), is_dir);
        match (ignored, one(self.exclude, || behind(self.prefix), is_dir)) {
            (Keep::No, _) | (_, Keep::No) => Keep::No,
            (Keep::Descend, _) | (_, Keep::Descend) => Keep::Descend,
            _ => Keep::Yes,
        }
    }
}

fn one<'a>(ignore: Option<&Ignore>, path: impl Fn() -> Cow<'a, str>, is_dir: bool) -> Keep {
    let Some(ignore) = ignore else { return Keep::Yes };
    let path = path();
    match ignore.excluded(&path, is_dir) {
        true if is_dir && ignore.may_include_below(&path) => Keep::Descend,
        true => Keep::No,
        false => Keep::Yes,
    }
}

/// One file that would be copied.
#[derive(Debug)]
struct ScannedFile {
    /// Relative to the source.
    path: PathBuf,
    stat: Stat,
    link: Option<PathBuf>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The size of a batch of files: a context may have millions.
const BATCH: usize = 8192;

impl ScannedFile {
    fn link(&self) -> &[u8] {
        self.link.as_ref().map_or(b"", |link| link.as_os_str().as_bytes())
    }

    fn attributes(&self) -> Vec<u8> {
        if self.attributes.is_empty() { Vec::new() } else { flat(&self.attributes) }
    }
}

/// Adds to `key` everything that decides what a copy of `source` looks like: names, kinds,
/// permission bits, contents, link targets, extended attributes, and owners where they are kept;
/// never times. Says how many files there are.
pub(crate) fn digest(
    tree: &Tree,
    source: &Path,
    filter: &Filter<'_>,
    owners: bool,
    threads: usize,
    key: &mut KeyBuilder,
    task: &Task,
) -> Result<usize> {
    walk(&tree.root, source, filter, task, &mut |files| {
        let contents = contents(tree, source, files, threads, task)?;
        for (file, content) in files.iter().zip(contents) {
            add(file, content.unwrap_or_default(), source, owners, key);
        }
        Ok(())
    })
}

/// Adds one file to `key`.
fn add(file: &ScannedFile, content: [u8; 32], source: &Path, owners: bool, key: &mut KeyBuilder) {
    let stat = &file.stat;
    key.part(file.path.as_os_str().as_bytes());
    let mut numbers = [0u8; 20];
    numbers[..4].copy_from_slice(&stat.st_mode.to_le_bytes());
    if owners {
        numbers[4..8].copy_from_slice(&stat.st_uid.to_le_bytes());
        numbers[8..12].copy_from_slice(&stat.st_gid.to_le_bytes());
    }
    if is(stat, FileType::CharacterDevice) || is(stat, FileType::BlockDevice) {
        numbers[12..20].copy_from_slice(&stat.st_rdev.to_le_bytes());
    }
    key.part(&numbers);
    key.part(&content);
    key.part(file.link());
    let attributes = file.attributes();
    if !attributes.is_empty() {
        key.part(&attributes);
    }
    key.record(|| {
        // Joining an empty path would make a directory of the source.
        let empty = file.path.as_os_str().is_empty();
        let path = if empty { source.to_owned() } else { source.join(&file.path) };
        FileFact {
            path: path.to_string_lossy().into_owned(),
            mode: stat.st_mode,
            owner: owners.then_some((stat.st_uid, stat.st_gid)),
            content: mark32(&[&content, file.link(), &attributes]),
        }
    });
}

/// Attributes in one piece that no path is the same as.
fn flat(attributes: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\0attributes".to_vec();
    for text in attributes.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text);
    }
    bytes
}

pub(crate) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Gives `take` the files below a source in batches, itself first under an empty path, each
/// directory before what is in it, in the order of their names; says how many they are.
fn walk(
    root: &Root,
    source: &Path,
    filter: &Filter<'_>,
    task: &Task,
    take: &mut dyn FnMut(&[ScannedFile]) -> Result<()>,
) -> Result<usize> {
    let fail = |error: layers::Error| Error::part("reading the build context")(error.into());
    let top = root.metadata(source).map_err(fail)?;
    let attributes = match FileType::from_raw_mode(top.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let fd = root.open_at(source, flags, Mode::empty()).map_err(fail)?;
            copy::attributes(fd.as_fd(), OsStr::new("")).map_err(fail)?
        }
        // A directory's contents are copied, not the directory.
        _ => Vec::new(),
    };
    let mut files = vec![ScannedFile { path: PathBuf::new(), stat: top, link: None, attributes }];
    if !is(&top, FileType::Directory) {
        return take(&files).map(|()| 1);
    }
    // How many files are taken already.
    let mut taken = 0;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = root.open_at(source, flags, Mode::empty()).map_err(fail)?;
    // The directories we are in: what is left in each, and the file that stands for it in case
    // nothing below it is taken.
    let mut levels = vec![Level::new(fd, PathBuf::new(), None)?];
    while let Some(level) = levels.last_mut() {
        task.check()?;
        let Some((name, kind)) = level.rest.pop() else {
            let level = levels.pop().expect("there is a last one");
            if level.placeholder.is_some_and(|at| at + 1 == taken + files.len()) {
                files.pop();
            }
            if files.len() >= BATCH {
                // A directory that may turn out to be left out is not taken yet.
                let open = |at: usize| levels.iter().any(|level| level.placeholder == Some(at));
                let sure = (0..files.len()).rev().find(|at| !open(taken + at));
                let sure = sure.map_or(0, |last| last + 1);
                take(&files[..sure])?;
                files.drain(..sure);
                taken += sure;
            }
            continue;
        };
        let path = level.path.join(&name);
        let stat = match statat(&level.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(errno) => return Err(Error::file("examining", path)(errno.into())),
        };
        let _ = kind;
        let directory = is(&stat, FileType::Directory);
        let keep = filter.keep(&path, directory);
        if keep == Keep::No || is(&stat, FileType::Socket) {
            continue;
        }
        let link = if is(&stat, FileType::Symlink) {
            let target = readlinkat(&level.fd, &name, Vec::new())
                .map_err(|errno| Error::file("reading link", &path)(errno.into()))?;
            Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
        } else {
            None
        };
        let attributes = copy::attributes(level.fd.as_fd(), &name).map_err(fail)?;
        files.push(ScannedFile { path: path.clone(), stat, link, attributes });
        if directory {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(&level.fd, &name, flags, Mode::empty())
                .map_err(|errno| Error::file("opening", &path)(errno.into()))?;
            let placeholder = (keep == Keep::Descend).then(|| taken + files.len() - 1);
            levels.push(Level::new(fd, path, placeholder)?);
        }
    }
    take(&files)?;
    Ok(taken + files.len())
}

struct Level {
    fd: OwnedFd,
    path: PathBuf,
    placeholder: Option<usize>,
    rest: Vec<(std::ffi::OsString, FileType)>,
}

impl Level {
    fn new(fd: OwnedFd, path: PathBuf, placeholder: Option<usize>) -> Result<Level> {
        let fail = |errno: rustix::io::Errno| Error::file("listing", &path)(errno.into());
        let mut rest = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                rest.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
            }
        }
        rest.sort_by(|a, b| b.0.cmp(&a.0));
        Ok(Level { fd, path, placeholder, rest })
    }
}

/// The digests of the plain files among `files`, read on several threads as far as they are not
/// remembered.
fn contents(
    tree: &Tree,
    source: &Path,
    files: &[ScannedFile],
    threads: usize,
    task: &Task,
) -> Result<Vec<Option<[u8; 32]>>> {
    let mut digests: Vec<Option<[u8; 32]>> = vec![None; files.len()];
    let mut missing = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if is(&file.stat, FileType::RegularFile) {
            digests[index] = tree.digests.get(&Identity::of(&file.stat));
            if digests[index].is_none() {
                missing.push(index);
            }
        }
    }
    if missing.is_empty() {
        return Ok(digests);
    }
    let (next, found) = (AtomicUsize::new(0), Mutex::new(digests));
    let failure = Mutex::new(None);
    let labour = || {
        let mut buffer = vec![0; 256 << 10];
        while let Some(index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Joining an empty path would make a directory of the source.
            let below = &files[*index].path;
            let path =
                if below.as_os_str().is_empty() { source.to_owned() } else { source.join(below) };
            match read(tree, &path, &mut buffer, task) {
                Ok(digest) => {
                    let digest = <[u8; 32]>::try_from(digest.as_bytes()).ok();
                    found.lock().unwrap_or_else(PoisonError::into_inner)[*index] = digest;
                }
                Err(error) => {
                    next.store(missing.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    let workers = threads.min(missing.len().div_ceil(16)).max(1);
    if workers == 1 {
        labour();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(labour);
            }
        });
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn read(tree: &Tree, path: &Path, buffer: &mut [u8], task: &Task) -> Result<Digest> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = tree
        .root
        .open_at(path, flags, Mode::empty())
        .map_err(|error| Error::part(format!("reading {}", tree.name))(error.into()))?;
    let stat = rustix::fs::fstat(fd.as_fd())
        .map_err(|errno| Error::file("examining", path)(errno.into()))?;
    let mut file = File::from(fd);
    let mut digester = Digester::new(Algorithm::Sha256);
    loop {
        task.check()?;
        match file.read(buffer) {
            Ok(0) => break,
            Ok(n) => digester.update(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::file("reading", path)(error)),
        }
    }
    let digest = digester.finish();
    // Cached only if the file did not change meanwhile.
    let after = rustix::fs::fstat(file.as_fd())
        .map_err(|errno| Error::file("examining", path)(errno.into()))?;
    if Identity::of(&stat) == Identity::of(&after) {
        tree.digests.set(Identity::of(&stat), &digest);
    }
    Ok(digest)
}
