//! Containers with a monitor: logs, attaching, executing, stopping, terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use runtime::{
    AttachOptions, AttachOutcome, ContainerSpec, Error, Exec, ExitStatus, LogOptions,
    MonitorOptions, ProcessSpec, Signal, StartOptions, State, Status, Streams,
};
use task::Task;

use crate::support::*;

pub(crate) const CASES: &[crate::Case] = &[
    ("detached_with_logs", detached_with_logs),
    ("failed_start_is_told", failed_start_is_told),
    ("attach_passes_input_and_output", attach_passes_input_and_output),
    ("stop_asks_then_kills", stop_asks_then_kills),
    ("exec_joins", exec_joins),
    ("exec_as_another_user", exec_as_another_user),
    ("exec_failures", exec_failures),
    ("terminal_size_and_detach", terminal_size_and_detach),
    ("exec_with_a_terminal", exec_with_a_terminal),
    ("a_killed_monitor_is_replaced", a_killed_monitor_is_replaced),
    ("a_killed_guard_changes_nothing", a_killed_guard_changes_nothing),
    (
        "without_any_monitor_it_runs_on_and_can_be_stopped",
        without_any_monitor_it_runs_on_and_can_be_stopped,
    ),
    ("foreground_terminal", foreground_terminal),
    ("much_output_is_whole", much_output_is_whole),
    ("the_end_waits_for_who_started_it", the_end_waits_for_who_started_it),
];

const LEAVE: &[u8] = &[16, 17];

fn options(input: bool) -> AttachOptions {
    AttachOptions { input, detach_keys: LEAVE.to_vec(), forward_signals: false, replay: true }
}

fn launch(root: &Rootfs, dir: &Path, line: &str, streams: Streams) -> Result<State, Error> {
    let spec = ContainerSpec {
        process: ProcessSpec { terminal: streams.terminal.is_some(), ..ProcessSpec::default() },
        ..ContainerSpec::default()
    };
    let bundle = root.bundle(&with_shell(line, &spec))?;
    let options = StartOptions { id: id(), ..StartOptions::default() };
    runtime::launch(dir, bundle, streams, MonitorOptions::default(), &options)
}

/// Runs a client with files as streams and gives what it was shown.
fn shown(
    run: impl FnOnce([std::os::fd::BorrowedFd<'_>; 3]) -> Result<AttachOutcome, Error>,
    input: &str,
) -> (Result<AttachOutcome, Error>, String) {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("in"), input).unwrap();
    let stdin = File::open(files.path().join("in")).unwrap();
    let out = File::create(files.path().join("out")).unwrap();
    let result = run([stdin.as_fd(), out.as_fd(), out.as_fd()]);
    (result, std::fs::read_to_string(files.path().join("out")).unwrap())
}

fn log_text(dir: &Path, options: &LogOptions) -> String {
    let mut text = String::new();
    runtime::logs(dir, options, &Task::silent(), &mut |line| {
        text += &format!("{}:{}", line.stream, line.line);
    })
    .unwrap();
    text
}

fn the_end_waits_for_who_started_it() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let streams = Streams { attached: true, ..Streams::default() };
    launch(&root, dir.path(), "echo short; exit 3", streams).unwrap();
    // The program has ended before anybody attaches. Its monitor collects it only afterwards.
    let stat = format!("/proc/{}/stat", runtime::state(dir.path()).unwrap().pid);
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (attached, text) = shown(
        |streams| runtime::attach_streams(dir.path(), &options(false), streams, &Task::silent()),
        "",
    );
    assert_eq!(attached.unwrap(), AttachOutcome::Exited(ExitStatus::Code(3)));
    assert_eq!(text, "short\n");
    assert_eq!(runtime::state(dir.path()).unwrap().status, Status::Exited);
}

