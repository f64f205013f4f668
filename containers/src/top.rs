//! Processes as a table, with the columns that options of ps ask for.

use std::collections::BTreeMap;

use task::SyntaxError;

use crate::Process;

/// How processes are shown.
#[derive(Debug, Clone, Copy)]
pub struct TopView {
    /// Seconds since 1970.
    pub now: i64,
    /// Whether processes have the numbers that they have in the container, as podman shows them.
    pub inside: bool,
}

/// Bytes of memory that this machine has; 0 if that is not known.
pub fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// The table of processes with the columns that `options` name: `-o pid,cmd`, `-ef`, `aux`, or
/// names of columns.
///
/// # Errors
/// There is no such column.
pub fn process_table(
    processes: &[Process],
    options: &[String],
    wanted: TopView,
) -> Result<String, SyntaxError> {
    let machine = Surroundings::new(processes, wanted);
    let mut header = Vec::new();
    let mut shown = Vec::new();
    for text in columns(options)? {
        // As ps: `pid=NUMBER` names the column.
        let (name, title) = match text.split_once('=') {
            Some((name, title)) => (name.to_owned(), Some(title.to_owned())),
            None => (text, None),
        };
        let lower = name.to_ascii_lowercase();
        let known = COLUMNS.iter().find(|(names, ..)| names.contains(&lower.as_str()));
        let (_, usual, show) = known.ok_or_else(|| {
            let all = COLUMNS.iter().map(|(names, ..)| names[0]).collect::<Vec<_>>();
            let all = all.join(", ");
            SyntaxError::new(format!("there is no column {name:?}; the columns are {all}"))
        })?;
        header.push(title.unwrap_or_else(|| (*usual).to_owned()));
        shown.push(show);
    }
    let rows = processes
        .iter()
        .map(|process| shown.iter().map(|show| show(process, &machine)).collect::<Vec<String>>());
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Ok(format::table(&header, &rows.collect::<Vec<_>>()))
}

/// What ps and podman call a column, its title, and what it shows.
type Column = (&'static [&'static str], &'static str, fn(&Process, &Surroundings) -> String);

const COLUMNS: &[Column] = &[
    (&["uid"], "UID", |process, _| process.uid.to_string()),
    (&["user", "euser", "huser"], "USER", |process, machine| machine.user(process.uid)),
    (&["gid"], "GID", |process, _| process.gid.to_string()),
    (&["group", "egroup", "hgroup"], "GROUP", |process, machine| machine.group(process.gid)),
    (&["pid"], "PID", |process, machine| machine.pid(process).to_string()),
    (&["hpid"], "HPID", |process, _| process.pid.to_string()),
    (&["ppid"], "PPID", |process, machine| machine.parent(process).to_string()),
    (&["pgid", "pgrp"], "PGID", |process, _| process.group.to_string()),
    (&["sid", "sess", "session"], "SID", |process, _| process.session.to_string()),
    (&["c"], "C", |process, machine| format!("{:.0}", machine.cpu(process))),
    (&["pcpu", "%cpu"], "%CPU", |process, machine| format!("{:.1}", machine.cpu(process))),
    (&["pmem", "%mem"], "%MEM", |process, machine| format!("{:.1}", machine.memory(process))),
    (&["vsz", "vsize"], "VSZ", |process, _| (process.virtual_memory / 1024).to_string()),
    (&["rss", "rssize"], "RSS", |process, _| (process.resident / 1024).to_string()),
    (&["tty", "tt", "tname"], "TTY", |process, _| process.terminal()),
    (&["stat", "state", "s"], "STAT", |process, _| process.state.to_string()),
    (&["ni", "nice"], "NI", |process, _| process.nice.to_string()),
    (&["nlwp", "thcount"], "NLWP", |process, _| process.threads.to_string()),
    (&["stime", "start"], "STIME", |process, machine| machine.started(process)),
    (&["time", "cputime"], "TIME", |process, machine| clock(process.ticks / machine.ticks)),
    (&["etime", "elapsed"], "ELAPSED", |process, machine| clock(machine.age(process))),
    (&["etimes"], "ELAPSED", |process, machine| machine.age(process).to_string()),
    (&["comm", "ucmd"], "COMMAND", |process, _| process.name.clone()),
    (&["cmd", "args", "command"], "CMD", |process, _| process.command.clone()),
];

