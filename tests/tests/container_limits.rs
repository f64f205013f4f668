//! Limits of containers, their cgroups, and what `inspect` says of both.

use std::path::{Path, PathBuf};

use e2e::{Bench, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// The files of this name in the cgroups of a container's first process.
fn settings(pid: &str, names: &[&str]) -> Vec<String> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tops = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let tops: Vec<PathBuf> = tops.map(|line| line.split(' ').nth(4).unwrap().into()).collect();
    let paths = own.lines().map(|line| line.splitn(3, ':').nth(2).unwrap());
    let paths: Vec<&str> = paths.filter(|path| path.contains("rbuild-")).collect();
    let mut found = Vec::new();
    for (top, path) in tops.iter().flat_map(|top| paths.iter().map(move |path| (top, path))) {
        for name in names {
            let file = top.join(path.trim_start_matches('/')).join(name);
            found.extend(std::fs::read_to_string(file).map(|text| text.trim().to_owned()));
        }
    }
    found
}

fn pid(bench: &Bench, name: &str) -> String {
    bench.rbuild(["inspect", "--format", "{{.State.Pid}}", name]).ok().text().trim().to_owned()
}

#[test]
fn a_running_container_gets_new_limits_at_once() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sleep", "1000"]).ok();
    let pid = pid(&bench, "one");
    let memory = ["memory.limit_in_bytes", "memory.max"];
    for size in ["64m", "256m", "32m"] {
        bench.rbuild(["update", "--memory", size, "--pids-limit=50", "one"]).ok();
        let bytes = size.trim_end_matches('m').parse::<u64>().unwrap() << 20;
        assert!(settings(&pid, &memory).contains(&bytes.to_string()), "{size}");
    }
    assert!(settings(&pid, &["pids.max"]).contains(&"50".to_owned()));
    bench.rbuild(["update", "--ulimit=nofile=5", "one"]).fails(&["running", "stop it"]);
    // It starts with them again.
    bench.rbuild(["restart", "-t", "0", "one"]).ok();
    let pid = self::pid(&bench, "one");
    assert!(settings(&pid, &memory).contains(&(32 << 20).to_string()));
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn a_container_in_the_background_has_a_cgroup_outside_of_its_starters() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sleep", "1000"]).ok();
    let pid = pid(&bench, "one");
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let places: Vec<&str> = own.lines().filter(|line| line.contains(":/rbuild/rbuild-")).collect();
    assert!(!places.is_empty(), "{own}");
    let name = places[0].rsplit('/').next().unwrap();
    bench.rbuild(["rm", "-f", "one"]).ok();
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let left = tree.path().join("rbuild").join(name);
        assert!(!left.exists(), "{} is left", left.display());
    }
}

/// A block device of this machine that is whole.
fn disk() -> Option<PathBuf> {
    let disks = std::fs::read_dir("/sys/block").ok()?.flatten();
    let names = disks.map(|disk| Path::new("/dev").join(disk.file_name()));
    let mut there: Vec<PathBuf> = names.filter(|path| path.exists()).collect();
    there.sort();
    there.into_iter().find(|path| !path.to_string_lossy().contains("loop"))
}

