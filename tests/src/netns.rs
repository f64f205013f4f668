//! A network namespace for one test: what it does to the network ends with it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;

use crate::run;

/// This machine, as the test has it, and a neighbour of it.
pub struct Netns {
    world: Child,
}

impl Netns {
    /// The address of this machine.
    pub const HERE: &str = "198.51.100.1";
    /// The address of the neighbour, by which the default route goes.
    pub const WORLD: &str = "198.51.100.2";

    /// Moves the thread of the test to a network namespace that has one neighbour. Needs root and
    /// iproute2.
    pub fn enter() -> Netns {
        // SAFETY: the network namespace is a property of this thread.
        #[allow(unsafe_code)]
        let moved = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        moved.expect("a network namespace");
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let world = Netns { world: command.spawn().expect("unshare") };
        let pid = world.world.id();
        let of = |process: String| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let began = Instant::now();
        while of("thread-self".to_owned()) == of(pid.to_string()) {
            assert!(began.elapsed() < Duration::from_secs(30), "no neighbour comes");
            std::thread::sleep(Duration::from_millis(5));
        }
        let ip = |line: &str| drop(run(Command::new("ip").args(line.split(' '))).ok());
        ip("link set lo up");
        ip(&format!("link add up0 type veth peer name up0 netns {pid}"));
        ip("address add 198.51.100.1/24 dev up0");
        ip("address add 2001:db8::1/64 dev up0 nodad");
        ip("link set up0 up");
        for line in [
            "link set lo up",
            "address add 198.51.100.2/24 dev up0",
            "address add 2001:db8::2/64 dev up0 nodad",
            "link set up0 up",
        ] {
            let mut inside = world.command("ip");
            run(inside.args(line.split(' '))).ok();
        }
        ip("route add default via 198.51.100.2");
        ip("-6 route add default via 2001:db8::2");
        world
    }

    /// A process of the neighbour.
    pub fn pid(&self) -> u32 {
        self.world.id()
    }

    /// A command at the neighbour.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.world.id().to_string(), program]);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.world.kill();
        let _ = self.world.wait();
    }
}

/// The process that holds the network of a container, by the number of the container's first process;
/// the process above it is its guard.
pub fn holder(pid: u32) -> Option<u32> {
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let numbers =
        processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    numbers.into_iter().find(|number| {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let fds = std::fs::read_dir(format!("/proc/{number}/fd")).into_iter().flatten().flatten();
        line.starts_with(b"container-network\0")
            && fds.into_iter().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == own))
    })
}

/// The process above another one.
pub fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Kills a process.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a kill");
}
