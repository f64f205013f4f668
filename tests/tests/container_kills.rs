//! `kill -9` of whatever works for containers, at instants chosen by progress: each process that a
//! command starts (its supervisor, monitor, guard, network, the program) is killed at its Nth system
//! call that changes something. No container, address, port, mount, cgroup or name may be lost.
//!
//! `RBUILD_KILL_ROUNDS=N` for another number of rounds, `RBUILD_KILL_SEED=N` to repeat.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use e2e::kill::{Chance, wait_for_none};
use e2e::user::{NAME, User};
use e2e::{Bench, root};

const ROUNDS: u64 = 200;
/// Rounds after which everything is removed and looked for.
const STRETCH: u64 = 20;

/// What changes something that others see.
const CALLS: &str = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,write,\
                     pwrite64,sendmsg,sendto,connect,bind,flock,clone3,execve,move_mount,fsmount,\
                     setns,unshare,chdir,dup2";

/// The commands, with the name of the container they are about.
const DEEDS: [(&str, &[&str]); 17] = [
    ("run", &["-d", "--network=web", "-v", "data:/data", "-p", "PORT:80"]),
    ("create", &["--network=web", "-v", "/anonymous"]),
    ("start", &[]),
    ("run", &["-d", "--restart=always", "-m", "64m"]),
    ("restart", &["-t", "0"]),
    ("stop", &["-t", "0"]),
    ("run", &["--rm", "-v", "data:/data"]),
    ("update", &["--pids-limit=100"]),
    ("kill", &[]),
    ("exec", &[]),
    ("pause", &[]),
    ("unpause", &[]),
    ("commit", &["--include-volumes"]),
    ("network", &["connect", "web"]),
    ("network", &["disconnect", "web"]),
    ("run", &["-d", "--userns=auto", "--network=web", "-v", "data:/data"]),
    ("rm", &["-f", "-v"]),
];

/// Those that root alone can do: with a cgroup.
fn needs_root((verb, flags): &(&str, &[&str])) -> bool {
    ["update", "pause", "unpause"].contains(verb) || flags.contains(&"-m")
}

/// A user's own.
const OF_A_USER: (&str, &[&str]) = ("run", &["-d", "--userns=keep-id", "--network=web"]);

