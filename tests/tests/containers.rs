//! The life of containers: create, start, stop, restart, remove; volumes, logs, records.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Bench, eventually, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// The directory of the only container of a store.
fn directory(bench: &Bench) -> PathBuf {
    let entries = std::fs::read_dir(bench.store().join("containers")).unwrap();
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn state(bench: &Bench, name: &str) -> String {
    let ran = bench.rbuild(["inspect", "--type=container", "--format={{.State.Status}}", name]);
    ran.text().to_owned()
}

#[test]
fn a_created_container_starts_and_starts_again_with_its_files() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "test -e /been && echo again; echo x >> /been; wc -l < /been";
    bench.rbuild(["create", "--name=one", "--label=a=1", "busybox", "sh", "-c", script]).ok();
    assert_eq!(state(&bench, "one"), "created");
    assert_eq!(bench.rbuild(["logs", "one"]).ok().stdout, "");
    assert_eq!(bench.rbuild(["start", "--attach", "one"]).ok().stdout, "1\n");
    assert_eq!(bench.rbuild(["start", "one"]).ok().text(), "one");
    assert_eq!(bench.rbuild(["wait", "one"]).ok().text(), "0");
    assert_eq!(bench.rbuild(["logs", "one"]).ok().stdout, "1\nagain\n2\n");
    bench.rbuild(["restart", "one"]).ok();
    assert_eq!(bench.rbuild(["wait", "one"]).ok().text(), "0");
    assert_eq!(bench.rbuild(["logs", "--tail=2", "one"]).ok().stdout, "again\n3\n");
    let listed = bench.rbuild(["ps", "-a", "--filter=label=a=1", "--format={{.Names}}"]).ok();
    assert_eq!(listed.text(), "one");
    assert_eq!(bench.rbuild(["ps", "-aq", "--filter=label=a=2"]).ok().text(), "");
    bench.rbuild(["rm", "one"]).ok();
    bench.rbuild(["start", "one"]).fails(&["there is no container \"one\""]);
}

#[test]
fn volumes_of_an_image_exist_stay_writable_and_go_with_rm() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = "FROM busybox\nRUN mkdir /data && echo seed > /data/seed && chown 1000:1000 /data && chmod 750 /data\nVOLUME /data /fresh\n";
    bench.build("volumes", file, &[]).ok();
    let script = "cat /data/seed; stat -c '%u %a' /data; echo y > /data/y; echo z > /fresh/z; \
                  grep -c ' /data \\| /fresh ' /proc/mounts";
    for flags in [&["--rm"][..], &["--rm", "--read-only"], &["--rm", "--name=kept", "--read-only"]]
    {
        let ran = bench.rbuild([&["run"], flags, &["volumes", "sh", "-c", script]].concat()).ok();
        assert_eq!(ran.stdout, "seed\n1000 750\n2\n", "{flags:?}");
        eventually("anonymous volumes are gone", || {
            let left = std::fs::read_dir(bench.store().join("volumes"));
            left.map_or(0, Iterator::count) == 0
        });
    }
    // What the user mounts there wins.
    let own = bench.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let mount = format!("{}:/data", own.display());
    let ran = bench.rbuild(["run", "--rm", "-v", &mount, "volumes", "ls", "/data"]).ok();
    assert_eq!(ran.stdout, "");
    // Without --rm they live until they are removed.
    bench.rbuild(["run", "--name=lasting", "volumes", "sh", "-c", "echo x > /fresh/x"]).ok();
    assert_eq!(std::fs::read_dir(bench.store().join("volumes")).unwrap().count(), 2);
    bench.rbuild(["rm", "-v", "lasting"]).ok();
    assert_eq!(std::fs::read_dir(bench.store().join("volumes")).unwrap().count(), 0);
}

