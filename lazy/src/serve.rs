//! The questions of the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use layers::EntryKind;

use crate::LazyImage;
use crate::tree::FileNode;

/// Nothing ever changes.
const FOREVER: Duration = Duration::from_secs(1 << 30);
const READ_AHEAD: u32 = 1 << 20;
const BLOCK: u32 = 4096;

/// Answers from an image.
pub(crate) struct Server {
    image: Arc<LazyImage>,
}

impl Server {
    pub(crate) fn new(image: Arc<LazyImage>) -> Server {
        Server { image }
    }

    /// The node of a number of the kernel's, which counts from 1.
    fn node(&self, inode: INodeNo) -> Option<(usize, &FileNode)> {
        let number = usize::try_from(inode.0).ok()?.checked_sub(1)?;
        Some((number, self.image.node(number)?))
    }

    /// What a directory lists from a place on: the place of the next one, the file, and its name.
    fn listed(
        &self,
        inode: INodeNo,
        offset: u64,
    ) -> Option<impl Iterator<Item = (u64, usize, &[u8])>> {
        let (number, node) = self.node(inode)?;
        if !node.is_directory() {
            return None;
        }
        let dots = [(number, &b"."[..]), (node.parent, b"..")];
        let inside = node.children.iter().map(|(name, child)| (*child, name.as_slice()));
        let all = dots.into_iter().chain(inside).enumerate();
        let after = all.skip(usize::try_from(offset).unwrap_or(usize::MAX));
        Some(after.map(|(at, (child, name))| (at as u64 + 1, child, name)))
    }
}

fn inode(number: usize) -> INodeNo {
    INodeNo(number as u64 + 1)
}

fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::CharDevice => FileType::CharDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::File | EntryKind::HardLink | EntryKind::Whiteout | EntryKind::Opaque => {
            FileType::RegularFile
        }
    }
}

fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(whole),
        false => SystemTime::UNIX_EPOCH.checked_add(whole),
    };
    let part = Duration::from_nanos(u64::from(nanoseconds));
    base.and_then(|base| base.checked_add(part)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn attributes(number: usize, node: &FileNode) -> FileAttr {
    let time = time(node.entry.mtime);
    let (major, minor) = node.entry.device;
    let device = rustix::fs::makedev(major, minor);
    FileAttr {
        ino: inode(number),
        size: node.size(),
        blocks: node.size().div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(node.entry.kind),
        perm: u16::try_from(node.entry.mode & 0o7777).unwrap_or(0),
        // One, where the number is not known, as on btrfs.
        nlink: if node.is_directory() { 1 } else { node.names },
        uid: node.entry.uid,
        gid: node.entry.gid,
        rdev: u32::try_from(device).unwrap_or(0),
        blksize: BLOCK,
        flags: 0,
    }
}

/// The answer that a name is not there, which the kernel may keep.
fn absent() -> FileAttr {
    FileAttr { ino: INodeNo(0), ..attributes(0, &FileNode::directory(0)) }
}

/// Answers with bytes, or with how many they are where none are asked for.
fn give(bytes: &[u8], size: u32, reply: ReplyXattr) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match size {
        0 => reply.size(length),
        room if room < length => reply.error(Errno::ERANGE),
        _ => reply.data(bytes),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for wanted in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            // Without it the kernel asks more often.
            let _ = config.add_capabilities(wanted);
        }
        if let Err(most) = config.set_max_readahead(READ_AHEAD) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let directory = self.node(parent);
        let found = directory.and_then(|(_, node)| node.children.get(name.as_bytes()).copied());
        let found = found.and_then(|number| Some((number, self.image.node(number)?)));
        let attributes = found.map_or_else(absent, |(number, node)| attributes(number, node));
        reply.entry(&FOREVER, &attributes, Generation(0));
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.node(inode) {
            Some((number, node)) => reply.attr(&FOREVER, &attributes(number, node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        match self.node(inode) {
            Some((_, node)) if node.entry.kind == EntryKind::Symlink => {
                reply.data(&node.entry.link);
            }
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some((number, _)) = self.node(inode) else { return reply.error(Errno::ENOENT) };
        let size = usize::try_from(size).unwrap_or(0);
        match self.image.read(number, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => {
                self.image.complain(&error);
                reply.error(Errno::EIO);
            }
        }
    }

    fn opendir(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let kept = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), kept);
    }

    fn readdir(
        &self,
        _request: &Request,
        directory: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(listed) = self.listed(directory, offset) else {
            return reply.error(Errno::ENOTDIR);
        };
        for (next, number, name) in listed {
            let Some(node) = self.image.node(number) else { continue };
            if reply.add(inode(number), next, file_type(node.entry.kind), OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        directory: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(listed) = self.listed(directory, offset) else {
            return reply.error(Errno::ENOTDIR);
        };
        for (next, number, name) in listed {
            let Some(node) = self.image.node(number) else { continue };
            let (name, about) = (OsStr::from_bytes(name), attributes(number, node));
            if reply.add(inode(number), next, name, &FOREVER, &about, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let files = self.image.files() as u64;
        reply.statfs(0, 0, 0, files, 0, BLOCK, 255, BLOCK);
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let Some((_, node)) = self.node(inode) else { return reply.error(Errno::ENOENT) };
        match node.entry.xattrs.iter().find(|(known, _)| known == name.as_bytes()) {
            Some((_, value)) => give(value, size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let Some((_, node)) = self.node(inode) else { return reply.error(Errno::ENOENT) };
        let names =
            node.entry.xattrs.iter().flat_map(|(name, _)| [name.as_slice(), b"\0"].concat());
        give(&names.collect::<Vec<u8>>(), size, reply);
    }
}
