//! What crosses the border between a container and the machine, by every way that a user has to run
//! something.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{Bench, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// Runs a command with these files as its streams; gives its exit code.
fn with_files(command: &mut Command, input: &Path, output: &Path, error: &Path) -> i32 {
    let append =
        |path: &Path| File::options().create(true).append(true).open(path).expect("a file");
    let input = File::open(input).expect("a file");
    let status = command.stdin(input).stdout(append(output)).stderr(append(error)).status();
    status.expect("rbuild runs").code().unwrap_or(128)
}

/// Every way to run a command in a container, by what is before the command.
fn ways(bench: &Bench) -> Vec<Vec<&'static str>> {
    bench.rbuild(["from", "--name", "work", "busybox"]).ok();
    bench.rbuild(["from", "--name", "rooted", "--isolation=chroot", "busybox"]).ok();
    bench.rbuild(["run", "-d", "--name", "kept", "busybox", "sleep", "1000"]).ok();
    vec![
        vec!["run", "--rm", "-i", "busybox"],
        vec!["run", "-i", "busybox"],
        vec!["exec", "-i", "kept"],
        vec!["run", "work", "--"],
        vec!["run", "rooted", "--"],
    ]
}

#[test]
fn files_of_the_caller_cannot_be_reached_through_a_stream() {
    if !root() {
        return;
    }
    let bench = bench();
    for way in ways(&bench) {
        let path = |name: &str| bench.path().join(name);
        bench.write("in", "the input\n");
        bench.write("out", "before\n");
        bench.write("err", "before\n");
        let attack = "cat; for fd in 0 1 2; do (echo changed >> /proc/self/fd/$fd) 2>/dev/null; \
            (: > /proc/self/fd/$fd) 2>/dev/null; readlink /proc/self/fd/$fd | cut -d: -f1; done; \
            echo error >&2; exit 7";
        let mut command = bench.command("rbuild");
        command.args(&way).args(["sh", "-c", attack]);
        let code = with_files(&mut command, &path("in"), &path("out"), &path("err"));
        let read = |name: &str| std::fs::read_to_string(path(name)).expect("a file");
        let (input, output, error) = (read("in"), read("out"), read("err"));
        assert_eq!(code, 7, "{way:?}: {error}");
        assert_eq!(input, "the input\n", "{way:?}");
        assert!(output.starts_with("before\nthe input\n"), "{way:?}: {output}");
        assert_eq!(output.matches("pipe").count(), 3, "{way:?}: {output}");
        assert!(error.starts_with("before\n") && error.contains("error\n"), "{way:?}: {error}");
    }
    bench.rbuild(["rm", "-f", "kept"]).ok();
}

#[test]
fn bytes_and_ends_of_streams_pass_whole() {
    if !root() {
        return;
    }
    let bench = bench();
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    for way in ways(&bench) {
        let mut command = bench.command("rbuild");
        command.args(&way).args(["sh", "-c", "cat; echo done >&2; exit 3"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("rbuild runs");
        let mut input = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                input.write_all(&bytes).expect("all is read");
                drop(input);
            });
            child.wait_with_output().expect("rbuild ends")
        });
        assert_eq!(output.status.code(), Some(3), "{way:?}");
        assert!(output.stdout == bytes, "{way:?}: {} bytes", output.stdout.len());
        assert!(String::from_utf8_lossy(&output.stderr).ends_with("done\n"), "{way:?}");
    }
    bench.rbuild(["rm", "-f", "kept"]).ok();
}