#[test]
fn a_named_volume_takes_the_images_files_once_and_outlives_containers() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.build("seeded", "FROM busybox\nRUN mkdir /d && echo seed > /d/seed\n", &[]).ok();
    let sh = |volume: &str, script: &str| {
        bench.rbuild(["run", "--name=n", "--replace", "-v", volume, "seeded", "sh", "-c", script])
    };
    assert_eq!(sh("data:/d", "cat /d/seed; rm /d/seed; echo 1 > /d/one").ok().stdout, "seed\n");
    assert_eq!(sh("data:/d", "ls /d").ok().stdout, "one\n");
    assert_ne!(sh("data:/d:ro", "echo 2 > /d/two").code, 0);
    assert_eq!(sh("empty:/d:nocopy", "ls /d").ok().stdout, "");
    let quoted = bench
        .rbuild([
            "run",
            "--rm",
            "--mount",
            "type=volume,\"source=data\",dst=/x",
            "busybox",
            "ls",
            "/x",
        ])
        .ok();
    assert_eq!(quoted.stdout, "one\n");
    bench.build("x", "FROM busybox\n", &[]).ok();
    let context = bench.path().join("context-x");
    bench
        .rbuild(["bud", "-v", "data:/d", &context.display().to_string()])
        .fails(&["volume data", "not supported here"]);
}

#[test]
fn a_detached_container_with_rm_is_removed_by_its_monitor() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--rm", "--name=two", "busybox", "sleep", "1000"]).ok();
    let directory = directory(&bench);
    bench.rbuild(["kill", "two"]).ok();
    // No command has to look for the directory to be removed.
    eventually("the container removes itself", || !directory.exists());
    assert_eq!(bench.rbuild(["ps", "-aq"]).ok().text(), "");
}

#[test]
fn what_a_killed_run_left_does_not_hold_its_name_and_listing_deletes_nothing() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["create", "--name=one", "busybox", "true"]).ok();
    // As `run` leaves it when it is killed between making and starting.
    std::fs::write(directory(&bench).join("claim"), "4194304 1").unwrap();
    for _ in 0..2 {
        assert_eq!(bench.rbuild(["ps", "-a", "--format={{.Names}}"]).ok().text(), "one");
    }
    assert_eq!(bench.rbuild(["run", "--name=one", "busybox", "echo", "new"]).ok().stdout, "new\n");
    // One that was created to stay keeps its name.
    bench.rbuild(["create", "--name=two", "busybox", "true"]).ok();
    bench.rbuild(["run", "--name=two", "busybox", "true"]).code(125).fails(&["two"]);
}

#[test]
fn h_is_the_host_name_and_help_is_a_word() {
    if !root() {
        return;
    }
    let bench = bench();
    assert_eq!(
        bench.rbuild(["run", "--rm", "-h", "box", "busybox", "hostname"]).ok().text(),
        "box"
    );
    let help = bench.rbuild(["run", "--help"]).ok();
    assert!(help.stdout.contains("--hostname") && help.stdout.contains("Usage"));
}

