//! System calls that have no safe wrapper elsewhere, each behind a safe function.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

mod fork;

pub(crate) use fork::{Clone, Side, fork, fork_in};

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
pub(crate) const MOUNT_ATTR_ATIME: u64 = 0x70;
pub(crate) const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub(crate) const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
pub(crate) const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
pub(crate) const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Turns the `-1` convention into a result.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Like [`check`], for functions that return an `int`.
fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path or other text as a C string.
pub(crate) fn c_string(text: impl AsRef<[u8]>) -> io::Result<CString> {
    CString::new(text.as_ref()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Makes a child by the oldest means, which every system call filter allows; 0 in the child.
///
/// # Safety
/// This process has no other threads, so that the child may run any code.
pub(crate) unsafe fn plain_fork() -> io::Result<u32> {
    // SAFETY: the caller promises that this process has one thread.
    check_int(unsafe { libc::fork() }).map(|pid| pid as u32)
}

/// Leaves namespaces of this process for new ones.
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a flag word only.
    check_int(unsafe { libc::unshare(namespaces) }).map(drop)
}

/// Enters the namespace behind a descriptor.
pub(crate) fn setns(fd: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: a live descriptor and a flag word.
    check_int(unsafe { libc::setns(fd.as_raw_fd(), kind) }).map(drop)
}

/// Changes the attributes of the mount `fd` is on, recursively if asked.
pub(crate) fn mount_setattr(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    set_attributes(fd, recursive, MountAttributes { set, clear, propagation, userns: 0 })
}

/// Maps the ids of a detached mount, recursively if asked, by the maps of a user namespace.
pub(crate) fn map_mount(
    fd: BorrowedFd<'_>,
    recursive: bool,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    const IDMAP: u64 = 0x10_0000; // MOUNT_ATTR_IDMAP
    let userns = namespace.as_raw_fd() as u64;
    let attributes = MountAttributes { set: IDMAP, clear: 0, propagation: 0, userns };
    set_attributes(fd, recursive, attributes)
}

/// The kernel's `mount_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, attr: MountAttributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` has the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Makes a detached copy of the mount (tree) that `path` below `fd` is in.
pub(crate) fn open_tree(fd: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = 1 | libc::O_CLOEXEC; // OPEN_TREE_CLONE
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: a live descriptor and a C string.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_open_tree, fd.as_raw_fd(), path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a detached mount to the place `target` is open on.
pub(crate) fn attach_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const BOTH_EMPTY: libc::c_uint = 0x4 | 0x40; // MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
    // SAFETY: live descriptors and empty C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            BOTH_EMPTY,
        )
    })
    .map(drop)
}

/// Opens `path` as seen from inside `root`: links and `..` never leave it.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_how(root, path, flags, resolve)
}

/// Opens `path` as seen from inside `root`, refusing links.
pub(crate) fn open_plain(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    open_how(root, path, flags, resolve)
}

fn open_how(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere disturbed the walk; the kernel asks to try again.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Sets close-on-exec on every descriptor from `first` on.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; CLOSE_RANGE_CLOEXEC closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 4u32) }).map(drop)
}

/// Calls `prctl` with numbers only.
pub(crate) fn prctl(
    option: libc::c_int,
    two: libc::c_ulong,
    three: libc::c_ulong,
) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: every option used by this crate takes plain numbers.
    check_int(unsafe { libc::prctl(option, two, three, zero, zero) }).map(drop)
}

/// Gives this process a new, empty session keyring of this name.
pub(crate) fn join_keyring(name: &CStr) -> io::Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING (1) takes a C string.
    check(unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr()) }).map(drop)
}

