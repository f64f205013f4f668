//! Answers for the kernel if only one id exists: a call that gives a file to another user succeeds,
//! and an attribute of the file records the owner for the layer.
//!
//! The filter of such a container hands every system call of the chown family to the supervisor,
//! which finds the file as the program would, in the program's root and working directory.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::stage::{ErrorContext, Step};

/// `UID:GID` of a file that only looks as if it were root's.
const NAME: &str = "user.rbuild.owner";

/// The longest path, with its end.
const PATH_MAX: usize = 4096;

const RECEIVE: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
const VALID: libc::c_ulong = 0x4008_2102; // SECCOMP_IOCTL_NOTIF_ID_VALID

/// System calls of the family, by the audit architecture and number of each calling convention.
const CALLS: [(u32, i32, Call); 13] = [
    (0xc000_003e, 92, Call::Chown),
    (0xc000_003e, 93, Call::Fchown),
    (0xc000_003e, 94, Call::Lchown),
    (0xc000_003e, 260, Call::Fchownat),
    (0x4000_0003, 182, Call::Chown),
    (0x4000_0003, 95, Call::Fchown),
    (0x4000_0003, 16, Call::Lchown),
    (0x4000_0003, 212, Call::Chown),
    (0x4000_0003, 207, Call::Fchown),
    (0x4000_0003, 198, Call::Lchown),
    (0x4000_0003, 298, Call::Fchownat),
    (0xc000_00b7, 54, Call::Fchownat),
    (0xc000_00b7, 55, Call::Fchown),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Chown,
    Lchown,
    Fchown,
    Fchownat,
}

/// Answers on a thread of its own until no process is left that could ask.
pub(crate) fn answer(listener: OwnedFd) -> Step {
    let open = |path: &str| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let proc = open("/proc").doing("opening", "/proc")?;
    let root = open("/").doing("opening", "/")?;
    let answering = OwnerHandler { listener, proc, root };
    let thread = std::thread::Builder::new().name("owners".to_owned());
    thread.spawn(move || answering.all()).doing("starting", "a thread")?;
    Ok(())
}

struct OwnerHandler {
    listener: OwnedFd,
    proc: OwnedFd,
    root: OwnedFd,
}

impl OwnerHandler {
    fn all(&self) {
        // SAFETY: root and working directory stop being shared with the other threads, which do
        // not look at this thread's.
        let own = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) };
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return,
            }
            if !fds[0].revents().contains(PollFlags::IN) {
                return;
            }
            let Some(asked) = self.receive() else { continue };
            let errno = match own {
                Ok(()) => self.chown(&asked).err().map_or(0, Errno::raw_os_error),
                Err(errno) => errno.raw_os_error(),
            };
            self.send(asked.id, errno);
        }
    }

    fn receive(&self) -> Option<libc::seccomp_notif> {
        // SAFETY: a structure of numbers, for which all zeros is a value the kernel wants to see.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: a live descriptor, and a structure of the size the number names.
        let done = unsafe { libc::ioctl(self.listener.as_raw_fd(), RECEIVE as _, &raw mut asked) };
        (done == 0).then_some(asked)
    }

    fn send(&self, id: u64, errno: i32) {
        let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
        // SAFETY: a live descriptor, and a structure of the size the number names. No thread is
        // there to hear of a failure: the program is gone.
        unsafe { libc::ioctl(self.listener.as_raw_fd(), SEND as _, &raw const answer) };
    }

    /// Whether the program still waits for the answer, so that its pid was its own until now.
    fn valid(&self, id: u64) -> bool {
        // SAFETY: a live descriptor, and a number of the size the request names.
        unsafe { libc::ioctl(self.listener.as_raw_fd(), VALID as _, &raw const id) == 0 }
    }

    fn chown(&self, asked: &libc::seccomp_notif) -> Result<(), Errno> {
        let known = CALLS
            .iter()
            .find(|(arch, number, _)| (*arch, *number) == (asked.data.arch, asked.data.nr));
        let (arch, number, call) = *known.ok_or(Errno::NOSYS)?;
        let arguments = asked.data.args;
        // Descriptors and flags are the lower half of their registers, with their sign.
        let int = |at: usize| arguments[at] as u32 as i32;
        // The oldest calls of 32 bits have ids of 16.
        let short = arch == 0x4000_0003 && [182, 95, 16].contains(&number);
        let id = |at: usize| match arguments[at] as u32 {
            id if short && id & 0xffff == 0xffff => u32::MAX,
            id if short => id & 0xffff,
            id => id,
        };
        let (target, first) = match call {
            Call::Fchown => (self.open(asked, &format!("fd/{}", int(0)))?, 1),
            Call::Chown => (self.find(asked, libc::AT_FDCWD, arguments[0], 0)?, 1),
            Call::Lchown => {
                (self.find(asked, libc::AT_FDCWD, arguments[0], libc::AT_SYMLINK_NOFOLLOW)?, 1)
            }
            Call::Fchownat => (self.find(asked, int(0), arguments[1], int(4))?, 2),
        };
        if !self.valid(asked.id) {
            return Err(Errno::SRCH);
        }
        keep(&target, id(first), id(first + 1))
    }

    /// Something of the asking process below its directory of `/proc`.
    fn open(&self, asked: &libc::seccomp_notif, what: &str) -> Result<OwnedFd, Errno> {
        let path = format!("{}/{what}", asked.pid);
        let opened =
            rustix::fs::openat(&self.proc, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        opened.map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })
    }

    /// The file that a path of the asking process means.
    fn find(
        &self,
        asked: &libc::seccomp_notif,
        directory: i32,
        address: u64,
        flags: i32,
    ) -> Result<OwnedFd, Errno> {
        let path = read_path(asked.pid, address)?;
        let from = match directory {
            libc::AT_FDCWD => self.open(asked, "cwd")?,
            number => self.open(asked, &format!("fd/{number}"))?,
        };
        if path.is_empty() {
            return if flags & libc::AT_EMPTY_PATH != 0 { Ok(from) } else { Err(Errno::NOENT) };
        }
        let root = self.open(asked, "root")?;
        let enter = |root: BorrowedFd<'_>| {
            rustix::process::fchdir(root)?;
            rustix::process::chroot(".")
        };
        enter(root.as_fd())?;
        let mut how = OFlags::PATH | OFlags::CLOEXEC;
        if flags & libc::AT_SYMLINK_NOFOLLOW != 0 {
            how |= OFlags::NOFOLLOW;
        }
        let found = rustix::process::fchdir(&from)
            .and_then(|()| rustix::fs::openat(CWD, &path, how, Mode::empty()));
        // Nothing of ours may be looked up inside, whatever became of the search.
        if let Err(errno) = enter(self.root.as_fd()) {
            tracing::error!(%errno, "cannot leave the container's root");
            std::process::abort();
        }
        found
    }
}

