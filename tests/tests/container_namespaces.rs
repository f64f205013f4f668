//! Namespaces that containers share with each other, and what they see of this machine.

use e2e::{Bench, eventually, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

#[test]
fn a_container_joins_the_namespaces_of_another() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "echo shared > /dev/shm/x; exec sleep 1000";
    bench.rbuild(["run", "-d", "--name=it", "-h=box", "busybox", "sh", "-c", script]).ok();
    let flags = ["run", "--rm", "--pid=container:it", "--ipc=container:it", "--uts=container:it"];
    let script = "cat /dev/shm/x; hostname; cat /proc/1/comm";
    eventually("the other has written", || {
        let ran = bench.rbuild([&flags[..], &["busybox", "sh", "-c", script]].concat());
        ran.stdout == "shared\nbox\nsleep\n"
    });
    // It sees the other end, and what it leaves behind does not stay.
    bench
        .rbuild(
            [&flags[..2], &["--pid=container:it", "busybox", "sh", "-c", "sleep 1234 & true"]]
                .concat(),
        )
        .ok();
    let left = bench.rbuild(["top", "it", "-o", "cmd"]).ok();
    assert!(!left.stdout.contains("1234"), "{}", left.stdout);
    let pid = bench.rbuild(["inspect", "--format={{.State.Pid}}", "it"]).ok();
    let by_path = format!("--uts=ns:/proc/{}/ns/uts", pid.text());
    assert_eq!(bench.rbuild(["run", "--rm", &by_path, "busybox", "hostname"]).ok().text(), "box");
    bench.rbuild(["create", "--name=other", "--ipc=container:it", "busybox", "true"]).ok();
    let shown = bench.rbuild(["inspect", "--format={{.HostConfig.IpcMode}}", "other"]).ok();
    assert_eq!(shown.text(), "container:it");
    bench.rbuild(["rm", "-f", "it"]).ok();
    bench.rbuild(["start", "other"]).fails(&["there is no container \"it\""]);
    for flag in ["--pid=web", "--pid=none", "--uts=ns:relative", "--cgroupns=container:it"] {
        bench.rbuild(["run", flag, "busybox", "true"]).fails(&[flag.split('=').next().unwrap()]);
    }
}

#[test]
fn containers_of_a_user_join_the_namespaces_of_each_other() {
    let Some(user) = e2e::user::User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let script = "echo shared > /dev/shm/x; exec sleep 1000";
    let serve = ["run", "-d", "--name=it", "-h=box", "busybox", "sh", "-c", script];
    bench.rbuild(serve).ok();
    let all = ["--pid", "--ipc", "--uts", "--network"].map(|flag| format!("{flag}=container:it"));
    let script = "cat /dev/shm/x; hostname; cat /proc/1/comm; cat /sys/class/net/*/address";
    let net = bench.rbuild(["exec", "it", "sh", "-c", "cat /sys/class/net/*/address"]);
    let expected = format!("shared\nbox\nsleep\n{}", net.ok().stdout);
    for kept in ["--rm", "--name=kept"] {
        eventually("the other has written", || {
            let flags = ["run", kept, "--replace"];
            let flags = if kept == "--rm" { &flags[..2] } else { &flags[..] };
            let line = flags.iter().copied().chain(all.iter().map(String::as_str));
            let ran = bench.rbuild(line.chain(["busybox", "sh", "-c", script]));
            ran.stdout == expected
        });
    }
    // A later start finds the other again, also after that has started again.
    bench.rbuild(["restart", "-t0", "it"]).ok();
    eventually("the other has written", || {
        bench.rbuild(["start", "-a", "kept"]).stdout.starts_with("shared\nbox\n")
    });
    // Containers with ids of their own share these.
    bench.rbuild(["run", "-d", "--name=mine", "--userns=auto", "busybox", "sleep", "1000"]).ok();
    let look = "readlink /proc/self/ns/user";
    let own = bench.rbuild(["exec", "mine", "sh", "-c", look]).ok().stdout;
    let line = ["run", "--rm", "--userns=container:mine", "--ipc=container:mine", "busybox", "sh"];
    assert_eq!(bench.rbuild([&line[..], &["-c", look]].concat()).ok().stdout, own);
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn device_rules_open_devices_that_a_container_makes() {
    if !root() {
        return;
    }
    let bench = bench();
    // The tun device, which is not among the usual ones.
    let script =
        "mknod $0/tun c 10 200 && dd if=$0/tun of=/dev/null bs=1 count=0 2>&1 && echo open";
    let run = |flags: &[&str], place: &str| {
        let line = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script, place]].concat();
        bench.rbuild(line).stdout
    };
    assert!(run(&["--device-cgroup-rule=c 10:200 rm"], "/dev").ends_with("open\n"));
    let refused = run(&["--device-cgroup-rule=c 10:200 m"], "/dev");
    assert!(refused.contains("not permitted"), "{refused}");
    // Where a mount lets device nodes open, only those that were granted do.
    let refused = run(&["--tmpfs=/x:dev"], "/x");
    assert!(refused.contains("not permitted"), "{refused}");
    assert!(run(&["--tmpfs=/x:dev", "--device-cgroup-rule=c 10:* r"], "/x").ends_with("open\n"));
    bench
        .rbuild(["run", "--device-cgroup-rule=c 1", "busybox", "true"])
        .fails(&["--device-cgroup-rule", "c 1"]);
}