#[test]
fn a_program_ends_when_nobody_reads_its_output() {
    if !root() {
        return;
    }
    let bench = bench();
    let mut child = bench
        .command("rbuild")
        .args(["run", "--rm", "busybox", "sh", "-c", "yes; echo ended >&2; exit 5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rbuild runs");
    let mut first = [0; 2];
    let mut output = child.stdout.take().expect("a pipe");
    std::io::Read::read_exact(&mut output, &mut first).expect("output");
    drop(output);
    let output = child.wait_with_output().expect("rbuild ends");
    assert_eq!(&first, b"y\n");
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ended"));
}

#[test]
fn input_of_a_build_is_a_pipe() {
    if !root() {
        return;
    }
    let bench = bench();
    let input = bench.write("in", "typed\n");
    let dockerfile = "FROM busybox\nRUN cat > /typed; (echo changed >> /proc/self/fd/0) 2>/dev/null; \
        readlink /proc/self/fd/0 | cut -d: -f1 >> /typed\nCMD cat /typed\n";
    bench.write("context/Dockerfile", dockerfile);
    let mut command = bench.command("rbuild");
    command.args(["bud", "--stdin", "-q", "-t", "typed", "context"]);
    let (out, err) = (bench.path().join("out"), bench.path().join("err"));
    let code = with_files(&mut command, &input, &out, &err);
    assert_eq!(code, 0, "{}", std::fs::read_to_string(err).expect("a file"));
    assert_eq!(std::fs::read_to_string(&input).expect("a file"), "typed\n");
    assert_eq!(bench.rbuild(["run", "--rm", "typed"]).ok().stdout, "typed\npipe\n");
}

#[test]
fn a_secret_and_a_cache_below_a_bind_are_seen() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.write("context/source/below/file", "of the context\n");
    bench.write("context/source/secret", "");
    bench.write("secret", "hidden\n");
    let mounts = "--mount=type=secret,id=s,target=/src/secret --mount=type=cache,target=/src/below \
        --mount=type=bind,source=source,target=/src";
    bench.write(
        "context/Dockerfile",
        format!("FROM busybox\nRUN {mounts} cat /src/secret > /seen; ls /src/below >> /seen; echo x > /src/below/x\n"),
    );
    let secret = format!("--secret=id=s,src={}", bench.path().join("secret").display());
    bench.rbuild(["bud", "-q", "-t", "seen", &secret, "context"]).ok();
    assert_eq!(bench.rbuild(["run", "--rm", "seen", "cat", "/seen"]).ok().stdout, "hidden\n");
}

#[test]
fn deeper_volumes_are_seen_whatever_the_order_and_the_flag() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.write("d/f", "shallow\n");
    bench.write("g", "deep\n");
    let volume =
        |source: &str, target: &str| format!("{}:{target}", bench.path().join(source).display());
    let (deep, shallow) = (volume("g", "/m/f"), volume("d", "/m"));
    let config = volume("g", "/run/app/cfg");
    bench.rbuild(["from", "--name", "work", "busybox"]).ok();
    for place in [vec!["run", "--rm"], vec!["run"]] {
        let image = if place.len() == 2 { "busybox" } else { "work" };
        let flags = ["-v", &deep, "-v", &shallow, "--tmpfs", "/run", "-v", &config, image];
        let line = [&place[..], &flags, &["cat", "/m/f", "/run/app/cfg"]].concat();
        assert_eq!(bench.rbuild(line).ok().stdout, "deep\ndeep\n");
    }
}

#[test]
fn a_command_in_a_chroot_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["from", "--name", "rooted", "--isolation=chroot", "busybox"]).ok();
    let started = bench
        .rbuild(["run", "rooted", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"])
        .ok();
    let pid: u32 = started.text().parse().expect("the machine's process id");
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "{pid} is left");
    bench.write(
        "context/Dockerfile",
        "FROM busybox\nRUN setsid sleep 1000 >/dev/null 2>&1 & echo $! > /pid\n",
    );
    bench.rbuild(["bud", "-q", "--isolation=chroot", "-t", "left", "context"]).ok();
    let pid = bench.rbuild(["run", "--rm", "left", "cat", "/pid"]).ok();
    assert!(!PathBuf::from(format!("/proc/{}", pid.text())).exists(), "{} is left", pid.text());
}

#[test]
fn an_image_runs_in_a_chroot_and_in_the_machines_cgroups() {
    if !root() {
        return;
    }
    let bench = bench();
    let namespace = |name: &str, flags: &[&str]| {
        let link = format!("/proc/self/ns/{name}");
        let line = [&["run", "--rm"], flags, &["busybox", "readlink", &link]].concat();
        let inside = bench.rbuild(line).ok().text().to_owned();
        let own = std::fs::read_link(&link).expect("a namespace");
        Path::new(&inside) == own
    };
    assert!(!namespace("cgroup", &[]) && !namespace("pid", &[]));
    assert!(namespace("cgroup", &["--cgroupns=host"]) && !namespace("pid", &["--cgroupns=host"]));
    for name in ["pid", "ipc", "uts", "cgroup"] {
        assert!(namespace(name, &["--isolation=chroot"]), "{name}");
    }
    assert!(!namespace("mnt", &["--isolation=chroot"]));
}

#[test]
fn a_cgroup_parent_counts_without_a_limit() {
    if !root() {
        return;
    }
    let bench = bench();
    let parent = format!("/rbuild-sandbox-{}", std::process::id());
    let line = ["run", "--rm", "--cgroupns=host", "--cgroup-parent", &parent, "busybox"];
    let line = [&line[..], &["cat", "/proc/self/cgroup"]].concat();
    let groups = bench.rbuild(line).ok();
    for directory in std::fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten() {
        let _ = std::fs::remove_dir(directory.path().join(&parent[1..]));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&parent[1..]));
    for line in groups.text().lines() {
        assert!(line.contains(&format!("{parent}/")), "{line}");
    }
}
