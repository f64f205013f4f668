//! Working containers and builds with ids of their own, in namespaces of others, and by another runtime.

use std::os::unix::fs::MetadataExt;

use e2e::user::{NAME, User};
use e2e::{Bench, peer, root};

const MAPS: [&str; 2] = ["--userns-uid-map=0:70000:5000", "--userns-gid-map=0:80000:4000"];

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

#[track_caller]
fn run(bench: &Bench, container: &str, script: &str) -> String {
    bench.rbuild(["run", container, "sh", "-c", script]).ok().text().to_owned()
}

/// Numbers of a map, with one blank between.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_working_container_with_maps_has_its_own_ids() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("file", "copied").display().to_string();
    bench.rbuild(["from", "--name", "c", MAPS[0], MAPS[1], "busybox"]).ok();
    assert_eq!(words(&run(&bench, "c", "cat /proc/self/uid_map")), "0 70000 5000");
    assert_eq!(words(&run(&bench, "c", "cat /proc/self/gid_map")), "0 80000 4000");
    run(&bench, "c", "echo own >/own && stat -c %u:%g /bin/sh /run/.containerenv");
    bench.rbuild(["copy", "-q", "--chown", "7:8", "c", &file, "/copied"]).ok();
    assert_eq!(run(&bench, "c", "stat -c %u:%g /own /copied /bin/sh"), "0:0\n7:8\n0:0");
    // Programs of the machine see the ids of the machine, and `copy` works meanwhile.
    let mount = bench.rbuild(["mount", "c"]).ok().text().to_owned();
    let owner = |path: &str| {
        let data = std::fs::metadata(format!("{mount}/{path}")).expect("a file");
        (data.uid(), data.gid())
    };
    assert_eq!((owner("own"), owner("copied")), ((70000, 80000), (70007, 80008)));
    bench.rbuild(["copy", "-q", "c", &file, "/later"]).ok();
    assert_eq!(owner("later"), (70000, 80000));
    assert_eq!(run(&bench, "c", "echo again >/again; stat -c %u:%g /later /again"), "0:0\n0:0");
    // The image has the ids of inside, whether the container is mounted or not.
    for (flags, image) in
        [(&["commit", "-q"][..], "mounted"), (&["commit", "-q", "--squash"], "flat")]
    {
        bench.rbuild(flags.iter().copied().chain(["c", image])).ok();
        let look = ["run", "--rm", image, "stat", "-c", "%u:%g", "/own", "/copied", "/later"];
        assert_eq!(bench.rbuild(look).ok().text(), "0:0\n7:8\n0:0");
    }
    bench.rbuild(["umount", "c"]).ok();
    assert_eq!(run(&bench, "c", "cat /own"), "own");
}

#[test]
fn mounts_of_a_command_with_maps_have_the_ids_of_inside() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["from", "--name", "other", "busybox"]).ok();
    run(&bench, "other", "mkdir /lent && echo x >/lent/x && chown -R 5:6 /lent");
    bench.rbuild(["from", "--name", "c", MAPS[0], MAPS[1], "busybox"]).ok();
    let line = [
        "run",
        "--mount=type=cache,target=/cache",
        "--mount=type=bind,from=other,source=/lent,target=/lent",
        "c",
        "sh",
        "-c",
        "echo kept >/cache/kept; stat -c %u:%g /cache /cache/kept /lent/x /etc/hosts",
    ];
    assert_eq!(bench.rbuild(line).ok().text(), "0:0\n0:0\n5:6\n0:0");
    let dockerfile = "FROM busybox AS first\nRUN mkdir /d && echo x >/d/x && chown 5:6 /d/x\n\
        FROM busybox\n\
        RUN --mount=type=cache,target=/cache --mount=from=first,source=/d,target=/d \
        --mount=type=secret,id=s,uid=3 --mount=source=ctx,target=/ctx \
        stat -c %u:%g /cache /d/x /run/secrets/s /ctx / >/owners && \
        cat /proc/self/uid_map >/map && touch /user && chown 9:9 /user\n\
        COPY --chown=1:2 ctx /copied\nWORKDIR /made\n\
        RUN stat -c %u:%g /user /copied /made >/after\n";
    bench.write("ctx/ctx", "context");
    let context = bench.path().join("ctx").display().to_string();
    let file = bench.write("Dockerfile", dockerfile).display().to_string();
    let secret = format!("id=s,src={}", bench.write("secret", "secret").display());
    let line =
        ["bud", "-q", "-f", &file, "--secret", &secret, MAPS[0], MAPS[1], "-t", "built", &context];
    bench.rbuild(line).ok();
    let look = ["run", "--rm", "built", "cat", "/map", "/owners", "/after"];
    let told = bench.rbuild(look).ok().text().to_owned();
    assert_eq!(words(&told), "0 70000 5000 0:0 5:6 3:0 0:0 0:0 9:9 1:2 0:0");
}

