//! Containers with users and groups of their own, and those in a directory of the machine.

use std::os::unix::fs::MetadataExt;

use e2e::user::User;
use e2e::{Bench, binary, root, run};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

const MAP: &str = "--uidmap=0:100000:65536";

/// Runs a line of a shell in a container that is removed, in both ways that containers run.
fn both(bench: &Bench, flags: &[&str], line: &str) -> [String; 2] {
    [&["run", "--rm"][..], &["run", "--rm", "--name=kept"]].map(|way| {
        let all = [way, flags, &["busybox", "sh", "-c", line]].concat();
        bench.rbuild(all).ok().stdout
    })
}

#[test]
fn root_of_a_container_with_ids_of_its_own_is_nobody_on_the_machine() {
    if !root() {
        return;
    }
    let bench = bench();
    let line = "id -u; stat -c %u:%g /bin/busybox; echo x > /new && stat -c %u:%g /new; \
        mkdir /d && chown 5:6 /d && stat -c %u:%g /d; echo out > /dev/stdout; hostname x 2>&1 | wc -l; \
        tr -s ' ' < /proc/self/uid_map; touch /dev/shm/x; test -c /dev/null && echo y > /dev/null && echo null";
    let told = "0\n0:0\n0:0\n5:6\nout\n1\n 0 100000 65536\nnull\n";
    for network in ["--network=none", "--network=private", "--network=host"] {
        for said in both(&bench, &[MAP, network], line) {
            assert_eq!(said, told, "{network}");
        }
    }
    // What is bound without a map is nobody's there, and cannot be written.
    let file = bench.write("host/file", "text");
    let volume = format!("{}:/data", file.parent().unwrap().display());
    let line = "cat /data/file; stat -c %u /data/file; echo x 2>&1 > /data/new || echo refused";
    for said in both(&bench, &[MAP, "-v", &volume], line) {
        assert!(said.starts_with("text65534\n") && said.ends_with("refused\n"), "{said}");
    }
}

#[test]
fn what_a_mapped_container_writes_has_the_ids_of_inside_on_the_disk() {
    if !root() {
        return;
    }
    let bench = bench();
    let line = "echo x > /file; chown 7:8 /file; echo y > /v/file; chown 9:9 /v/file";
    bench.rbuild(["run", "--name=one", MAP, "-v", "data:/v", "busybox", "sh", "-c", line]).ok();
    // It starts again with its files, and so does an image of it without a map.
    bench.rbuild(["commit", "one", "made"]).ok();
    let line = ["run", "--rm", "-v", "data:/v", "made", "stat", "-c", "%u:%g", "/file", "/v/file"];
    assert_eq!(bench.rbuild(line).ok().stdout, "7:8\n9:9\n");
    assert!(bench.rbuild(["diff", "one"]).ok().stdout.contains("A /file\n"));
    // Another map sees the same owners.
    let other = [&["run", "--rm", "--uidmap=0:300000:65536"][..], &line[2..]].concat();
    assert_eq!(bench.rbuild(other).ok().stdout, "7:8\n9:9\n");
    bench.rbuild(["cp", "one:/file", "got"]).ok();
    assert_eq!(bench.path().join("got").metadata().unwrap().uid(), 7);
}

