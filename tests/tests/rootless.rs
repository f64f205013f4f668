//! The main journey as an ordinary user: build, run, push, with subordinate ids and native overlay.

use std::io::Read;
use std::path::Path;

use e2e::registry::DockerRegistry;
use e2e::user::User;
use e2e::{Bench, root};
use serde_json::Value;

/// A user id without an account and without subordinate ids.
const NOBODY: u32 = 54_321;

const DOCKERFILE: &str = "FROM localhost/busybox\n\
    COPY --chown=1000:2000 --chmod=640 data /srv/data\n\
    RUN echo made > /srv/made && chown user:extra /srv/made && chown -h 7:8 /etc/group \
     && rm /etc/passwd && rm -r /home && mkdir /home && chmod 4755 /srv/made\n\
    USER 1000\nWORKDIR /srv/work\nRUN id -u > /tmp/who; ! touch /etc/no\nCMD [\"id\", \"-u\"]\n";

fn context(bench: &Bench) -> String {
    bench.write("context/Dockerfile", DOCKERFILE);
    bench.write("context/data", "data of the context");
    bench.path().join("context").display().to_string()
}

fn build(bench: &Bench) -> String {
    let context = context(bench);
    let mut command = bench.command("rbuild");
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    let line = ["bud", "--progress=plain", "--compression=none", "-t", "app", &context];
    e2e::run(command.args(line)).ok();
    bench.rbuild(["inspect", "--type=image", "--format", "{{.Digest}}", "app"]).ok().text().into()
}

/// Path, uid, gid and mode of everything in the layers of an image, from bottom to top.
fn entries(layout: &Path) -> Vec<(String, u64, u64, u32)> {
    let read = |digest: &str| {
        std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).expect("a blob")
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
    let index = json(&std::fs::read(layout.join("index.json")).expect("an index"));
    let manifest = json(&read(index["manifests"][0]["digest"].as_str().expect("a digest")));
    let mut found = Vec::new();
    // The base's layer is not ours.
    for layer in &manifest["layers"].as_array().expect("layers")[1..] {
        let bytes = read(layer["digest"].as_str().expect("a digest"));
        for entry in tar::Archive::new(&*bytes).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let header = entry.header();
            let line = (
                path,
                header.uid().expect("a number"),
                header.gid().expect("a number"),
                header.mode().expect("a number"),
            );
            entry.read_to_end(&mut Vec::new()).expect("content");
            found.push(line);
        }
    }
    found
}

#[test]
fn a_user_builds_what_root_builds() {
    let Some(user) = User::get() else { return };
    let (own, roots) = (Bench::of(user.uid, user.gid), Bench::new());
    own.busybox();
    roots.busybox();
    let digest = build(&own);
    assert_eq!(digest, build(&roots), "root and the user build different images");
    own.rbuild(["save", "--format=oci-dir", "-o", "saved", "app"]).ok();
    let found = entries(&own.path().join("saved"));
    for expected in [
        ("srv/data", 1000, 2000, 0o640),
        ("srv/made", 1000, 2000, 0o4755),
        ("etc/group", 7, 8, 0o644),
        ("tmp/who", 1000, 0, 0o644),
        ("etc/.wh.passwd", 0, 0, 0),
    ] {
        let entry = found.iter().find(|(path, ..)| path.trim_end_matches('/') == expected.0);
        let Some((_, uid, gid, mode)) = entry else { panic!("{expected:?} in {found:?}") };
        assert_eq!((*uid, *gid), (expected.1, expected.2), "{found:?}");
        assert!(expected.3 == 0 || mode & 0o7777 == expected.3, "{found:?}");
    }
    own.rbuild(["check"]).ok();
    let read = own.rbuild(["run", "--rm", "-u", "0", "app", "stat", "-c", "%u %g %a", "/srv/made"]);
    assert_eq!(read.ok().text(), "1000 2000 4755");
}