fn detached_with_logs() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let state = launch(
        &root,
        dir.path(),
        "echo one; echo two; echo three >&2; printf end; exit 5",
        Streams::default(),
    )
    .unwrap();
    assert!(matches!(state.status, Status::Running | Status::Exited), "{state:?}");
    assert_eq!(runtime::wait(dir.path(), &Task::silent()).unwrap(), ExitStatus::Code(5));
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let text = log_text(dir.path(), &follow);
    for part in ["stdout:one\nstdout:two\n", "stderr:three\n", "stdout:end"] {
        assert!(text.contains(part), "{text}");
    }
    let tail = LogOptions { tail: Some(1), ..LogOptions::default() };
    assert_eq!(log_text(dir.path(), &tail).matches(':').count(), 1);
    let since = LogOptions { since: Some(4e9), ..LogOptions::default() };
    assert_eq!(log_text(dir.path(), &since), "");
    let state = runtime::state(dir.path()).unwrap();
    assert_eq!((state.status, state.exit), (Status::Exited, Some(ExitStatus::Code(5))));
    assert!(state.finished.unwrap() >= state.started);
    assert!(matches!(runtime::signal(dir.path(), Signal::TERM), Err(Error::NotRunning { .. })));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(runtime::state(&nowhere), Err(Error::NoContainer { .. })));
}

fn failed_start_is_told() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let spec = ContainerSpec {
        process: ProcessSpec { command: command(&["/missing"]), ..ProcessSpec::default() },
        ..ContainerSpec::default()
    };
    let bundle = root.bundle(&spec).unwrap();
    let options = StartOptions { id: id(), ..StartOptions::default() };
    let error = runtime::launch(
        dir.path(),
        bundle,
        Streams::default(),
        MonitorOptions::default(),
        &options,
    )
    .unwrap_err();
    assert_eq!(error.exit_code(), 127);
}

fn attach_passes_input_and_output() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let streams = Streams { interactive: true, attached: true, ..Streams::default() };
    launch(&root, dir.path(), "echo ready; cat; echo gone >&2; exit 3", streams).unwrap();
    let (end, text) = shown(
        |files| runtime::attach_streams(dir.path(), &options(true), files, &Task::silent()),
        "typed\n",
    );
    assert_eq!(end.unwrap(), AttachOutcome::Exited(ExitStatus::Code(3)));
    assert_eq!(text, "ready\ntyped\ngone\n");
}

fn stop_asks_then_kills() {
    let root = Rootfs::new();
    let stop = |line: &str, patience| {
        let dir = tempfile::tempdir().unwrap();
        launch(&root, dir.path(), line, Streams::default()).unwrap();
        while log_text(dir.path(), &LogOptions::default()).is_empty() {
            std::thread::yield_now();
        }
        runtime::stop(dir.path(), Signal::TERM, patience, &Task::silent()).unwrap()
    };
    let polite = "trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done";
    assert_eq!(stop(polite, Duration::from_secs(20)), ExitStatus::Code(4));
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.02; done";
    assert_eq!(stop(stubborn, Duration::from_millis(50)), ExitStatus::Signal(9));
}

/// A container that waits until it is killed.
struct Waiting {
    root: Rootfs,
    dir: tempfile::TempDir,
}

impl Waiting {
    fn new(spec: &ContainerSpec) -> Waiting {
        let waiting = Waiting { root: Rootfs::new(), dir: tempfile::tempdir().unwrap() };
        let bundle = waiting.root.bundle(&with_shell("sleep 1000", spec)).unwrap();
        let options = StartOptions { id: id(), init: true, ..StartOptions::default() };
        runtime::launch(
            waiting.dir.path(),
            bundle,
            Streams::default(),
            MonitorOptions::default(),
            &options,
        )
        .unwrap();
        waiting
    }

    fn exec(&self, line: &str, exec: &Exec, input: &str) -> (Result<AttachOutcome, Error>, String) {
        let exec = Exec { args: command(&["sh", "-c", line]), ..exec.clone() };
        shown(
            |files| {
                runtime::exec_streams(
                    self.dir.path(),
                    &exec,
                    &options(true),
                    files,
                    &Task::silent(),
                )
            },
            input,
        )
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = runtime::stop(self.dir.path(), Signal::KILL, Duration::ZERO, &Task::silent());
    }
}

