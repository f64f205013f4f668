//! What `docs/docker.md` says of the flags of `docker run` and `podman run` is so, for root and for an
//! ordinary user: each flag that works is tried, by a row of `run_flags/table`, which says how.
//!
//! ```text
//! WHO FLAG VALUE :: PROBE :: EXPECTED
//! ```
//!
//! WHO is `root`, `user` or `both`. PROBE is a line for the shell of a container that is run with the
//! flag, or after `$` a line with {} for the flag. With the flag it prints EXPECTED, without it not.
//! Where EXPECTED begins with `!`, it fails with the flag alone, and the error has the words behind.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::process::Command;

use e2e::registry::DockerRegistry;
use e2e::user::User;
use e2e::{Bench, Ran, repository, root, run};

/// The name, password and image at the registry.
const LOGIN: &str = "me:geheim";

/// The flags in the table of the documentation, and whether they work.
fn documented() -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(repository().join("docs/docker.md")).unwrap();
    let section = text.split("## Flags of `run`").nth(1).expect("the heading");
    let rows = section.lines().filter(|line| line.starts_with("| `--"));
    let cells = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[3].starts_with("works"))
    };
    rows.map(cells).collect()
}

struct Row {
    /// Whether it is for root, and whether for a user.
    root: bool,
    user: bool,
    flag: String,
    probe: String,
    expected: String,
}

fn table() -> Vec<Row> {
    let path = repository().join("tests/tests/run_flags/table");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|row| !row.is_empty() && !row.starts_with('#'));
    let row = |row: &str| {
        let parts: Vec<&str> = row.split(" :: ").collect();
        let [head, probe, expected] = parts[..] else { panic!("the row {row:?} is malformed") };
        let (who, flag) = head.split_once(' ').expect("who, and a flag");
        assert!(["root", "user", "both"].contains(&who), "{row}");
        let (flag, probe, expected) = (flag.to_owned(), probe.to_owned(), expected.to_owned());
        Row { root: who != "user", user: who != "root", flag, probe, expected }
    };
    rows.map(row).collect()
}

/// The name of a flag with its value.
fn name(flag: &str) -> &str {
    flag.split([' ', '=']).next().unwrap_or_default()
}

/// A store with images, files, and a registry that wants a password.
struct Scene<'a> {
    bench: Bench,
    registry: &'a str,
    block: &'a str,
}

impl<'a> Scene<'a> {
    fn new(bench: Bench, registry: &'a str, block: &'a str) -> Self {
        let scene = Scene { bench, registry, block };
        let bench = &scene.bench;
        bench.busybox();
        bench.write("args.env", "V=3\n");
        bench.write("labels", "matrix=file\n");
        bench.write("dir/b", "b\n");
        let login = base64(LOGIN);
        let auth = format!("{{\"auths\":{{\"{registry}\":{{\"auth\":\"{login}\"}}}}}}");
        bench.write("auth.json", auth);
        std::fs::create_dir_all(bench.path().join("tree/bin")).unwrap();
        std::fs::copy("/bin/busybox", bench.path().join("tree/bin/sh")).unwrap();
        let with =
            "FROM busybox\nENV MATRIX=1\nRUN mkdir /data; echo seed >/data/seed\nVOLUME /data\n";
        bench.build("with", with, &[]).ok();
        bench.build("checked", "FROM busybox\nHEALTHCHECK CMD true\n", &[]).ok();
        bench.write("alone/Dockerfile", "FROM busybox\nARG N\nLABEL n=$N\n");
        bench.rbuild(["push", "-q", "--creds", LOGIN, "busybox", &scene.image()]).ok();
        if bench.is_of_a_user() {
            run(Command::new("chown")
                .args(["--reference=home", "-R", "tree"])
                .current_dir(bench.path()))
            .ok();
        }
        scene
    }

    fn image(&self) -> String {
        format!("{}/team/one:1", self.registry)
    }

