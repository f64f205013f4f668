//! Working containers: scripts of buildah with `rbuild` in its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use e2e::user::User;
use e2e::{Bench, Ran, peer, root, run};
use serde_json::Value;

#[path = "differential/tree.rs"]
mod tree;

/// A script as people write them for buildah. It works in a context of [`context`] and leaves the
/// directory `$OUT/image` and the archive `$OUT/squashed`.
const SCRIPT: &str = r#"
set -eu
b=$BUILDER
c=$($b from --name work --format docker --cap-add SYS_TIME --ulimit nofile=100:200 --volume "$PWD/dir:/mnt:ro" busybox)
test "$c" = work
test "$($b from busybox)" = busybox-working-container
test "$($b from busybox)" = busybox-working-container-1
$b rm busybox-working-container busybox-working-container-1 >/dev/null

# run: output, input, exit codes, user, directory, variables, mounts; changes stay.
$b run $c -- sh -c 'mkdir -p /srv/app && echo made > /srv/app/made && chown 1000:50 /srv/app/made'
$b run $c ln -s made /srv/app/link
$b run $c sh -c 'ulimit -n > /srv/limit; ls /mnt > /srv/mnt'
$b run --user user --workingdir /tmp --env X=1 $c sh -c 'id -un > who; pwd >> who; echo $X >> who'
echo piped | $b run $c sh -c 'cat > /srv/piped'
test "$($b run $c echo out)" = out
code=0; $b run $c sh -c 'exit 7' || code=$?; test $code = 7
$b run --volume "$PWD/dir:/other" --mount type=tmpfs,dst=/memory $c sh -c 'ls /other > /srv/other; echo x > /memory/x'

# copy and add, by all their ways.
$b config --workingdir /srv $c
$b copy -q --chown 1000:0 --chmod 640 $c file.txt app/
$b copy -q $c dir dest
$b copy -q $c 'dir/*.txt' /globbed/
$b copy -q --contextdir "$PWD/dir" $c "$PWD/dir/sub" /ignored/
$b copy -q --contextdir "$PWD/dir" --ignorefile other.ignore $c "$PWD/dir/sub" /by-file/
$b copy -q $c file.txt
$b copy -q $c link.txt /linked
$b add -q $c archive.tar /unpacked/
$b copy -q $c archive.tar /packed/
$b add -q $c dir/a.txt dir/b.conf /several/
$b copy -q --from busybox $c /etc/passwd /from-image
o=$($b from scratch)
$b copy -q --chown 7:8 $o dir /owned
$b copy -q --chown 0:0 --from $o $c /owned /from-container
$b rm $o >/dev/null

# The programs of the host.
m=$($b mount $c)
echo host > $m/host-made
chmod 4711 $m/srv/piped
rm $m/etc/group
mkdir $m/deep && cp -a dir $m/deep/
$b run $c test -f /host-made
$b umount $c >/dev/null
$b run $c sh -c 'test ! -e /etc/group && rm -r /home && mkdir /home'

# config.
$b config --author 'A. U. Thor' --cmd 'run "with words"' --entrypoint '["/entry","point"]' $c
$b config --env ONE=1 --env 'TWO=${ONE}2' --env GONE=x --env GONE- $c
$b config --label a=b --label gone=x --annotation note=here $c
$b config --label gone- --port 80/tcp --port 90,91 --port 91- --volume /data --volume /gone --volume /gone- $c
$b config --user user:1000 --stop-signal 9 --shell '/bin/sh -eu -c' --onbuild 'RUN true' $c
$b config --healthcheck 'CMD check "it all"' --healthcheck-interval 5s --healthcheck-retries 2 $c
$b config --hostname host --domainname domain --comment 'a comment' --created-by 'by hand' --history-comment 'why' $c
$b config --os-version 1.2 --os-feature f --add-history --label last=step $c
test "$($b inspect --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Env}}' $c)" = "user:1000 [PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ONE=1 TWO=12]"
test "$($b inspect --format '{{.FromImage}} {{.Docker.Config.Cmd}}' $c)" = "localhost/busybox:latest [run with words]"

