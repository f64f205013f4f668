//! Putting the entries of an archive into a root.

mod attributes;
mod name;
mod parents;
mod place;
mod whiteout;

pub(crate) use name::EntryName;
pub(crate) use place::is_whiteout;

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use self::parents::Parents;
use crate::tar::{Header, Reader, ReaderLimits, TypeFlag, Xattrs};
use crate::{ApplyOptions, Error, Result, Root, Whiteouts};

/// No more lines than this say what was skipped.
const NOTES: usize = 100;

/// As many bytes of names and attributes are kept until the end; each may come with no file.
const REMEMBERED: u64 = 128 << 20;

/// What unpacking an archive did.
#[derive(Debug)]
pub(crate) struct UnpackReport {
    pub(crate) implied: Vec<PathBuf>,
    pub(crate) entries: u64,
    pub(crate) skipped: Vec<String>,
}

/// Unpacks one archive.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    root: &'a Root,
    options: &'a ApplyOptions,
    parents: Parents,
    /// Whether the umask of this thread is ours, so that modes of new files are exact.
    exact: bool,
    /// Whose files we make.
    me: (u32, u32),
    implied: BTreeSet<Vec<u8>>,
    /// Directories whose times and attributes are set when everything is in them.
    deferred: Vec<DeferredAttributes>,
    /// What this archive brought, by device and inode; only kept to delete the rest.
    brought: HashSet<(u64, u64)>,
    /// Devices that could not be made.
    missing: HashSet<Vec<u8>>,
    skipped: Vec<String>,
    entries: u64,
    /// Bytes that `later`, `implied` and `missing` hold.
    remembered: u64,
}

#[derive(Debug)]
struct DeferredAttributes {
    path: Vec<u8>,
    inode: u64,
    mtime: (i64, u32),
    xattrs: Xattrs,
}

impl<'a> Unpacker<'a> {
    /// To be used on a thread of its own: it takes the umask away from it.
    pub(crate) fn new(root: &'a Root, options: &'a ApplyOptions) -> Result<Self> {
        let mut implied = BTreeSet::new();
        if options.whiteouts == Whiteouts::Overlay {
            implied.insert(Vec::new());
        }
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Unpacker {
            root,
            options,
            parents: Parents::default(),
            exact: own_umask(),
            me,
            implied,
            deferred: Vec::new(),
            brought: HashSet::new(),
            missing: HashSet::new(),
            skipped: Vec::new(),
            entries: 0,
            remembered: 0,
        })
    }

    /// Counts what is kept until the end.
    fn remember(&mut self, name: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let xattrs: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.remembered += (name.len() + xattrs) as u64;
        if self.remembered > REMEMBERED {
            let what = "bytes of names and attributes of directories and devices";
            return Err(Error::Limit { what, limit: REMEMBERED });
        }
        Ok(())
    }

    pub(crate) fn run(mut self, input: &mut impl BufRead) -> Result<UnpackReport> {
        let limits = &self.options.limits;
        let limits =
            ReaderLimits { entries: limits.entries, path: limits.path, xattrs: limits.xattrs };
        let mut reader = Reader::new(input, limits);
        while let Some(header) = reader.next()? {
            self.entries += 1;
            self.entry(&header, &mut reader)?;
        }
        self.finish()
    }

    fn entry(&mut self, header: &Header, reader: &mut Reader<impl BufRead>) -> Result<()> {
        let refuse = |reason: &str| refuse(&header.path, reason);
        let name = EntryName::new(&header.path).map_err(refuse)?;
        if header.xattrs.iter().any(|(name, _)| crate::xattr::is_overlay(name)) {
            return Err(refuse("it sets an attribute that belongs to the overlay"));
        }
        if name.is_root() {
            return self.root_entry(header);
        }
        if self.options.whiteouts != Whiteouts::Literal {
            if name.leads_through_whiteout() {
                return Err(refuse("it lies in a directory that has a whiteout's name"));
            }
            if let Some(hidden) = name.last().strip_prefix(b".wh.") {
                if !matches!(header.kind, TypeFlag::File | TypeFlag::HardLink) {
                    return Err(refuse("it has a whiteout's name but is not a plain file"));
                }
                return self.whiteout(header, &name, hidden);
            }
        }
        match header.kind {
            TypeFlag::File => self.file(header, &name, reader),
            TypeFlag::Directory => self.directory(header, &name),
            TypeFlag::Symlink => self.symlink(header, &name),
            TypeFlag::HardLink => self.hard_link(header, &name),
            TypeFlag::Char | TypeFlag::Block | TypeFlag::Fifo => self.node(header, &name),
        }
    }

    /// User and group of an entry.
    fn owner(&self, header: &Header) -> (u32, u32) {
        let own = (header.uid, header.gid);
        let mapped = self.options.owners.as_ref().map(|owners| owners.outside_or_root(own));
        self.options.owner.or(mapped).unwrap_or(own)
    }

    /// Remarks that something of an entry was not kept.
    fn skip(&mut self, path: &[u8], what: &str) {
        if self.skipped.len() < NOTES {
            self.skipped.push(format!("{}: {what}", String::from_utf8_lossy(path)));
        }
    }
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn owned(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

fn refuse(name: &[u8], reason: &str) -> Error {
    Error::Entry { path: path(name).to_owned(), reason: reason.to_owned() }
}

/// Gives this thread a umask of its own, which is empty. The mode of a new file is then right from
/// the start.
fn own_umask() -> bool {
    // SAFETY: only the umask and the working directory stop being shared with other threads; both
    // are this thread's own affair, and descriptors stay shared.
    let unshared = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) };
    if unshared.is_ok() {
        rustix::process::umask(Mode::empty());
    }
    unshared.is_ok()
}