fn exec_joins() {
    let waiting = Waiting::new(&ContainerSpec {
        process: ProcessSpec { env: command(&["A=1"]), ..ProcessSpec::default() },
        ..ContainerSpec::default()
    });
    let exec = Exec {
        extra_env: command(&["B=2"]),
        working_dir: Some("/tmp".into()),
        interactive: true,
        ..Exec::default()
    };
    let line = "echo $A $B; pwd; cat; hostname; grep -E '^(CapEff|CapInh|Seccomp):' /proc/self/status | tr -d '\\t\\n'; \
        ls /proc/self/fd | wc -l; ps | grep -q '[s]leep 1000' && echo seen; exit 6";
    let (end, text) = waiting.exec(line, &exec, "input\n");
    assert_eq!(
        end.unwrap_or_else(|error| panic!("{}", describe(&error))),
        AttachOutcome::Exited(ExitStatus::Code(6))
    );
    assert_eq!(
        text,
        "1 2\n/tmp\ninput\nlocalhost\nCapInh:0000000000000000CapEff:00000000a80425fbSeccomp:24\nseen\n"
    );
    let (end, _) = waiting.exec("kill -9 $$", &Exec::default(), "");
    assert_eq!(end.unwrap(), AttachOutcome::Exited(ExitStatus::Signal(9)));
    let detached = Exec { detach: true, ..Exec::default() };
    let (end, _) =
        waiting.exec("echo done > /tmp/done.new; mv /tmp/done.new /tmp/done", &detached, "");
    assert_eq!(end.unwrap(), AttachOutcome::Detached);
    let (end, text) = waiting.exec(
        "until test -e /tmp/done; do sleep 0.01; done; cat /tmp/done",
        &Exec::default(),
        "",
    );
    assert_eq!(
        (end.unwrap(), text.as_str()),
        (AttachOutcome::Exited(ExitStatus::Code(0)), "done\n")
    );
    let privileged = Exec { privileged: true, ..Exec::default() };
    let (_, text) = waiting.exec("grep Seccomp: /proc/self/status | tr -d '\\t'", &privileged, "");
    assert_eq!(text, "Seccomp:0\n");
    assert_eq!(runtime::state(waiting.dir.path()).unwrap().status, Status::Running);
}

fn exec_as_another_user() {
    let waiting = Waiting::new(&ContainerSpec::default());
    let user = |user: &str| Exec { user: Some(user.into()), ..Exec::default() };
    if !runtime::single_id() {
        let (_, text) = waiting.exec(
            "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status | cut -f2",
            &user("app"),
            "",
        );
        assert_eq!(text, "7\n8\n8 9\n/home/app\n0000000000000000\n");
    }
    for wrong in ["nobody", "4294967295", "0x0", "007_"] {
        let (end, _) = waiting.exec("id", &user(wrong), "");
        assert!(matches!(end, Err(Error::User { .. })), "{wrong}: {end:?}");
    }
    // A pipe in the place of the user database blocks no command.
    std::fs::remove_file(waiting.root.path("etc/passwd")).unwrap();
    let fifo = waiting.root.path("etc/passwd");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(waiting.exec("id", &user("app"), "").0.is_err());
}

fn exec_failures() {
    let waiting = Waiting::new(&ContainerSpec::default());
    let run = |program: &str| {
        let exec = Exec { args: command(&[program]), ..Exec::default() };
        shown(
            |files| {
                runtime::exec_streams(
                    waiting.dir.path(),
                    &exec,
                    &options(false),
                    files,
                    &Task::silent(),
                )
            },
            "",
        )
        .0
    };
    assert_eq!(run("missing").unwrap_err().exit_code(), 127);
    assert_eq!(run("/etc/passwd").unwrap_err().exit_code(), 126);
    assert_eq!(run("true").unwrap(), AttachOutcome::Exited(ExitStatus::Code(0)));
}