# rename, containers, commit.
$b rename $c renamed
test "$($b containers --noheading --format '{{.ContainerName}}')" = renamed
test "$($b containers -q --notruncate --filter name=rena)" = "$($b inspect --format '{{.ContainerID}}' renamed)"
$b commit -q --squash renamed oci-archive:$OUT/squashed
test -z "$($b commit -q --format docker --iidfile $OUT/id renamed result)"
id=$(cat $OUT/id)
test "${id#sha256:}" = "$($b images -q --no-trunc result | sed s/^sha256://)"
$b push -q result dir:$OUT/image
$b commit -q --rm renamed other >/dev/null
test -z "$($b containers -q)"
"#;

/// Files with times of long ago.
fn context(place: &Path) -> PathBuf {
    let context = place.join("context");
    std::fs::create_dir_all(&context).expect("a directory");
    let script = "umask 022
        echo content > file.txt; ln -s file.txt link.txt
        mkdir -p dir/sub/deep; echo a > dir/a.txt; echo b > dir/b.conf; echo t > dir/t.txt
        echo x > dir/sub/x; echo y > dir/sub/deep/y.log; chmod 600 dir/a.txt; ln -s a.txt dir/link
        echo sub/x > dir/.containerignore; echo '**/*.log' > other.ignore
        mkdir tmp; echo one > tmp/one; mkdir tmp/two; tar --owner=5 --group=6 -C tmp -cf archive.tar one two; rm -r tmp
        find . -exec touch -h -d @1600000000 {} +";
    run(Command::new("bash").args(["-ec", script]).current_dir(&context)).ok();
    context
}

/// A program that calls buildah on a storage of its own.
fn buildah(place: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let (program, storage) =
        (place.join("buildah-here"), place.join("storage").display().to_string());
    let text = format!(
        "#!/bin/sh\nexport BUILDAH_RUNTIME=runc\nexec buildah --root {storage}/root --runroot {storage}/run --storage-driver overlay \"$@\"\n"
    );
    std::fs::write(&program, text).expect("a file");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    program
}

fn script(command: &mut Command, builder: &Path, context: &Path, out: &Path) -> Ran {
    std::fs::create_dir_all(out).expect("a directory");
    command.env("BUILDER", builder).env("OUT", out).current_dir(context);
    command.env_remove("SOURCE_DATE_EPOCH");
    run(command)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// What must be the same: files as buildah unpacks them, configuration, history.
fn result(buildah: &Path, out: &Path, squashed: &Path) -> BTreeMap<String, String> {
    let start = SystemTime::now() - Duration::from_secs(3600);
    let ask = |arguments: &[&str]| {
        run(Command::new(buildah).args(arguments))
            .ok()
            .text()
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned()
    };
    let look = |from: &str| {
        let id = ask(&["pull", "-q", from]);
        let container = ask(&["from", &id]);
        let mut files = tree::scan(Path::new(&ask(&["mount", &container])), start);
        // buildah may make the places of volumes when it looks.
        files.remove("/data");
        ask(&["rm", &container]);
        files
    };
    let image = out.join("image");
    let mut found = look(&format!("dir:{}", image.display()));
    let whole = look(&format!("oci-archive:{}", squashed.display()));
    assert_eq!(difference(&found, &whole), "", "what is squashed is the same");
    let digest = json(&image.join("manifest.json"))["config"]["digest"].clone();
    let digest = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    let mut config = json(&image.join(digest.expect("a digest")));
    for history in config["history"].as_array().expect("a history") {
        let line =
            format!("{} {} {}", history["created_by"], history["comment"], history["empty_layer"]);
        // buildah adds what the container was made from, and a step for variables that are none.
        let line = line.replace(" false", " null").replace("FROM localhost/busybox:latest", "");
        if !line.contains("#(nop) ENV \"") {
            let number = found.keys().filter(|key| key.starts_with("history")).count();
            found.insert(format!("history {number}"), line);
        }
    }
    for key in ["author", "os.version", "os.features", "comment"] {
        found.insert(key.to_owned(), config[key].to_string());
    }
    let config = config["config"].as_object_mut().expect("a config");
    if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("io.buildah.version");
    }
    for (key, value) in config {
        let text = value.to_string();
        // What is empty or false is not written by all.
        if !["null", "\"\"", "[]", "{}", "false"].contains(&text.as_str()) {
            found.insert(format!("config.{key}"), text);
        }
    }
    found
}

