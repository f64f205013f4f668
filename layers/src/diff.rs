use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use task::Task;

use crate::owner::{self, OwnerMap};
use crate::placeholder::is_placeholder;
use crate::root::{Entry, list, open_dir};
use crate::tar::{Header, TypeFlag, Writer, Xattrs};
use crate::unpack::is_whiteout;
use crate::xattr::{At, is_kept, overlay};
use crate::{Error, Result, Root, contents};

/// How to make a tar stream of a tree.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// Whether overlay keeps its attributes under `user.overlay.` (in a user namespace).
    pub user_xattr: bool,
    /// No modification time is later than this (seconds since 1970; `SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// Everything belongs to this user and group instead of the tree's.
    pub owner: Option<(u32, u32)>,
    /// The tree has the owners outside, the archive gets those inside.
    pub owners: Option<OwnerMap>,
    /// Whether [`archive`] writes an entry `./` for the root itself.
    pub root_entry: bool,
    /// Where things were mounted, relative to the root: empty files and directories that are there
    /// for that alone are no change.
    pub mounted_on: Vec<PathBuf>,
    /// Whether something may still remove files of the tree: what vanishes before it is read is left
    /// out, where otherwise it is an error.
    pub live: bool,
}

/// What went into a tar stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffStats {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Whiteouts and opaque marks.
    pub whiteouts: u64,
    /// Bytes of file contents.
    pub contents: u64,
}

/// Writes what an overlay's upper directory changes in the stack below it as an OCI layer: sorted,
/// in PAX format, the same bytes for the same tree. `lower` is the mounted stack below; `None` for
/// an upper directory that lies on nothing.
///
/// Directories above a change are written too, other unchanged ones are not; a file that was
/// copied up without a change of its attributes or contents is not written. The root gets an entry
/// `./` when its owner, mode or attributes change. Sockets have no place in an archive.
///
/// # Errors
/// When the tree cannot be read, changes while it is read, or `out` fails.
pub fn diff(
    upper: &Root,
    lower: Option<&Root>,
    out: &mut dyn Write,
    options: &DiffOptions,
    task: &Task,
) -> Result<DiffStats> {
    Archiver::new(upper, lower, out, options, task, true)?.run()
}

/// Writes the whole tree below the directory `path` as a tar stream whose names are relative to
/// it: sorted, in PAX format, the same bytes for the same tree.
///
/// # Errors
/// When the tree cannot be read, changes while it is read, or `out` fails.
pub fn archive(
    root: &Root,
    path: &Path,
    out: &mut dyn Write,
    options: &DiffOptions,
    task: &Task,
) -> Result<DiffStats> {
    let root = root.sub(path)?;
    Archiver::new(&root, None, out, options, task, false)?.run()
}

/// Writes one file or tree, `path`, as a tar stream whose names begin with its own name. A symbolic
/// link at the end of `path` is not followed.
///
/// # Errors
/// As [`archive`]; `path` has no name, or is not there.
pub fn archive_entry(
    root: &Root,
    path: &Path,
    out: &mut dyn Write,
    options: &DiffOptions,
    task: &Task,
) -> Result<DiffStats> {
    root.symlink_metadata(path)?;
    let name = path.file_name().ok_or_else(|| Error::file("reading", path, Errno::INVAL))?;
    let parent = root.sub(path.parent().unwrap_or(Path::new("")))?;
    let options = DiffOptions { root_entry: false, ..options.clone() };
    let mut archiver = Archiver::new(&parent, None, out, &options, task, false)?;
    archiver.only = Some(name);
    archiver.run()
}

/// As many levels of directories are held open; those above are opened again when needed.
const HELD: usize = 64;

struct Archiver<'a> {
    root: &'a Root,
    lower: Option<&'a Root>,
    options: &'a DiffOptions,
    task: &'a Task,
    /// Whether the tree is an overlay's upper directory.
    layer: bool,
    tar: Writer<BufWriter<&'a mut dyn Write>>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Unchanged directories we are in, that are only written if something in them is.
    pending: Vec<Header>,
    buffer: Vec<u8>,
    stats: DiffStats,
    /// The one name of the root that is written; `None` for all.
    only: Option<&'a OsStr>,
}

/// A directory we are in.
struct Level {
    path: PathBuf,
    here: Option<OwnedFd>,
    /// Whether the stack below has a directory here, and it, held open.
    lies_on: bool,
    below: Option<OwnedFd>,
    entries: std::vec::IntoIter<Entry>,
    /// What to cut the pending directories back to on leaving.
    pending: usize,
}

/// What a layer records of a file besides its contents.
#[derive(PartialEq, Eq)]
struct Attributes {
    kind: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    device: u64,
    xattrs: Xattrs,
}