    /// A line of a shell, in which `rbuild` is ours and runs as the user of the bench.
    fn shell(&self, line: &str, number: &str, probe: &str) -> Ran {
        let own = self.bench.command("rbuild");
        let program = own.get_program().to_owned();
        let before: Vec<_> = own.get_args().map(std::ffi::OsStr::to_owned).collect();
        // The last argument is our program; what stands before it makes the shell the user's.
        let mut command = match before.split_last() {
            None => Command::new("timeout"),
            Some((_, become_user)) => {
                let mut command = Command::new(program);
                command.args(become_user).arg("timeout");
                command
            }
        };
        command.args(["-k", "1", "90", "bash", "-c", line]).env_clear();
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let here = self.bench.path();
        let bin = here.join("bin").display().to_string();
        command.env("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"));
        command.env("REGISTRY", self.registry).env("N", number).env("PROBE", probe);
        command.env("FROM_HOST", "yes").env("BLOCK", self.block);
        for kind in ["cgroup", "ipc", "pid", "user", "uts"] {
            let space = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            command.env(format!("HOST_{}", kind.to_uppercase()), space);
        }
        run(command.current_dir(here))
    }

    /// What is wrong with a row.
    fn check(&self, at: usize, row: &Row) -> Option<String> {
        let usual = format!(
            "rbuild run --rm {} -e HOST_CGROUP -e HOST_IPC -e HOST_PID -e HOST_UTS -e HOST_USER busybox sh -c \"$PROBE\"",
            "{}"
        );
        let line = row.probe.strip_prefix("$ ").unwrap_or(&usual);
        let ran = ["", row.flag.as_str()].map(|flag| {
            let number = format!("t{at}{}", if flag.is_empty() { "a" } else { "b" });
            let ran = self.shell(&line.replace("{}", flag), &number, &row.probe);
            self.bench.rbuild(["rm", "-f", "-a", "-v"]).ok();
            ran
        });
        let [without, with] = &ran;
        let holds = match row.expected.strip_prefix("! ") {
            Some(words) => without.code == 0 && with.code != 0 && with.stderr.contains(words),
            None => with.stdout.contains(&row.expected) && !without.stdout.contains(&row.expected),
        };
        let wrong =
            || format!("{}: {}\n{}\n{}", row.flag, row.expected, without.told(), with.told());
        (!holds).then(wrong)
    }
}

/// A loop device of this test alone. Its requests are scheduled by bfq, the only one that knows weights.
struct LoopDevice {
    path: String,
    weights: bool,
    _file: tempfile::NamedTempFile,
}

impl LoopDevice {
    fn new() -> LoopDevice {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let made = run(Command::new("losetup").args(["--find", "--show"]).arg(file.path())).ok();
        let path = made.stdout.trim().to_owned();
        let scheduler = path.replace("/dev/", "/sys/block/") + "/queue/scheduler";
        let weights = std::fs::write(scheduler, "bfq").is_ok();
        LoopDevice { path, weights, _file: file }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.path]).status();
    }
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in text.as_bytes().chunks(3) {
        let number = part.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        let number = number << (8 * (3 - part.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize] as char;
            out.push(if place <= part.len() { letter } else { '=' });
        }
    }
    out
}

fn check(bench: Bench, rows: &[Row], block: &str) {
    let Some(registry) = DockerRegistry::with_password("me", "geheim") else { return };
    let bin = bench.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(e2e_program(&bench), bin.join("rbuild")).unwrap();
    let scene = Scene::new(bench, &registry.address, block);
    let wrong: Vec<String> =
        rows.iter().enumerate().filter_map(|(at, row)| scene.check(at, row)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n\n"));
}

/// The program as the bench runs it.
fn e2e_program(bench: &Bench) -> std::path::PathBuf {
    let own = bench.path().join("rbuild");
    if own.exists() { own } else { e2e::binary("rbuild") }
}

#[test]
fn every_flag_that_works_has_a_row_for_root_and_one_for_a_user() {
    let rows = table();
    let has = |of: fn(&Row) -> bool| -> BTreeSet<&str> {
        rows.iter().filter(|row| of(row)).map(|row| name(&row.flag)).collect()
    };
    let (root, user) = (has(|row| row.root), has(|row| row.user));
    let documented = documented();
    assert!(documented.len() >= 146);
    for (flag, works) in &documented {
        let rows = (root.contains(flag.as_str()), user.contains(flag.as_str()));
        assert_eq!(rows, (*works, *works), "{flag}");
    }
}

#[test]
fn the_flags_of_run_do_for_root_what_the_table_says() {
    if root() {
        let block = LoopDevice::new();
        if !block.weights {
            requires::cannot("the kernel has no bfq scheduler");
        }
        let can = |row: &Row| block.weights || name(&row.flag) != "--blkio-weight-device";
        let rows: Vec<Row> = table().into_iter().filter(|row| row.root && can(row)).collect();
        check(Bench::new(), &rows, &block.path);
    }
}

#[test]
fn the_flags_of_run_do_for_a_user_what_the_table_says() {
    let Some(user) = User::get() else { return };
    let rows: Vec<Row> = table().into_iter().filter(|row| row.user).collect();
    let mut devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let block = devices.next().map(|device| format!("/dev/{}", device.file_name().display()));
    check(Bench::of(user.uid, user.gid), &rows, &block.expect("a block device"));
}
