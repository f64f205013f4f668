//! Killing a command at a random moment: the processes it started, found in `/proc`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to be gone before a test calls them survivors.
const PATIENCE: Duration = Duration::from_secs(20);

/// A small generator of repeatable chance (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    /// Bytes that no compressor makes smaller.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }

    /// A time up to this long.
    pub fn within(&mut self, whole: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(whole.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The command and everything it started, at once.
    All,
    /// The command alone: whatever it started must notice.
    Main,
}

/// Starts a command that is going to be killed; what it says goes to a file.
pub fn start(command: &mut Command, log: &Path) -> Child {
    use std::os::unix::process::CommandExt;
    let file = std::fs::File::create(log).expect("a log");
    let copy = file.try_clone().expect("a log");
    command.stdin(Stdio::null()).stdout(file).stderr(copy).process_group(0);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits this long, kills, and waits until every process of the command is gone. Says how it ended
/// if it did so by itself.
pub fn kill_after(mut child: Child, delay: Duration, aim: Aim) -> Option<ExitStatus> {
    let (ended, family) = kill_family(&mut child, delay, aim);
    let since = Instant::now();
    while family.iter().any(|(&pid, &start)| started(pid) == Some(start)) {
        assert!(since.elapsed() < PATIENCE, "processes outlive the command: {family:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    ended
}

/// As [`kill_after`], for a command that may leave something running on purpose.
pub fn kill_starter(mut child: Child, delay: Duration, aim: Aim) -> Option<ExitStatus> {
    kill_family(&mut child, delay, aim).0
}

/// Pids and their start times.
type Family = BTreeMap<u32, u64>;

fn kill_family(child: &mut Child, delay: Duration, aim: Aim) -> (Option<ExitStatus>, Family) {
    std::thread::sleep(delay);
    let main = child.id();
    let ended = child.try_wait().expect("a child");
    if ended.is_some() {
        return (ended, Family::new());
    }
    let family = descendants(main);
    kill(main);
    if aim == Aim::All {
        family.keys().for_each(|&pid| kill(pid));
    }
    let ended = child.wait().expect("a child");
    (ended.code().map(|_| ended), family)
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    // Gone already is as good.
    let _ = kill_process(pid, Signal::KILL);
}

/// The parent and the start time of a process that is not a zombie.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let alive = *fields.first()? != "Z" && *fields.first()? != "X";
    alive.then_some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

fn started(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, start)| start)
}

/// Every process.
pub fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Everything a process started, and that started in turn: pid and start time.
fn descendants(root: u32) -> Family {
    let all: Vec<(u32, u32, u64)> = processes()
        .into_iter()
        .filter_map(|pid| stat(pid).map(|(parent, start)| (pid, parent, start)))
        .collect();
    let mut family = Family::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for &(pid, above, start) in &all {
            if above == parent && family.insert(pid, start).is_none() {
                parents.push(pid);
            }
        }
    }
    family
}

/// Waits until no process has this text in its environment or its command line.
pub fn wait_for_none(mark: &str) {
    let since = Instant::now();
    loop {
        let left: Vec<(u32, String)> =
            processes().into_iter().filter_map(|pid| marked(pid, mark)).collect();
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "processes are left: {left:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn marked(pid: u32, mark: &str) -> Option<(u32, String)> {
    stat(pid)?;
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let (line, environment) = (read("cmdline"), read("environ"));
    let has = |bytes: &[u8]| bytes.windows(mark.len()).any(|part| part == mark.as_bytes());
    (has(&line) || has(&environment))
        .then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
}
