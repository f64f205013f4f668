//! Docker's default profile: what a container may ask of the kernel, by the capabilities it has.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};

use crate::{Error, Result};

/// Allowed to everybody.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk",
    "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime",
    "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "execve", "execveat",
    "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "file_getattr", "file_setattr", "flistxattr",
    "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area",
    "getcpu", "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32",
    "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid",
    "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32",
    "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt",
    "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents",
    "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get",
    "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen",
    "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "lstat", "lstat64", "madvise",
    "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat",
    "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd",
    "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64",
    "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev",
    "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg",
    "sendto", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32",
    "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer",
    "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid",
    "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid",
    "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
    "sigaction", "sigaltstack", "signal", "signalfd", "signalfd4", "sigpending", "sigprocmask",
    "sigreturn", "sigsuspend", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs",
    "statfs64", "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range",
    "sync_file_range2", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64",
    "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat",
    "utimensat_time64", "utimes", "vfork", "wait4", "waitid", "waitpid", "write", "writev",
];

/// Allowed to those who have any of the capabilities.
const BY_CAPABILITY: &[(&[&str], &[&str])] = &[
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (
        &["SYS_ADMIN"],
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (&["SYSLOG"], &["syslog"]),
    (&["BPF"], &["bpf"]),
    (&["PERFMON"], &["perf_event_open"]),
];

/// Personalities that are harmless: Linux, Linux with UNAME26, and both on 32 bits; and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The flags of clone that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// Sockets of this family reach the hypervisor.
const AF_VSOCK: u64 = 40;

fn built<T, E: std::fmt::Display>(part: std::result::Result<T, E>) -> Result<T> {
    part.map_err(|error| Error::invalid("seccomp profile", error.to_string()))
}

fn rule(names: &[&str], args: Vec<LinuxSeccompArg>) -> Result<LinuxSyscall> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    built(
        LinuxSyscallBuilder::default().names(names).action(Action::ScmpActAllow).args(args).build(),
    )
}

fn argument(index: usize, op: Operator, value: u64, second: u64) -> Result<Vec<LinuxSeccompArg>> {
    let argument =
        LinuxSeccompArgBuilder::default().index(index).op(op).value(value).value_two(second);
    Ok(vec![built(argument.build())?])
}

/// The profile for a container with these capabilities.
pub(crate) fn default_profile(capabilities: &BTreeSet<&str>) -> Result<LinuxSeccomp> {
    let mut rules = vec![rule(ALLOWED, Vec::new())?];
    for (any_of, names) in BY_CAPABILITY {
        if any_of.iter().any(|name| capabilities.contains(name)) {
            rules.push(rule(names, Vec::new())?);
        }
    }
    for personality in PERSONALITIES {
        rules.push(rule(&["personality"], argument(0, Operator::ScmpCmpEq, personality, 0)?)?);
    }
    // The kernel looks at the low half of the family only, whatever stands above it.
    let family = argument(0, Operator::ScmpCmpMaskedEq, u32::MAX.into(), AF_VSOCK)?;
    let names = vec!["socket".to_owned()];
    let refused = LinuxSyscallBuilder::default().names(names).action(Action::ScmpActErrno);
    rules.push(built(refused.errno_ret(libc::EPERM.unsigned_abs()).args(family).build())?);
    rules.push(rule(&["socket"], Vec::new())?);
    if !capabilities.contains("SYS_ADMIN") {
        rules.push(rule(&["clone"], argument(0, Operator::ScmpCmpMaskedEq, NAMESPACES, 0)?)?);
        // The C library falls back to clone, whose flags can be looked at.
        let names = vec!["clone3".to_owned()];
        let refused = LinuxSyscallBuilder::default().names(names).action(Action::ScmpActErrno);
        rules.push(built(refused.errno_ret(libc::ENOSYS.unsigned_abs()).build())?);
    }
    let architectures = if cfg!(target_arch = "x86_64") {
        rules.push(rule(&["arch_prctl", "modify_ldt"], Vec::new())?);
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else {
        vec![Arch::ScmpArchNative]
    };
    built(
        LinuxSeccompBuilder::default()
            .default_action(Action::ScmpActErrno)
            .default_errno_ret(libc::EPERM.unsigned_abs())
            .architectures(architectures)
            .syscalls(rules)
            .build(),
    )
}