/// Replaces the effective, permitted and inheritable capability sets.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and data have the layout of version 3, which takes two data entries.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// The permitted capabilities of this process.
pub(crate) fn permitted() -> io::Result<u64> {
    let mut header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: header and data have the layout of version 3, which fills two data entries.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

/// Sets real, effective and saved ids and the supplementary groups of this single-threaded process.
pub(crate) fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: pointer and length of one slice of gid_t.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets the ids with which this thread makes files, and keeps what it may do.
pub(crate) fn set_file_ids(uid: u32, gid: u32) -> io::Result<()> {
    let all = permitted()?;
    // SAFETY: takes numbers only; both calls are for this thread alone.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
    // A user who is not root loses the rights over files with that.
    capset(all, all, 0)
}

/// One instruction of a classic BPF program.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Installs a system call filter for this thread, permanently.
pub(crate) fn seccomp_filter(program: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: SECCOMP_SET_MODE_FILTER (1) reads `len` instructions, laid out as sock_filter.
    let done = check(unsafe { libc::syscall(libc::SYS_seccomp, 1u32, flags, &raw const program) })?;
    let listener = flags & crate::seccomp::NEW_LISTENER != 0;
    // SAFETY: with this flag the answer is a new descriptor without other users.
    Ok(listener.then(|| unsafe { OwnedFd::from_raw_fd(done as RawFd) }))
}

/// Replaces this program. Returns only with the reason why it could not.
pub(crate) fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let list = |strings: &[CString]| {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let (args, env) = (list(args), list(env));
    // SAFETY: both lists are null-terminated arrays of C strings that live across the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes `fd` known as number `number` too, surviving an exec.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: a live descriptor; clears close-on-exec.
        return check_int(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: a live descriptor; what has `number` is not used any more.
    check_int(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// The user namespace above another one.
pub(crate) fn parent_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `NS_GET_PARENT`
    const PARENT: libc::Ioctl = 0xb702u32 as libc::Ioctl;
    // SAFETY: NS_GET_PARENT takes nothing and returns a descriptor.
    let fd = check_int(unsafe { libc::ioctl(namespace.as_raw_fd(), PARENT) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this number is an open descriptor that is not closed on exec.
pub(crate) fn survives_exec(number: RawFd) -> bool {
    // SAFETY: asks about a number only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Takes what has this number: a descriptor that this process was started with, which nothing here owns.
pub(crate) fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number only.
    check_int(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: it is open, and the caller knows that nothing here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the terminal on `fd` the controlling one of this session.
pub(crate) fn control_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check_int(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY as libc::Ioctl, 0) }).map(drop)
}

/// The other end of the terminal whose master `fd` is.
pub(crate) fn terminal_peer(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    let fd =
        check_int(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTPEER as libc::Ioctl, flags) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Brings the loopback device of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // The type of the number depends on the C library.
    let number = libc::SIOCSIFFLAGS as libc::Ioctl;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw const request) }).map(drop)
}

/// Does nothing until this process is killed, at the latest when its parent ends, which has this number.
pub(crate) fn wait_to_be_killed(parent: u32) -> ! {
    // SAFETY: numbers only; none of the calls touches memory of this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
        // It may have ended before.
        while libc::getppid() as u32 == parent {
            libc::pause();
        }
    }
    exit(0)
}

/// Ends this process at once, running nothing.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Sends `bytes` with descriptors attached.
pub(crate) fn send_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !buffer.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(socket, &[io::IoSlice::new(bytes)], &mut buffer, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// How many descriptors one message may carry.
pub(crate) const MAX_FDS: usize = 253;

/// Receives bytes and the descriptors attached to them; zero bytes mean the other side is gone.
pub(crate) fn receive_fds(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [io::IoSliceMut::new(bytes)];
    let message = loop {
        match recvmsg(&socket, &mut slices, &mut buffer, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in buffer.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    Ok((message.bytes, fds))
}

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`
pub(crate) const SCOPE_ABSTRACT_SOCKETS: u64 = 1;
/// `LANDLOCK_SCOPE_SIGNAL`
pub(crate) const SCOPE_SIGNALS: u64 = 2;

/// Which version of Landlock the kernel has: scopes came with 6. 0 where there is none.
pub(crate) fn landlock_version() -> libc::c_long {
    // SAFETY: LANDLOCK_CREATE_RULESET_VERSION (1) takes no attributes.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1u32) }.max(0)
}

/// Puts this process, and those it makes from now on, in a Landlock domain of their own with
/// these scopes. What is in it can neither look into processes outside of it.
pub(crate) fn landlock_scope(scopes: u64) -> io::Result<()> {
    let attributes = [0u64, 0, scopes];
    let size = std::mem::size_of_val(&attributes);
    // SAFETY: the attributes are three numbers in the layout of `landlock_ruleset_attr`.
    let rules = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0u32)
    })?;
    // SAFETY: the kernel has just given us this descriptor.
    let rules = unsafe { OwnedFd::from_raw_fd(rules as RawFd) };
    // SAFETY: a live descriptor and a number.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) })
        .map(drop)
}

/// One instruction of a program of the kernel's newer machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u8,
    /// The one written in the low half, the one read in the high half.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// Loads a program that decides about devices.
pub(crate) fn bpf_load_device_program(program: &[BpfInstruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 4],
    }
    let load = Load {
        kind: 15, // BPF_PROG_TYPE_CGROUP_DEVICE
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 4],
    };
    let size = std::mem::size_of::<Load>();
    // SAFETY: BPF_PROG_LOAD (5) reads the instructions and the license, which live across the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const load, size) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches such a program to a cgroup of the unified tree, beside those it has.
pub(crate) fn bpf_attach_device_program(
    program: &OwnedFd,
    cgroup: BorrowedFd<'_>,
) -> io::Result<()> {
    const DEVICES: u32 = 6; // BPF_CGROUP_DEVICE
    const BESIDE: u32 = 2; // BPF_F_ALLOW_MULTI
    let (cgroup, program) = (cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let attach = [cgroup, program, DEVICES, BESIDE, 0];
    let size = std::mem::size_of_val(&attach);
    // SAFETY: BPF_PROG_ATTACH (8) reads these numbers.
    check(unsafe { libc::syscall(libc::SYS_bpf, 8, attach.as_ptr(), size) }).map(drop)
}

/// Sends a signal to the process behind a descriptor.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a live descriptor, numbers, and no siginfo.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    check(result).map(drop)
}

/// Sets how this process looks like another kind of machine.
pub(crate) fn personality(domain: libc::c_ulong) -> io::Result<()> {
    // SAFETY: takes a number only.
    check_int(unsafe { libc::personality(domain) }).map(drop)
}

/// Sets on which nodes this process gets memory.
pub(crate) fn set_memory_policy(mode: libc::c_int, nodes: &[u64]) -> io::Result<()> {
    // The kernel reads one bit fewer than this number.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: all bits that the kernel reads are there.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) }).map(drop)
}

/// How a process gets its share of the CPUs; the kernel's `sched_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SchedAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Sets the scheduling of this process.
pub(crate) fn schedule(mut attr: SchedAttr) -> io::Result<()> {
    attr.size = std::mem::size_of::<SchedAttr>() as u32;
    // SAFETY: a structure of the size it says.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0u32) }).map(drop)
}

/// Sets the priority of this process at disks.
pub(crate) fn io_priority(class: u32, level: u32) -> io::Result<()> {
    // SAFETY: IOPRIO_WHO_PROCESS (1) and numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, class << 13 | level) }).map(drop)
}