fn difference(one: &BTreeMap<String, String>, two: &BTreeMap<String, String>) -> String {
    let mut told = String::new();
    let keys: std::collections::BTreeSet<_> = one.keys().chain(two.keys()).collect();
    for key in keys.into_iter().filter(|key| one.get(*key) != two.get(*key)) {
        told += &format!("{key}\n  {:?}\n  {:?}\n", one.get(key), two.get(key));
    }
    told
}

#[test]
fn a_script_for_buildah_gives_the_same_with_rbuild() {
    if !root() || peer("buildah").is_none() {
        return;
    }
    let name = format!("working-{}", std::process::id());
    let room = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("a place");
    let _unmounted = Unmounted(room.path().display().to_string());
    let context = context(room.path());
    let buildah = buildah(room.path());
    let layout = e2e::image::busybox(&room.path().join("base"));
    let pulled = run(Command::new(&buildah).args([
        "pull",
        "-q",
        &format!("oci:{}:busybox", layout.display()),
    ]));
    run(Command::new(&buildah).args(["tag", pulled.ok().text(), "localhost/busybox:latest"])).ok();
    let theirs = room.path().join("theirs");
    let file = room.path().join("script");
    std::fs::write(&file, SCRIPT).expect("a file");
    script(Command::new("sh").arg("-x").arg(&file), &buildah, &context, &theirs).ok();

    let bench = Bench::new();
    bench.busybox();
    let ours = room.path().join("ours");
    let mut command = bench.command("rbuild");
    // As root the command is run where it is called.
    command.args(["unshare", "sh", "-x"]).arg(&file);
    script(&mut command, &e2e::binary("rbuild"), &context, &ours).ok();
    let one = result(&buildah, &ours, &ours.join("squashed"));
    let mut two = result(&buildah, &theirs, &theirs.join("squashed"));
    // buildah leaves the places of mounts in the image.
    for place in ["/mnt", "/memory", "/other"] {
        assert!(two.remove(place).is_some() && !one.contains_key(place), "{place}");
    }
    assert!(one.len() > 60, "{one:#?}");
    assert_eq!(difference(&one, &two), "", "rbuild, then buildah");
    bench.rbuild(["check"]).ok();
    let images = bench.rbuild(["images", "-a"]).ok();
    assert_eq!(images.stdout.lines().count(), 5, "{}", images.told());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&bench.store().display().to_string()), "{mounts}");

    // An ordinary user gets the same in a user namespace.
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let mine = bench.path().join("mine");
    std::fs::create_dir(&mine).expect("a directory");
    std::os::unix::fs::chown(&mine, Some(user.uid), Some(user.gid)).expect("root may do this");
    let copy = bench.path().join("context");
    bench.write("script", SCRIPT);
    run(Command::new("cp").arg("-a").arg(&context).arg(&copy)).ok();
    let owner = format!("{}:{}", user.uid, user.gid);
    run(Command::new("chown").args(["-R", "-h", &owner]).arg(&copy)).ok();
    run(Command::new("chmod").arg("755").arg(bench.path())).ok();
    let mut command = bench.command("rbuild");
    command.args(["unshare", "sh", "-x", "../script"]);
    script(&mut command, &bench.path().join("rbuild"), &copy, &mine).ok();
    let three = result(&buildah, &mine, &mine.join("squashed"));
    assert_eq!(difference(&one, &three), "", "root, then an ordinary user");
}

/// buildah leaves its storage mounted.
struct Unmounted(String);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if place.starts_with(&self.0) {
                rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).ok();
            }
        }
    }
}

