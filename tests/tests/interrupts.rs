//! What ends a command that waits for somebody who says nothing: Ctrl-C, and the time that it was
//! given.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::watch::guarded;
use e2e::{Bench, Ran, eventually};
use serde_json::json;

fn started(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends SIGINT to a command that waits, and gives back how it ended.
fn interrupted(child: Child, line: &[&str]) -> Ran {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Ran { line: line.join(" "), code, stdout: String::new(), stderr }
}

/// A named pipe.
fn pipe(bench: &Bench) -> PathBuf {
    let pipe = bench.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    pipe
}

/// Writes a policy that demands a signature by the key in a file.
fn demand(bench: &Bench, key: &Path) {
    let demand = json!({"type": "sigstoreSigned", "keyPath": key});
    bench.write("policy.json", json!({"default": [demand]}).to_string());
}

#[test]
fn an_interrupted_command_ends_while_the_server_still_holds() {
    let bench = Bench::new();
    for [program, verb, to] in
        [["rcopy", "validate", ""], ["rcopy", "copy", "oci:x:app"], ["rbuild", "pull", ""]]
    {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("docker://{}/team/app:1", server.local_addr().unwrap());
        let line = [program, verb, &at, to];
        let line: Vec<&str> = line.into_iter().filter(|word| !word.is_empty()).collect();
        let child = started(bench.command(program).args(&line[1..]));
        let (held, _) = server.accept().unwrap();
        let ran = interrupted(child, &line);
        drop(held);
        assert_eq!(ran.code, 130, "{line:?}: {}", ran.told());
        assert!(!ran.stderr.contains("did not answer"), "{}", ran.told());
    }
}

#[test]
fn an_interrupted_command_ends_while_its_gate_waits_for_a_key() {
    let bench = Bench::new();
    let pipe = pipe(&bench);
    demand(&bench, &pipe);
    e2e::image::busybox(&bench.path().join("layout"));
    let line = ["--policy=policy.json", "copy", "oci:layout:busybox", "oci:x:app"];
    let child = started(bench.command("rcopy").args(line));
    // A writer is let in once somebody reads.
    let mut writer = None;
    eventually("the key is read", || {
        let mut open = std::fs::OpenOptions::new();
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        writer = open.write(true).custom_flags(nonblocking).open(&pipe).ok();
        writer.is_some()
    });
    let ran = interrupted(child, &line);
    assert_eq!(ran.code, 130, "{}", ran.told());
    assert!(!bench.path().join("x").exists());
    drop(writer);
}

#[test]
fn an_interrupted_command_takes_the_gpg_along_that_it_waits_for() {
    let bench = Bench::new();
    e2e::image::busybox(&bench.path().join("layout"));
    let pid = bench.path().join("gpg.pid");
    // The number is there as soon as the file is.
    let script =
        format!("#!/bin/sh\necho $$ >{0}.new\nmv {0}.new {0}\nexec sleep 1000\n", pid.display());
    let gpg = bench.write("bin/gpg", script);
    std::fs::set_permissions(&gpg, std::fs::Permissions::from_mode(0o755)).unwrap();
    let signed = ["copy", "--sign-by=ABCD", "--sign-identity=registry.example/app:1"];
    let line = [&signed[..], &["oci:layout:busybox", "dir:signed"]].concat();
    let mut command = bench.command("rcopy");
    let path = format!("{}:/usr/bin:/bin", bench.path().join("bin").display());
    let child = started(command.env("PATH", path).args(&line));
    eventually("gpg runs", || pid.exists());
    let ran = interrupted(child, &line);
    assert_eq!(ran.code, 130, "{}", ran.told());
    let pid = std::fs::read_to_string(&pid).unwrap();
    eventually("gpg is ended", || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        state.map_or(true, |stat| !stat.contains("(sleep)") || stat.contains(") Z "))
    });
}

#[test]
fn the_time_of_a_command_ends_what_waits_for_a_server_or_a_pipe() {
    let bench = Bench::new();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("docker://{}/team/app:1", server.local_addr().unwrap());
    let pipe = pipe(&bench);
    // Nobody writes the key of the policy.
    demand(&bench, &pipe);
    let pipe = format!("docker-archive:{}", pipe.display());
    e2e::image::busybox(&bench.path().join("layout"));
    for line in [
        ["inspect", &at].as_slice(),
        &["copy", &at, "oci:x:app"],
        &["copy", &pipe, "oci:x:app"],
        &["--policy=policy.json", "copy", "oci:layout:busybox", "oci:x:app"],
    ] {
        let mut command = bench.command("rcopy");
        guarded(command.arg("--command-timeout=1s").args(line)).code(1);
    }
    drop(server);
}
