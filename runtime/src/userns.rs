//! Being root without being root: the user namespace an ordinary user's command runs in.
//!
//! The process itself enters the namespace, so its id, exit code and signals stay what they are; a
//! short-lived child left outside has the helpers write the id maps.

mod shared;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::{Error, Result, sys};

/// Where to look for the user's subordinate ids.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Normally `/etc/passwd`; finds the user's name.
    pub passwd: PathBuf,
    /// Normally `/etc/subuid`.
    pub subuid: PathBuf,
    /// Normally `/etc/subgid`.
    pub subgid: PathBuf,
    /// Directories that may hold `newuidmap` and `newgidmap`.
    pub helpers: Vec<PathBuf>,
    /// Whether to fail without subordinate ids; otherwise the process continues with a single id,
    /// see [`single_id`].
    pub strict: bool,
}

impl Default for Identity {
    fn default() -> Self {
        let helpers = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
        Identity {
            passwd: "/etc/passwd".into(),
            subuid: "/etc/subuid".into(),
            subgid: "/etc/subgid".into(),
            helpers: helpers.map(PathBuf::from).to_vec(),
            strict: false,
        }
    }
}

/// Files of the system are never larger than this.
const MAX_FILE: u64 = 1 << 20;

/// The kernel takes no more lines in a map.
const MAX_RANGES: usize = 300;

/// One range of ids outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The ranges of a user in the text of `/etc/subuid` or `/etc/subgid`. Lines that make no sense
/// are passed over.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let (owner, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = Some(owner) == name || digits(owner) == Some(uid);
        let range = Range { start: digits(start)?, count: digits(count)? };
        let sane =
            range.count > 0 && range.start > 0 && range.start.checked_add(range.count).is_some();
        (ours && sane && fields.next().is_none()).then_some(range)
    };
    text.lines().filter_map(line).take(MAX_RANGES).collect()
}

/// The ranges of a user, by name, in a file such as `/etc/subuid`. Lines that make no sense are passed
/// over; inside they follow each other from 0 on.
pub fn subordinate_ids(file: &Path, name: &str) -> Vec<crate::IdRange> {
    let found = ranges(&read(file), Some(name), digits(name).unwrap_or(u32::MAX));
    let mut next = 0u32;
    let mut list = Vec::new();
    for Range { start, count } in found {
        let Some(after) = next.checked_add(count) else { break };
        list.push(crate::IdRange { inside: next, outside: start, count });
        next = after;
    }
    list
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (digits(fields.nth(1)?) == Some(uid)).then_some(name)
    })
}

/// The lines of a map: id 0 inside is `own`, the ranges follow from 1 on.
fn map(own: u32, ranges: &[Range]) -> Vec<[u32; 3]> {
    let mut lines = vec![[0, own, 1]];
    let mut next = 1u32;
    for range in ranges {
        let Some(after) = next.checked_add(range.count) else { break };
        lines.push([next, range.start, range.count]);
        next = after;
    }
    lines
}

fn map_text(lines: &[[u32; 3]]) -> String {
    lines.iter().map(|[inside, outside, count]| format!("{inside} {outside} {count}\n")).collect()
}

fn fail(reason: impl Into<String>, hint: Option<String>) -> Error {
    Error::UserNamespace { reason: reason.into(), hint }
}

/// How the ids of the new namespace are mapped.
enum Maps {
    /// By the helpers: uid lines and gid lines.
    Helpers { uids: Vec<[u32; 3]>, gids: Vec<[u32; 3]>, newuidmap: PathBuf, newgidmap: PathBuf },
    /// By a privileged child: every id as it is.
    Same,
    /// By the process itself: its own id alone.
    Single,
}

/// Makes this process root: at once if it is, else by entering a user namespace in which the user's
/// subordinate ids are mapped, and a new mount namespace. The user namespace is the one in which another command or a
/// container of the user is, if there is one. Call it before any thread exists.
///
/// # Errors
/// [`Error::UserNamespace`] with what is missing.
pub fn become_root(identity: &Identity) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let capable = sys::permitted().is_ok_and(|set| set & (1 << 21) != 0); // CAP_SYS_ADMIN
    if uid == 0 && capable {
        return Ok(());
    }
    let maps = match (uid, plan(identity, uid, gid)) {
        (0, _) => Maps::Same,
        (_, Ok(maps)) => maps,
        (_, Err(error)) if identity.strict => return Err(error),
        (_, Err(_)) => Maps::Single,
    };
    if shared::enter_existing(&maps, uid, gid) {
        return settle(&maps);
    }
    let lock = shared::lock(uid);
    if lock.is_some() && shared::enter_existing(&maps, uid, gid) {
        return settle(&maps);
    }
    make(&maps, uid, gid)?;
    drop(lock);
    settle(&maps)
}

