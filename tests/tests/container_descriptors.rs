//! Descriptors of the caller that programs in containers get, and those that they do not get.

use std::process::Command;

use e2e::user::User;
use e2e::{Bench, Ran, eventually, root, run};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// A line of the shell, in which `rbuild` is ours.
fn shell(bench: &Bench, line: &str) -> Ran {
    let rbuild = bench.command("rbuild");
    let words: Vec<String> = std::iter::once(rbuild.get_program())
        .chain(rbuild.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("rbuild() {{ {} \"$@\"; }}\n{line}", words.join(" "))]);
    shell.current_dir(bench.path());
    for (name, value) in rbuild.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    run(&mut shell)
}

/// As root and as an ordinary user.
fn benches() -> Vec<Bench> {
    let user = User::get().map(|user| {
        let bench = Bench::of(user.uid, user.gid);
        bench.busybox();
        bench
    });
    std::iter::once(bench()).chain(user).collect()
}

#[test]
fn a_program_gets_the_descriptors_that_are_preserved() {
    if !root() {
        return;
    }
    for bench in benches() {
        bench.write("three", "3");
        bench.write("five", "5");
        let files = "3<three 5<five";
        let look = "cat <&3 2>/dev/null; cat <&4 2>/dev/null; cat <&5 2>/dev/null; echo";
        for (flags, expected) in [
            ("--rm --preserve-fds=1", "3\n"),
            ("--preserve-fd=5 --name=one", "5\n"),
            ("--rm --preserve-fd=3,5 --init", "35\n"),
            ("--rm -u 33 --preserve-fd=3 --preserve-fd=5", "35\n"),
            ("--rm", "\n"),
        ] {
            let line = format!("rbuild run {flags} busybox sh -c '{look}' {files}");
            assert_eq!(shell(&bench, &line).ok().stdout, expected, "{flags}");
        }
        // A later start has none of them.
        assert_eq!(shell(&bench, "rbuild start -a one 5<five").ok().stdout, "\n");
        bench.rbuild(["run", "-d", "--name=it", "busybox", "sleep", "1000"]).ok();
        for (flags, expected) in
            [("--preserve-fds 1", "3\n"), ("--preserve-fd 5", "5\n"), ("", "\n")]
        {
            let line = format!("rbuild exec {flags} it sh -c '{look}' {files}");
            assert_eq!(shell(&bench, &line).ok().stdout, expected, "{flags}");
        }
        for (line, words) in [
            ("rbuild run --rm --preserve-fds=2 busybox true 3<three", "descriptor 4"),
            ("rbuild run --rm --preserve-fd=250 busybox true", "descriptor 250"),
            ("rbuild exec --preserve-fds=1 it true 3<&-", "descriptor 3"),
            ("rbuild run --rm --preserve-fds=999 busybox true 3<three", "more than"),
            ("rbuild run --rm --preserve-fd=2 busybox true", "--preserve-fd"),
        ] {
            shell(&bench, line).fails(&[words, "--preserve-fd"]);
        }
        bench.rbuild(["rm", "-f", "it", "one"]).ok();
    }
}

#[test]
fn what_outlives_a_command_keeps_none_of_its_descriptors_open() {
    if !root() {
        return;
    }
    for bench in benches() {
        bench.rbuild(["network", "create", "web"]).ok();
        for flags in ["", "--network=web", "-p 80", "--health-cmd=true --restart=always"] {
            // The reader ends when nobody has the other end any more.
            let line = format!(
                "{{ rbuild run -d --name=it {flags} busybox sleep 1000 3>&1 >id; }} | cat; cat id"
            );
            assert!(shell(&bench, &line).ok().stdout.len() >= 64, "{flags}");
            let again = "{ rbuild restart -t0 it 4>&1 >id; } | cat; cat id";
            assert_eq!(shell(&bench, again).ok().stdout, "it\n", "{flags}");
            bench.rbuild(["rm", "-f", "it"]).ok();
        }
        // A descriptor that the program has is open as long as the program has it.
        let line = "{ rbuild run -d --name=it --preserve-fds=1 busybox sh -c 'echo x >&3; exec 3>&-; sleep 1000' \
            3>&1 >id; } | cat";
        assert_eq!(shell(&bench, line).ok().stdout, "x\n");
        bench.rbuild(["rm", "-f", "it"]).ok();
    }
}

#[test]
fn sockets_of_a_service_manager_reach_the_program() {
    if !root() {
        return;
    }
    for bench in benches() {
        bench.write("three", "3");
        let script = "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $$; cat <&3";
        let give = "export LISTEN_FDS=1 LISTEN_FDNAMES=web";
        for (flags, pid) in [("--rm", 1), ("--rm --init", 2), ("--name=one", 1)] {
            let line = format!(
                "{give}; sh -c 'export LISTEN_PID=$$; exec \"$@\"' sh {} run {flags} busybox sh -c '{script}' 3<three",
                "$RBUILD"
            );
            let rbuild = bench.command("rbuild");
            let program: Vec<String> = std::iter::once(rbuild.get_program())
                .chain(rbuild.get_args())
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            // The program that is named is the one that gets the sockets.
            let line = line.replace("$RBUILD", &program.join(" "));
            assert_eq!(
                shell(&bench, &line).ok().stdout,
                format!("1 {pid} web {pid}\n3"),
                "{flags}"
            );
        }
        // Sockets for another process are not ours to give.
        let line =
            "LISTEN_FDS=1 LISTEN_PID=1 rbuild run --rm busybox sh -c 'echo $LISTEN_FDS' 3<three";
        assert_eq!(shell(&bench, line).ok().stdout, "\n");
        eventually("the containers have ended", || {
            bench.rbuild(["ps", "-q"]).ok().stdout.is_empty()
        });
        bench.rbuild(["rm", "-a"]).ok();
    }
}
