//! Failing steps: kept and resumed, or inspected in a shell.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use e2e::user::User;
use e2e::{Bench, root};

const DOCKERFILE: &str = "FROM busybox AS tool
RUN echo tool > /tool
FROM busybox
RUN echo first > /first
ENV GREETING=hello
WORKDIR /work
USER user
RUN --mount=type=secret,id=token,mode=0444 --mount=type=bind,target=/context --mount=type=bind,from=tool,target=/stage \\
    echo $GREETING >> /tmp/tries && cat /run/secrets/token /context/fix
RUN echo last > /tmp/last
";

/// Builds [`DOCKERFILE`] with these flags.
fn build(bench: &Bench, flags: &[&str]) -> e2e::Ran {
    bench.write("context/Dockerfile", DOCKERFILE);
    bench.write("token", "s3cr3t\n");
    let secret = format!("--secret=id=token,src={}", bench.path().join("token").display());
    let mut line = vec!["bud", "--progress=plain", &secret, "-t", "app"];
    line.extend(flags);
    line.push("context");
    bench.rbuild(line)
}

fn keeps_and_resumes(bench: &Bench) {
    let failed = build(bench, &["--on-failure=keep"]);
    let failed = failed.fails(&["Dockerfile:8", "exited with code 1", "--resume", "debug shell"]);
    let at = failed.stderr.find("failed-").expect("an id");
    let id = failed.stderr[at..].split([' ', '`']).next().expect("an id").to_owned();
    assert_eq!(bench.rbuild(["debug", "ls", "-q"]).ok().text(), id);
    assert!(bench.rbuild(["debug", "ls"]).ok().stdout.contains("exited with code 1"));
    assert_eq!(bench.rbuild(["ps", "-aq"]).ok().text(), "");
    let record = bench.store().join("containers");
    let state = run_grep(&record, "s3cr3t");
    assert!(state.is_empty(), "a secret is kept: {state}");

    // It stays when what nothing needs goes, with what it lies on.
    bench.rbuild(["rmi", "-a"]).ok();
    bench.rbuild(["prune"]).ok();
    bench.rbuild(["check"]).ok();
    let shell = |command: &str| bench.rbuild(["debug", "shell", &id, "sh", "-c", command]);
    let seen = shell("cat /first /tmp/tries; pwd; id -un; echo $GREETING; ls /context").ok();
    assert_eq!(seen.stdout, "first\nhello\n/work\nuser\nhello\nDockerfile\n");
    assert!(seen.stderr.contains("secret \"token\" is not kept"), "{}", seen.told());
    let secret = format!("--secret=id=token,src={}", bench.path().join("token").display());
    let told = bench.rbuild(["debug", "shell", &secret, &id, "cat", "/run/secrets/token"]).ok();
    assert_eq!(told.stdout, "s3cr3t\n");
    shell("exit 5").code(5);
    shell("echo by-hand > /tmp/by-hand").ok();

    // Failing again leaves it as it is, under the same name.
    bench.busybox();
    build(bench, &["--on-failure=keep", "--resume", &id]).fails(&[&id]);
    assert_eq!(bench.rbuild(["debug", "ls", "-q"]).ok().text(), id);
    bench.write("context/fix", "fixed\n");
    let resumed = build(bench, &["--resume", &id]).ok();
    assert!(resumed.stderr.contains("build again"), "{}", resumed.told());
    assert_eq!(bench.rbuild(["debug", "ls", "-q"]).ok().text(), "");
    let run = |command: &str| bench.rbuild(["run", "--rm", "app", "sh", "-c", command]).ok().stdout;
    assert_eq!(
        run("cat /tmp/tries /tmp/by-hand /tmp/last"),
        "hello\nhello\nhello\nby-hand\nlast\n"
    );

    // Other builds do not get a manual result.
    let clean = build(bench, &[]).ok();
    assert!(clean.stderr.contains("[stage-1 4/5]"), "{}", clean.told());
    assert_eq!(run("cat /tmp/tries; ls /tmp"), "hello\nlast\ntries\n");
    build(bench, &["--resume", &id]).fails(&[&id]).code(125);
    bench.rbuild(["debug", "shell", "nothing"]).fails(&["nothing"]);
    bench.rbuild(["check"]).ok();
}

fn run_grep(directory: &std::path::Path, word: &str) -> String {
    let mut grep = Command::new("grep");
    grep.arg("-rl").arg(word).arg(directory);
    e2e::run(&mut grep).stdout
}