struct Rounds {
    bench: Bench,
    deeds: Vec<(&'static str, &'static [&'static str])>,
    chance: Chance,
    port: u16,
    /// Those that `run` made.
    run: BTreeSet<String>,
    /// How many commands were killed before their end.
    kills: u64,
    /// How many containers ran after the rounds.
    running: u64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Rounds {
    /// Runs a command whose processes are killed at their Nth call; whether it was killed itself.
    fn killed(&self, line: &[String], at: u64) -> bool {
        let mut command = Command::new("strace");
        let inject = format!("inject={CALLS}:signal=KILL:when={at}");
        let trace = format!("trace={CALLS}");
        command.args(["-D", "-f", "-qqq", "-o", "/dev/null"]);
        command.args(["-e", &trace, "-e", &inject]);
        if self.bench.is_of_a_user() {
            // Programs with rights of their own keep them below a tracer of root's only.
            command.args(["-u", NAME]).arg(self.bench.path().join("rbuild"));
        } else {
            command.arg(e2e::binary("rbuild"));
        }
        command.args(line);
        let own = self.bench.command("rbuild");
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.bench.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("strace runs").signal() == Some(9)
    }

    /// Every container that `ps` knows.
    fn ids(&self) -> BTreeSet<String> {
        let list = self.bench.rbuild(["ps", "-a", "-q", "--no-trunc"]).ok();
        list.stdout.lines().map(str::to_owned).collect()
    }

    /// Those that only `rm` removes: not those of `run --rm`, which end and go at any time, nor what is
    /// left of a `run` that was killed before it started its container, which holds no name.
    fn lasting(&self) -> BTreeSet<String> {
        let mut all = self.ids();
        all.retain(|id| {
            let format = "{{.HostConfig.AutoRemove}} {{.State.Status}}";
            let look = ["inspect", "--type=container", "--format", format, id];
            match self.bench.rbuild(look).text() {
                "false created" => !self.run.contains(id),
                told => told.starts_with("false "),
            }
        });
        all
    }

    fn round(&mut self) {
        let (verb, flags) = self.deeds[self.chance.below(self.deeds.len() as u64) as usize];
        let name = format!("c{}", self.chance.below(4));
        // Early calls are likelier: most processes make fewer than their starter.
        let most = [30, 90, 250, 600][self.chance.below(4) as usize];
        let at = 1 + self.chance.below(most);
        let mut line = vec![verb.to_owned()];
        line.extend(flags.iter().map(|flag| flag.replace("PORT", &self.port.to_string())));
        match verb {
            "run" | "create" => {
                line.push(format!("--name={name}"));
                let program = if flags.contains(&"--rm") { "true" } else { "sleep" };
                line.extend(["busybox", program, "1000"].map(str::to_owned));
            }
            "exec" => line.extend([name.as_str(), "true"].map(str::to_owned)),
            _ => line.push(name.clone()),
        }
        let (known, before) = (self.ids(), self.lasting());
        eprintln!("{} at {at}", line.join(" "));
        self.kills += u64::from(self.killed(&line, at));
        let after = self.ids();
        if verb == "run" {
            self.run.extend(after.difference(&known).cloned());
        }
        let removed: Vec<&String> = before.difference(&after).collect();
        let may_remove = verb == "rm";
        assert!(removed.is_empty() || may_remove, "{line:?} at {at} loses {removed:?}");
        assert!(removed.len() <= 1, "{line:?} at {at} loses {removed:?}");
        for id in &after {
            let look = ["inspect", "--type=container", "--format", "{{.State.Status}}", id];
            let told = self.bench.rbuild(look);
            assert!(told.code == 0 || !before.contains(id), "{}", told.told());
            self.running += u64::from(told.text() == "running");
        }
    }

    /// Removes everything with commands that nobody kills, and looks for what is left.
    fn clear(&self) {
        let ids = self.ids();
        // A name that was taken when its maker was killed is free, or its container is there.
        for name in ["c0", "c1", "c2", "c3"] {
            let flags = ["run", "--rm", "--replace", "--network=web"];
            let name = format!("--name={name}");
            self.bench.rbuild([&flags[..], &[&name, "busybox", "true"]].concat()).ok();
        }
        self.bench.rbuild(["rm", "-f", "-a", "-v"]).ok();
        assert!(self.ids().is_empty(), "all containers can be removed");
        wait_for_none(&self.bench.store().display().to_string());
        let place = self.bench.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&place)).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
        // The next container in the same place sweeps what the killed have left.
        let limit = if self.bench.is_of_a_user() { "--init" } else { "--memory=64m" };
        self.bench.rbuild(["run", "--name=last", limit, "busybox", "true"]).ok();
        self.bench.rbuild(["rm", "last"]).ok();
        for tree in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for id in &ids {
                let left = tree.path().join(format!("rbuild/rbuild-{id}"));
                assert!(!left.exists(), "{} is left", left.display());
            }
        }
        TcpListener::bind(("0.0.0.0", self.port)).expect("the port is free");
        self.bench.rbuild(["volume", "rm", "data"]);
        self.bench.rbuild(["volume", "prune", "--all", "-f"]).ok();
        let volumes = self.bench.rbuild(["volume", "ls", "-q"]).ok().stdout;
        assert_eq!(volumes, "", "volumes are left");
        // Nobody has an address: the network can be removed, and the kernel knows nothing of it.
        self.bench.rbuild(["network", "rm", "web"]).ok();
        let links = e2e::run(Command::new("ip").args(["-br", "link", "show"])).ok().stdout;
        assert!(!links.contains("rb-") && !links.contains("rbv"), "devices are left: {links}");
        self.bench.rbuild(["network", "create", "web"]).ok();
        self.bench.rbuild(["check"]).ok();
    }
}

fn go(bench: Bench, deeds: Vec<(&'static str, &'static [&'static str])>) {
    if requires::program("strace").is_none() || requires::program("ip").is_none() {
        return;
    }
    let _netns = e2e::netns::Netns::enter();
    let seed = number("RBUILD_KILL_SEED", 7);
    eprintln!("RBUILD_KILL_SEED={seed}");
    bench.busybox();
    bench.rbuild(["network", "create", "web"]).ok();
    let port = e2e::free_port();
    let chance = Chance::new(seed);
    let mut rounds =
        Rounds { bench, deeds, chance, port, run: BTreeSet::new(), kills: 0, running: 0 };
    let began = Instant::now();
    let count = number("RBUILD_KILL_ROUNDS", ROUNDS);
    for round in 1..=count {
        rounds.round();
        if round % STRETCH == 0 {
            rounds.clear();
            eprintln!("{round} rounds after {:?}", began.elapsed());
        }
    }
    rounds.clear();
    assert!(rounds.kills > count / 6, "{} of {count} commands were killed", rounds.kills);
    assert!(rounds.running > count / 10, "containers ran {} times", rounds.running);
}

#[test]
fn a_kill_at_any_instant_loses_no_container_address_port_mount_cgroup_or_name() {
    if root() {
        go(Bench::new(), DEEDS.to_vec());
    }
}

#[test]
fn a_kill_at_any_instant_loses_nothing_of_an_ordinary_user() {
    let Some(user) = User::get() else { return };
    let own = DEEDS.into_iter().filter(|deed| !needs_root(deed)).chain([OF_A_USER]);
    go(Bench::of(user.uid, user.gid), own.collect());
}