#[test]
fn exec_with_a_terminal_but_no_input_does_not_hang() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sleep", "1000"]).ok();
    // Standard input of these commands is /dev/null.
    bench.rbuild(["exec", "-it", "one", "sh"]).fails(&["standard input is not a terminal"]);
    assert_eq!(bench.rbuild(["exec", "-t", "one", "echo", "hi"]).ok().stdout, "hi\r\n");
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn stop_and_remove_of_all_do_not_fail_when_containers_end_meanwhile() {
    if !root() {
        return;
    }
    let bench = bench();
    for round in 0..3 {
        for number in 0..6 {
            let name = format!("c{number}");
            let time = format!("0.{number}");
            let rm = format!("--rm={}", number % 2 == 0);
            bench.rbuild(["run", "-d", &rm, "--name", &name, "busybox", "sleep", &time]).ok();
        }
        let words: &[&str] = if round == 0 { &["stop", "-a", "-t", "0"] } else { &["rm", "-fa"] };
        let mut others: Vec<_> = (0..2)
            .map(|_| {
                bench
                    .command("rbuild")
                    .args(words)
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        bench.rbuild(words).ok();
        for other in &mut others {
            assert!(other.wait().unwrap().success());
        }
        bench.rbuild(["rm", "-fa"]).ok();
        assert_eq!(bench.rbuild(["ps", "-aq"]).ok().text(), "");
    }
}

#[test]
fn an_unknown_name_does_not_keep_the_others_back() {
    if !root() {
        return;
    }
    let bench = bench();
    for name in ["one", "two"] {
        bench.rbuild(["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let stopped = bench.rbuild(["stop", "-t", "0", "one", "missing", "two"]);
    stopped.fails(&["there is no container \"missing\""]);
    assert_eq!((state(&bench, "one"), state(&bench, "two")), ("exited".into(), "exited".into()));
    bench.rbuild(["rm", "one", "two"]).ok();
}

#[test]
fn tail_counts_lines_and_keeps_characters_and_bytes() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "i=0; while [ $i -lt 20000 ]; do printf '\\303\\244\\342\\202\\254'; i=$((i+1)); done; \
                  echo; echo short; printf '\\377\\n'; printf tail";
    bench.rbuild(["run", "--name=one", "busybox", "sh", "-c", script]).ok();
    let logs = |tail: &str| {
        let mut command = bench.command("rbuild");
        command.args(["logs", "--tail", tail, "one"]).output().unwrap().stdout
    };
    assert_eq!(logs("1"), b"tail");
    assert_eq!(logs("3"), b"short\n\xff\ntail");
    let long = "ä€".repeat(20_000);
    assert_eq!(logs("4"), [long.as_bytes(), b"\nshort\n\xff\ntail"].concat());
    assert_eq!(logs("all"), logs("4"));
    assert_eq!(logs("0"), b"");
}

#[test]
fn lines_of_both_streams_stay_near_the_order_they_were_written_in() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "i=0; while [ $i -lt 3000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sh", "-c", script]).ok();
    bench.rbuild(["wait", "one"]).ok();
    let log = std::fs::read_to_string(directory(&bench).join("log")).unwrap();
    let (mut seen, mut farthest) = ([0i64, 0i64], 0);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let stream = usize::from(line["stream"] == "stderr");
        let expected = format!("{}{}\n", ["o", "e"][stream], seen[stream]);
        assert_eq!(line["line"], expected.as_str(), "each stream is in order");
        seen[stream] += 1;
        farthest = farthest.max((seen[0] - seen[1]).abs());
    }
    assert_eq!(seen, [3000, 3000]);
    // A line is five or six bytes; a kilobyte of each stream is read in turn.
    assert!(farthest <= 600, "{farthest} lines apart");
}

#[test]
fn flags_that_a_working_container_cannot_heed_are_refused() {
    if !root() {
        return;
    }
    let bench = bench();
    let name = bench.rbuild(["from", "busybox"]).ok().text().to_owned();
    for flag in ["--pull=always", "--detach-keys=a", "--restart=always", "--stop-timeout=3"] {
        let (word, _) = flag.split_once('=').unwrap();
        bench.rbuild(["run", flag, &name, "--", "true"]).fails(&[word, "is for new containers"]);
    }
    bench.rbuild(["run", &name, "--", "true"]).ok();
    bench.rbuild(["run", "--network=none", "--cap-drop=ALL", &name, "--", "true"]).ok();
}

#[test]
fn environment_files_with_a_mark_and_exports_are_read() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("env", "\u{feff}A=1\nexport B=2 3\n");
    let flag = format!("--env-file={}", file.display());
    let ran = bench.rbuild(["run", "--rm", &flag, "busybox", "sh", "-c", "echo $A/$B"]).ok();
    assert_eq!(ran.text(), "1/2 3");
}

#[test]
fn fields_of_a_mount_may_stand_in_quotes() {
    if !root() {
        return;
    }
    let bench = bench();
    let odd = bench.path().join("with,comma");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("f"), "content").unwrap();
    let mount = format!("type=bind,\"src={}\",dst=/x", odd.display());
    assert_eq!(
        bench.rbuild(["run", "--rm", "--mount", &mount, "busybox", "cat", "/x/f"]).ok().stdout,
        "content"
    );
    let secret = format!("id=s,\"src={}\"", odd.join("f").display());
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=s grep content /run/secrets/s\n",
    );
    bench.rbuild(["bud", "--secret", &secret, "c"]).ok();
    let out = bench.path().join("out,put");
    let output = format!("type=local,\"dest={}\"", out.display());
    bench.rbuild(["bud", "--secret", &secret, "-o", &output, "c"]).ok();
    assert!(Path::new(&out).join("bin/busybox").exists());
}

