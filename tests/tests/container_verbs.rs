//! The flags of the commands about containers: which are chosen, how they are listed and shown.

use e2e::{Bench, eventually, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// Two containers that run, one that ended with 3, one that was only created.
fn four(bench: &Bench) {
    for name in ["one", "two"] {
        let label = format!("--label=name={name}");
        bench.rbuild(["run", "-d", "--name", name, &label, "busybox", "sleep", "1000"]).ok();
    }
    bench.rbuild(["run", "--name=ended", "busybox", "sh", "-c", "exit 3"]).code(3);
    let create = ["create", "--name=new", "--expose=80-81/udp", "--restart=on-failure:2"];
    bench.rbuild([&create[..], &["busybox", "true"]].concat()).ok();
}

fn names(bench: &Bench, flags: &[&str]) -> String {
    let format = ["ps", "-a", "--sort=names", "--format={{.Names}}"];
    bench.rbuild([&format[..], flags].concat()).ok().text().replace('\n', " ")
}

#[test]
fn filters_choose_containers_as_dockers_do() {
    if !root() {
        return;
    }
    let bench = bench();
    four(&bench);
    for (filter, expected) in [
        ("name=^one$", "one"),
        ("name=ne", "new one"),
        ("name=/two", "two"),
        ("before=two", "one"),
        ("since=two", "ended new"),
        ("exited=3", "ended"),
        ("expose=81/udp", "new"),
        ("publish=80", ""),
        ("label=name=one", "one"),
        ("label!=name", "ended new"),
        ("restart-policy=on-failure", "new"),
        ("command=sleep", "one two"),
        ("until=1970-01-02T00:00:00Z", ""),
        ("is-task=true", ""),
        ("ancestor=busybox", "ended new one two"),
    ] {
        assert_eq!(names(&bench, &["--filter", filter]), expected, "{filter}");
    }
    let id = bench.rbuild(["images", "-q"]).ok();
    assert_eq!(
        names(&bench, &["--filter", &format!("ancestor={}", id.text())]),
        "ended new one two"
    );
    for (filter, why) in [
        ("color=red", "the keys are"),
        ("before=nobody", "there is no container \"nobody\""),
        ("exited=x", "not supported"),
    ] {
        bench.rbuild(["ps", "--filter", filter]).fails(&[why, filter]);
    }
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn lists_show_what_templates_of_docker_and_podman_ask_for() {
    if !root() {
        return;
    }
    let bench = bench();
    let path = format!("{}:/b", bench.path().display());
    bench
        .rbuild(["run", "--name=it", "--label=a=1", "-v=data:/d", "-v", &path, "busybox", "true"])
        .ok();
    let one = |format: &str| {
        let ran = bench.rbuild(["ps", "-a", "--format", format]).ok();
        ran.text().to_owned()
    };
    assert_eq!(one("{{.ID}}").len(), 12);
    assert_eq!(bench.rbuild(["ps", "-a", "--no-trunc", "--format={{.ID}}"]).ok().text().len(), 64);
    assert_eq!(one("{{.Label \"a\"}}{{.Label \"b\"}} {{.ExitCode}} {{.LocalVolumes}}"), "1 0 1");
    assert!(one("{{.Mounts}}").starts_with("data,/"));
    assert!(one("{{.CreatedAt}}").ends_with(" +0000 UTC"));
    assert!(one("{{.RunningFor}}").ends_with(" ago") && one("{{.Size}}").contains("(virtual "));
    let table = bench.rbuild(["ps", "-as", "--noheading"]).ok();
    assert!(!table.stdout.contains("NAMES") && table.stdout.contains("(virtual "));
    let shown = |format: &str| {
        let ran = bench.rbuild(["inspect", "--size", "--format", format, "it"]).ok();
        ran.text().to_owned()
    };
    assert_eq!(shown("{{.ID}}"), shown("{{.Id}}"));
    let image = bench.rbuild(["images", "-q", "--no-trunc"]).ok();
    assert_eq!(shown("{{.Image}}"), image.text());
    assert_eq!(shown("{{.Config.StopSignal}} {{.HostConfig.LogConfig.Type}}"), "SIGTERM json-file");
    assert_eq!(shown("{{.HostConfig.PidMode}}|{{.HostConfig.IpcMode}}"), "|private");
    assert!(shown("{{.HostConfig.Binds}}").contains("data:/d"));
    assert_ne!(shown("{{.SizeRootFs}}"), "0");
    let latest = bench.rbuild(["inspect", "--latest", "--format={{.Name}}"]).ok();
    assert_eq!(latest.text(), "it");
    bench.rbuild(["ps", "-a", "--format={{.Nothing}}"]).fails(&["Nothing"]);
}

#[test]
fn commands_choose_by_filter_file_and_age() {
    if !root() {
        return;
    }
    let bench = bench();
    four(&bench);
    let running = || names(&bench, &["--filter=status=running"]);
    assert_eq!(bench.rbuild(["stop", "-t0", "--filter=label=name=one"]).ok().text(), "one");
    assert_eq!(running(), "two");
    assert_eq!(bench.rbuild(["start", "--filter=label=name"]).ok().text(), "one");
    assert_eq!(running(), "one two");
    assert_eq!(bench.rbuild(["restart", "-t0", "--running"]).ok().stdout.lines().count(), 2);
    assert_eq!(running(), "one two");
    assert_eq!(bench.rbuild(["kill", "--filter=name=two"]).ok().text(), "two");
    bench.rbuild(["wait", "two"]).ok();
    let cid = bench.path().join("cid");
    let file = format!("--cidfile={}", cid.display());
    bench.rbuild(["run", "-d", "--name=filed", &file, "busybox", "sleep", "1000"]).ok();
    bench.rbuild(["stop", "-t0", &file]).ok();
    assert_eq!(running(), "one");
    assert_eq!(bench.rbuild(["rm", "--latest"]).ok().text(), "filed");
    bench.rbuild(["container", "prune", "-f", "--filter=label!=name"]).ok();
    assert_eq!(names(&bench, &[]), "one two");
    bench.rbuild(["rm", "-f", "-t", "0", "--filter=label=name=one"]).ok();
    assert_eq!(names(&bench, &[]), "two");
    bench.rbuild(["rm", "-t", "5", "two"]).fails(&["--force"]);
    bench.rbuild(["stop"]).fails(&["no container is named"]);
    bench.rbuild(["stop", "--all", "two"]).fails(&["cannot be used with"]);
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn a_container_is_stopped_by_the_signal_that_stop_names() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done";
    bench.rbuild(["run", "-d", "--name=it", "busybox", "sh", "-c", script]).ok();
    eventually("it runs", || bench.rbuild(["logs", "it"]).ok().stdout == "ready\n");
    bench.rbuild(["stop", "--signal=USR1", "--time=-1", "it"]).ok();
    assert_eq!(bench.rbuild(["wait", "it"]).ok().text(), "7");
}

#[test]
fn wait_waits_for_states() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=it", "busybox", "sleep", "1000"]).ok();
    assert_eq!(bench.rbuild(["wait", "--condition=running", "it"]).ok().text(), "-1");
    bench.rbuild(["pause", "it"]).ok();
    let paused = ["wait", "--condition=paused,exited", "--interval=10ms", "--latest"];
    assert_eq!(bench.rbuild(paused).ok().text(), "-1");
    bench.rbuild(["kill", "it"]).ok();
    assert_eq!(bench.rbuild(["wait", "--condition=stopped", "it"]).ok().text(), "137");
    assert_eq!(bench.rbuild(["wait", "--ignore", "nobody"]).ok().text(), "-1");
    bench.rbuild(["wait", "--condition=asleep", "it"]).fails(&["asleep"]);
}

#[test]
fn top_shows_the_columns_that_options_of_ps_name() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=it", "busybox", "sleep", "1000"]).ok();
    let top = |options: &[&str]| {
        let ran = bench.rbuild([&["top", "it"], options].concat()).ok();
        let lines: Vec<Vec<String>> = ran
            .stdout
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        lines
    };
    assert_eq!(
        top(&["-o", "user,comm,nlwp"]),
        [["USER", "COMMAND", "NLWP"], ["root", "sleep", "1"]]
    );
    assert_eq!(top(&["-ef"])[0][..3], ["USER", "PID", "PPID"]);
    assert_eq!(top(&["aux"])[1].last().unwrap(), "1000");
    let pid = bench.rbuild(["inspect", "--format={{.State.Pid}}", "it"]).ok();
    assert_eq!(top(&["-o", "pid=number"]), [["number"], [pid.text()]]);
    bench.rbuild(["top", "it", "-o", "color"]).fails(&["there is no column \"color\"", "pcpu"]);
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn logs_of_several_containers_name_each() {
    if !root() {
        return;
    }
    let bench = bench();
    for name in ["one", "two"] {
        bench.rbuild(["run", "--name", name, "busybox", "echo", name]).ok();
    }
    let shown = bench.rbuild(["logs", "--names", "one", "two"]).ok();
    assert_eq!(shown.stdout, "one one\ntwo two\n");
    let ids = bench.rbuild(["logs", "-f", "one", "two"]).ok();
    let mut lines: Vec<_> = ids.stdout.lines().map(|line| line.split_once(' ').unwrap()).collect();
    lines.sort_by_key(|(_, text)| *text);
    assert!(lines.iter().all(|(id, _)| id.len() == 12) && lines[0].1 == "one", "{lines:?}");
    assert_eq!(bench.rbuild(["logs", "--latest"]).ok().stdout, "two\n");
    let colored = bench.rbuild(["logs", "--color", "--names", "one"]).ok();
    assert_eq!(colored.stdout, "\u{1b}[32mone\u{1b}[0m one\n");
    bench.rbuild(["logs", "--details", "one"]).fails(&["--details"]);
    bench.rbuild(["logs"]).fails(&["CONTAINERS"]);
}

#[test]
fn cp_copies_between_containers_and_replaces_only_when_told() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "mkdir -p /d && echo x > /d/x && chown 7:8 /d/x && ln -s x /d/link";
    bench.rbuild(["run", "--name=one", "busybox", "sh", "-c", script]).ok();
    bench
        .rbuild([
            "create",
            "--name=two",
            "busybox",
            "sh",
            "-c",
            "stat -c '%u:%g' /x/x; readlink /x/link",
        ])
        .ok();
    bench.rbuild(["cp", "one:/d", "two:/x"]).ok();
    assert_eq!(bench.rbuild(["start", "-a", "two"]).ok().stdout, "7:8\nx\n");
    let file = bench.write("x/file", "now a file\n");
    let directory = file.parent().unwrap().join("d");
    std::fs::create_dir(&directory).unwrap();
    bench.rbuild(["cp", "one:/d/x", &format!("{}/d/x", file.parent().unwrap().display())]).ok();
    bench.write("y/d", "a file\n");
    let from = bench.path().join("y/d").display().to_string();
    bench.rbuild(["cp", &from, "one:/"]).fails(&["/d"]);
    bench.rbuild(["cp", "--overwrite", &from, "one:/"]).ok();
    assert_eq!(bench.rbuild(["cp", "one:/d", "-"]).ok().code, 0);
    let changes = bench.rbuild(["diff", "--format=json", "one"]).ok();
    assert!(changes.stdout.contains("\"added\"") && changes.stdout.contains("/d"));
}