#[test]
fn a_mapped_container_is_entered_and_watched_like_others() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "-d", "--name=one", MAP, "busybox", "sleep", "1000"]).ok();
    let line = ["exec", "one", "sh", "-c", "id -u; echo out > /dev/stdout; touch /made"];
    assert_eq!(bench.rbuild(line).ok().stdout, "0\nout\n");
    let user = ["exec", "-u", "33:33", "one", "sh", "-c", "id -u; echo out > /dev/stdout"];
    assert_eq!(bench.rbuild(user).ok().stdout, "33\nout\n");
    let pid = bench.rbuild(["inspect", "--format", "{{.State.Pid}}", "one"]).ok().stdout;
    let owner = std::fs::metadata(format!("/proc/{}", pid.trim())).unwrap().uid();
    assert_eq!(owner, 100_000);
    // Copied in both directions, owners are those that the container sees.
    let look = ["exec", "one", "stat", "-c", "%u:%g", "/in", "/in/file", "/stream"];
    let file = bench.write("in/file", "text");
    std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
    bench.rbuild(["exec", "one", "chown", "5:6", "/made"]).ok();
    bench.rbuild(["cp", "in", "one:/"]).ok();
    let tar = "tar -c --owner=9 --group=10 --transform=s/file/stream/ -C in file";
    let unpack = e2e::run(
        std::process::Command::new("sh")
            .args(["-c", &format!("{tar} | \"$0\" cp - one:/")])
            .arg(e2e::binary("rbuild"))
            .env("RBUILD_ROOT", bench.store())
            .current_dir(bench.path()),
    );
    unpack.ok();
    assert_eq!(bench.rbuild(look).ok().stdout, "0:0\n7:8\n9:10\n");
    for name in ["running", "stopped"] {
        bench.rbuild(["cp", "one:/made", name]).ok();
        let got = bench.path().join(name).metadata().unwrap();
        assert_eq!((got.uid(), got.gid()), (5, 6), "{name}");
        bench.rbuild(["stop", "-t0", "one"]).ok();
    }
    let other = ["run", "-d", "--name=two", "--userns=auto", "busybox", "sleep", "1000"];
    bench.rbuild(other).ok();
    bench.rbuild(["start", "one"]).ok();
    bench.rbuild(["cp", "one:/made", "two:/"]).ok();
    let told = bench.rbuild(["exec", "two", "stat", "-c", "%u:%g", "/made"]).ok();
    assert_eq!(told.stdout, "5:6\n");
    bench.rbuild(["rm", "-f", "two"]).ok();
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn ids_chosen_automatically_are_those_of_one_container_alone() {
    if !root() {
        return;
    }
    let bench = bench();
    let map = |name: &str, flag: &str| {
        let name = format!("--name={name}");
        bench.rbuild(["create", &name, flag, "busybox", "cat", "/proc/self/uid_map"]).ok();
        let told = bench.rbuild(["start", "-a", name.trim_start_matches("--name=")]).ok().stdout;
        let numbers: Vec<u64> = told.split_whitespace().map(|n| n.parse().unwrap()).collect();
        (numbers[1], numbers[2])
    };
    let (one, two) = (map("one", "--userns=auto"), map("two", "--userns=auto:size=1000"));
    assert_eq!((one.1, two.1), (65_536, 1000));
    assert!(one.0 + one.1 <= two.0 || two.0 + two.1 <= one.0, "{one:?} {two:?}");
    assert!(one.0 > 1000 && two.0 > 1000);
    // The ids of a removed container are free again.
    bench.rbuild(["rm", "one"]).ok();
    assert_eq!(map("three", "--userns=auto"), one);
}

#[test]
fn a_container_that_keeps_ids_is_root_of_its_own_namespace_with_the_ids_of_the_machine() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("host/file", "text");
    std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap();
    let volume = format!("--volume={}:/data", file.parent().unwrap().display());
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    let line = "tr -s ' ' < /proc/self/uid_map; readlink /proc/self/ns/user; stat -c %u:%g /data/file; \
        echo x > /data/new; chown 2 /data/new";
    for (flag, count, owner) in [("keep-id", u32::MAX, "5:6"), ("keep-id:size=3", 3, "65534:65534")]
    {
        let userns = format!("--userns={flag}");
        for said in both(&bench, &[&userns, &volume], line) {
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines[0], format!(" 0 0 {count}"));
            assert_ne!(lines[1], own.to_str().unwrap());
            assert_eq!(lines[2], owner);
        }
    }
    assert_eq!(bench.path().join("host/new").metadata().unwrap().uid(), 2);
    // It takes none of the ids that are for containers.
    bench.rbuild(["create", "--name=keeps", "--userns=keep-id", "busybox"]).ok();
    bench.rbuild(["run", "--rm", "--userns=auto", "busybox", "true"]).ok();
}