#[test]
fn a_failing_program_is_started_again_as_often_as_its_policy_says() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "echo x >> /runs; exit 1";
    let policy = "--restart=on-failure:2";
    bench.rbuild(["run", "-d", "--name=one", policy, "busybox", "sh", "-c", script]).ok();
    let count = || {
        let format = "--format={{.RestartCount}} {{.State.Status}}";
        bench.rbuild(["inspect", "--type=container", format, "one"]).ok().text().to_owned()
    };
    eventually("it gave up after two", || count() == "2 exited");
    bench.rbuild(["rm", "one"]).ok();
    bench.rbuild(["run", "-d", "--name=two", "--restart=always", "busybox", "sleep", "1000"]).ok();
    bench.rbuild(["stop", "-t", "0", "two"]).ok();
    assert_eq!(state(&bench, "two"), "exited", "who was stopped stays stopped");
    bench.rbuild(["run", "--rm", "--restart=always", "busybox"]).code(125).fails(&["--rm"]);
    bench.rbuild(["rm", "two"]).ok();
}

#[test]
fn a_record_of_an_earlier_version_is_still_a_container() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["create", "--name=old", "busybox", "true"]).ok();
    let directory = directory(&bench);
    std::fs::remove_file(directory.join("container.json")).unwrap();
    let about = r#"{"image":"busybox","command":["echo","from before"],"stopSignal":null,"labels":{"k":"v"},"remove":false}"#;
    std::fs::write(directory.join("about.json"), about).unwrap();
    let listed = bench.rbuild(["ps", "-a", "--format={{.Names}} {{.Image}} {{.Command}}"]).ok();
    assert_eq!(listed.text(), "old busybox echo from before");
    assert_eq!(bench.rbuild(["start", "-a", "old"]).ok().stdout, "from before\n");
}

#[test]
fn a_paused_container_stands_still_and_can_be_stopped() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done";
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sh", "-c", script]).ok();
    let last = || bench.rbuild(["logs", "--tail=1", "one"]).ok().stdout;
    eventually("it prints", || !last().is_empty());
    let paused = bench.rbuild(["pause", "one"]);
    if paused.stderr.contains("no freezer") {
        return requires::cannot("the machine has no freezer among its cgroups");
    }
    paused.ok();
    assert_eq!(state(&bench, "one"), "paused");
    // Nothing is on its way any more once two looks see the same.
    let mut seen = last();
    eventually("it stands still", || {
        std::thread::sleep(Duration::from_millis(100));
        let before = std::mem::replace(&mut seen, last());
        before == seen
    });
    bench.rbuild(["pause", "one"]).fails(&["not running: paused"]);
    bench.rbuild(["unpause", "one"]).ok();
    eventually("it goes on", || last() != seen);
    bench.rbuild(["unpause", "one"]).fails(&["container one is not paused"]);
    bench.rbuild(["pause", "one"]).ok();
    bench.rbuild(["stop", "-t", "0", "one"]).ok();
    assert_eq!(state(&bench, "one"), "exited");
    bench.rbuild(["rm", "one"]).ok();
}

