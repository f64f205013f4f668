//! One measured run of a program: wall time, CPU time and peak memory of its process tree.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result, context, last_lines};

/// What one run used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds from the start of the program to its end.
    pub(crate) wall: f64,
    /// Seconds of CPU, user and system, of the program and its children.
    pub(crate) cpu: f64,
    /// Bytes: the process tree at its largest, where memory was sampled; else nothing. (What the kernel
    /// counts of a child begins with what its parent had.)
    pub(crate) peak: u64,
}

impl Usage {
    /// One run after the other.
    pub(crate) fn and(self, next: Usage) -> Usage {
        Usage {
            wall: self.wall + next.wall,
            cpu: self.cpu + next.cpu,
            peak: self.peak.max(next.peak),
        }
    }

    /// What each of `count` further steps added from `self` to `longer`.
    pub(crate) fn slope(self, longer: Usage, count: u32) -> Usage {
        Usage {
            wall: (longer.wall - self.wall) / f64::from(count),
            cpu: (longer.cpu - self.cpu) / f64::from(count),
            peak: longer.peak,
        }
    }
}

/// Runs a program to its end; its output goes to a file in `scratch`. With `sample` the memory of
/// the whole process tree is looked at every few milliseconds, which costs time: such runs are not
/// timed by the caller. What others left to be written to the disk is written first.
pub(crate) fn run(command: &mut Command, scratch: &Path, sample: bool) -> Result<Usage> {
    let log = scratch.join("output");
    let create = || context("making the output file", File::create(&log));
    command
        .stdin(Stdio::null())
        .stdout(create()?)
        .stderr(context("opening the output file", File::options().append(true).open(&log))?);
    let disk = context("opening the scratch directory", File::open(scratch))?;
    context("writing out what is dirty", rustix::fs::syncfs(&disk))?;
    // What earlier, unmeasured programs left is not this one's.
    reap();
    let start = Instant::now();
    let child = context(&format!("starting {command:?}"), command.spawn())?;
    let pid = child.id().cast_signed();
    let (waited, tree) = if sample { watched(pid) } else { (wait(pid), 0) };
    let wall = start.elapsed();
    let (status, rusage) = waited?;
    let strays = reap();
    if status != 0 {
        let text = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let end = last_lines(&text);
        return Err(Failure::new(format!("{command:?} ended with {status:#x}: {end}")));
    }
    Ok(Usage { wall: wall.as_secs_f64(), cpu: cpu(&rusage) + strays, peak: tree })
}

fn cpu(rusage: &libc::rusage) -> f64 {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(rusage.ru_utime) + seconds(rusage.ru_stime)
}

fn wait(pid: i32) -> Result<(i32, libc::rusage)> {
    // SAFETY: all-zero is a valid rusage.
    let mut rusage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    loop {
        // SAFETY: both pointers are to live locals; `pid` is our unreaped child.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut rusage) };
        let error = std::io::Error::last_os_error();
        match got {
            got if got == pid => return Ok((status, rusage)),
            _ if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return Err(Failure::new(format!("waiting for process {pid}: {error}"))),
        }
    }
}

/// Takes the exit of processes that detached from measured programs; their CPU seconds. Registries
/// have process groups of their own and are not among them.
fn reap() -> f64 {
    let mut total = 0.0;
    loop {
        // SAFETY: all-zero is a valid rusage.
        let mut rusage: libc::rusage = unsafe { std::mem::zeroed() };
        let mut status = 0;
        // SAFETY: both pointers are to live locals; no process is waited for elsewhere meanwhile.
        let got = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut rusage) };
        if got <= 0 {
            return total;
        }
        total += cpu(&rusage);
    }
}

fn watched(pid: i32) -> (Result<(i32, libc::rusage)>, u64) {
    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let waited = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(tree_memory(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let waited = wait(pid);
        over.store(true, Ordering::Relaxed);
        waited
    });
    (waited, peak.into_inner())
}

/// Bytes of memory of a process and all its descendants now, shared pages counted once.
fn tree_memory(root: i32) -> u64 {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut todo, mut total) = (vec![root], 0);
    while let Some(pid) = todo.pop() {
        total += proportional(pid);
        todo.extend(children.remove(&pid).unwrap_or_default());
    }
    total
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn proportional(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