/// A terminal of ours, as a user sits at one.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
}

impl Terminal {
    fn new(rows: u16, columns: u16) -> Terminal {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let ours = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(
            name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        let terminal = Terminal { ours: ours.into(), theirs };
        terminal.resize(rows, columns);
        terminal
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.theirs, size).unwrap();
    }

    fn streams(&self) -> [std::os::fd::BorrowedFd<'_>; 3] {
        [self.theirs.as_fd(), self.theirs.as_fd(), self.theirs.as_fd()]
    }

    /// Reads until the text was seen.
    fn until(&self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = (&self.ours).read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    fn press(&self, keys: &[u8]) {
        (&self.ours).write_all(keys).unwrap();
    }
}

fn terminal_size_and_detach() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let streams = Streams { terminal: Some((24, 80)), interactive: true, attached: true };
    let line = "tty; test -c /dev/console && echo console; trap 'echo interrupted' INT; \
        while :; do read line || continue; stty size; echo got $line; \
        test $line = quit && exit 2; done";
    launch(&root, dir.path(), line, streams).unwrap();
    let terminal = Terminal::new(33, 99);
    std::thread::scope(|scope| {
        let attached = scope.spawn(|| {
            runtime::attach_streams(dir.path(), &options(true), terminal.streams(), &Task::silent())
        });
        terminal.until("console");
        terminal.press(b"a\r");
        assert!(terminal.until("got a").contains("33 99"));
        terminal.press(&[3]);
        terminal.until("interrupted");
        terminal.press(LEAVE);
        assert_eq!(attached.join().unwrap().unwrap(), AttachOutcome::Detached);
    });
    assert_eq!(runtime::state(dir.path()).unwrap().status, Status::Running);
    let again = Terminal::new(10, 20);
    std::thread::scope(|scope| {
        let attached = scope.spawn(|| {
            runtime::attach_streams(dir.path(), &options(true), again.streams(), &Task::silent())
        });
        assert!(again.until("interrupted").contains("/dev/pts/0"));
        again.press(b"quit\r");
        assert!(again.until("got quit").contains("10 20"));
        assert_eq!(attached.join().unwrap().unwrap(), AttachOutcome::Exited(ExitStatus::Code(2)));
    });
}

fn exec_with_a_terminal() {
    let waiting = Waiting::new(&ContainerSpec::default());
    let terminal = Terminal::new(12, 34);
    let exec = Exec {
        args: command(&["sh", "-c", "tty; stty size; read x; echo got $x; exit 8"]),
        terminal: Some((12, 34)),
        interactive: true,
        ..Exec::default()
    };
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            runtime::exec_streams(
                waiting.dir.path(),
                &exec,
                &options(true),
                terminal.streams(),
                &Task::silent(),
            )
        });
        terminal.until("12 34");
        terminal.press(b"hello\r");
        terminal.until("got hello");
        assert_eq!(client.join().unwrap().unwrap(), AttachOutcome::Exited(ExitStatus::Code(8)));
    });
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The state, once another monitor than this is there.
fn after(dir: &Path, monitor: u32) -> State {
    loop {
        let state = runtime::state(dir).unwrap();
        if state.monitor != monitor {
            return state;
        }
        std::thread::yield_now();
    }
}