#[test]
fn working_containers_survive_and_are_changed_by_one_at_a_time() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    bench.rbuild(["from", "--name", "c", "busybox"]).fails(&["c", "taken"]);
    bench.rbuild(["run", "c", "sh", "-c", "echo before > /file"]).ok();
    // Killed in the middle, with all it started.
    let mut command = bench.command("rbuild");
    command.args(["run", "c", "sh", "-c", "echo half > /half; echo ready; sleep 1000"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("rbuild");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    child.kill().expect("a signal");
    child.wait().expect("an end");
    // What is used by it alone stays, when everything else goes.
    bench.rbuild(["rmi", "-a", "--force"]).ok();
    bench.rbuild(["prune", "-a"]).ok();
    bench.rbuild(["check"]).ok();
    let seen = bench.rbuild(["run", "c", "cat", "/file", "/half"]).ok();
    assert_eq!(seen.stdout, "before\nhalf\n");

    // No change is lost.
    std::thread::scope(|scope| {
        for number in 0..6 {
            let label = format!("l{number}=x");
            let bench = &bench;
            scope.spawn(move || bench.rbuild(["config", "--label", &label, "c"]).ok());
        }
    });
    let labels = bench.rbuild(["inspect", "--format", "{{json .OCIv1.Config.Labels}}", "c"]).ok();
    assert_eq!(labels.text().matches('x').count(), 6, "{}", labels.told());

    // The same time gives the same image; a squashed one has one layer.
    let id = |flags: &[&str]| {
        let line = [&["commit", "-q", "--timestamp", "1000000000"], flags, &["c"]].concat();
        bench.rbuild(line).ok().text().to_owned()
    };
    assert_eq!(id(&[]), id(&[]));
    let squashed = id(&["--squash"]);
    let layers = ["inspect", "--format", "{{len .Layers}} {{.Created}}", &squashed];
    assert_eq!(bench.rbuild(layers).ok().text(), "1 2001-09-09T01:46:40Z");
    bench.rbuild(["commit", "--manifest", "list", "c", "one"]).ok();
    bench
        .rbuild([
            "commit",
            "--manifest",
            "list",
            "--omit-history",
            "--annotation",
            "a=b",
            "c",
            "two",
        ])
        .ok();
    let list = bench.rbuild(["inspect", "--type", "manifest", "list"]).ok();
    assert_eq!(list.stdout.matches("sha256:").count(), 2, "{}", list.told());
    bench.rbuild(["rename", "c", "other"]).ok();
    bench.rbuild(["rm", "other"]).ok();
    bench.rbuild(["run", "other", "true"]).code(125);
    bench.rbuild(["check"]).ok();
}

#[test]
fn copy_from_a_container_or_an_image_keeps_owners() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.rbuild(["from", "--name", "source", "busybox"]).ok();
    let files = "mkdir /kept; echo x > /kept/file; chown -R 1000:50 /kept";
    bench.rbuild(["run", "source", "sh", "-c", files]).ok();
    bench.rbuild(["commit", "-q", "source", "owned"]).ok();
    for source in ["source", "owned"] {
        let target = format!("from-{source}");
        bench.rbuild(["from", "--name", &target, "busybox"]).ok();
        bench.rbuild(["copy", "-q", "--from", source, &target, "/kept", "/kept"]).ok();
        bench
            .rbuild(["copy", "-q", "--from", source, "--chown", "7:8", &target, "/kept", "/given"])
            .ok();
        let line = ["run", &target, "stat", "-c", "%u:%g", "/kept/file", "/given/file"];
        assert_eq!(bench.rbuild(line).ok().stdout, "1000:50\n7:8\n");
    }
}