fn plan(identity: &Identity, uid: u32, gid: u32) -> Result<Maps> {
    let passwd = read(&identity.passwd);
    let name = user_name(&passwd, uid);
    let find = |path: &Path| {
        let found = ranges(&read(path), name, uid);
        if found.is_empty() {
            let who = name.map_or_else(|| uid.to_string(), str::to_owned);
            let hint = format!("add a line `{who}:100000:65536` to {}", path.display());
            return Err(fail(format!("no subordinate ids for user {who}"), Some(hint)));
        }
        Ok(found)
    };
    let (uids, gids) = (find(&identity.subuid)?, find(&identity.subgid)?);
    let helper = |name: &str| {
        let found = identity
            .helpers
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| path.is_file());
        let hint = "install the package `uidmap` (or `shadow-utils`)".to_owned();
        found.ok_or_else(|| fail(format!("{name} is not installed"), Some(hint)))
    };
    Ok(Maps::Helpers {
        uids: map(uid, &uids),
        gids: map(gid, &gids),
        newuidmap: helper("newuidmap")?,
        newgidmap: helper("newgidmap")?,
    })
}

/// Set when [`become_root`] has made a namespace for this process.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether [`become_root`] has made a user and mount namespace for this process alone, so that
/// what it mounts ends with it.
pub fn entered_namespace() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

fn system(reason: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| fail(format!("{reason}: {error}"), None)
}

/// Becomes root of the user namespace that was entered, with mounts of its own.
fn settle(maps: &Maps) -> Result<()> {
    ENTERED.store(true, Ordering::Relaxed);
    sys::unshare(libc::CLONE_NEWNS).map_err(system("separating mounts"))?;
    let groups = matches!(maps, Maps::Helpers { .. } | Maps::Same);
    sys::set_ids(0, 0, groups.then_some(&[])).map_err(system("becoming root in it"))?;
    sys::prctl(libc::PR_SET_DUMPABLE, 1, 0).map_err(system("becoming root in it"))?;
    let flags = rustix::mount::MountPropagationFlags::DOWNSTREAM
        | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags)
        .map_err(|errno| system("separating mounts")(errno.into()))
}

/// Enters a new user namespace.
fn make(maps: &Maps, uid: u32, gid: u32) -> Result<()> {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let (mut go, wait) = {
        let (read, write) = io::pipe().map_err(system("making a pipe"))?;
        (write, read)
    };
    let (mut answer, report) = io::pipe().map_err(system("making a pipe"))?;
    let child = match maps {
        Maps::Single => None,
        // SAFETY: called by the first lines of `main`, before there is any other thread.
        maps => match unsafe { sys::plain_fork() }.map_err(system("starting a helper"))? {
            0 => {
                drop((go, answer));
                help(maps, parent, wait, report)
            }
            pid => Some(pid),
        },
    };
    drop((wait, report));
    sys::unshare(libc::CLONE_NEWUSER).map_err(|error| refused(&error))?;
    if let Some(child) = child {
        go.write_all(b"g").map_err(system("starting the helper"))?;
        drop(go);
        let mut said = String::new();
        answer.read_to_string(&mut said).map_err(system("waiting for the helper"))?;
        let pid = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
        if said != "ok" {
            return Err(fail(said, Some("see newuidmap(1) and /etc/subuid".to_owned())));
        }
    } else {
        let own = |id| map_text(&map(id, &[]));
        write_map("/proc/self/setgroups", "deny")?;
        write_map("/proc/self/uid_map", &own(uid))?;
        write_map("/proc/self/gid_map", &own(gid))?;
    }
    Ok(())
}

fn refused(error: &io::Error) -> Error {
    let system = System::read();
    let (why, hint) = match error.raw_os_error() {
        Some(libc::EPERM) => match system.forbids() {
            Some((why, hint)) => (why, Some(hint)),
            None => (
                error.to_string(),
                Some("allow user namespaces to this user; root needs none".to_owned()),
            ),
        },
        Some(libc::ENOSPC) => (
            "sysctl user.max_user_namespaces allows no more of them".to_owned(),
            Some("raise sysctl user.max_user_namespaces".to_owned()),
        ),
        _ => (error.to_string(), None),
    };
    fail(format!("the kernel refuses one: {why}"), hint)
}