/// What an ordinary user's containers see of themselves and of the image.
const LOOK: &str = "id -u; id -g; stat -c %u:%g /bin/busybox /tmp /etc/hosts; \
    touch /tmp/new && stat -c %u:%g /tmp/new; touch /refused 2>/dev/null || echo kept out";

#[test]
fn a_user_who_keeps_his_ids_is_himself_in_the_container() {
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let own = format!("{}:{}", user.uid, user.gid);
    let shared = bench.path().join("home/shared");
    run(std::process::Command::new("install")
        .args(["-d", "-o", &user.uid.to_string(), "-g", &user.gid.to_string()])
        .arg(&shared))
    .ok();
    let volume = format!("--volume={}:/mnt", shared.display());
    for network in ["--network=none", "--network=private", "--network=bridge", "--network=host"] {
        for said in both(&bench, &["--userns=keep-id", network, &volume], LOOK) {
            let (uid, gid) = (user.uid, user.gid);
            let told = format!("{uid}\n{gid}\n0:0\n0:0\n0:0\n{own}\nkept out\n");
            assert_eq!(said, told, "{network}");
        }
    }
    let line = "stat -c %u:%g /mnt; echo x > /mnt/made && stat -c %u:%g /mnt/made";
    for said in both(&bench, &["--userns=keep-id", &volume], line) {
        assert_eq!(said, format!("{own}\n{own}\n"));
    }
    let made = shared.join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (user.uid, user.gid));
    for said in both(&bench, &["--userns=keep-id:uid=7,gid=8", &volume], line) {
        assert_eq!(said, "7:8\n7:8\n");
    }
    for said in
        both(&bench, &["--userns=keep-id", "-u", "0"], "id -u; stat -c %u /tmp; touch /made")
    {
        assert_eq!(said, "0\n0\n");
    }
}

#[test]
fn a_user_can_keep_himself_out_of_a_container() {
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let map = "tr -s ' ' < /proc/self/uid_map; ";
    let seen = "0\n0\n0:0\n0:0\n0:0\n0:0\n";
    for (flags, ids) in [
        (&["--userns=nomap"][..], " 0 1 65536\n"),
        (&["--uidmap=0:5:100"], " 0 5 100\n"),
        (&["--userns=auto:size=100"], " 0 1 100\n"),
    ] {
        for said in both(&bench, flags, &format!("{map}{LOOK}")) {
            assert_eq!(said, format!("{ids}{seen}"), "{flags:?}");
        }
    }
    let line =
        ["run", "-d", "--name=one", "--userns=auto", "-v", "data:/data", "busybox", "sh", "-c"];
    let script = "touch /data/x; echo x > /made; chown 7:8 /made; exec sleep 1000";
    bench.rbuild([&line[..], &[script]].concat()).ok();
    let other = ["run", "--rm", "--userns=auto", "busybox", "cat", "/proc/self/uid_map"];
    let told = bench.rbuild(other).ok().stdout;
    assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["0", "4097", "4096"]);
    e2e::eventually("the other has written", || {
        bench.rbuild(["exec", "one", "cat", "/made"]).stdout == "x\n"
    });
    assert!(bench.rbuild(["diff", "one"]).ok().stdout.contains("A /made\n"));
    // What comes out of it has the ids of inside.
    bench.rbuild(["commit", "one", "made"]).ok();
    let look = ["run", "--rm", "made", "stat", "-c", "%u:%g", "/made", "/tmp"];
    assert_eq!(bench.rbuild(look).ok().stdout, "7:8\n0:0\n");
    bench.rbuild(["restart", "-t0", "one"]).ok();
    copies_keep_the_owners_of_inside(&bench, &user);
    bench.rbuild(["rm", "-f", "one"]).ok();
    for (flag, words) in [
        ("--uidmap=0:70000:10", "70000 to 70009 are not all among your 65537 ids"),
        ("--subuidname=rbuildtest", "need root"),
        ("--userns=auto:size=70000", "are free"),
    ] {
        bench.rbuild(["run", "--rm", flag, "busybox", "true"]).code(125).fails(&[words]);
    }
    let odd = "FROM busybox\nRUN touch /odd && chown 5000 /odd\n";
    bench.build("odd", odd, &[]).ok();
    let line = ["run", "--rm", "--userns=auto", "odd", "true"];
    bench.rbuild(line).code(125).fails(&["odd", "must be among the ids"]);
}