#[test]
fn ids_are_named_chosen_or_refused() {
    if !root() {
        return;
    }
    let bench = bench();
    let own = std::fs::read_link("/proc/self/ns/user").expect("a namespace").display().to_string();
    let made = |name: &str, flags: &[&str]| {
        let line = ["from", "--name", name].into_iter().chain(flags.iter().copied());
        bench.rbuild(line.chain(["busybox"])).ok();
        words(&run(&bench, name, "readlink /proc/self/ns/user; head -n1 /proc/self/uid_map"))
    };
    assert_eq!(made("host", &["--userns=host"]), format!("{own} 0 0 4294967295"));
    let private = made("private", &["--userns=private"]);
    assert!(!private.contains(&own) && private.ends_with("0 0 4294967295"), "{private}");
    let first = made("first", &["--userns=auto:size=1000"]);
    let second = made("second", &["--userns=auto:size=1000"]);
    assert!(first.ends_with(" 1000") && second.ends_with(" 1000"), "{first} {second}");
    let start = |text: &str| text.rsplit(' ').nth(1).unwrap_or_default().to_owned();
    assert_ne!(start(&first), start(&second));
    let _user = User::get().expect("a user with ids");
    let table = std::fs::read_to_string("/etc/subuid").expect("the table of ids");
    let line = table.lines().find_map(|line| line.strip_prefix(&format!("{NAME}:")));
    let range = line.expect("the ids of the user").replace(':', " ");
    let named = made("named", &[&format!("--userns-uid-map-user={NAME}")]);
    assert!(named.ends_with(&format!(" 0 {range}")), "{named}: {range}");
    bench.write("Dockerfile", "FROM busybox\nRUN true\n");
    for (flags, words) in [
        (&["--userns-gid-map=0:1000:10"][..], "without --userns-uid-map"),
        (&["--userns-uid-map=16"], "[\"uint32:uint32:uint32\"]: [\"16\"]"),
        (&["--userns=host", MAPS[0]], "cannot be combined"),
        (&["--userns-uid-map-user=nobody-at-all"], "/etc/sub"),
        (&["--userns-gid-map-group=nobody-at-all"], "/etc/sub"),
        (&["--isolation=chroot", MAPS[0]], "--isolation=chroot"),
    ] {
        let line = ["from"].into_iter().chain(flags.iter().copied()).chain(["busybox"]);
        bench.rbuild(line).code(125).fails(&[words]);
        let context = bench.path().display().to_string();
        let line = ["bud"].into_iter().chain(flags.iter().copied()).chain([context.as_str()]);
        bench.rbuild(line).code(125).fails(&[words]);
    }
}

#[test]
fn namespaces_are_joined_by_their_paths() {
    if !root() {
        return;
    }
    let bench = bench();
    let kinds =
        [("ipc", "ipc"), ("net", "net"), ("net", "network"), ("pid", "pid"), ("uts", "uts")];
    for (kind, flag) in kinds {
        let path = format!("/proc/{}/ns/{kind}", std::process::id());
        let own = std::fs::read_link(&path).expect("a namespace").display().to_string();
        let look = format!("readlink /proc/self/ns/{kind}");
        for value in [path.clone(), format!("ns:{path}")] {
            let name = format!("{flag}-{}", value.len());
            let given = format!("--{flag}={value}");
            bench.rbuild(["from", "--name", &name, &given, "busybox"]).ok();
            assert_eq!(run(&bench, &name, &look), own, "{given}");
            let private = format!("--{flag}=private");
            let ran = bench.rbuild(["run", &private, &name, "sh", "-c", &look]).ok();
            assert_ne!(ran.text(), own, "{private}");
            bench.write("ctx/Dockerfile", format!("FROM busybox\nRUN {look} >/look\n"));
            let context = bench.path().join("ctx").display().to_string();
            bench.rbuild(["bud", "-q", "--no-cache", &given, "-t", "built", &context]).ok();
            let seen = bench.rbuild(["run", "--rm", "built", "cat", "/look"]).ok();
            assert_eq!(seen.text(), own, "{given}");
        }
    }
    bench.write("Dockerfile", "FROM busybox\nRUN true\n");
    let context = bench.path().display().to_string();
    let line = ["bud", "--pid=container:web", &context];
    bench.rbuild(line).code(125).fails(&["--pid: container:NAME"]);
}