/// Root in a container without CAP_SYS_ADMIN, where no namespace is made and nothing mounted.
#[test]
fn root_that_may_not_mount_builds_what_changes_no_file_of_a_base() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/f", "content");
    let build = |dockerfile: &str| {
        bench.write("context/Dockerfile", dockerfile);
        let mut command = bench.command("rbuild");
        let calls = [
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_fsopen,
            libc::SYS_open_tree,
            libc::SYS_pivot_root,
        ];
        e2e::refuse(&mut command, &calls);
        e2e::run(command.args(["bud", "--progress=plain", "-t", "app", "context"]))
    };
    build("FROM busybox\nENV A=b\nCMD [\"sh\"]\n").ok();
    build("FROM busybox AS tool\nFROM scratch\nCOPY --from=tool /bin/sh /sh\n").ok();
    let seen = bench.rbuild(["inspect", "--format={{len .Layers}}", "app"]).ok();
    assert_eq!(seen.text(), "1");
    build("FROM busybox\nCOPY f /etc/f\n").fails(&["Dockerfile:2", "CAP_SYS_ADMIN", "seccomp"]);
    build("FROM busybox\nRUN true\n").fails(&["Dockerfile:2", "CAP_SYS_ADMIN", "seccomp"]);
    bench.rbuild(["check"]).ok();
}

/// A cache, its mounts with it, travels from one store of a user to another.
fn cache_travels(uid: u32, gid: u32, owner: &str) {
    let (one, two) = (Bench::of(uid, gid), Bench::of(uid, gid));
    for bench in [&one, &two] {
        bench.busybox();
        let dockerfile = "FROM busybox\n\
            RUN --mount=type=cache,id=kept,target=/c echo kept > /c/f && chown 5:6 /c/f\n\
            RUN echo made > /made && chown 7:8 /made\n";
        bench.write("context/Dockerfile", dockerfile);
    }
    let cache = one.path().join("cache").display().to_string();
    let build = |bench: &Bench, flag: &str| {
        let common = ["bud", "--progress=plain", "--timestamp=1", "-t", "app", flag, "context"];
        let built = bench.rbuild(common).ok();
        let id = bench.rbuild(["inspect", "--type=image", "--format={{.Id}}", "app"]).ok();
        (built, id.text().to_owned())
    };
    let (_, first) =
        build(&one, &format!("--cache-to=type=local,dest={cache},mode=max,mounts=true"));
    e2e::run(std::process::Command::new("chmod").args(["755", "-R"]).arg(one.path())).ok();
    let from = format!("--cache-from=type=local,src={cache}");
    let (again, second) = build(&two, &from);
    assert!(again.stderr.contains("0 steps run"), "{}", again.told());
    assert_eq!(first, second);
    let look = "FROM busybox\nRUN --mount=type=cache,id=kept,target=/c stat -c '%u:%g %n' /c/f && cat /c/f\n";
    two.write("context/Dockerfile", look);
    let (seen, _) = build(&two, &from);
    assert!(seen.stderr.contains(owner) && seen.stderr.contains("kept"), "{}", seen.told());
    two.rbuild(["check"]).ok();
}

#[test]
fn a_users_cache_travels_with_its_mounts() {
    let Some(user) = User::get() else { return };
    cache_travels(user.uid, user.gid, "5:6 /c/f");
    // Who has one id sees every file as root's.
    cache_travels(NOBODY, NOBODY, "0:0 /c/f");
}