#[test]
fn the_machine_looks_as_its_personality_says() {
    if !root() {
        return;
    }
    let bench = bench();
    let ran = bench.rbuild(["run", "--rm", "--personality=LINUX32", "busybox", "uname", "-m"]).ok();
    assert_eq!(ran.text(), if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" });
    bench.rbuild(["run", "--personality=HURD", "busybox", "true"]).fails(&["HURD"]);
}

#[test]
fn volumes_of_an_image_are_memory_or_nothing_where_asked() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = "FROM busybox\nRUN mkdir /data && echo seed > /data/seed\nVOLUME /data\n";
    bench.build("with", file, &[]).ok();
    let script =
        "grep -c ' /data ' /proc/mounts; ls /data; grep ' /data tmpfs' /proc/mounts | wc -l";
    for (flag, expected) in [
        ("--image-volume=bind", "1\nseed\n0\n"),
        ("--image-volume=tmpfs", "1\n1\n"),
        ("--image-volume=ignore", "0\nseed\n0\n"),
    ] {
        for kept in [&["--rm"][..], &["--rm", "--name=kept"]] {
            let line = [&["run", flag], kept, &["with", "sh", "-c", script]].concat();
            assert_eq!(bench.rbuild(line).stdout, expected, "{flag} {kept:?}");
        }
    }
    bench.rbuild(["run", "--image-volume=maybe", "with", "true"]).fails(&["maybe"]);
}

#[test]
fn numbers_of_processes_are_written_to_files() {
    if !root() {
        return;
    }
    let bench = bench();
    let files = ["pid", "monitor"].map(|name| bench.path().join(name).display().to_string());
    let [pid, monitor] = &files;
    let flags = [format!("--pidfile={pid}"), format!("--conmon-pidfile={monitor}")];
    bench.rbuild(["run", "-d", "--name=it", &flags[0], &flags[1], "busybox", "sleep", "1000"]).ok();
    let shown = bench.rbuild(["inspect", "--format={{.State.Pid}}", "it"]).ok();
    assert_eq!(std::fs::read_to_string(pid).unwrap(), shown.text());
    let monitor = std::fs::read_to_string(monitor).unwrap();
    assert!(std::path::Path::new("/proc").join(&monitor).exists(), "{monitor}");
    bench.rbuild(["restart", "-t0", "it"]).ok();
    let again = bench.rbuild(["inspect", "--format={{.State.Pid}}", "it"]).ok();
    assert_eq!(std::fs::read_to_string(pid).unwrap(), again.text());
    bench.rbuild(["rm", "-f", "it"]).ok();
}

#[test]
fn rmi_removes_an_image_that_nothing_else_uses() {
    if !root() {
        return;
    }
    let bench = bench();
    let exists = |name: &str| bench.rbuild(["image", "exists", name]).code == 0;
    bench.rbuild(["tag", "busybox", "copy"]).ok();
    bench.rbuild(["run", "--rmi", "copy", "true"]).ok();
    assert!(!exists("copy") && exists("busybox"));
    bench.rbuild(["create", "--name=user", "busybox", "true"]).ok();
    assert_eq!(bench.rbuild(["run", "--rmi", "--name=n", "busybox", "sh", "-c", "exit 4"]).code, 4);
    assert!(exists("busybox"));
    bench.rbuild(["rm", "user"]).ok();
    bench.rbuild(["run", "--rmi", "busybox", "true"]).ok();
    assert!(!exists("busybox"));
    bench.rbuild(["run", "--rmi", "-d", "busybox", "true"]).fails(&["--detach"]);
}

#[test]
fn a_limit_of_0_is_none() {
    if !root() {
        return;
    }
    let bench = bench();
    let limits = ["--memory=0", "--cpus=0", "--cpu-shares=0", "--cpu-quota=0", "--memory-swap=0"];
    bench.rbuild([&["run", "--rm"], &limits[..], &["busybox", "true"]].concat()).ok();
    bench.rbuild(["create", "--name=it", "busybox", "true"]).ok();
    bench.rbuild(["update", "--memory=0", "it"]).fails(&["there is nothing to change"]);
}

#[test]
fn a_kept_container_may_share_the_machines_processes_or_network() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.build("data", "FROM busybox\nRUN echo x > /x\n", &[]).ok();
    let image = "--mount=type=image,source=data,target=/i";
    for flag in ["--pid=host", "--network=host", "--uts=host"] {
        let line = ["run", "-d", "--name=it", flag, image, "busybox", "sleep", "1000"];
        bench.rbuild(line).ok();
        assert_eq!(bench.rbuild(["exec", "it", "cat", "/i/x"]).ok().stdout, "x\n", "{flag}");
        bench.rbuild(["rm", "-f", "it"]).ok();
    }
}