#[test]
fn another_runtime_runs_commands() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    bench.write("Dockerfile", "FROM busybox\nRUN echo built >/made && cat /proc/1/comm\n");
    let context = bench.path().display().to_string();
    // crun refuses a machine with cgroups of both versions.
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified").exists();
    let runtimes = if hybrid { &["runc"][..] } else { &["runc", "crun"] };
    for runtime in runtimes.iter().copied() {
        let Some(path) = peer(runtime) else { return };
        let path = path.display().to_string();
        let script = "echo said; echo wrong >&2; echo file >/file; exit 7";
        let mut command = bench.command("rbuild");
        command.args(["run", "--runtime", &path, "c", "sh", "-c", script]);
        let ran = e2e::run(&mut command).code(7);
        assert!(ran.stdout.contains("said") && ran.stderr.contains("wrong"), "{}", ran.told());
        assert_eq!(run(&bench, "c", "cat /file"), "file");
        let line = ["run", "--runtime", runtime, "--net=none", "c", "ls", "/sys/class/net"];
        assert_eq!(bench.rbuild(line).ok().text(), "lo");
        let line = ["bud", "--no-cache", "--runtime", runtime, "-t", "built", &context];
        bench.rbuild(line).ok();
        let look = bench.rbuild(["run", "--rm", "built", "cat", "/made"]).ok();
        assert_eq!(look.text(), "built");
        let wrong = ["--runtime", runtime, "--runtime-flag=no-such-flag"];
        let line = ["run"].into_iter().chain(wrong).chain(["c", "true"]);
        bench.rbuild(line).code(125).fails(&["no-such-flag"]);
        let line = ["bud", "--no-cache"].into_iter().chain(wrong).chain([context.as_str()]);
        bench.rbuild(line).fails(&["no-such-flag"]);
        // Nothing is left of the containers.
        let listed = e2e::run(std::process::Command::new(&path).args(["list", "-q"])).ok();
        assert!(!listed.stdout.contains("build-"), "{}", listed.told());
    }
    bench.rbuild(["bud", "--runtime", "no-such", &context]).code(125).fails(&["no such program"]);
    let line = ["run", "--rm", "--runtime", "crun", "busybox", "true"];
    bench.rbuild(line).code(125).fails(&["--runtime is for working containers"]);
}

#[test]
fn devices_have_names_in_builds_and_working_containers() {
    if !root() {
        return;
    }
    let bench = bench();
    let shared = bench.write("shared", "of the device\n").display().to_string();
    let document = format!(
        "cdiVersion: 0.6.0\nkind: example.com/class\ndevices:\n- name: one\n  containerEdits:\n    \
         env: [ONE=given]\n    deviceNodes:\n    - path: /dev/one\n      hostPath: /dev/null\n    \
         mounts:\n    - {{hostPath: {shared}, containerPath: /shared, options: [ro, bind]}}\n"
    );
    bench.write("cdi/example.yaml", document);
    let place = format!("--cdi-config-dir={}", bench.path().join("cdi").display());
    let device = "--device=example.com/class=one";
    let look = "echo $ONE; cat /shared; echo x >/dev/one && test -c /dev/one && echo there";
    let expected = "given\nof the device\nthere";
    bench.rbuild(["from", "--name", "c", &place, device, "busybox"]).ok();
    assert_eq!(run(&bench, "c", look), expected);
    bench.rbuild(["from", "--name", "plain", "busybox"]).ok();
    let ran = bench.rbuild(["run", &place, device, "plain", "sh", "-c", look]).ok();
    assert_eq!(ran.text(), expected);
    bench.write("Dockerfile", format!("FROM busybox\nRUN ({look}) >/told\n"));
    let context = bench.path().display().to_string();
    bench.rbuild(["bud", "-q", &place, device, "-t", "built", &context]).ok();
    assert_eq!(bench.rbuild(["run", "--rm", "built", "cat", "/told"]).ok().text(), expected);
    let line = ["bud", &place, "--device=example.com/class=two", &context];
    bench.rbuild(line).code(125).fails(&["example.com/class=two", "cdi"]);
}

#[test]
fn containers_conf_names_the_namespaces_of_working_containers() {
    if !root() {
        return;
    }
    let bench = bench();
    let kinds = ["pid", "ipc", "uts", "cgroup", "net"];
    for word in ["host", "private"] {
        let table = kinds.map(|kind| format!("{kind}ns = \"{word}\"\n")).concat();
        let conf = bench.write("containers.conf", format!("[containers]\n{table}"));
        let mut command = bench.command("rbuild");
        command.env("CONTAINERS_CONF", conf).args(["from", "--name", word, "busybox"]);
        e2e::run(&mut command).ok();
        for kind in kinds {
            let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
            let seen = run(&bench, word, &format!("readlink /proc/self/ns/{kind}"));
            assert_eq!(seen == own.display().to_string(), word == "host", "{kind}ns = {word}");
        }
    }
}
