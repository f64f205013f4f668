//! The health of containers, their logs, and what monitors do that are killed.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use e2e::{Bench, eventually, root};
use rustix::process::{Pid, Signal};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// The process that watches over the only container.
fn monitor(bench: &Bench) -> i32 {
    let directory = std::fs::read_dir(bench.store().join("containers")).unwrap().next();
    let state = directory.unwrap().unwrap().path().join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    i32::try_from(state["monitor"].as_i64().unwrap()).unwrap()
}

fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn told(bench: &Bench, name: &str, template: &str) -> String {
    let format = format!("--format={template}");
    bench.rbuild(["inspect", "--type=container", &format, name]).text().to_owned()
}

fn health(bench: &Bench, name: &str) -> String {
    told(bench, name, "{{.State.Health.Status}}")
}

#[test]
fn the_health_check_of_an_image_is_run_and_shown() {
    if !root() {
        return;
    }
    let bench = bench();
    let file =
        "FROM busybox\nHEALTHCHECK --interval=50ms --retries=2 CMD echo checked; test -e /ok\n";
    bench.build("checked", file, &[]).ok();
    bench.rbuild(["run", "-d", "--name=one", "checked", "sleep", "1000"]).ok();
    eventually("it is unhealthy", || health(&bench, "one") == "unhealthy");
    let listed = bench.rbuild(["ps", "--format={{.Status}}", "--filter=health=unhealthy"]).ok();
    assert!(listed.text().ends_with("(unhealthy)"), "{}", listed.text());
    bench.rbuild(["healthcheck", "run", "one"]).code(1);
    bench.rbuild(["exec", "one", "touch", "/ok"]).ok();
    assert_eq!(bench.rbuild(["healthcheck", "run", "one"]).ok().text(), "healthy");
    eventually("it is healthy", || health(&bench, "one") == "healthy");
    let log = told(&bench, "one", "{{json .State.Health.Log}}");
    assert!(log.contains("checked") && log.contains("\"ExitCode\":0"), "{log}");
    eventually("both are events", || {
        let events = bench.rbuild(["events", "--since=10m", "--until=0s"]).ok().stdout;
        ["health_status: unhealthy", "health_status: healthy"].iter().all(|e| events.contains(e))
    });
    bench.rbuild(["rm", "-f", "one"]).ok();
    // Nothing checks what the user does not want checked.
    bench.rbuild(["run", "-d", "--no-healthcheck", "--name=two", "checked", "sleep", "1000"]).ok();
    assert!(!health(&bench, "two").contains("starting"));
    bench.rbuild(["healthcheck", "run", "two"]).fails(&["the container has none"]);
    bench.rbuild(["rm", "-f", "two"]).ok();
}

#[test]
fn an_unhealthy_container_is_killed_stopped_or_restarted_as_asked() {
    if !root() {
        return;
    }
    let bench = bench();
    let run = |name: &str, action: &str, script: &str| {
        let action = format!("--health-on-failure={action}");
        let words = ["run", "-d", "--name", name, "--health-cmd=false", "--health-interval=50ms"];
        let rest = ["--health-retries=1", &action, "busybox", "sh", "-c", script];
        bench.rbuild([&words[..], &rest].concat()).ok();
    };
    run("killed", "kill", "sleep 1000");
    assert_eq!(bench.rbuild(["wait", "killed"]).ok().text(), "137");
    run("stopped", "stop", "trap 'exit 5' TERM; while :; do sleep 0.1; done");
    assert_eq!(bench.rbuild(["wait", "stopped"]).ok().text(), "5");
    run("again", "restart", "echo begun; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    eventually("it was started again", || {
        bench.rbuild(["logs", "again"]).ok().stdout.matches("begun").count() > 1
    });
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn a_check_that_takes_too_long_has_failed() {
    if !root() {
        return;
    }
    let bench = bench();
    let words = ["run", "-d", "--name=one", "--health-cmd=sleep 1000", "--health-interval=50ms"];
    let rest = ["--health-timeout=100ms", "--health-retries=1", "busybox", "sleep", "1000"];
    bench.rbuild([&words[..], &rest].concat()).ok();
    eventually("it is unhealthy", || health(&bench, "one") == "unhealthy");
    assert!(told(&bench, "one", "{{json .State.Health.Log}}").contains("took longer than"));
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn logs_are_bounded_and_read_across_their_files() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done";
    let limits = ["--log-opt=max-size=4k", "--log-opt", "max-file=3"];
    let words = [&["run", "--name=one"], &limits[..], &["busybox", "sh", "-c", script]].concat();
    assert_eq!(bench.rbuild(words).ok().stdout.lines().count(), 300);
    let directory = std::fs::read_dir(bench.store().join("containers")).unwrap().next();
    let directory = directory.unwrap().unwrap().path();
    let files: Vec<u64> = ["log", "log.1", "log.2"]
        .map(|name| std::fs::metadata(directory.join(name)).unwrap().len())
        .to_vec();
    assert!(files.iter().all(|size| *size <= 4096), "{files:?}");
    assert!(!directory.join("log.3").exists());
    let logs = bench.rbuild(["logs", "one"]).ok().stdout;
    let count = logs.lines().count();
    let last: String = (300 - count..300).map(|n| format!("line {n}\n")).collect();
    assert!(count > 100 && logs == last, "{logs}");
    assert_eq!(bench.rbuild(["logs", "--tail=2", "one"]).ok().stdout, "line 298\nline 299\n");
    bench.rbuild(["run", "--name=two", "--log-driver=none", "busybox", "echo", "x"]).ok();
    bench.rbuild(["logs", "two"]).fails(&["two", "keeps none"]);
    bench.rbuild(["run", "--log-driver=journald", "busybox"]).fails(&["journald", "not supported"]);
}