#[test]
fn a_user_runs_containers() {
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let run = |flags: &[&str], command: &[&str]| {
        bench.rbuild([&["run", "--rm"], flags, &["busybox"], command].concat())
    };
    assert_eq!(run(&[], &["id", "-u"]).ok().text(), "0");
    assert_eq!(
        run(&["-u", "user"], &["id"]).ok().text(),
        "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)"
    );
    assert_eq!(run(&[], &["sh", "-c", "exit 9"]).code(9).stdout, "");
    run(&[], &["no-such-program"]).code(127);
    let mounts = run(&[], &["cat", "/proc/self/mountinfo"]).ok().stdout;
    let top = mounts.lines().find(|line| line.contains(" / / ")).expect("a root");
    assert!(top.contains(" - overlay ") && top.contains("userxattr"), "{top}");
    assert!(!mounts.contains("fuse"), "{mounts}");
    let devices = |flags: &[&str]| run(flags, &["cat", "/proc/net/dev"]).ok().stdout;
    assert_eq!(devices(&["--network=none"]).lines().count(), 3);
    let here = |text: &str| {
        let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
        let mut names: Vec<String> = names.map(|(name, _)| name.trim().to_owned()).collect();
        names.sort();
        names
    };
    let outside = std::fs::read_to_string("/proc/net/dev").unwrap();
    assert_eq!(here(&devices(&["--network=host"])), here(&outside));
    // What root writes in a volume is the user's outside.
    let shared = bench.path().join("home/shared");
    let volume = format!("{}:/data", shared.display());
    e2e::run(
        std::process::Command::new("install")
            .args(["-d", "-o", &user.uid.to_string(), "-g", &user.gid.to_string()])
            .arg(&shared),
    )
    .ok();
    run(&["-v", &volume], &["sh", "-c", "echo x > /data/mine; mkdir /data/dir"]).ok();
    let owner = std::os::unix::fs::MetadataExt::uid(&shared.join("mine").metadata().unwrap());
    assert_eq!(owner, user.uid);
    let read_only = format!("{volume}:ro");
    assert_ne!(run(&["-v", &read_only], &["touch", "/data/no"]).code, 0);
    // He has no special rights outside.
    let secret = "/etc/shadow:/shadow:ro";
    assert_ne!(run(&["-v", secret], &["cat", "/shadow"]).code, 0);
    run(&["--memory=32m"], &["true"]).code(125).fails(&["memory", "cgroup"]);
    run(&["--pids-limit=-1"], &["true"]).ok();
    run(&["--pids-limit=0"], &["true"]).ok();
    bench.rbuild(["info"]).ok();
}

#[test]
fn a_user_keeps_containers() {
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let script = "echo out; trap 'exit 3' TERM; while true; do sleep 0.05; done";
    bench.rbuild(["run", "-d", "--name", "one", "busybox", "sh", "-c", script]).ok();
    bench.rbuild(["exec", "-u", "user", "one", "sh", "-c", "id -u > /tmp/u; exit 4"]).code(4);
    assert_eq!(bench.rbuild(["exec", "one", "cat", "/tmp/u"]).ok().text(), "1000");
    let listed = bench.rbuild(["ps", "--format", "{{.Names}} {{.State}}"]).ok();
    assert_eq!(listed.text(), "one running");
    bench.rbuild(["stop", "one"]).ok();
    assert_eq!(bench.rbuild(["wait", "one"]).ok().text(), "3");
    assert_eq!(bench.rbuild(["logs", "one"]).ok().stdout, "out\n");
    bench.rbuild(["rm", "one"]).ok();
    assert_eq!(bench.rbuild(["ps", "-aq"]).ok().text(), "");
}

#[test]
fn a_user_pushes_and_pulls() {
    let Some(user) = User::get() else { return };
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let digest = build(&bench);
    let name = registry.name("team/app:1");
    bench.rbuild(["push", "app", &name]).ok();
    let other = Bench::of(user.uid, user.gid);
    other.rbuild(["pull", &name]).ok();
    let pulled = other.rbuild(["inspect", "--format", "{{.Digest}}", &name]).ok();
    assert_eq!(pulled.text(), digest);
    assert_eq!(other.rbuild(["run", "--rm", &name]).ok().text(), "1000");
    other.rbuild(["check"]).ok();
    other.rbuild(["rmi", "-a"]).ok();
    other.rbuild(["prune", "-a"]).ok();
    for place in ["snapshots", "active", "trash", "ingest"] {
        let left = std::fs::read_dir(other.store().join(place)).unwrap().count();
        assert_eq!(left, 0, "{place} is not empty");
    }
}

