//! The processes of a running container, and what they use.

use std::path::{Path, PathBuf};

use crate::{Container, Error, Result};

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number on the machine.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its number in the innermost process namespace it is in.
    pub inside: u32,
    /// The user it runs as, as the machine numbers users.
    pub uid: u32,
    /// The group it runs as, as the machine numbers groups.
    pub gid: u32,
    /// Its process group and its session.
    pub group: i64,
    /// See [`Process::group`].
    pub session: i64,
    /// The kernel's number of its terminal; 0 for none.
    pub terminal_number: u64,
    /// The kernel's letter for its state: `R`, `S`, `D`, `T`, `Z`.
    pub state: char,
    /// How it yields to others, from -20 to 19.
    pub nice: i64,
    /// When it was started, in clock ticks since the machine was.
    pub started: u64,
    /// Bytes of its address space.
    pub virtual_memory: u64,
    /// Bytes of its memory that are in place.
    pub resident: u64,
    /// The kernel's name of it: the program's, cut at 15 characters.
    pub name: String,
    /// Clock ticks of CPU it used.
    pub ticks: u64,
    /// Bytes of memory it has in use; what it shares with others is divided among them.
    pub memory: u64,
    /// Bytes it read from and wrote to block devices.
    pub io: (u64, u64),
    /// How many threads it has.
    pub threads: u64,
    /// Program and arguments; the name in brackets where there are none.
    pub command: String,
}

/// What a container uses, summed up over its processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Seconds of CPU, in millionths.
    pub cpu: u64,
    /// Bytes of memory in use.
    pub memory: u64,
    /// Bytes of memory it may use; nothing without a limit.
    pub limit: Option<u64>,
    /// Bytes received and sent, but for those of loopback.
    pub network: (u64, u64),
    /// Bytes read and written.
    pub io: (u64, u64),
    /// Processes and threads.
    pub pids: u64,
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Bytes in use: shared pages count for each process by its part of them, so that a sum over
/// processes counts them once.
fn memory(directory: &Path, status: &str) -> u64 {
    match field(&read(&directory.join("smaps_rollup")), "Pss") {
        0 => field(status, "VmRSS") * 1024,
        shared => shared * 1024,
    }
}

fn process(directory: &Path, pid: u32) -> Option<Process> {
    let stat = read(&directory.join("stat"));
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let signed = |index: usize| fields.get(index).and_then(|f| f.parse::<i64>().ok()).unwrap_or(0);
    let status = read(&directory.join("status"));
    let words = read(&directory.join("cmdline"));
    let command = words.trim_end_matches('\0').replace('\0', " ");
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let io = read(&directory.join("io"));
    Some(Process {
        pid,
        parent: u32::try_from(number(1)).unwrap_or(0),
        inside: innermost(&status).unwrap_or(pid),
        uid: u32::try_from(field(&status, "Uid")).unwrap_or(0),
        gid: u32::try_from(field(&status, "Gid")).unwrap_or(0),
        group: signed(2),
        session: signed(3),
        terminal_number: number(4),
        state: fields.first().and_then(|text| text.chars().next()).unwrap_or('?'),
        nice: signed(16),
        started: number(19),
        virtual_memory: number(20),
        resident: field(&status, "VmRSS") * 1024,
        name: name.to_owned(),
        ticks: number(11) + number(12),
        memory: memory(directory, &status),
        io: (field(&io, "read_bytes"), field(&io, "write_bytes")),
        threads: number(17),
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}

/// The last of the numbers that a process has.
fn innermost(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

impl Process {
    /// Its terminal as ps shows it: `pts/0`, `tty1`, or `?` for none.
    pub fn terminal(&self) -> String {
        let minor = (self.terminal_number & 0xff) | ((self.terminal_number >> 12) & 0xf_ff00);
        match (self.terminal_number >> 8) & 0xfff {
            0 => "?".to_owned(),
            4 => format!("tty{minor}"),
            136..=143 => format!("pts/{minor}"),
            major => format!("{major}:{minor}"),
        }
    }
}

/// Bytes received and sent by a network namespace, but for those of loopback.
fn network(pid: u32) -> (u64, u64) {
    let text = read(&PathBuf::from(format!("/proc/{pid}/net/dev")));
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let counts = lines.filter(|(name, _)| name.trim() != "lo").map(|(_, counts)| {
        let numbers: Vec<u64> = counts.split_whitespace().flat_map(str::parse).collect();
        (numbers.first().copied().unwrap_or(0), numbers.get(8).copied().unwrap_or(0))
    });
    counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// In how many process namespaces a process has a number, from that of `/proc` on.
fn levels(pid: &str) -> usize {
    let status = read(&PathBuf::from(format!("/proc/{pid}/status")));
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.map_or(0, |numbers| numbers.split_whitespace().count())
}

/// The processes of a namespace by its first one: those that are known to be in it, and those that come
/// from it. Which namespace a process of another user is in is not shown to an ordinary user.
fn inside(first: u32) -> Result<Vec<u32>> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let parent = |pid: u32| {
        let stat = read(&PathBuf::from(format!("/proc/{pid}/stat")));
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let own = namespace(first);
    let entries = std::fs::read_dir("/proc").map_err(Error::file("reading", "/proc"))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let comes_from = |pid: u32| {
        std::iter::successors(Some(pid), |pid| parent(*pid))
            .take_while(|pid| *pid > 1)
            .any(|pid| pid == first)
    };
    let known = |pid: &u32| own.is_some() && namespace(*pid) == own || comes_from(*pid);
    Ok(names.filter_map(|name| name.parse().ok()).filter(known).collect())
}

impl Container {
    /// Its processes, by number: those of its process namespace; where that is the machine's, those
    /// of its cgroup, or its first alone.
    ///
    /// # Errors
    /// [`Error::NotRunning`]
    pub fn processes(&self) -> Result<Vec<Process>> {
        let not_running =
            || Error::NotRunning { name: self.name().to_owned(), phase: self.phase().as_str() };
        let state = self.state().filter(|_| self.is_running()).ok_or_else(not_running)?;
        let shared = levels(&state.pid.to_string()) == levels("self");
        let listed: Vec<u32> = match (shared, state.cgroups.first()) {
            (false, _) => inside(state.pid)?,
            (true, Some(cgroup)) => {
                read(&cgroup.join("cgroup.procs")).lines().flat_map(str::parse).collect()
            }
            (true, None) => vec![state.pid],
        };
        let mut found: Vec<Process> = listed
            .into_iter()
            .filter_map(|pid| process(&PathBuf::from(format!("/proc/{pid}")), pid))
            .collect();
        found.sort_by_key(|process| process.pid);
        Ok(found)
    }

    /// What it uses now.
    ///
    /// # Errors
    /// As [`Container::processes`].
    pub fn usage(&self) -> Result<Usage> {
        let processes = self.processes()?;
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let pid = self.state().map_or(0, |state| state.pid);
        let mut usage = Usage {
            limit: self.record().spec.limits.memory,
            network: network(pid),
            ..Usage::default()
        };
        for process in &processes {
            usage.cpu += process.ticks * 1_000_000 / ticks;
            usage.memory += process.memory;
            usage.io = (usage.io.0 + process.io.0, usage.io.1 + process.io.1);
            usage.pids += process.threads;
        }
        Ok(usage)
    }
}