#[test]
fn events_of_several_kinds_are_alternatives() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "--name=it", "busybox", "true"]).ok();
    let shown = |filters: &[&str]| {
        let usual = ["events", "--stream=false", "--format={{.Action}}"];
        bench.rbuild([&usual[..], filters].concat()).ok().text().replace('\n', " ")
    };
    assert_eq!(shown(&["--filter=event=create", "--filter=event=start"]), "create start");
    assert_eq!(shown(&["--filter=event=died", "--filter=container=it"]), "die");
    assert_eq!(shown(&["--filter=event=create", "--filter=container=other"]), "");
    let short = bench.rbuild(["events", "--stream=false", "--no-trunc=false", "--format={{.ID}}"]);
    assert!(short.ok().stdout.lines().all(|id| id.len() == 12));
    bench.rbuild(["events", "--filter=daemon=x"]).fails(&["daemon=x", "volume="]);
}

#[test]
fn a_volume_may_be_a_directory_of_this_machine() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.write("kept/file", "mine\n");
    let device = format!("--opt=device={}/kept", bench.path().display());
    bench.rbuild(["volume", "create", "--opt=type=none", "--opt=o=bind", &device, "v"]).ok();
    let run = ["run", "--rm", "-v=v:/etc", "busybox", "sh", "-c", "cat /etc/file; echo b > /etc/b"];
    assert_eq!(bench.rbuild(run).ok().stdout, "mine\n");
    assert!(bench.path().join("kept/b").exists());
    let shown = bench.rbuild(["volume", "inspect", "--format={{.Options.o}} {{.Mountpoint}}", "v"]);
    assert_eq!(shown.ok().text(), format!("bind {}/kept", bench.path().display()));
    bench.rbuild(["volume", "exists", "v"]).ok();
    bench.rbuild(["volume", "create", "--label=a=1", "w"]).ok();
    bench.rbuild(["volume", "prune", "-f", "--filter=all=true", "--filter=label=a=1"]).ok();
    bench.rbuild(["volume", "exists", "w"]).code(1);
    bench.rbuild(["volume", "rm", "--all"]).ok();
    assert!(bench.path().join("kept/file").exists());
    bench.rbuild(["volume", "create", "--opt=type=nfs", "x"]).fails(&["type=nfs", "device="]);
    bench.rbuild(["volume", "create", "--opt=type=none", "x"]).fails(&["device=DIRECTORY"]);
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let bench = Bench::new();
    bench.rbuild(["volume", "rm", "nosuch"]).fails(&["nosuch", "rbuild volume ls"]);
    let told = bench.rbuild(["load", "-i", "nosuch.tar"]);
    assert!(!told.stderr.contains("oci-archive"), "{}", told.told());
    told.fails(&["opening", "nosuch.tar", "no such file"]);
}