fn a_killed_monitor_is_replaced() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let line = "trap 'echo bye; exit 7' TERM; echo one; while :; do sleep 0.1; done";
    let state = launch(&root, dir.path(), line, Streams::default()).unwrap();
    let attached = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            shown(
                |files| {
                    runtime::attach_streams(dir.path(), &options(false), files, &Task::silent())
                },
                "",
            )
        });
        let waiter = scope.spawn(|| runtime::wait(dir.path(), &Task::silent()));
        while !log_text(dir.path(), &LogOptions::default()).contains("one") {
            std::thread::yield_now();
        }
        kill(state.monitor);
        let now = after(dir.path(), state.monitor);
        assert_eq!((now.status, now.pid), (Status::Running, state.pid));
        let patience = Duration::from_secs(30);
        let end = runtime::stop(dir.path(), Signal::TERM, patience, &Task::silent()).unwrap();
        assert_eq!(end, ExitStatus::Code(7));
        assert_eq!(waiter.join().unwrap().unwrap(), ExitStatus::Code(7));
        client.join().unwrap()
    });
    assert_eq!(attached.0.unwrap(), AttachOutcome::Exited(ExitStatus::Code(7)));
    assert!(log_text(dir.path(), &LogOptions::default()).ends_with("bye\n"));
    assert_eq!(runtime::state(dir.path()).unwrap().status, Status::Exited);
}

fn a_killed_guard_changes_nothing() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let state = launch(&root, dir.path(), "sleep 1000", Streams::default()).unwrap();
    kill(parent(state.monitor));
    let end = runtime::stop(dir.path(), Signal::KILL, Duration::ZERO, &Task::silent()).unwrap();
    assert_eq!(end, ExitStatus::Signal(9));
    assert_eq!(runtime::state(dir.path()).unwrap().status, Status::Exited);
}

fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

fn without_any_monitor_it_runs_on_and_can_be_stopped() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let state = launch(&root, dir.path(), "sleep 1000", Streams::default()).unwrap();
    let guard = parent(state.monitor);
    kill(guard);
    kill(state.monitor);
    let now = after(dir.path(), state.monitor);
    assert_eq!((now.status, now.pid, now.monitor), (Status::Running, state.pid, 0));
    let end = runtime::stop(dir.path(), Signal::KILL, Duration::ZERO, &Task::silent());
    assert!(matches!(end, Err(Error::Lost { .. })), "{end:?}");
    assert_eq!(runtime::state(dir.path()).unwrap().status, Status::Dead);
    // The process that adopted it may take its time to collect it.
    let left = std::fs::read_to_string(format!("/proc/{}/stat", state.pid)).unwrap_or_default();
    assert!(left.is_empty() || left.contains(") Z "), "{left}");
}

fn foreground_terminal() {
    let root = Rootfs::new();
    let terminal = Terminal::new(40, 50);
    let spec = ContainerSpec {
        process: ProcessSpec { terminal: true, ..ProcessSpec::default() },
        ..ContainerSpec::default()
    };
    let bundle = root.bundle(&with_shell("tty; stty size; exit 4", &spec)).unwrap();
    let stdio = runtime::Stdio::Terminal { rows: 40, columns: 50 };
    let container = runtime::Container::start(
        bundle,
        stdio,
        &StartOptions { id: id(), ..StartOptions::default() },
    )
    .unwrap();
    let status = container.interact(terminal.streams(), &Task::silent()).unwrap();
    assert_eq!(status, ExitStatus::Code(4));
    terminal.until("40 50");
}

fn much_output_is_whole() {
    let root = Rootfs::new();
    let dir = tempfile::tempdir().unwrap();
    let streams = Streams { attached: true, ..Streams::default() };
    launch(
        &root,
        dir.path(),
        "i=0; while test $i -lt 20; do head -c 100000 /dev/zero | tr '\\0' x; i=$((i+1)); done",
        streams,
    )
    .unwrap();
    let (end, text) = shown(
        |files| runtime::attach_streams(dir.path(), &options(false), files, &Task::silent()),
        "",
    );
    assert_eq!(end.unwrap(), AttachOutcome::Exited(ExitStatus::Code(0)));
    assert_eq!(text.len(), 2_000_000);
    let mut logged = 0;
    runtime::logs(dir.path(), &LogOptions::default(), &Task::silent(), &mut |line| {
        logged += line.line.len();
    })
    .unwrap();
    assert_eq!(logged, 2_000_000);
}