/// What of this machine and process decides about user namespaces.
#[derive(Debug, Default)]
struct System {
    /// `Seccomp:` of `/proc/self/status`.
    filtered: bool,
    clone: Option<String>,
    apparmor: Option<String>,
    most: Option<String>,
    /// Whether our root is not that of our mounts, as after `chroot`.
    chrooted: bool,
}

impl System {
    fn read() -> System {
        let line = |path: &str| {
            let text = read(Path::new(path)).trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let status = read(Path::new("/proc/self/status"));
        let filtered = status
            .lines()
            .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
        let inode = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino));
        let chrooted = match (inode("/"), inode("/proc/1/root/")) {
            (Ok(ours), Ok(first)) => ours != first,
            _ => false,
        };
        System {
            filtered,
            clone: line("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            most: line("/proc/sys/user/max_user_namespaces"),
            chrooted,
        }
    }

    /// Which permission is missing, and how to give it.
    fn forbids(&self) -> Option<(String, String)> {
        let told = |why: &str, hint: &str| Some((why.to_owned(), hint.to_owned()));
        if self.clone.as_deref() == Some("0") {
            return told(
                "sysctl kernel.unprivileged_userns_clone is 0",
                "set it to 1, or run as root",
            );
        }
        if self.most.as_deref() == Some("0") {
            return told("sysctl user.max_user_namespaces is 0", "raise it, or run as root");
        }
        if self.apparmor.as_deref() == Some("1") {
            return told(
                "sysctl kernel.apparmor_restrict_unprivileged_userns is 1",
                "set it to 0, or load an AppArmor profile that has `userns` for this program",
            );
        }
        if self.filtered {
            return told(
                "the seccomp filter of this container does not allow unshare with CLONE_NEWUSER",
                "run the container with a profile that allows unshare, clone, mount, fsopen, \
                 fsconfig, fsmount, move_mount, open_tree, pivot_root and sethostname \
                 (docker, podman: --security-opt seccomp=unconfined; Kubernetes: seccompProfile \
                 Unconfined or hostUsers: false)",
            );
        }
        if self.chrooted {
            return told(
                "a process in a chroot may not make one",
                "enter the directory with pivot_root, or run outside of it",
            );
        }
        None
    }
}

fn write_map(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| fail(format!("cannot write {path}: {error}"), None))
}

/// The child outside: waits until the namespace exists, has its maps written, and says how it went.
fn help(maps: &Maps, parent: i32, mut wait: io::PipeReader, mut report: io::PipeWriter) -> ! {
    let mut byte = [0];
    if wait.read_exact(&mut byte).is_ok() {
        let said = match write_maps(maps, parent) {
            Ok(()) => "ok".to_owned(),
            Err(reason) => reason,
        };
        let _ = report.write_all(said.as_bytes());
    }
    sys::exit(0)
}

fn write_maps(maps: &Maps, parent: i32) -> std::result::Result<(), String> {
    match maps {
        Maps::Helpers { uids, gids, newuidmap, newgidmap } => {
            run_helper(newuidmap, parent, uids)?;
            run_helper(newgidmap, parent, gids)
        }
        Maps::Same => ["uid_map", "gid_map"].into_iter().try_for_each(|name| {
            let path = format!("/proc/{parent}/{name}");
            let lines = read(&Path::new("/proc/self").join(name));
            let lines = lines.lines().filter_map(|line| {
                let mut numbers = line.split_whitespace();
                let (inside, count) = (numbers.next()?, numbers.nth(1)?);
                Some(format!("{inside} {inside} {count}\n"))
            });
            fs::write(&path, lines.collect::<String>())
                .map_err(|error| format!("cannot write {path}: {error}"))
        }),
        Maps::Single => Ok(()),
    }
}

fn run_helper(program: &Path, pid: i32, lines: &[[u32; 3]]) -> std::result::Result<(), String> {
    let numbers = lines.iter().flatten().map(ToString::to_string);
    let output = Command::new(program).arg(pid.to_string()).args(numbers).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("{} failed: {said}", program.display()))
        }
        Err(error) => Err(format!("cannot run {}: {error}", program.display())),
    }
}

/// Refuses a container whose user does not exist in this process's namespace, and says what is
/// missing.
pub(crate) fn check_user(spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else { return Ok(()) };
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    if namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return Ok(());
    }
    let (uid, gid) = (process.user().uid(), process.user().gid());
    for (file, what, id) in [("uid_map", "uid", uid), ("gid_map", "gid", gid)] {
        let map = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        if is_mapped(&map, id) {
            continue;
        }
        let list = format!("/etc/sub{what}");
        let (reason, hint) = if single_id() {
            let reason = format!("no subordinate ids, so {what} {id} does not exist here");
            (reason, format!("add a line `<user>:100000:65536` to {list}, or run as user 0"))
        } else {
            let reason = format!("{what} {id} is beyond the subordinate ids");
            (reason, format!("add a larger range to {list}"))
        };
        return Err(fail(reason, Some(hint)));
    }
    Ok(())
}

