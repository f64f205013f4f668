//! What a container that shares something with the machine still cannot reach, and what it cannot
//! leave behind.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use runtime::{ContainerSpec, Device, Error, ExitStatus, Mount, Namespace, Network, Propagation};

use crate::support::*;

pub(crate) const CASES: &[crate::Case] = &[
    ("deeper_mounts_are_seen", deeper_mounts_are_seen),
    ("streams_are_pipes_of_the_user", streams_are_pipes_of_the_user),
    ("abstract_sockets_of_the_machine", abstract_sockets_of_the_machine),
    ("processes_of_the_machine", processes_of_the_machine),
    ("what_is_left_ends_with_the_container", what_is_left_ends_with_the_container),
    ("letters_of_devices_bite", letters_of_devices_bite),
    ("rules_of_devices_in_the_unified_tree", rules_of_devices_in_the_unified_tree),
    ("cgroups_with_children_are_removed", cgroups_with_children_are_removed),
    ("a_cgroup_parent_alone_counts", a_cgroup_parent_alone_counts),
    ("cpus_below_a_new_parent", cpus_below_a_new_parent),
];

/// A specification that asks for this.
fn spec(change: impl FnOnce(&mut ContainerSpec)) -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    change(&mut spec);
    spec
}

fn bind(source: &Path, target: &str) -> Mount {
    Mount::Bind {
        source: source.into(),
        target: target.into(),
        read_only: false,
        recursive: true,
        propagation: Propagation::Private,
        options: Vec::new(),
    }
}

fn deeper_mounts_are_seen() {
    let root = Rootfs::new();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("deep"), "deep\n").unwrap();
    std::fs::create_dir(source.path().join("top")).unwrap();
    let file = bind(&source.path().join("deep"), "/m/a/f");
    let top = bind(&source.path().join("top"), "/m");
    let memory = Mount::Tmpfs { target: "/run".into(), options: Vec::new() };
    let config = bind(&source.path().join("deep"), "/run/app/cfg");
    let overrides = spec(|spec| spec.files.mounts = vec![file, top, config, memory]);
    assert_eq!(root.shell("cat /m/a/f /run/app/cfg", &overrides), "deep\ndeep\n");
}

fn streams_are_pipes_of_the_user() {
    let root = Rootfs::new();
    let line = "echo by name > /dev/stdout; for f in 1 2; do readlink /proc/self/fd/$f | cut -d: -f1; done";
    let user = (!runtime::single_id()).then(|| "app".to_owned());
    let overrides = spec(|spec| spec.process.user = user);
    assert_eq!(root.shell(line, &overrides), "by name\npipe\npipe\n");
}

/// Linux 6.12 has it.
fn scopes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let has = version >= (6, 12);
    if !has {
        requires::cannot(&format!("Linux {} has no scopes of Landlock", release.trim()));
    }
    has
}

fn abstract_sockets_of_the_machine() {
    if !scopes() {
        return;
    }
    let root = Rootfs::new();
    let name = format!("rbuild-test-{}", std::process::id());
    let machine = UnixListener::bind_addr(&abstract_address(&name)).unwrap();
    // This very program, with its libraries.
    std::fs::copy("/proc/self/exe", root.path("bin/self")).unwrap();
    let libraries = ["/usr", "/lib", "/lib64"].map(Path::new);
    let there = libraries.iter().filter(|path| path.exists());
    let mounts = there.map(|path| bind(path, path.to_str().unwrap())).collect();
    let overrides = spec(|spec| {
        spec.network.mode = Some(Network::Host);
        spec.files.mounts = mounts;
        spec.process.command = command(&["/bin/self", CONNECT, &name]);
    });
    let (_, text) = root.try_run(&overrides).unwrap();
    assert_eq!(text, "own connected, machine refused\n");
    machine.set_nonblocking(true).unwrap();
    assert_eq!(machine.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

fn abstract_address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).unwrap()
}

/// The argument with which this program is [`connect`].
pub(crate) const CONNECT: &str = "--connect-to";

