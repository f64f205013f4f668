//! `rbuild run` and the life of containers, as root and as an ordinary user.

use e2e::{Bench, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

#[test]
fn exit_codes_are_dockers() {
    if !root() {
        return;
    }
    let bench = bench();
    let run = |arguments: &[&str]| {
        let line = ["run", "--rm", "busybox"].iter().chain(arguments).copied().collect::<Vec<_>>();
        bench.rbuild(line)
    };
    assert_eq!(run(&["echo", "hello"]).ok().stdout, "hello\n");
    run(&["sh", "-c", "exit 7"]).code(7);
    run(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code(137);
    run(&["no-such-program"]).code(127).fails(&["no-such-program"]);
    run(&["/etc/passwd"]).code(126).fails(&["/etc/passwd"]);
    bench
        .rbuild(["run", "--rm", "--pull=never", "no-such-image"])
        .code(125)
        .fails(&["no-such-image"]);
    bench
        .rbuild(["run", "--rm", "--network=no-such-network", "busybox"])
        .code(125)
        .fails(&["no-such-network"]);
    bench.rbuild(["run", "--no-such-flag", "busybox"]).code(125).fails(&["--no-such-flag"]);
}

#[test]
fn environment_user_directory_and_entrypoint_follow_the_flags() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("env", "# comment\nFROM_FILE=yes\n");
    let file = format!("--env-file={}", file.display());
    let text = |flags: &[&str], command: &[&str]| {
        let line = [&["run", "--rm"], flags, &["busybox"], command].concat();
        bench.rbuild(line).ok().stdout
    };
    assert!(
        text(&["-e", "A=b c", &file], &["env"]).contains("A=b c\nFROM_FILE=yes\n")
            || text(&["-e", "A=b c", &file], &["env"]).contains("FROM_FILE=yes\nA=b c\n")
    );
    assert_eq!(text(&["-w", "/tmp"], &["pwd"]), "/tmp\n");
    assert_eq!(
        text(&["-u", "user"], &["id"]),
        "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)\n"
    );
    assert_eq!(text(&["-u", "7:8"], &["sh", "-c", "id -u; id -g"]), "7\n8\n");
    assert_eq!(text(&["--entrypoint", "echo"], &["a", "b"]), "a b\n");
    assert_eq!(text(&["--hostname", "here"], &["hostname"]), "here\n");
    assert_eq!(text(&["-u", "user", "-w", "/made/by/run"], &["pwd"]), "/made/by/run\n");
    bench.rbuild(["run", "--rm", "-u", "4294967295", "busybox", "id"]).fails(&["4294967295"]);
    bench.rbuild(["run", "--rm", "-u", "nobody-here", "busybox", "id"]).fails(&["nobody-here"]);
}

#[test]
fn a_container_has_the_least() {
    if !root() {
        return;
    }
    let bench = bench();
    let status = bench.rbuild(["run", "--rm", "busybox", "cat", "/proc/self/status"]).ok().stdout;
    for line in [
        "CapInh:\t0000000000000000",
        "CapEff:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let descriptors = bench.rbuild(["run", "--rm", "busybox", "ls", "/proc/self/fd"]).ok().stdout;
    let beyond: Vec<&str> =
        descriptors.split_whitespace().filter(|fd| !["0", "1", "2", "3"].contains(fd)).collect();
    assert!(beyond.is_empty(), "leaked descriptors {beyond:?}");
    for forbidden in [
        "echo 1 > /proc/sys/kernel/hostname",
        "echo b > /proc/sysrq-trigger",
        "mount -t tmpfs x /tmp",
        "mknod /tmp/d b 8 0 && cat /tmp/d",
        "cat /proc/kcore | head -c1 | grep -q .",
        "hostname other",
    ] {
        let ran = bench.rbuild(["run", "--rm", "busybox", "sh", "-c", forbidden]);
        assert_ne!(ran.code, 0, "{forbidden}: {}", ran.told());
    }
    let interfaces = |network: &str| {
        bench.rbuild(["run", "--rm", network, "busybox", "cat", "/proc/net/dev"]).ok().stdout
    };
    let none = interfaces("--network=none");
    assert_eq!(none.lines().count(), 3, "only loopback: {none}");
    let usual = interfaces("--network=default");
    assert!(usual.lines().count() == 4 && usual.contains("eth0"), "a way out too: {usual}");
    let dropped = bench
        .rbuild([
            "run",
            "--rm",
            "--cap-drop=ALL",
            "--cap-add=CHOWN",
            "busybox",
            "grep",
            "CapEff",
            "/proc/self/status",
        ])
        .ok();
    assert_eq!(dropped.text(), "CapEff:\t0000000000000001");
    let hardened = bench
        .rbuild([
            "run",
            "--rm",
            "--security-opt=no-new-privileges",
            "busybox",
            "grep",
            "NoNewPrivs",
            "/proc/self/status",
        ])
        .ok();
    assert_eq!(hardened.text(), "NoNewPrivs:\t1");
}

#[test]
fn mounts_and_limits_hold() {
    if !root() {
        return;
    }
    let bench = bench();
    let shared = bench.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("in"), "from outside").unwrap();
    let volume = format!("{}:/data", shared.display());
    let read_only = format!("{}:/data:ro", shared.display());
    let sh = |flags: &[&str], script: &str| {
        bench.rbuild([&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
    };
    assert_eq!(
        sh(&["-v", &volume], "cat /data/in; echo out > /data/out").ok().stdout,
        "from outside"
    );
    assert_eq!(std::fs::read_to_string(shared.join("out")).unwrap(), "out\n");
    assert_ne!(sh(&["-v", &read_only], "echo x > /data/no").code, 0);
    assert!(!shared.join("no").exists());
    assert_ne!(sh(&["--read-only"], "echo x > /x").code, 0);
    sh(&["--read-only", "--tmpfs", "/t"], "echo x > /t/x").ok();
    assert_ne!(sh(&["--tmpfs", "/t:size=64k"], "dd if=/dev/zero of=/t/x bs=1k count=128").code, 0);
    assert_eq!(sh(&["--ulimit", "nofile=77"], "ulimit -n").ok().text(), "77");
    assert_ne!(
        sh(&["--pids-limit", "4"], "sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait").code,
        0
    );
    sh(&["--memory", "32m"], "head -c 200m /dev/zero | tail -n 1 > /dev/null").code(137);
    sh(&["--mount", "type=bind,src=/no/such,dst=/x"], "true").code(125).fails(&["/no/such"]);
}

#[test]
fn a_container_lives_prints_and_ends() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "echo out; echo err >&2; trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let id = bench.rbuild(["run", "-d", "--name", "one", "busybox", "sh", "-c", script]).ok();
    assert_eq!(id.text().len(), 64);
    bench.rbuild(["run", "-d", "--name", "one", "busybox"]).code(125).fails(&["one"]);
    let listed = bench.rbuild(["ps", "--format", "{{.Names}} {{.State}}"]).ok();
    assert_eq!(listed.text(), "one running");
    assert_eq!(
        bench.rbuild(["exec", "one", "sh", "-c", "hostname; exit 4"]).code(4).text(),
        &id.text()[..12]
    );
    assert_eq!(
        bench
            .rbuild([
                "exec",
                "-u",
                "user",
                "-e",
                "A=1",
                "-w",
                "/tmp",
                "one",
                "sh",
                "-c",
                "id -u; echo $A; pwd"
            ])
            .ok()
            .stdout,
        "1000\n1\n/tmp\n"
    );
    bench.rbuild(["exec", "one", "no-such-program"]).code(127);
    bench.rbuild(["rm", "one"]).fails(&["is running", "--force"]);
    bench.rbuild(["stop", "one"]).ok();
    assert_eq!(bench.rbuild(["wait", "one"]).ok().text(), "3");
    let logs = bench.rbuild(["logs", "one"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(bench.rbuild(["ps", "-q"]).ok().text(), "");
    let state =
        bench.rbuild(["inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "one"]).ok();
    assert_eq!(state.text(), "3 exited");
    bench.rbuild(["exec", "one", "true"]).fails(&["container one is not running"]);
    bench.rbuild(["rm", "one"]).ok();
    bench.rbuild(["logs", "one"]).fails(&["there is no container \"one\""]);
    bench.rbuild(["run", "-d", "--rm", "--name", "two", "busybox", "sleep", "100"]).ok();
    bench.rbuild(["kill", "two"]).ok();
    bench.rbuild(["wait", "two"]);
}

#[test]
fn a_terminal_is_a_terminal() {
    if !root() {
        return;
    }
    let bench = bench();
    let log = bench.path().join("typed");
    let line = format!(
        "{} --root {} run -it --rm busybox sh -c 'tty; stty size; echo done'",
        e2e::binary("rbuild").display(),
        bench.store().display()
    );
    let script = e2e::run(
        std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm"),
    );
    std::fs::write(&log, &script.stdout).unwrap();
    assert!(
        script.stdout.contains("/dev/pts/") || script.stdout.contains("/dev/console"),
        "{}",
        script.told()
    );
    assert!(script.stdout.contains("done"), "{}", script.told());
    bench.rbuild(["run", "-it", "--rm", "busybox", "true"]).code(125).fails(&["not a terminal"]);
    assert_eq!(bench.rbuild(["run", "-t", "--rm", "busybox", "echo", "hi"]).ok().stdout, "hi\r\n");
}

#[test]
fn an_image_that_is_a_trap_touches_nothing_outside() {
    use e2e::image::{Layer, busybox_layer, layout};
    if !root() {
        return;
    }
    let bench = Bench::new();
    let outside = bench.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("canary"), "alive").unwrap();
    let target = outside.display().to_string();
    for (name, path) in [
        ("dev", "dev"),
        ("proc", "proc"),
        ("sys", "sys"),
        ("etc", "etc"),
        ("hosts", "etc/hosts"),
        ("work", "work"),
        ("tmp", "tmp"),
    ] {
        let trap = Layer::new().symlink(path, &target).finish();
        let from = layout(&bench.path().join(name), name, &[busybox_layer(), trap], |config| {
            config.config.working_dir = "/work".to_owned();
        });
        bench
            .rcopy([
                "copy".to_owned(),
                format!("oci:{}:{name}", from.display()),
                format!("store:{name}"),
            ])
            .ok();
        let ran = bench.rbuild(["run", "--rm", "--tmpfs", "/tmp/t", name, "true"]);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.told());
        let left: Vec<_> =
            std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["canary"], "{name}: {}", ran.told());
    }
}

#[test]
fn the_log_tells_the_story_of_a_run_with_what_its_stage_does() {
    if !root() {
        return;
    }
    let bench = bench();
    let line = ["--log=debug", "run", "--rm", "busybox", "sh", "-c", "env; exit 3"];
    let ran = bench.rbuild(line).code(3);
    let mut lines = ran.stderr.lines();
    // Each is said after the one before.
    for words in [
        ["started", "task=\"run\""],
        ["runtime::init", "made the process"],
        ["runtime::container", "container started"],
        ["runtime::init", "the program ended"],
        ["finished", "task=\"run\""],
    ] {
        let said = lines.any(|line| words.iter().all(|word| line.contains(word)));
        assert!(said, "{words:?}: {}", ran.told());
    }
    assert!(!ran.stdout.contains("LOG"), "{}", ran.told());
}

#[test]
fn a_container_that_is_not_kept_has_its_files_in_memory_and_its_own_to_write() {
    if !root() {
        return;
    }
    let bench = bench();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let copies = (numbers.next(), numbers.next()) >= (Some(6), Some(15));
    let line = "for f in /etc/hosts /etc/hostname /etc/resolv.conf /run/.containerenv; do \
        stat -f -c %T $f; done; echo 10.9.8.7 other >> /etc/hosts; grep -c other /etc/hosts; ls -A /run";
    let run = |flags: &[&str]| {
        let words = [&["run", "--rm"], flags, &["busybox", "sh", "-c", line]].concat();
        bench.rbuild(words).ok().stdout
    };
    for (flags, memory) in [(&[][..], copies), (&["--name=kept"], false)] {
        let told = run(flags);
        let (kinds, rest) = told.split_at(told.rfind("1\n").unwrap());
        assert_eq!(rest, "1\n.containerenv\n");
        for kind in kinds.lines() {
            assert!(kind == "tmpfs" || !memory, "{flags:?} {told}");
        }
    }
}

#[test]
fn signals_are_passed_to_a_container_that_is_not_kept_unless_they_are_not_to_be() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    if !root() {
        return;
    }
    let bench = bench();
    let line = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    for (flag, code) in [("--sig-proxy=true", Some(7)), ("--sig-proxy=false", None)] {
        let mut command = bench.command("rbuild");
        command.args(["run", "--rm", flag, "busybox", "sh", "-c", line]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{flag}");
        assert_eq!(lines.next().as_deref(), code.map(|_| "caught"));
    }
}

#[test]
fn an_entrypoint_may_be_a_list_and_the_host_name_has_a_domain() {
    if !root() {
        return;
    }
    let bench = bench();
    let list = r#"--entrypoint=["echo","a  b"]"#;
    assert_eq!(bench.rbuild(["run", "--rm", list, "busybox", "c"]).ok().stdout, "a  b c\n");
    let flags = ["run", "--rm", "--hostname=one", "--domainname=here.test", "busybox", "sh", "-c"];
    let line = "cat /proc/sys/kernel/domainname; hostname; hostname -f; grep here.test /etc/hosts";
    let told = bench.rbuild([&flags[..], &[line]].concat()).ok().stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["here.test", "one", "one.here.test"]);
    assert!(lines[3].ends_with("one.here.test one"), "{told}");
}

#[test]
fn the_image_of_the_store_is_good_enough_where_a_newer_one_cannot_be_had() {
    if !root() {
        return;
    }
    let bench = bench();
    let name = "127.0.0.1:1/some/image";
    let run = |pull: &str| {
        let pull = format!("--pull={pull}");
        bench.rbuild(["run", "--rm", "--tls-verify=false", &pull, name, "echo", "ran"])
    };
    run("newer").code(125).fails(&["which is not in the store"]);
    bench.rbuild(["tag", "busybox", name]).ok();
    run("always").code(125).fails(&["127.0.0.1:1"]);
    assert_eq!(run("newer").ok().stdout, "ran\n");
    let Some(registry) = e2e::registry::DockerRegistry::start() else { return };
    // A newer one is taken.
    let name = registry.name("newer:1");
    bench.build("new", "FROM busybox\nRUN echo second > /version\n", &[]).ok();
    let place = format!("docker://{name}");
    bench.rbuild(["push", "--tls-verify=false", "new", &place]).ok();
    bench.rbuild(["tag", "busybox", &name]).ok();
    let words = ["run", "--rm", "--tls-verify=false", "--pull=newer", &name, "cat", "/version"];
    assert_eq!(bench.rbuild(words).ok().stdout, "second\n");
}