#[test]
fn after_a_start_of_the_machine_what_should_run_is_started() {
    if !root() {
        return;
    }
    let bench = bench();
    for (name, policy) in [
        ("always", "always"),
        ("stopped", "unless-stopped"),
        ("on", "unless-stopped"),
        ("no", "no"),
    ] {
        let flag = format!("--restart={policy}");
        bench.rbuild(["create", "--name", name, &flag, "busybox", "sleep", "1000"]).ok();
    }
    for name in ["always", "stopped"] {
        bench.rbuild(["start", name]).ok();
        bench.rbuild(["stop", "-t", "0", name]).ok();
    }
    bench.rbuild(["start", "--all", "--restart-policy"]).ok();
    let running = bench.rbuild(["ps", "--format={{.Names}}"]).ok().stdout;
    let mut running: Vec<&str> = running.lines().collect();
    running.sort_unstable();
    assert_eq!(running, ["always", "on"]);
    let unit = bench.rbuild(["system", "install-unit"]).ok().stdout;
    assert!(unit.contains("start --all --restart-policy") && unit.contains("KillMode=process"));
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn flags_of_docker_that_there_are_not_are_refused_with_a_reason() {
    let bench = Bench::new();
    for (flag, word) in [
        ("--systemd=always", "--tmpfs"),
        ("--log-driver=syslog", "rbuild logs"),
        ("--cpu-count=1", "Windows"),
    ] {
        let (name, _) = flag.split_once('=').unwrap();
        bench.rbuild(["run", flag, "busybox"]).code(125).fails(&[name, "not supported", word]);
        bench.rbuild(["create", flag, "busybox"]).code(125).fails(&[name, word]);
    }
    bench.rbuild(["images", "--gpus=all"]).code(125).fails(&["--gpus"]);
}

#[test]
fn volumes_and_mounts_of_another_container_are_mounted() {
    if !root() {
        return;
    }
    let bench = bench();
    let host = bench.write("host/file", "of the machine");
    let bind = format!("{}:/host", host.parent().unwrap().display());
    bench
        .rbuild([
            "run",
            "--name=one",
            "-v",
            "data:/data",
            "-v",
            "/own",
            "-v",
            &bind,
            "busybox",
            "sh",
            "-c",
            "echo d > /data/f; echo o > /own/f",
        ])
        .ok();
    let look = "cat /data/f /own/f /host/file; echo x > /data/g";
    let ran = bench.rbuild(["run", "--rm", "--volumes-from=one", "busybox", "sh", "-c", look]).ok();
    assert_eq!(ran.stdout, "d\no\nof the machine");
    let ran = bench.rbuild(["run", "--rm", "--volumes-from=one:ro", "busybox", "sh", "-c", look]);
    assert_ne!(ran.code, 0, "{}", ran.told());
    // What the other has is not removed with this one.
    assert_eq!(bench.rbuild(["volume", "ls", "-q"]).ok().text().lines().count(), 2);
    bench.rbuild(["run", "--rm", "--volumes-from=none", "busybox"]).code(125).fails(&["none"]);
}

#[test]
fn limits_change_between_runs_and_policies_at_any_time() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sleep", "1000"]).ok();
    bench.rbuild(["update", "--restart=always", "one"]).ok();
    bench.rbuild(["update", "--shm-size=1m", "one"]).fails(&["one is running", "stop it"]);
    bench.rbuild(["stop", "-t", "0", "one"]).ok();
    bench.rbuild(["update", "--memory=64m", "--pids-limit=50", "one"]).ok();
    let format = "--format={{.Spec.limits.memory}} {{.Spec.lifecycle.restart}}";
    let told = bench.rbuild(["inspect", "--type=container", format, "one"]).ok();
    assert_eq!(told.text(), "67108864 always");
    bench.rbuild(["update", "one"]).code(125).fails(&["nothing to change"]);
    bench.rbuild(["rm", "one"]).ok();
}

#[test]
fn quadlet_files_become_units_that_systemd_reads() {
    let bench = Bench::new();
    let text = "[Container]\nImage=nginx\nVolume=data.volume:/d\nEnvironment=A=1\n\
                [Install]\nWantedBy=multi-user.target\n";
    bench.write("quadlet/web.container", text);
    bench.write("quadlet/data.volume", "[Volume]\n");
    std::fs::create_dir(bench.path().join("units")).unwrap();
    bench.rbuild(["system", "generator", "--from=quadlet", "units", "units", "units"]).ok();
    let unit = std::fs::read_to_string(bench.path().join("units/web.service")).unwrap();
    assert!(unit.contains("--volume=systemd-data:/d --env=A=1 nginx"), "{unit}");
    assert!(bench.path().join("units/data-volume.service").exists());
    let link = bench.path().join("units/multi-user.target.wants/web.service");
    assert_eq!(std::fs::read_to_string(link).unwrap(), unit);
    bench.write("quadlet/odd.container", "[Container]\nImage=x\nSecret=s\n");
    let ran = bench.rbuild(["system", "generator", "--dryrun", "--from=quadlet"]);
    assert!(ran.stdout.contains("---web.service---"), "{}", ran.told());
    ran.fails(&["odd.container", "Secret= is not supported"]);
}

#[test]
fn the_log_tells_what_the_monitor_of_a_container_does() {
    if !root() {
        return;
    }
    let bench = bench();
    let ran = bench.rbuild(["--log=debug", "run", "-d", "--name=one", "busybox", "true"]).ok();
    assert!(ran.stderr.contains("monitor: DEBUG runtime::init"), "{}", ran.told());
    bench.rbuild(["wait", "one"]).ok();
    let log = directory(&bench).join("monitor.log");
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually("the end is logged", || said().contains("the program ended"));
    // Without a log of the starter there is none.
    bench.rbuild(["start", "one"]).ok();
    assert!(!log.exists());
}