#[test]
fn rates_of_devices_reach_the_kernel() {
    if !root() {
        return;
    }
    let Some(disk) = disk() else {
        return requires::cannot("the machine has no disk");
    };
    let bench = bench();
    let rate = |flag: &str, rate: &str| format!("--device-{flag}={}:{rate}", disk.display());
    let line = [rate("read-bps", "1m"), rate("write-iops", "100")];
    bench.rbuild(["run", "-d", "--name=one", &line[0], &line[1], "busybox", "sleep", "1000"]).ok();
    let pid = pid(&bench, "one");
    let files = ["blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device", "io.max"];
    let found = settings(&pid, &files).join(" ");
    assert!(found.contains("1048576") && found.contains("100"), "{found:?}");
    bench.rbuild(["update", &rate("read-bps", "2m"), "one"]).ok();
    assert!(settings(&pid, &files).join(" ").contains("2097152"));
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn inspect_has_the_fields_that_scripts_for_docker_read() {
    if !root() {
        return;
    }
    let bench = bench();
    let dockerfile = "FROM busybox\nENV A=1 B=2\nWORKDIR /w\nLABEL from=image\n\
         ENTRYPOINT [\"sleep\"]\nCMD [\"1000\"]\nEXPOSE 80\n";
    bench.build("app", dockerfile, &[]).ok();
    let run = ["run", "-d", "--name=one", "-e", "A=3", "-l", "own=1", "-v", "data:/data"];
    let more = ["--restart=on-failure:3", "-m", "64m", "--tmpfs", "/t", "app", "2000"];
    bench.rbuild(run.iter().chain(&more)).ok();
    for (field, expected) in [
        ("{{json .Config.Cmd}}", "[\"2000\"]"),
        ("{{json .Config.Entrypoint}}", "[\"sleep\"]"),
        (
            "{{json .Config.Env}}",
            "[\"A=3\",\"B=2\",\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]",
        ),
        ("{{.Config.WorkingDir}} {{.Config.Image}}", "/w app"),
        ("{{.Config.Labels.from}} {{.Config.Labels.own}}", "image 1"),
        ("{{.Path}} {{json .Args}}", "sleep [\"2000\"]"),
        (
            "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}",
            "on-failure:3",
        ),
        ("{{.HostConfig.Memory}} {{.HostConfig.NetworkMode}}", "67108864 private"),
        ("{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}", "volume:/data tmpfs:/t"),
        (
            "{{(index .Mounts 0).Source}}",
            &bench.store().join("volumes/data/_data").to_string_lossy(),
        ),
        ("{{.State.Dead}} {{.State.Status}}", "false running"),
        ("{{len .Config.ExposedPorts}}", "1"),
    ] {
        let told = bench.rbuild(["inspect", "--format", field, "one"]).ok();
        assert_eq!(told.text().trim(), expected, "{field}");
    }
    bench.rbuild(["rm", "-f", "one"]).ok();
}

/// Removes a file of the machine.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn devices_by_name_bring_nodes_mounts_and_variables() {
    if !root() {
        return;
    }
    let bench = bench();
    let kind = format!("rbuild-test-{}.example/thing", std::process::id());
    let file = Removed(format!("/etc/cdi/rbuild-test-{}.json", std::process::id()).into());
    std::fs::create_dir_all("/etc/cdi").unwrap();
    let shown = bench.write("shown/f", "of the device");
    let text = serde_json::json!({
        "cdiVersion": "0.6.0", "kind": kind, "containerEdits": {"env": ["ALL=1"]},
        "devices": [{"name": "one", "containerEdits": {
            "env": ["ONE=1"],
            "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null"}],
            "mounts": [{"hostPath": shown.parent(), "containerPath": "/thing", "options": ["ro"]}],
        }}, {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "prestart", "path": "/x"}]}}],
    });
    std::fs::write(&file.0, text.to_string()).unwrap();
    let device = |name: &str| format!("--device={kind}={name}");
    let line = "echo x > /dev/thing && test -c /dev/thing && cat /thing/f && echo \" $ALL$ONE\"";
    let run = ["run", "--rm", &device("one"), "busybox", "sh", "-c", line];
    assert_eq!(bench.rbuild(run).ok().stdout, "of the device 11\n");
    bench.rbuild(["run", "--rm", &device("two"), "busybox"]).code(125).fails(&["no device", "two"]);
    bench.rbuild(["run", "--rm", &device("hooked"), "busybox"]).code(125).fails(&["hooks"]);
    bench.rbuild(["run", "--rm", "--gpus=7", "busybox"]).code(125).fails(&["nvidia.com/gpu=0"]);
}

#[test]
fn a_monitor_needs_less_than_two_megabytes_of_its_own() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.rbuild(["run", "-d", "--name=one", "--network=none", "busybox", "sleep", "1000"]).ok();
    let format = ["inspect", "--format", "{{.State.Pid}}", "one"];
    let mut pid = bench.rbuild(format).ok().stdout.trim().to_owned();
    let number = |path: String, field: &str| -> String {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // The monitor, and the one that takes over from it.
    for _ in 0..2 {
        pid = number(format!("/proc/{pid}/status"), "PPid:");
        let own: u64 =
            number(format!("/proc/{pid}/smaps_rollup"), "Private_Dirty:").parse().unwrap();
        assert!(own < 2048, "process {pid} has {own} kB of its own");
    }
    bench.rbuild(["rm", "-f", "one"]).ok();
}