/// Of a container without the user's own id, running and stopped.
fn copies_keep_the_owners_of_inside(bench: &Bench, user: &User) {
    let file = bench.write("mine/file", "text");
    for path in [&file, file.parent().unwrap()] {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
    for place in ["/running", "/stopped"] {
        bench.rbuild(["cp", "mine", &format!("one:{place}")]).ok();
        bench.rbuild(["cp", "one:/made", "got"]).ok();
        // Who is 7 inside is the seventh of the user's ids: the user comes first.
        let own = bench.rbuild(["unshare", "stat", "-c", "%u:%g", "got"]).ok();
        assert_eq!(own.stdout, "7:8\n", "{place}");
        bench.rbuild(["stop", "-t0", "one"]).ok();
    }
    bench.rbuild(["start", "one"]).ok();
    let look = ["exec", "one", "stat", "-c", "%u:%g", "/running", "/running/file", "/stopped/file"];
    assert_eq!(bench.rbuild(look).ok().stdout, "0:0\n0:0\n0:0\n");
}

#[test]
fn a_user_who_keeps_his_ids_copies_his_files() {
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    let file = bench.write("file", "text");
    std::os::unix::fs::chown(&file, Some(user.uid), Some(user.gid)).unwrap();
    bench.rbuild(["create", "--name=one", "--userns=keep-id", "busybox", "sleep", "1000"]).ok();
    bench.rbuild(["cp", "file", "one:/tmp/before"]).ok();
    bench.rbuild(["start", "one"]).ok();
    bench.rbuild(["cp", "file", "one:/tmp/after"]).ok();
    let own = format!("{}:{}", user.uid, user.gid);
    let look = ["exec", "one", "stat", "-c", "%u:%g", "/tmp/before", "/tmp/after", "/bin"];
    assert_eq!(bench.rbuild(look).ok().stdout, format!("{own}\n{own}\n0:0\n"));
    bench.rbuild(["exec", "one", "cp", "/tmp/after", "/tmp/made"]).ok();
    bench.rbuild(["cp", "one:/tmp/made", "back"]).ok();
    let back = bench.path().join("back").metadata().unwrap();
    assert_eq!((back.uid(), back.gid()), (user.uid, user.gid));
    let packed = "cp one:/tmp/made - | tar -tv --numeric-owner";
    let packed = run(std::process::Command::new("sh")
        .args([
            "-c",
            &format!(
                "setpriv --reuid={} --regid={} --clear-groups ./rbuild {packed}",
                user.uid, user.gid
            ),
        ])
        .env("RBUILD_ROOT", bench.store())
        .env("HOME", bench.path().join("home"))
        .current_dir(bench.path()));
    assert!(packed.ok().stdout.contains(&own.replace(':', "/")));
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn the_subordinate_ids_of_a_user_and_a_group_are_mapped() {
    if !root() {
        return;
    }
    let bench = bench();
    let users = bench.write("subuid", "tom:400000:1000\ncontainers:700000:70000\n");
    let groups =
        bench.write("subgid", "tom:500000:2000\nstaff:600000:3000\ncontainers:800000:70000\n");
    let maps = |flags: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        let script =
            "mount --bind $0 /etc/subuid && mount --bind $1 /etc/subgid && shift && exec \"$@\"";
        command.args(["-m", "--propagation", "private", "sh", "-c", script]);
        command.arg(&users).arg(&groups).arg(binary("rbuild")).args(["run", "--rm"]);
        command.args(flags).args(["busybox", "cat", "/proc/self/uid_map", "/proc/self/gid_map"]);
        for (name, value) in bench.command("rbuild").get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let told = run(&mut command).ok().stdout;
        told.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(maps(&["--subuidname=tom"]), "0 400000 1000 0 500000 2000");
    let both = maps(&["--subuidname=tom", "--subgidname=staff"]);
    assert_eq!(both, "0 400000 1000 0 600000 3000");
    assert_eq!(maps(&["--userns=auto"]), "0 700000 65536 0 800000 65536");
}

#[test]
fn ids_that_cannot_be_had_are_refused_with_the_reason() {
    if !root() {
        return;
    }
    let bench = bench();
    for (flags, words) in [
        (&["--userns=keep-id:uid=7"][..], "you are root, whose id stays 0"),
        (&["--userns=nomap"], "you are root"),
        (&["--userns=keep-id", MAP], "cannot be combined"),
        (&["--userns=ns:relative"], "ns:PATH"),
        (&["--userns=container:nobody"], "there is no container"),
        (&["--userns=private"], "has no ids without maps"),
        (&["--userns=host", MAP], "cannot be combined"),
        (&["--subuidname=nobody-has-this-name"], "has no ids"),
        (&["--uidmap=1:100000:10"], "0, root, is not among them"),
        (&["--uidmap=x"], "ID:HOST:COUNT"),
    ] {
        let line = [&["run", "--rm"][..], flags, &["busybox", "true"]].concat();
        bench.rbuild(line).code(125).fails(&[words]);
    }
}

#[test]
fn containers_share_a_user_namespace() {
    if !root() {
        return;
    }
    let bench = bench();
    let line =
        ["run", "-d", "--name=it", "--userns=auto", "-v", "data:/data", "busybox", "sleep", "1000"];
    bench.rbuild(line).ok();
    let look = "readlink /proc/self/ns/user; tr -s ' ' < /proc/self/uid_map";
    let theirs = bench.rbuild(["exec", "it", "sh", "-c", look]).ok().stdout;
    let pid = bench.rbuild(["inspect", "--format={{.State.Pid}}", "it"]).ok();
    let path = format!("--userns=ns:/proc/{}/ns/user", pid.text());
    let script =
        format!("{look}; id -u; stat -c %u:%g /bin/busybox /data; touch /new && stat -c %u /new");
    for flag in ["--userns=container:it", &path] {
        for network in ["--network=none", "--network=private"] {
            for said in both(&bench, &[flag, network, "-v", "data:/data"], &script) {
                assert_eq!(said, format!("{theirs}0\n0:0\n0:0\n0\n"), "{flag} {network}");
            }
        }
    }
    let all = ["--userns=container:it", "--pid=container:it", "--ipc=container:it"];
    for said in both(&bench, &all, "cat /proc/1/comm") {
        assert_eq!(said, "sleep\n");
    }
    let kept = ["run", "-d", "--name=kept", "--userns=container:it", "busybox", "sleep", "1000"];
    bench.rbuild(kept).ok();
    assert_eq!(bench.rbuild(["exec", "kept", "sh", "-c", look]).ok().stdout, theirs);
    let shown = bench.rbuild(["inspect", "--format={{.HostConfig.UsernsMode}}", "kept"]).ok();
    assert_eq!(shown.text(), "container:it");
    bench.rbuild(["rm", "-fa"]).ok();
    // Who has no ids of its own is in the machine's.
    bench.rbuild(["run", "-d", "--name=it", "busybox", "sleep", "1000"]).ok();
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    for said in both(&bench, &["--userns=container:it"], "readlink /proc/self/ns/user") {
        assert_eq!(said.trim(), own.to_str().unwrap());
    }
    bench.rbuild(["rm", "-fa"]).ok();
}

#[test]
fn the_owners_of_a_mount_are_mapped_on_request() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("host/file", "text");
    let place = file.parent().unwrap().display().to_string();
    for (flags, option, told) in [
        (&[MAP][..], "idmap", "0:0\n"),
        (&[MAP], "idmap=uids=@0-5-1;gids=@0-6-1", "5:6\n"),
        (&[], "idmap=uids=0-5-1;gids=0-6-1", "5:6\n"),
    ] {
        let mounts = [
            format!("--volume={place}:/data:{option}"),
            format!("--mount=type=bind,source={place},target=/data,{option}"),
        ];
        for mount in &mounts {
            let flags = [flags, &[mount.as_str()]].concat();
            for said in both(&bench, &flags, "stat -c %u:%g /data/file") {
                assert_eq!(said, told, "{option}");
            }
        }
    }
    let line = "echo x > /data/new && stat -c %u /data/new";
    let mount = format!("--volume={place}:/data:idmap");
    let said = bench.rbuild(["run", "--rm", MAP, &mount, "busybox", "sh", "-c", line]).ok().stdout;
    assert_eq!(said, "0\n");
    assert_eq!(bench.path().join("host/new").metadata().unwrap().uid(), 0);
    // A file system that cannot map ids says so.
    let proc = ["run", "--rm", MAP, "--volume=/proc/sys:/data:idmap", "busybox", "true"];
    bench.rbuild(proc).code(125).fails(&["mapping the ids of /proc/sys"]);
}

#[test]
fn a_directory_of_the_machine_is_the_root_of_a_container() {
    if !root() {
        return;
    }
    let bench = bench();
    let place = bench.path().join("rootfs");
    std::fs::create_dir_all(place.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", place.join("bin/sh")).unwrap();
    let line = ["run", "--rm", "--rootfs", "rootfs", "/bin/sh", "-c", "echo x > /made; echo ran"];
    assert_eq!(bench.rbuild(line).ok().stdout, "ran\n");
    assert_eq!(std::fs::read_to_string(place.join("made")).unwrap(), "x\n");
    let line = ["run", "--name=one", "--rootfs", "rootfs:O", "/bin/sh", "-c", "echo y > /other"];
    bench.rbuild(line).ok();
    assert!(!place.join("other").exists());
    bench.rbuild(["start", "-a", "one"]).ok();
    assert!(bench.rbuild(["diff", "one"]).ok().stdout.contains("A /other\n"));
    let mapped = ["run", "--rm", MAP, "--rootfs", "rootfs", "/bin/sh", "-c", "echo z > /mapped"];
    bench.rbuild(mapped).ok();
    assert_eq!(place.join("mapped").metadata().unwrap().uid(), 0);
    bench.rbuild(["run", "--rm", "--rootfs", "nowhere", "/bin/sh"]).fails(&["finding nowhere"]);
    bench.rbuild(["run", "--rm", "--rootfs", "rootfs"]).fails(&["names a program"]);
}

#[test]
fn containers_have_the_file_that_says_so() {
    if !root() {
        return;
    }
    let bench = bench();
    for said in both(&bench, &[], "test -f /run/.containerenv; cat /run/.containerenv; echo $?") {
        assert_eq!(said, "0\n");
    }
    let line = "cd /run && . ./.containerenv && echo $name $image $rootless ${#id}";
    let all = ["run", "--rm", "--privileged", "--name=one", "busybox", "sh", "-c", line];
    let said = bench.rbuild(all).ok().stdout;
    assert!(said.starts_with("one ") && said.ends_with(" 0 64\n"), "{said}");
}

#[test]
fn an_image_that_a_container_mounts_stays() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.build("data", "FROM scratch\nCOPY f /f\n", &[("f", "content")]).ok();
    let mount = "--mount=type=image,source=data,target=/mnt";
    bench.rbuild(["run", "-d", "--name=one", mount, "busybox", "sleep", "1000"]).ok();
    bench.rbuild(["rmi", "data"]).fails(&["container one uses image"]);
    bench.rbuild(["rm", "-f", "one"]).ok();
    bench.rbuild(["rmi", "data"]).ok();
}