#[test]
fn each_image_container_and_volume_is_listed_with_its_room() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.rbuild(["run", "--name=one", "-v", "data:/data", "busybox", "touch", "/x"]).ok();
    for command in [&["system", "df", "-v"][..], &["df", "--verbose"]] {
        let told = bench.rbuild(command).ok().stdout;
        let row = |word: &str| {
            told.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned()
        };
        assert!(row("localhost/busybox").trim_end().ends_with(" 1"), "{told}");
        assert!(row(" one").contains("exited"), "{told}");
        assert_eq!(row("data ").split_whitespace().nth(1), Some("1"), "{told}");
    }
}

#[test]
fn the_monitor_is_shown_while_it_runs() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let file = bench.path().join("monitor").display().to_string();
    let flag = format!("--conmon-pidfile={file}");
    bench.rbuild(["run", "-d", "--name=one", &flag, "busybox", "sleep", "1000"]).ok();
    let shown = bench.rbuild(["inspect", "--format={{.State.ConmonPid}}", "one"]).ok();
    assert_eq!(shown.text(), std::fs::read_to_string(file).unwrap());
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn a_container_that_waits_for_its_end_is_stopping() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    bench.rbuild(["run", "-d", "--name=it", "busybox", "sh", "-c", script]).ok();
    eventually("it runs", || bench.rbuild(["logs", "it"]).ok().stdout == "ready\n");
    let mut stop = bench.command("rbuild");
    let mut stop = stop.args(["stop", "--time=-1", "it"]).spawn().unwrap();
    eventually("it is stopping", || names(&bench, &["--filter=status=stopping"]) == "it");
    assert_eq!(bench.rbuild(["ps", "--format={{.Status}}"]).ok().text(), "Stopping");
    let shown = "{{.State.Status}} {{.State.Running}}";
    let shown = bench.rbuild(["inspect", "--format", shown, "it"]).ok();
    assert_eq!(shown.text(), "stopping true");
    // It runs still.
    assert_eq!(names(&bench, &["--filter=status=running"]), "it");
    assert_eq!(bench.rbuild(["exec", "it", "echo", "here"]).ok().text(), "here");
    bench.rbuild(["rm", "it"]).fails(&["running", "--force"]);
    // A command that waits for it and is killed leaves it as it was.
    stop.kill().unwrap();
    stop.wait().unwrap();
    eventually("it is not stopping", || names(&bench, &["--filter=status=stopping"]).is_empty());
    assert!(bench.rbuild(["ps", "--format={{.Status}}"]).ok().text().starts_with("Up "));
    bench.rbuild(["rm", "-f", "it"]).ok();
    for filter in ["status=odd", "health=odd"] {
        bench.rbuild(["ps", "--filter", filter]).fails(&["not supported", filter]);
    }
}

