use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;

use image::Digest;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens};
use rustix::io::Errno;
use std::os::fd::AsFd;

use crate::blocks::{self, Block, Stream};
use crate::owner::{self, OwnerMap};
use crate::unpack::Unpacker;
use crate::xattr::At;
use crate::{Error, Result, Root, decompress};

/// What the `.wh.` names of a layer become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whiteouts {
    /// Overlay's own form (character devices 0/0, an opaque attribute): the tree is an empty
    /// directory that will be stacked over others.
    #[default]
    Overlay,
    /// They delete what they name from the existing tree.
    Delete,
    /// They are ordinary names: the archive is not a layer (ADD).
    Literal,
}

/// How much an archive may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Length of a name or of a link target, in bytes; the kernel's own bound is 4,095.
    pub path: usize,
    /// Uncompressed bytes of the whole stream; `None` for no bound.
    pub total: Option<u64>,
    /// Bytes of all extended attributes of one entry.
    pub xattrs: usize,
    /// Length of one file; only a sparse one can be longer than the stream.
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 10_000_000, path: 4095, total: None, xattrs: 1 << 20, file: 1 << 44 }
    }
}

/// How to unpack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// What whiteouts become.
    pub whiteouts: Whiteouts,
    /// Whether overlay keeps its attributes under `user.overlay.` (in a user namespace).
    pub user_xattr: bool,
    /// Everything belongs to this user and group instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// The archive has the owners inside, the files get those outside; root's where one has none.
    pub owners: Option<OwnerMap>,
    /// How much the archive may bring.
    pub limits: Limits,
}

/// What [`apply`] learned about a layer and what it could not restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedLayer {
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Directories that had to be made although the archive never mentions them, parents first;
    /// [`inherit`] gives them their attributes. An empty path is the root itself: with
    /// [`Whiteouts::Overlay`] it is there unless the archive has an entry for it.
    pub implied: Vec<PathBuf>,
    /// Number of entries.
    pub entries: u64,
    /// Length of the uncompressed stream in bytes.
    pub uncompressed: u64,
    /// What could not be kept: one line each, at most a hundred.
    pub skipped: Vec<String>,
}

/// Unpacks a layer below `root`. The stream may be gzip, zstd, bzip2, xz or plain, and is read to
/// its end. Give it `task.reading(layer)` where a task is to count its bytes and stop it.
///
/// With [`Whiteouts::Overlay`] the root must be an empty directory. Names are taken as after
/// `chroot`: links of the same tree are followed within it, names with `..` are refused. A hard
/// link never leads through a link out of the tree, and its target must be in the same layer.
///
/// # Errors
/// Anything malformed or refused; the tree is then left half unpacked.
pub fn apply(layer: impl Read, root: &Root, options: &ApplyOptions) -> Result<AppliedLayer> {
    let mut reader = decompress(layer)?;
    let (to_digest, for_digest) = blocks::queue();
    let (to_unpack, for_unpack) = blocks::queue();
    thread::scope(|scope| {
        let digest = scope.spawn(move || blocks::digest(&for_digest));
        let unpack = scope.spawn(move || {
            let mut stream = Stream::new(for_unpack);
            let unpacked = Unpacker::new(root, options)?.run(&mut stream);
            // What stands behind the archive's end is read, digested, and not looked at.
            if unpacked.is_ok() {
                stream.drain();
            }
            unpacked
        });
        let fed = feed(&mut reader, &to_digest, &to_unpack, options.limits.total);
        drop((to_digest, to_unpack));
        let diff_id = joined(digest);
        let unpacked = joined(unpack);
        // If the stream failed, the unpacker only saw it end early.
        let uncompressed = fed?;
        let unpacked = unpacked?;
        Ok(AppliedLayer {
            diff_id,
            implied: unpacked.implied,
            entries: unpacked.entries,
            uncompressed,
            skipped: unpacked.skipped,
        })
    })
}

/// Hands a stream to both readers; ends early, without an error, when the unpacker has failed.
fn feed(
    reader: &mut impl Read,
    digest: &SyncSender<Block>,
    unpack: &SyncSender<Block>,
    limit: Option<u64>,
) -> Result<u64> {
    let mut total = 0u64;
    loop {
        let block = Arc::new(blocks::fill(reader).map_err(Error::read)?);
        if block.is_empty() {
            return Ok(total);
        }
        total += block.len() as u64;
        if let Some(limit) = limit.filter(|limit| total > *limit) {
            return Err(Error::Limit { what: "uncompressed bytes", limit });
        }
        if unpack.send(Arc::clone(&block)).is_err() || digest.send(block).is_err() {
            return Ok(total);
        }
    }
}

/// The result of a thread, whose panic goes on here.
pub(crate) fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Gives the implied directories of an unpacked layer the attributes (owner, mode, times, extended
/// attributes) of the same directories in the stack below. A path that is not a directory in both
/// stays unchanged.
///
/// # Errors
/// When the kernel refuses.
pub fn inherit(root: &Root, implied: &[PathBuf], below: &Root) -> Result<()> {
    for path in implied {
        let fail = |errno: Errno| Error::file("setting attributes of", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let open = |root: &Root| match root.lookup(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(fail(errno)),
        };
        let (Some(here), Some(there)) = (open(root)?, open(below)?) else { continue };
        let stat = fstat(&there).map_err(fail)?;
        let (uid, gid) = owner::of(At::Fd(there.as_fd()), &stat).map_err(fail)?;
        owner::give(At::Fd(here.as_fd()), uid, gid).map_err(fail)?;
        fchmod(&here, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(fail)?;
        for (name, value) in At::Fd(there.as_fd()).kept().map_err(fail)? {
            match At::Fd(here.as_fd()).set(&name, &value) {
                Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let times = modified((stat.st_mtime, u32::try_from(nanos).unwrap_or(0)));
        futimens(&here, &times).map_err(fail)?;
    }
    Ok(())
}

/// Sets the modification time and leaves the access time alone.
pub(crate) fn modified((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Endless {
        piece: Vec<u8>,
        at: usize,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = (&self.piece[self.at..]).read(buffer)?;
            self.at = (self.at + n) % self.piece.len();
            Ok(n)
        }
    }

    #[test]
    fn attributes_of_one_directory_do_not_pile_up() {
        let mut archive = Vec::new();
        let mut body = Vec::new();
        let value = vec![b'x'; 1 << 19];
        let record = [b"SCHILY.xattr.user.a=", &value[..], b"\n"].concat();
        let length = record.len() + 7;
        body.extend(format!("{length} ").into_bytes());
        body.extend(record);
        assert_eq!(body.len(), length);
        let header = |name: &str, flag: u8, size: usize| {
            let mut block = [0u8; 512];
            block[..name.len()].copy_from_slice(name.as_bytes());
            block[100..108].copy_from_slice(b"0000755\0");
            block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
            block[156] = flag;
            block[257..265].copy_from_slice(b"ustar\x0000");
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            block
        };
        archive.extend(header("x", b'x', body.len()));
        archive.extend(&body);
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive.extend(header("d/", b'5', 0));
        let archive = Endless { piece: archive, at: 0 };
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
        let error = apply(archive, &root, &options).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: 134_217_728, .. }), "{error:?}");
    }
}