#[test]
fn what_a_failing_step_left_is_kept_and_gone_on_with() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    keeps_and_resumes(&bench);

    // It fits no longer when a step before it changes.
    let two = Bench::new();
    two.busybox();
    two.write("context/Dockerfile", "FROM busybox\nARG A\nRUN echo $A\nRUN false\n");
    let bud = |arg: &str, more: &[&str]| {
        let arg = format!("--build-arg=A={arg}");
        two.rbuild([&["bud", "--progress=plain", &arg][..], more, &["context"]].concat())
    };
    let failed = bud("1", &["--on-failure=shell"]).fails(&["needs a terminal", "--resume"]);
    let id = two.rbuild(["debug", "ls", "-q"]).ok().text().to_owned();
    assert!(failed.stderr.contains(&id));
    bud("2", &["--resume", &id]).fails(&["an earlier step has changed since"]);
    two.rbuild(["debug", "rm", "--all"]).ok();
    assert_eq!(two.rbuild(["debug", "ls", "-q"]).ok().text(), "");
    assert_eq!(std::fs::read_dir(two.store().join("containers")).unwrap().count(), 0);

    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    keeps_and_resumes(&bench);
}

/// A terminal with `rbuild` at its other end.
struct Session {
    master: std::fs::File,
    child: std::process::Child,
    seen: String,
}

impl Session {
    fn start(command: &mut Command) -> Session {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("a name");
        let slave = std::fs::File::options().read(true).write(true).open(name);
        let slave: OwnedFd = slave.expect("the other end").into();
        let end = || Stdio::from(slave.as_fd().try_clone_to_owned().expect("a copy"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("rbuild");
        Session { master: master.into(), child, seen: String::new() }
    }

    /// Reads until this shows.
    #[track_caller]
    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.more(), "{text:?} does not come:\n{}", self.seen);
        }
        let end = self.seen.find(text).expect("it is there") + text.len();
        self.seen.drain(..end);
    }

    /// Reads what comes next; `false` if nothing does.
    fn more(&mut self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut ready, Some(&patience)) != Ok(1) {
            let _ = self.child.kill();
            return false;
        }
        let mut buffer = [0; 4096];
        let count = self.master.read(&mut buffer).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        count > 0
    }

    fn type_in(&mut self, line: &str) {
        self.master.write_all(line.as_bytes()).expect("typing");
    }

    fn end(mut self) -> (i32, String) {
        // The other end is closed when it has ended.
        while self.more() {}
        (self.child.wait().expect("an end").code().unwrap_or(-1), self.seen)
    }
}

#[test]
fn a_shell_opens_where_a_step_fails() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/Dockerfile", DOCKERFILE);
    bench.write("token", "s3cr3t\n");
    let bud = |bench: &Bench| {
        let mut command = bench.command("rbuild");
        let secret = format!("--secret=id=token,src={}", bench.path().join("token").display());
        command.args(["bud", "--on-failure=shell", &secret, "-t", "app", "context"]);
        command
    };
    let mut session = Session::start(&mut bud(&bench));
    session.until("ends the build.");
    session.until("/work $");
    session.type_in(
        "echo in: $GREETING $(pwd) $(id -un) $(cat /tmp/tries /run/secrets/token /stage/tool)\n",
    );
    session.until("in: hello /work user hello s3cr3t tool");
    session.type_in("test -t 0 && echo terminal $((40 + 2)); exit 3\n");
    session.until("terminal 42");
    let (code, seen) = session.end();
    assert_ne!(code, 0, "{seen}");
    assert!(seen.contains("exited with code 1"), "{seen}");

    // A shell that ends well has the command run again, once, on what it left.
    bench.write("context/fix", "fixed\n");
    std::fs::remove_file(bench.path().join("context/fix")).expect("a file");
    let mut session = Session::start(&mut bud(&bench));
    session.until("ends the build.");
    std::fs::write(bench.path().join("context/fix"), "fixed\n").expect("a file");
    session.until("/work $");
    session.type_in("echo by-hand > /tmp/by-hand; exit 0\n");
    session.until("build again");
    let (code, seen) = session.end();
    assert_eq!(code, 0, "{seen}");
    let run = bench.rbuild(["run", "--rm", "app", "sh", "-c", "cat /tmp/tries /tmp/by-hand"]);
    assert_eq!(run.ok().stdout, "hello\nhello\nby-hand\n");
    assert_eq!(bench.rbuild(["debug", "ls", "-q"]).ok().text(), "");
    bench.rbuild(["check"]).ok();
}