const USUAL: &[&str] = &["uid", "pid", "ppid", "time", "cmd"];
const FULL: &[&str] = &["user", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
const USER: &[&str] =
    &["user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "stime", "time", "cmd"];

/// What is known of the machine.
struct Surroundings {
    ticks: u64,
    now: i64,
    uptime: f64,
    bytes: u64,
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
    /// Numbers of processes in the container, by those of the machine; podman shows them.
    inside: BTreeMap<u32, u32>,
}

/// Names by id, of a file such as /etc/passwd.
fn names(path: &str) -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    });
    entries.collect()
}

/// `01:02:03`
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

impl Surroundings {
    fn new(processes: &[Process], wanted: TopView) -> Surroundings {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split_whitespace().next().and_then(|text| text.parse().ok());
        let inside = match wanted.inside {
            true => processes.iter().map(|one| (one.pid, one.inside)).collect(),
            false => BTreeMap::new(),
        };
        Surroundings {
            ticks: rustix::param::clock_ticks_per_second().max(1),
            uptime: uptime.unwrap_or_default(),
            bytes: machine_memory().max(1),
            now: wanted.now,
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
            inside,
        }
    }

    fn user(&self, id: u32) -> String {
        self.users.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    fn group(&self, id: u32) -> String {
        self.groups.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    fn pid(&self, process: &Process) -> u32 {
        self.inside.get(&process.pid).copied().unwrap_or(process.pid)
    }

    /// A parent outside is 0 inside.
    fn parent(&self, process: &Process) -> u32 {
        let outside = if self.inside.is_empty() { process.parent } else { 0 };
        self.inside.get(&process.parent).copied().unwrap_or(outside)
    }

    /// Seconds since it was started.
    fn age(&self, process: &Process) -> u64 {
        let started = process.started as f64 / self.ticks as f64;
        (self.uptime - started).max(0.0) as u64
    }

    /// Percent of a CPU in its life.
    fn cpu(&self, process: &Process) -> f64 {
        let used = process.ticks as f64 / self.ticks as f64;
        used * 100.0 / (self.age(process).max(1) as f64)
    }

    /// Percent of the machine's memory.
    fn memory(&self, process: &Process) -> f64 {
        process.resident as f64 * 100.0 / self.bytes as f64
    }

    /// The time of day it was started at, in UTC.
    fn started(&self, process: &Process) -> String {
        let age = i64::try_from(self.age(process)).unwrap_or(0);
        let time = jiff::Timestamp::from_second(self.now - age);
        time.map(|time| time.strftime("%H:%M").to_string()).unwrap_or_default()
    }
}

/// The columns that options of ps or names of columns ask for.
fn columns(options: &[String]) -> std::result::Result<Vec<String>, SyntaxError> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut found: Vec<String> = Vec::new();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match option.as_str() {
            "-o" | "o" | "-eo" | "--format" => {
                let list = rest.next().ok_or_else(|| {
                    SyntaxError::new(format!("{option}: expected names of columns"))
                })?;
                found.extend(list.split(',').map(str::to_owned));
            }
            "-e" | "-A" | "-a" | "a" | "x" | "ax" | "-ax" => {}
            "-f" | "-ef" | "ef" | "-Af" => found = owned(FULL),
            "u" | "aux" | "-aux" | "-u" | "axu" | "auxw" | "auxww" => found = owned(USER),
            text if text.strip_prefix("-o").or(text.strip_prefix("-eo")).is_some() => {
                let list = text.trim_start_matches("-eo").trim_start_matches("-o");
                found.extend(list.split(',').map(str::to_owned));
            }
            text => found.extend(text.split(',').map(str::to_owned)),
        }
    }
    Ok(if found.is_empty() { owned(USUAL) } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ps_choose_columns() {
        let read = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|one| (*one).to_owned()).collect();
            columns(&options).unwrap()
        };
        assert_eq!(read(&[]), USUAL);
        assert_eq!(read(&["-ef"]), FULL);
        assert_eq!(read(&["aux"]), USER);
        assert_eq!(read(&["-o", "pid,cmd"]), ["pid", "cmd"]);
        assert_eq!(read(&["-opid,cmd"]), ["pid", "cmd"]);
        assert_eq!(read(&["-eo", "pid"]), ["pid"]);
        assert_eq!(read(&["pid", "comm"]), ["pid", "comm"]);
        assert!(columns(&["-o".to_owned()]).is_err());
        for names in [USUAL, FULL, USER] {
            assert!(names.iter().all(|name| COLUMNS.iter().any(|(all, ..)| all.contains(name))));
        }
    }
}