impl Attributes {
    fn new(stat: &Stat, (uid, gid): (u32, u32), xattrs: Xattrs) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let node = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        Attributes {
            kind,
            mode: if kind == FileType::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
            uid,
            gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            device: if node { stat.st_rdev } else { 0 },
            xattrs,
        }
    }
}

impl<'a> Archiver<'a> {
    fn new(
        root: &'a Root,
        lower: Option<&'a Root>,
        out: &'a mut dyn Write,
        options: &'a DiffOptions,
        task: &'a Task,
        layer: bool,
    ) -> Result<Self> {
        Ok(Archiver {
            root,
            lower,
            options,
            task,
            layer,
            tar: Writer::new(BufWriter::with_capacity(128 * 1024, out)),
            links: HashMap::new(),
            pending: Vec::new(),
            buffer: vec![0; contents::BUFFER],
            stats: DiffStats::default(),
            only: None,
        })
    }

    fn run(mut self) -> Result<DiffStats> {
        let top = open(self.root, Path::new(""))?;
        let below = self.lower.map(|lower| open(lower, Path::new(""))).transpose()?;
        self.root_entry(top.as_fd(), below.as_ref().map(AsFd::as_fd))?;
        let mut first = self.enter(PathBuf::new(), top, below, 0)?;
        if let Some(only) = self.only {
            let entries: Vec<Entry> = first.entries.filter(|entry| entry.name == only).collect();
            first.entries = entries.into_iter();
        }
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            self.task.check()?;
            let Some(entry) = level.entries.next() else {
                self.pending.truncate(level.pending);
                levels.pop();
                continue;
            };
            self.reopen(level)?;
            let path = level.path.join(&entry.name);
            let here = level.here.as_ref().map_or(rustix::fs::CWD, AsFd::as_fd);
            let below = level.below.as_ref().map(AsFd::as_fd);
            let entered = match self.entry(here, below, &entry, &path) {
                Err(error) if self.options.live && is_gone(&error) => None,
                entered => entered?,
            };
            let Some((fd, on, pending)) = entered else { continue };
            if levels.len() > HELD
                && let Some(level) = levels.last_mut()
            {
                (level.here, level.below) = (None, None);
            }
            levels.push(self.enter(path, fd, on, pending)?);
        }
        let mut out = self.tar.finish().map_err(Error::write)?;
        out.flush().map_err(Error::write)?;
        Ok(self.stats)
    }

    /// Opens a level again that was closed while we were far below it.
    fn reopen(&self, level: &mut Level) -> Result<()> {
        if level.here.is_none() {
            level.here = Some(open(self.root, &level.path)?);
            if let (true, Some(lower)) = (level.lies_on, self.lower) {
                level.below = Some(open(lower, &level.path)?);
            }
        }
        Ok(())
    }

    /// Lists a directory; in a layer, writes what it hides of the one below it.
    fn enter(
        &mut self,
        path: PathBuf,
        here: OwnedFd,
        mut below: Option<OwnedFd>,
        pending: usize,
    ) -> Result<Level> {
        let failed = |errno| Error::file("listing", &path, errno);
        let mut entries = list(&here).map_err(failed)?;
        if self.layer {
            let mark = overlay(self.options.user_xattr, "opaque");
            let mark = At::Fd(here.as_fd()).get(mark.as_bytes()).map_err(failed)?;
            if mark.as_deref() == Some(b"y") && below.take().is_some() {
                self.whiteout(&path, OsStr::new(".wh..opq"))?;
            }
            let marked_files = mark.as_deref() == Some(b"x");
            let mut hidden = Vec::new();
            let mut shown = Vec::with_capacity(entries.len());
            for entry in entries {
                if self.hides(here.as_fd(), &entry, marked_files).map_err(failed)? {
                    hidden.push(entry.name);
                } else {
                    shown.push(entry);
                }
            }
            entries = shown;
            for name in hidden {
                if let Some(below) = &below
                    && exists(below, &name).map_err(failed)?
                {
                    self.whiteout(&path, &name)?;
                }
            }
        }
        let lies_on = below.is_some();
        let (here, entries) = (Some(here), entries.into_iter());
        Ok(Level { path, here, lies_on, below, entries, pending })
    }

    /// Whether an entry of an upper directory only says that something is deleted.
    fn hides(&self, dir: BorrowedFd<'_>, entry: &Entry, marked: bool) -> Result<bool, Errno> {
        match entry.kind {
            FileType::CharacterDevice | FileType::Unknown => {
                match statat(dir, &entry.name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) if self.options.live => Ok(false),
                    stat => stat.map(|stat| is_whiteout(&stat)),
                }
            }
            FileType::RegularFile if marked => {
                let name = overlay(self.options.user_xattr, "whiteout");
                At::Name(dir, &entry.name).get(name.as_bytes()).map(|value| value.is_some())
            }
            _ => Ok(false),
        }
    }

    fn whiteout(&mut self, dir: &Path, name: &OsStr) -> Result<()> {
        let mut hidden = OsString::from(".wh.");
        hidden.push(name);
        let path = dir.join(hidden).into_os_string().into_encoded_bytes();
        self.stats.whiteouts += 1;
        self.emit(Header { path, ..Header::new(TypeFlag::File) })
    }

    fn root_entry(&mut self, top: BorrowedFd<'_>, below: Option<BorrowedFd<'_>>) -> Result<()> {
        let path = Path::new("");
        let mine = self.attributes(At::Fd(top), path, None)?;
        let wanted = if self.layer {
            match below {
                Some(below) => {
                    let theirs = self.attributes(At::Fd(below), path, None)?;
                    // The time of the root changes with everything that is made in it.
                    Attributes { mtime: mine.mtime, ..theirs } != mine
                }
                None => {
                    let plain = (mine.mode, mine.uid, mine.gid) == (0o755, 0, 0);
                    !plain || !mine.xattrs.is_empty()
                }
            }
        } else {
            self.options.root_entry
        };
        if wanted {
            let header = self.header(b"./".to_vec(), &mine, TypeFlag::Directory);
            self.emit(header)?;
        }
        Ok(())
    }

    /// Writes one entry; for a directory, gives it back open, with the one below it and the
    /// number of pending directories without it.
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        entry: &Entry,
        path: &Path,
    ) -> Result<Option<(OwnedFd, Option<OwnedFd>, usize)>> {
        let failed = |errno: Errno| Error::file("reading", path, errno);
        let mut kind = entry.kind;
        if kind == FileType::Unknown {
            let stat = statat(dir, &entry.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        if self.layer && !self.options.mounted_on.is_empty() {
            let is_below = below.map(|below| exists(below, &entry.name)).transpose();
            let is_new = !is_below.map_err(failed)?.unwrap_or_default();
            if is_new && is_placeholder(self.root, &self.options.mounted_on, path) {
                return Ok(None);
            }
        }
        match kind {
            FileType::Directory => {
                let fd = open_dir(dir, &entry.name).map_err(failed)?;
                let on = match below.map(|below| open_dir(below, &entry.name)) {
                    None | Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => None,
                    Some(Err(errno)) => return Err(failed(errno)),
                    Some(Ok(on)) => Some(on),
                };
                let pending = self.pending.len();
                self.directory(fd.as_fd(), on.as_ref().map(AsFd::as_fd), path)?;
                return Ok(Some((fd, on, pending)));
            }
            FileType::RegularFile => self.file(dir, below, &entry.name, path)?,
            FileType::Socket => {}
            _ => self.other(dir, below, &entry.name, path)?,
        }
        Ok(None)
    }

    fn directory(
        &mut self,
        fd: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        path: &Path,
    ) -> Result<()> {
        let mine = self.attributes(At::Fd(fd), path, None)?;
        let same = match below {
            Some(below) => {
                let mut theirs = self.attributes(At::Fd(below), path, None)?;
                if self.got_mount_points(below, path)? {
                    theirs.mtime = mine.mtime;
                }
                theirs == mine
            }
            None => false,
        };
        let mut name = path.as_os_str().as_bytes().to_vec();
        name.push(b'/');
        let header = self.header(name, &mine, TypeFlag::Directory);
        if same {
            self.pending.push(header);
            return Ok(());
        }
        self.emit(header)
    }

    /// Whether the time of a directory changed because something was mounted on what the stack below does
    /// not have.
    fn got_mount_points(&self, below: BorrowedFd<'_>, path: &Path) -> Result<bool> {
        if !self.layer {
            return Ok(false);
        }
        for place in &self.options.mounted_on {
            if place.parent() == Some(path)
                && let Some(name) = place.file_name()
                && !exists(below, name).map_err(|e| Error::file("reading", place, e))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let failed = |errno: Errno| Error::file("reading", path, errno);
        let file = contents::open(dir, name).map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Changed { path: path.to_owned() });
        }
        let mine = self.attributes(At::Fd(file.as_fd()), path, Some(&stat))?;
        if stat.st_nlink == 1
            && let Some(below) = below
            && let Ok(theirs) = contents::open(below, name)
        {
            let other = fstat(&theirs).map_err(failed)?;
            if other.st_size == stat.st_size
                && self.attributes(At::Fd(theirs.as_fd()), path, Some(&other))? == mine
                && contents::same(&file, &theirs).map_err(|e| Error::file("reading", path, e))?
            {
                return Ok(());
            }
        }
        let mut header = self.header(path.as_os_str().as_bytes().to_vec(), &mine, TypeFlag::File);
        if self.link(&stat, &mut header) {
            return self.emit(header);
        }
        header.size = u64::try_from(stat.st_size).unwrap_or(0);
        let size = header.size;
        self.stats.contents += size;
        self.emit(header)?;
        let tar = &mut self.tar;
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        contents::read(&file, path, size, sparse, &mut self.buffer, &mut |bytes| {
            self.task.check()?;
            tar.contents(bytes).map_err(Error::write)
        })
    }

    /// Writes a link, pipe or device.
    fn other(
        &mut self,
        dir: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let failed = |errno: Errno| Error::file("reading", path, errno);
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => TypeFlag::Symlink,
            FileType::CharacterDevice if is_whiteout(&stat) => return Ok(()),
            FileType::CharacterDevice => TypeFlag::Char,
            FileType::BlockDevice => TypeFlag::Block,
            FileType::Fifo => TypeFlag::Fifo,
            _ => return Err(Error::Changed { path: path.to_owned() }),
        };
        let target = |dir: BorrowedFd<'_>| match kind {
            TypeFlag::Symlink => {
                rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes)
            }
            _ => Ok(Vec::new()),
        };
        let mine = self.attributes(At::Name(dir, name), path, Some(&stat))?;
        let link = target(dir).map_err(failed)?;
        if stat.st_nlink == 1
            && let Some(below) = below
            && let Ok(other) = statat(below, name, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(other.st_mode) == mine.kind
            && target(below).map_err(failed)? == link
            && self.attributes(At::Name(below, name), path, Some(&other))? == mine
        {
            return Ok(());
        }
        let mut header = self.header(path.as_os_str().as_bytes().to_vec(), &mine, kind);
        header.link = link;
        if matches!(kind, TypeFlag::Char | TypeFlag::Block) {
            header.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        }
        self.link(&stat, &mut header);
        self.emit(header)
    }

    /// Makes a hard link of an entry whose file was written already under another name.
    fn link(&mut self, stat: &Stat, header: &mut Header) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                header.kind = TypeFlag::HardLink;
                header.link.clone_from(first.get());
                header.xattrs.clear();
                true
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(header.path.clone());
                false
            }
        }
    }

    fn attributes(&self, at: At<'_>, path: &Path, stat: Option<&Stat>) -> Result<Attributes> {
        let failed = |errno: Errno| Error::file("reading the attributes of", path, errno);
        let names = at.names().map_err(failed)?;
        let mut xattrs = Vec::new();
        for name in names {
            let unfollowed = [&b".overlay.metacopy"[..], b".overlay.redirect"];
            if self.layer && unfollowed.iter().any(|end| name.ends_with(end)) {
                let reason = "the overlay was mounted with metacopy or redirect_dir".to_owned();
                return Err(Error::Entry { path: path.to_owned(), reason });
            }
            if is_kept(&name)
                && let Some(value) = at.get(&name).map_err(failed)?
            {
                xattrs.push((name, value));
            }
        }
        xattrs.sort();
        let stat = match (stat, at) {
            (Some(stat), _) => *stat,
            (None, At::Fd(fd)) => fstat(fd).map_err(failed)?,
            (None, At::Name(dir, name)) => {
                statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?
            }
        };
        let owner = owner::of(at, &stat).map_err(failed)?;
        let owner = self.options.owners.as_ref().map_or(owner, |map| map.inside(owner));
        Ok(Attributes::new(&stat, owner, xattrs))
    }

    fn header(&self, path: Vec<u8>, from: &Attributes, kind: TypeFlag) -> Header {
        let (uid, gid) = self.options.owner.unwrap_or((from.uid, from.gid));
        let mtime = match self.options.clamp {
            Some(clamp) => from.mtime.min((clamp, 0)),
            None => from.mtime,
        };
        let (mode, xattrs) = (from.mode, from.xattrs.clone());
        Header { path, mode, uid, gid, mtime, xattrs, ..Header::new(kind) }
    }

    /// Writes an entry, after the directories it lies in.
    fn emit(&mut self, header: Header) -> Result<()> {
        for header in std::mem::take(&mut self.pending).into_iter().chain([header]) {
            self.stats.entries += 1;
            self.tar.entry(&header).map_err(Error::write)?;
        }
        Ok(())
    }
}

/// Whether a file that was listed is not there any more.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn open(root: &Root, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let fd = root.lookup(path, flags, Mode::empty());
    fd.map_err(|errno| Error::file("opening directory", path, errno))
}

fn exists(dir: impl AsFd, name: &OsStr) -> Result<bool, Errno> {
    match openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