#[test]
fn chroot_isolation_shares_the_namespaces_of_the_machine() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let spaces = ["pid", "ipc", "uts", "cgroup", "mnt"];
    let own = spaces.map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
    let shared = |more: &[&str], container: &str| {
        let paths = spaces.map(|name| format!("readlink /proc/self/ns/{name}")).join("; ");
        let words = [&["run"], more, &[container, "sh", "-c", &paths]].concat();
        let seen = bench.rbuild(words).ok();
        let seen: Vec<&str> = seen.text().lines().collect();
        let same = own.iter().zip(seen).map(|(own, seen)| own.to_str() == Some(seen));
        same.collect::<Vec<_>>()
    };
    bench.rbuild(["from", "--name", "oci", "busybox"]).ok();
    bench.rbuild(["from", "--name", "chroot", "--isolation=chroot", "busybox"]).ok();
    let mut command = bench.command("rbuild");
    let command = command.args(["from", "--name", "variable", "busybox"]);
    run(command.env("BUILDAH_ISOLATION", "chroot")).ok();
    let all_but_mounts = [true, true, true, true, false];
    assert_eq!(shared(&[], "oci"), [false; 5]);
    assert_eq!(shared(&["--cgroupns=host"], "oci"), [false, false, false, true, false]);
    assert_eq!(shared(&["--isolation=chroot"], "oci"), all_but_mounts);
    assert_eq!(shared(&[], "chroot"), all_but_mounts);
    assert_eq!(shared(&[], "variable"), all_but_mounts);
    // What the command changes stays, as with the other.
    bench.rbuild(["run", "chroot", "sh", "-c", "echo kept >/kept; hostname"]).ok();
    bench.rbuild(["commit", "-q", "chroot", "made"]).ok();
    assert_eq!(bench.rbuild(["run", "--rm", "made", "cat", "/kept"]).ok().text(), "kept");
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    let file = bench.write("file", "x").display().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["from", "--userns=moon", "busybox"], "--userns"),
        (&["from", "--cgroupns=moon", "busybox"], "--cgroupns"),
        (&["from", "--isolation=chroot", "--pid=private", "busybox"], "--isolation=chroot"),
        (&["from", "--isolation=moon", "busybox"], "--isolation"),
        (&["from", "--pull=never", "no-such-image"], "no-such-image"),
        (&["run", "--network=container:nobody", "c", "true"], "nobody"),
        (&["run", "--detach", "c", "true"], "--detach"),
        (&["run", "--no-pivot", "c", "true"], "--no-pivot"),
        (&["run", "--runtime=kata", "c", "true"], "--runtime"),
        (&["run", "--add-history", "busybox", "true"], "--add-history"),
        (&["run", "c"], "no command"),
        (&["copy", "c", "/no/such/file", "/"], "no/such/file"),
        (&["copy", "nothing", &file, "/"], "nothing"),
        (&["copy", "--chown", "nobody-here", "c", &file, "/"], "nobody-here"),
        (&["copy", "--checksum", "sha256:0", "c", &file, "/"], "--checksum"),
        (&["config", "--port", "x", "c"], "--port"),
        (&["config", "--env", "=x", "c"], "--env"),
        (&["config", "--cmd", "'x", "c"], "--cmd"),
        (&["commit", "--sign-by", "x", "c"], "--sign-by"),
        (&["commit", "--encryption-key", "x", "c"], "encrypt"),
        (&["commit", "--format", "x", "c"], "\"x\""),
        (&["commit", "c", "Bad Name"], "Bad Name"),
        (&["umount", "c"], "not mounted"),
        (&["containers", "--filter", "x=y"], "x=y"),
        (&["--storage-driver", "btrfs", "containers"], "btrfs"),
        (&["--storage-opt", "overlay.size=1g", "containers"], "overlay.size"),
        (&["--cgroup-manager", "systemd", "containers"], "systemd"),
        (&["--userns-uid-map", "0:1:2", "containers"], "--userns-uid-map"),
        (&["--default-mounts-file", "/x", "containers"], "--default-mounts-file"),
        (&["--log-level", "loud", "containers"], "loud"),
    ];
    for (line, word) in cases {
        bench.rbuild(*line).fails(&[word]);
    }
    let accepted: &[&[&str]] = &[
        &["--storage-driver", "overlay", "--runroot", "/tmp/x", "containers"],
        &["--storage-opt", "overlay.mount_program=/usr/bin/fuse-overlayfs", "containers"],
        &["--cgroup-manager=cgroupfs", "--log-level=fatal", "containers"],
        &["containers", "--root", &bench.store().display().to_string()],
    ];
    for line in accepted {
        let shown = bench.rbuild(*line).ok();
        assert!(shown.stdout.contains("busybox"), "{}", shown.told());
    }
    let mut command = bench.command("rbuild");
    run(command.env("STORAGE_DRIVER", "btrfs").arg("containers")).fails(&["btrfs"]);
    let mut command = bench.command("rbuild");
    command.env("BUILDAH_FORMAT", "docker").env("BUILDAH_HISTORY", "true");
    run(command.args(["from", "--name", "docker", "busybox"])).ok();
    let format = bench.rbuild(["inspect", "--format", "{{.Format}}", "docker"]).ok();
    assert_eq!(format.text(), "docker");
    let refused = bench.rbuild(["inspect", "--format", "{{.State}}", "c"]);
    assert!(!refused.stderr.contains("panicked"), "{}", refused.told());

    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    bench.rbuild(["mount", "c"]).fails(&["unshare"]);
    let line = ["unshare", "--mount", "C=c", "sh", "-c", "id -u; echo x > $C/made; exit 9"];
    assert_eq!(bench.rbuild(line).code(9).stdout, "0\n");
    assert_eq!(bench.rbuild(["run", "c", "cat", "/made"]).ok().stdout, "x\n");
}