#[test]
fn readiness_is_told_to_the_service_manager() {
    if !root() {
        return;
    }
    let bench = bench();
    let path = bench.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut bytes = [0; 4096];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let run = |words: &[&str]| {
        let mut command = bench.command("rbuild");
        e2e::run(command.env("NOTIFY_SOCKET", &path).args(["run", "-d"]).args(words)).ok();
    };
    run(&["--name=one", "--sdnotify=conmon", "busybox", "sleep", "1000"]);
    let text = heard();
    assert!(text.starts_with("MAINPID=") && text.ends_with("READY=1"), "{text}");
    let check = ["--health-cmd=test -e /ok", "--health-interval=50ms"];
    let rest = ["--name=two", "--sdnotify=healthy", "busybox", "sleep", "1000"];
    run(&[&check[..], &rest].concat());
    assert!(heard().starts_with("MAINPID="));
    bench.rbuild(["exec", "two", "touch", "/ok"]).ok();
    assert_eq!(heard(), "READY=1");
    run(&["--sdnotify=container", "busybox", "sh", "-c", "test -S $NOTIFY_SOCKET; echo $? > /x"]);
    assert!(heard().starts_with("MAINPID="));
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn a_killed_monitor_loses_neither_the_container_nor_its_exit_code() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "echo one; while ! test -e /go; do sleep 0.1; done; echo two; exit 7";
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sh", "-c", script]).ok();
    let first = monitor(&bench);
    signal(first, Signal::KILL);
    eventually("another takes over", || monitor(&bench) != first);
    assert_eq!(told(&bench, "one", "{{.State.Status}}"), "running");
    bench.rbuild(["exec", "one", "touch", "/go"]).ok();
    assert_eq!(bench.rbuild(["wait", "one"]).ok().text(), "7");
    assert_eq!(bench.rbuild(["logs", "one"]).ok().stdout, "one\ntwo\n");
    bench.rbuild(["start", "one"]).ok();
    assert_eq!(bench.rbuild(["wait", "one"]).ok().text(), "7");
    bench.rbuild(["rm", "one"]).ok();
}

#[test]
fn a_container_gets_the_time_it_was_given() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "--timeout=1", "--name=one", "busybox", "sleep", "1000"]).code(137);
    assert_eq!(told(&bench, "one", "{{.State.ExitCode}}"), "137");
}

#[test]
fn a_killed_supervisor_that_shares_the_machines_processes_leaves_none_behind() {
    if !root() {
        return;
    }
    let bench = bench();
    let mark = format!("MARK={}", bench.path().display());
    let script = "setsid sleep 1000 & echo ready; sleep 1000";
    let words = ["run", "--rm", "--pid=host", "-e", &mark, "busybox", "sh", "-c", script];
    let mut command = bench.command("rbuild");
    let mut child = command.args(words).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = |pid: u32| {
        let text = stat(pid);
        let rest = text.rsplit(") ").next().unwrap_or_default();
        rest.split(' ').nth(1).and_then(|parent| parent.parse::<u32>().ok()).unwrap_or(0)
    };
    // rbuild, the guard, the supervisor, the program.
    let program = e2e::kill::processes()
        .into_iter()
        .find(|pid| parent(parent(parent(*pid))) == child.id() && parent(*pid) != child.id());
    let Some(program) = program else {
        child.kill().unwrap();
        panic!("there is no program");
    };
    let supervisor =
        rustix::process::Pid::from_raw(i32::try_from(parent(program)).unwrap()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    assert!(!child.wait().unwrap().success());
    e2e::kill::wait_for_none(&mark);
}

/// The only child of a process.
fn child(of: i32) -> Option<i32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let listed = std::fs::read_to_string(path).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).next_back()
}

/// A further program of a container ends, and the process outside that would collect it is killed.
fn orphan(bench: &Bench, monitor: i32) {
    bench.rbuild(["exec", "-d", "one", "sleep", "555"]).ok();
    let joined = || {
        let joined = child(monitor)?;
        let program = child(joined)?;
        let line = std::fs::read_to_string(format!("/proc/{program}/cmdline")).ok()?;
        line.contains("555").then_some((joined, program))
    };
    eventually("the program runs", || joined().is_some());
    let (joined, program) = joined().unwrap();
    signal(joined, Signal::STOP);
    signal(program, Signal::KILL);
    let stat = format!("/proc/{program}/stat");
    let dead = || std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z "));
    eventually("it has ended", dead);
    signal(joined, Signal::KILL);
    eventually("it is collected", || !dead());
}

#[test]
fn a_program_that_lost_its_parent_does_not_keep_the_container_from_ending() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sleep", "1000"]).ok();
    let first = monitor(&bench);
    orphan(&bench, first);
    // The process that takes over for a killed monitor collects as well.
    signal(first, Signal::KILL);
    eventually("another has taken over", || monitor(&bench) != first);
    orphan(&bench, monitor(&bench));
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn an_action_without_a_check_is_refused() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.build("checked", "FROM busybox\nHEALTHCHECK CMD true\n", &[]).ok();
    for verb in [&["run", "--rm"][..], &["create"]] {
        let line =
            |image: &'static str| [verb, &["--health-on-failure=kill", image, "true"]].concat();
        bench.rbuild(line("busybox")).code(125).fails(&["--health-on-failure", "no health check"]);
        bench.rbuild(line("checked")).ok();
    }
}