#[test]
fn a_program_ends_with_its_container() {
    if !root() {
        return;
    }
    let bench = bench();
    for end in [&["stop", "-t0", "it"][..], &["rm", "-f", "it"], &["restart", "-t0", "it"]] {
        bench.rbuild(["rm", "-f", "it"]).ok();
        bench.rbuild(["run", "-d", "--name=it", "busybox", "sleep", "1000"]).ok();
        let mut exec = bench.command("rbuild");
        let exec = exec.args(["exec", "it", "sh", "-c", "touch /here; sleep 1000"]);
        let exec = exec.stderr(std::process::Stdio::piped()).spawn().unwrap();
        eventually("the program runs", || bench.rbuild(["exec", "it", "ls", "/here"]).code == 0);
        bench.rbuild(end).ok();
        let ended = exec.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(137), "{end:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{end:?}");
    }
    bench.rbuild(["pause", "it"]).ok();
    bench.rbuild(["pause", "it"]).fails(&["container it is not running: paused"]);
    bench.rbuild(["exec", "it", "true"]).fails(&["container it is paused", "rbuild unpause it"]);
    bench.rbuild(["unpause", "it"]).ok();
    bench.rbuild(["exec", "it", "true"]).ok();
    bench.rbuild(["rm", "-f", "it"]).ok();
}