/// What one user id must be enough for: owners of many users in COPY, in RUN and as USER, set and
/// kept through links and relative paths. (Commands see root as the owner of everything, so these
/// name user and group.)
const OWNERS: &str = "FROM localhost/busybox\n\
    COPY --chown=1000:2000 --chmod=640 data /srv/data\n\
    COPY --chown=33 data /srv/deep/er/data\n\
    RUN echo made > /srv/made && chown user:extra /srv/made && chmod 4755 /srv/made \\\n\
     && ln -s /srv/made /srv/link && chown 12:2000 /srv/link && mkdir -p /var/spool/x/y \\\n\
     && chown -R 5:6 /var/spool && cd /var/spool/x && chown 5:9 ../x/y && chown 42:43 /etc/group \\\n\
     && cp /bin/busybox /srv/tool && chmod 6755 /srv/tool && chown 7:7 /srv/tool \\\n\
     && touch /srv/back && chown 8:8 /srv/back && chown 0:0 /srv/back && rm -r /home\n\
    RUN echo more >> /srv/data && chown 1000:77 /srv/data && chown 99:33 /srv/deep/er\n\
    USER 1000:2000\nWORKDIR /srv/work\nRUN mkdir mine && echo x > mine/file && cp -r mine /tmp/copy\n\
    USER 0\nRUN echo odd:x:12:34::/:/bin/sh >> /etc/passwd\nUSER 12\nRUN touch /tmp/odd\n\
    USER 1000:2000\nCMD [\"cat\", \"/srv/work/mine/file\"]\n";

fn owners(bench: &Bench) -> String {
    bench.write("context/Dockerfile", OWNERS);
    bench.write("context/data", "data of the context");
    let context = bench.path().join("context").display().to_string();
    let mut command = bench.command("rbuild");
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    let line = ["bud", "--progress=plain", "--compression=none", "-t", "app", &context];
    e2e::run(command.args(line)).ok();
    bench.rbuild(["inspect", "--type=image", "--format", "{{.Digest}}", "app"]).ok().text().into()
}

/// Without subordinate ids there is one id, and the image has the owners all the same.
#[test]
fn a_user_without_ranges_builds_what_root_builds() {
    if !root() {
        return;
    }
    let (own, roots) = (Bench::of(NOBODY, NOBODY), Bench::new());
    let info = own.rbuild(["info", "--format", "{{.host.singleId}}"]).ok();
    assert_eq!(info.text(), "true");
    own.busybox();
    roots.busybox();
    let (digest, expected) = (owners(&own), owners(&roots));
    own.rbuild(["save", "--format=oci-dir", "-o", "saved", "app"]).ok();
    roots.rbuild(["save", "--format=oci-dir", "-o", "saved", "app"]).ok();
    let found = entries(&own.path().join("saved"));
    assert_eq!(found, entries(&roots.path().join("saved")));
    assert_eq!(digest, expected, "root and the user build different images");
    let has = |path: &str, uid, gid, mode| {
        let entry = found.iter().rev().find(|(found, ..)| found.trim_end_matches('/') == path);
        let Some(entry) = entry else { panic!("{path} in {found:?}") };
        assert_eq!((entry.1, entry.2, entry.3), (uid, gid, mode), "{path}");
    };
    has("srv/tool", 7, 7, 0o755);
    has("srv/made", 12, 2000, 0o755);
    has("var/spool/x/y", 5, 9, 0o755);
    has("srv/back", 0, 0, 0o644);
    has("srv/work/mine/file", 1000, 2000, 0o644);
    has("srv/data", 1000, 77, 0o640);
    // The database gives this number another group.
    has("tmp/odd", 12, 34, 0o644);
    own.rbuild(["check"]).ok();
    assert_eq!(own.rbuild(["run", "--rm", "-u", "0", "app"]).ok().text(), "x");
    // A command that runs is still one of root's own.
    let missing = ["no subordinate ids", "/etc/subuid"];
    own.rbuild(["run", "--rm", "-u", "user", "busybox", "id"]).code(125).fails(&missing);
}

/// In a container with the usual seccomp filter there are no user namespaces: the error says so.
#[test]
fn the_missing_permission_is_named() {
    if !root() {
        return;
    }
    let bench = Bench::of(NOBODY, NOBODY);
    let mut command = bench.command("rbuild");
    e2e::refuse_unshare(&mut command);
    let told = e2e::run(command.args(["images"]));
    told.fails(&["seccomp filter", "CLONE_NEWUSER", "hint: "]);
}