/// Whether a map of `/proc` has this id inside.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
        let (Some(inside), Some(count)) = (numbers.next(), numbers.nth(1)) else { return false };
        (inside..inside + count).contains(&u64::from(id))
    })
}

/// Whether this process is not in the initial user namespace.
pub fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// How many users, and groups, this process has: from 0 on.
pub fn mapped_ids() -> u32 {
    let count = |file: &str| {
        let map = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok());
        counts.fold(0u32, u32::saturating_add)
    };
    count("uid_map").min(count("gid_map"))
}

/// The user and group outside of this process's user namespace that are root in it.
pub fn outer_root() -> (u32, u32) {
    let first = |file: &str| {
        let map = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        map.split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(0)
    };
    (first("uid_map"), first("gid_map"))
}

/// Whether only one uid exists, because [`become_root`] found no subordinate ids: every file is
/// root's, and no program can become another user.
pub fn single_id() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut lines = map.lines();
    let single = lines.next().is_some_and(|line| line.split_whitespace().nth(2) == Some("1"));
    single && lines.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_robustly() {
        let text = "# comment\n\nann:100000:65536\n1000:300000:10\nbob:1:1\nann:x:1\nann:5\nann:5:5:5\n\
            ann:4294967295:2\nann:7:0\nann:0:9\nann:+5:5\n ann:400000:7 \nann:99999999999:1\n";
        let range = |start, count| Range { start, count };
        assert_eq!(
            ranges(text, Some("ann"), 1000),
            [range(100_000, 65536), range(300_000, 10), range(400_000, 7)]
        );
        assert_eq!(ranges(text, None, 1000), [range(300_000, 10)]);
        assert_eq!(ranges(text, Some("eve"), 7), []);
        let many = "a:10:1\n".repeat(1000);
        assert_eq!(ranges(&many, Some("a"), 1).len(), MAX_RANGES);
    }

    #[test]
    fn maps_put_the_user_first() {
        let ranges = [Range { start: 100_000, count: 65_536 }, Range { start: 300_000, count: 10 }];
        assert_eq!(map_text(&map(1000, &ranges)), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
        let huge = [Range { start: 1, count: u32::MAX - 1 }, Range { start: 1, count: 5 }];
        assert_eq!(map(7, &huge).len(), 2);
    }

    #[test]
    fn ids_are_inside_or_not() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        for (id, expected) in [(0, true), (1, true), (65_536, true), (65_537, false)] {
            assert_eq!(is_mapped(map, id), expected, "{id}");
        }
        assert!(is_mapped("0 0 4294967295", u32::MAX - 1));
        assert!(!is_mapped("", 0) && !is_mapped("0 1", 0));
    }

    #[test]
    fn the_missing_permission_is_named() {
        let one = |text: &str| Some(text.to_owned());
        for (system, words) in [
            (System { clone: one("0"), filtered: true, ..System::default() }, "userns_clone is 0"),
            (System { most: one("0"), ..System::default() }, "max_user_namespaces is 0"),
            (System { apparmor: one("1"), ..System::default() }, "apparmor_restrict"),
            (System { filtered: true, clone: one("1"), ..System::default() }, "seccomp filter"),
            (System { chrooted: true, ..System::default() }, "chroot"),
        ] {
            let (why, _) = system.forbids().unwrap();
            assert!(why.contains(words), "{why}");
        }
        assert!(System::default().forbids().is_none());
    }

    #[test]
    fn names_come_from_the_password_file() {
        let passwd = "root:x:0:0::/:\n:x:5:5::/:\nbad:x:+7:7::/:\nann:x:7:7::/:\n";
        assert_eq!(user_name(passwd, 7), Some("ann"));
        assert_eq!(user_name(passwd, 5), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let identity = Identity {
            passwd: "/dev/null".into(),
            subuid: "/dev/null".into(),
            ..Identity::default()
        };
        let Err(error) = plan(&identity, 1234, 1234) else { panic!("there are no ids") };
        assert!(error.to_string().contains("no subordinate ids for user 1234"), "{error}");
        let hint = task::Fault::hint(&error).unwrap();
        assert!(hint.contains("1234:100000:65536") && hint.contains("/dev/null"), "{hint}");
    }
}