/// A string in the memory of another process.
fn read_path(pid: u32, address: u64) -> Result<CString, Errno> {
    let mut buffer = vec![0u8; PATH_MAX];
    let mut length = 0;
    let page = 4096;
    while length < PATH_MAX {
        let at = address.wrapping_add(length as u64);
        // No further than to the end of a page: the next one may not be there.
        let piece = (page - (at % page as u64) as usize).min(PATH_MAX - length);
        let local = libc::iovec { iov_base: buffer[length..].as_mut_ptr().cast(), iov_len: piece };
        let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: piece };
        // SAFETY: the local piece lies in the buffer; the kernel checks the remote one.
        let read = unsafe {
            libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
        };
        let read = usize::try_from(read).map_err(|_| Errno::FAULT)?;
        if let Some(end) = buffer[length..length + read].iter().position(|byte| *byte == 0) {
            buffer.truncate(length + end);
            return CString::new(buffer).map_err(|_| Errno::INVAL);
        }
        if read == 0 {
            return Err(Errno::FAULT);
        }
        length += read;
    }
    Err(Errno::NAMETOOLONG)
}

/// Keeps the owner of a file beside it; `u32::MAX` leaves an id as it is. As the kernel does, takes
/// the bits away by which a program becomes its owner.
fn keep(target: &OwnedFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(target)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        // There is no place to keep it at a link or a node.
        return Ok(());
    }
    let itself = format!("/proc/self/fd/{}", target.as_raw_fd());
    let mut buffer = [0; 64];
    let kept = rustix::fs::getxattr(&itself, NAME, &mut buffer[..]).ok();
    let kept = kept.and_then(|length| read_record(&buffer[..length]));
    let (old_uid, old_gid) = kept.unwrap_or((stat.st_uid, stat.st_gid));
    let new = |id: u32, old: u32| if id == u32::MAX { old } else { id };
    let owner = (new(uid, old_uid), new(gid, old_gid));
    let done = if owner == (stat.st_uid, stat.st_gid) {
        match rustix::fs::removexattr(&itself, NAME) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        }
    } else {
        let record = format!("{}:{}", owner.0, owner.1);
        rustix::fs::setxattr(&itself, NAME, record.as_bytes(), XattrFlags::empty())
    };
    match done {
        // A file system without attributes: what is there is no part of the image.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let special = stat.st_mode & 0o6000;
    if kind == FileType::RegularFile && special != 0 {
        let group = if stat.st_mode & 0o010 != 0 { 0o2000 } else { 0 };
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 & !(0o4000 | group));
        rustix::fs::chmod(&itself, mode)?;
    }
    Ok(())
}

fn read_record(record: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(record).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}