/// Inside a container: tries a socket of its own and one of the machine.
pub(crate) fn connect(name: &str) {
    let own = abstract_address(&format!("{name}-own"));
    let _listener = UnixListener::bind_addr(&own).unwrap();
    let tell = |address: &SocketAddr| match UnixStream::connect_addr(address) {
        Ok(_) => "connected".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => "refused".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("own {}, machine {}", tell(&own), tell(&abstract_address(name)));
}

fn chroot() -> ContainerSpec {
    spec(|spec| {
        spec.isolation.chroot = true;
        spec.network.mode = Some(Network::Host);
    })
}

fn host_pid() -> ContainerSpec {
    spec(|spec| spec.isolation.pid = Some(Namespace::Host))
}

fn processes_of_the_machine() {
    if !scopes() {
        return;
    }
    let root = Rootfs::new();
    // As unprivileged as what is in the container, so that only the border is between them.
    let mut other = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "sleep", "1000"])
        .spawn()
        .unwrap();
    let pid = other.id();
    let has_become =
        || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep");
    while !has_become() {
        std::thread::yield_now();
    }
    for (overrides, signals) in [(chroot(), false), (host_pid(), true)] {
        let line = format!(
            "test -e /proc/{pid}/status && echo seen; ls /proc/{pid}/root/ 2>/dev/null | wc -l; \
             cat /proc/{pid}/environ 2>/dev/null | wc -c; kill -0 {pid} 2>/dev/null && echo signalled; true"
        );
        let expected = if signals { "seen\n0\n0\nsignalled\n" } else { "seen\n0\n0\n" };
        let name = rustix::system::uname().nodename().to_owned();
        assert_eq!(root.shell(&line, &overrides), expected);
        assert_eq!(rustix::system::uname().nodename(), &*name, "the machine keeps its name");
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

fn what_is_left_ends_with_the_container() {
    let root = Rootfs::new();
    for overrides in [chroot(), host_pid()] {
        let line = "for i in 1 2 3; do (setsid sh -c 'sleep 1000 & sleep 1000' & echo $!); done >/tmp/left; \
            (sleep 1000 & echo $! >> /tmp/left); exit 3";
        let (status, _) = root.try_run(&with_shell(line, &overrides)).unwrap();
        assert_eq!(status, ExitStatus::Code(3));
        let left = std::fs::read_to_string(root.path("tmp/left")).unwrap();
        assert_eq!(left.lines().count(), 4, "{left}");
        for pid in left.lines() {
            assert!(!exists(&PathBuf::from(format!("/proc/{pid}"))), "{pid} is left");
        }
    }
}

/// A device of this machine that is none of the standard ones, and that opens for everybody.
fn device() -> (PathBuf, (u32, u32)) {
    let names = ["/dev/loop-control", "/dev/fuse", "/dev/net/tun", "/dev/kvm"];
    let found = names.iter().find_map(|name| Some((name, rustix::fs::stat(*name).ok()?)));
    let (name, stat) = found.expect("a device of the machine");
    (name.into(), (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

/// A line that only root of the container can run: it tries a device of the machine, and a standard
/// one.
fn opens_what_it_makes() -> String {
    let (_, (major, minor)) = device();
    format!(
        "mount -t tmpfs x /tmp; mknod /tmp/other c {major} {minor} && (: < /tmp/other) 2>/dev/null && echo read; \
         mknod /tmp/zero c 1 5; head -c 1 /tmp/zero | wc -c"
    )
}

fn letters_of_devices_bite() {
    if !needs_real_root() {
        return;
    }
    let root = Rootfs::new();
    let (source, (major, minor)) = device();
    let device = |access: &str| Device {
        source: source.clone(),
        target: "/dev/other".into(),
        block: false,
        major,
        minor,
        access: access.into(),
    };
    let given = |access: &str| spec(|spec| spec.isolation.devices = vec![device(access)]);
    let line = "(: < /dev/other) 2>/dev/null && echo read; (: > /dev/other) 2>/dev/null && echo wrote; \
        head -c 1 /dev/zero | wc -c; echo x > /dev/null";
    assert_eq!(root.shell(line, &given("rwm")), "read\nwrote\n1\n");
    assert_eq!(root.shell(line, &given("r")), "read\n1\n");
    assert_eq!(root.shell(line, &given("w")), "wrote\n1\n");
    // Who can mount could otherwise make every device open.
    let admin = spec(|spec| spec.isolation.cap_add = command(&["SYS_ADMIN"]));
    assert_eq!(root.shell(&opens_what_it_makes(), &admin), "1\n");
}

fn rules_of_devices_in_the_unified_tree() {
    if !needs_real_root() {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let older = mounts.lines().any(|line| line.contains(" - cgroup ") && line.contains("devices"));
    if !older {
        // `letters_of_devices_bite` has just shown it.
        return requires::cannot("the machine has the newer tree of cgroups alone");
    }
    let root = Rootfs::new();
    let admin = spec(|spec| spec.isolation.cap_add = command(&["SYS_ADMIN"]));
    // Without the older tree in sight the newer one is used.
    let text = without_older_trees(|| root.shell(&opens_what_it_makes(), &admin));
    assert_eq!(text, "1\n");
}

/// Does something in a mount namespace that has no older control groups.
fn without_older_trees<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let inside = || {
        // SAFETY: the thread leaves the files of the others, and shares no descriptors less.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for line in mounts.lines().filter(|line| line.contains(" - cgroup ")) {
            unmount(line.split(' ').nth(4).unwrap(), UnmountFlags::DETACH).unwrap();
        }
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

/// Every directory of cgroups whose name holds this.
fn cgroups(name: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(name) {
                    found.push(entry.path());
                }
                walk(&entry.path(), name, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

fn cgroups_with_children_are_removed() {
    if !needs_real_root() {
        return;
    }
    let root = Rootfs::new();
    let line = "for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do mkdir -p $d/inner/deep 2>/dev/null; done; \
        ls -d /sys/fs/cgroup/inner/deep /sys/fs/cgroup/pids/inner/deep 2>/dev/null | wc -l";
    let limited = spec(|spec| {
        spec.limits.pids_limit = Some(50);
        spec.isolation.privileged = true;
    });
    let before = cgroups("rbuild-").len();
    assert_ne!(root.shell(line, &limited).trim(), "0");
    assert_eq!(cgroups("rbuild-").len(), before);
}

fn parent() -> String {
    format!("/rbuild-tests-{}/below", std::process::id())
}

fn remove_parent() {
    let name = parent();
    let name = name.split('/').nth(1).unwrap();
    for directory in cgroups(name) {
        std::fs::remove_dir(directory.join("below")).unwrap();
        std::fs::remove_dir(directory).unwrap();
    }
}

fn a_cgroup_parent_alone_counts() {
    if !needs_real_root() {
        return;
    }
    let root = Rootfs::new();
    let overrides = spec(|spec| {
        spec.limits.cgroup_parent = Some(parent());
        spec.isolation.cgroup = Some(Namespace::Host);
    });
    let text = root.shell("cat /proc/self/cgroup", &overrides);
    remove_parent();
    for line in text.lines() {
        assert!(line.contains(&parent()), "{line}");
    }
}

fn cpus_below_a_new_parent() {
    if !needs_real_root() {
        return;
    }
    let root = Rootfs::new();
    let overrides = spec(|spec| {
        spec.limits.cgroup_parent = Some(parent());
        spec.limits.cpuset_cpus = Some("0".into());
    });
    let result = root.try_run(&with_shell("grep Cpus_allowed_list /proc/self/status", &overrides));
    remove_parent();
    let (status, text) = result.unwrap_or_else(|error: Error| panic!("{}", describe(&error)));
    assert!(status.success());
    assert_eq!(text.split_whitespace().last(), Some("0"));
}
