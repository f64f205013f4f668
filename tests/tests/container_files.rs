//! What is done with the files of containers, and looking at them: cp, commit, diff, export, volume, top, stats, events.

use std::io::Write;
use std::process::Stdio;

use e2e::{Bench, eventually, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

#[test]
fn cp_goes_both_ways_into_running_and_stopped_containers_and_volumes() {
    if !root() {
        return;
    }
    let bench = bench();
    let run = ["run", "-d", "--name=one", "-v", "data:/data", "busybox", "sleep", "1000"];
    bench.rbuild(run).ok();
    bench.write("in/file", "content");
    bench.write("in/deep/other", "more");
    for stopped in [false, true] {
        if stopped {
            bench.rbuild(["stop", "-t", "0", "one"]).ok();
        }
        let at = |path: &str| format!("{path}{}", u8::from(stopped));
        bench.rbuild(["cp", "in/file", &format!("one:{}", at("/tmp/name"))]).ok();
        bench.rbuild(["cp", "in", "one:/tmp"]).ok();
        bench.rbuild(["cp", "in/.", &format!("one:{}", at("/contents"))]).ok();
        bench.rbuild(["cp", "in/file", "one:/data"]).ok();
        let back = |from: &str| {
            let _ = std::fs::remove_file(bench.path().join("back"));
            bench.rbuild(["cp", &format!("one:{from}"), "back"]).ok();
            std::fs::read_to_string(bench.path().join("back")).unwrap()
        };
        assert_eq!(back(&at("/tmp/name")), "content");
        assert_eq!(back("/tmp/in/deep/other"), "more");
        assert_eq!(back(&format!("{}/file", at("/contents"))), "content");
        assert_eq!(back("/data/file"), "content", "volumes are seen, stopped: {stopped}");
    }
    let volume = bench.store().join("volumes/data/_data/file");
    assert_eq!(std::fs::read_to_string(volume).unwrap(), "content");
    bench.rbuild(["cp", "one:/nowhere", "back"]).fails(&["nowhere"]);
    bench.rbuild(["cp", "in", "back"]).code(125).fails(&["CONTAINER:PATH"]);
}

#[test]
fn cp_follows_links_within_the_container_alone() {
    if !root() {
        return;
    }
    let bench = bench();
    let outside = bench.write("outside/secret", "of the machine");
    let link =
        format!("ln -s {} /trap; ln -s /etc /way; sleep 1000", outside.parent().unwrap().display());
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sh", "-c", &link]).ok();
    eventually("the links are there", || bench.rbuild(["exec", "one", "ls", "/way"]).code == 0);
    bench.rbuild(["cp", "one:/trap/secret", "back"]).fails(&["/trap/secret"]);
    bench.write("new", "x");
    let _ = bench.rbuild(["cp", "new", "one:/trap/secret"]);
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "of the machine");
    bench.rbuild(["cp", "one:/way/passwd", "back"]).ok();
    assert!(std::fs::read_to_string(bench.path().join("back")).unwrap().starts_with("root:"));
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn cp_reads_and_writes_tar_streams() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["create", "--name=one", "busybox", "true"]).ok();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    header.set_uid(7);
    archive.append_data(&mut header, "from/tar", &b"hello"[..]).unwrap();
    let bytes = archive.into_inner().unwrap();
    let mut child = bench
        .command("rbuild")
        .args(["cp", "-", "one:/tmp"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(child.wait().unwrap().success());
    let out = bench.command("rbuild").args(["cp", "one:/tmp/from", "-"]).output().unwrap();
    assert!(out.status.success());
    let mut read = tar::Archive::new(&out.stdout[..]);
    let mut seen = Vec::new();
    for entry in read.entries().unwrap() {
        let entry = entry.unwrap();
        let uid = entry.header().uid().unwrap();
        seen.push((entry.path().unwrap().display().to_string(), uid));
    }
    assert!(seen.contains(&("from/tar".to_owned(), 7)), "{seen:?}");
}

#[test]
fn diff_tells_exactly_what_a_program_changed_and_commit_keeps_it() {
    if !root() {
        return;
    }
    let bench = bench();
    let script = "echo new > /tmp/new; rm /etc/group; echo x >> /etc/passwd; mkdir /made";
    let run = ["run", "--name=one", "-v", "data:/data/deep", "busybox", "sh", "-c", script];
    bench.rbuild(run).ok();
    let expected = "C /etc\nD /etc/group\nC /etc/passwd\nA /made\nC /tmp\nA /tmp/new\n";
    eventually("its monitor cleared the places of mounts", || {
        bench.rbuild(["diff", "one"]).ok().stdout == expected
    });
    let id = bench.rbuild(["commit", "-q", "-m", "by hand", "-a", "me", "one", "changed"]).ok();
    assert_eq!(id.text().len(), 64);
    let layers = "--format={{len .RootFS.Layers}}";
    assert_eq!(bench.rbuild(["inspect", layers, "changed"]).ok().text(), "2");
    let look = "cat /tmp/new; ls /etc/group; ls -d /made; ls /data";
    let ran = bench.rbuild(["run", "--rm", "changed", "sh", "-c", look]);
    assert_eq!(ran.stdout, "new\n/made\n", "{}", ran.told());
    let archive = bench.path().join("all.tar");
    bench.rbuild(["export", "-o", &archive.display().to_string(), "one"]).ok();
    let mut read = tar::Archive::new(std::fs::File::open(&archive).unwrap());
    let names: Vec<String> =
        read.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|n| n == "tmp/new") && names.iter().any(|n| n == "bin/busybox"));
    assert!(!names.iter().any(|n| n == "etc/group"));
}

#[test]
fn commit_of_a_running_container_keeps_what_diff_tells() {
    if !root() {
        return;
    }
    let bench = bench();
    bench
        .build("bare", "FROM scratch\nCOPY --from=localhost/busybox /bin/busybox /busybox\n", &[])
        .ok();
    let script = "echo new >/new; exec /busybox sleep 1000";
    bench.rbuild(["run", "-d", "--name=one", "bare", "/busybox", "sh", "-c", script]).ok();
    eventually("it has written", || bench.rbuild(["diff", "one"]).ok().stdout == "A /new\n");
    bench.rbuild(["commit", "-q", "one", "made"]).ok();
    bench.rbuild(["rm", "-f", "one"]).ok();
    let archive = bench.path().join("made.tar");
    bench.rcopy(["export", "store:localhost/made", &archive.display().to_string()]).ok();
    let mut read = tar::Archive::new(std::fs::File::open(&archive).unwrap());
    let names = read.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
    assert_eq!(names.collect::<Vec<_>>(), ["busybox", "new"]);
}

#[test]
fn volumes_are_made_listed_inspected_and_removed() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["volume", "create", "--label=a=1", "data"]).ok();
    assert_eq!(bench.rbuild(["volume", "create", "data"]).ok().text(), "data");
    bench
        .rbuild(["run", "--name=one", "-v", "data:/d", "-v", "/anonymous", "busybox", "true"])
        .ok();
    assert_eq!(bench.rbuild(["volume", "ls", "-q"]).ok().text().lines().count(), 2);
    assert_eq!(bench.rbuild(["volume", "ls", "-q", "--filter=label=a"]).ok().text(), "data");
    // As docker: a format decides, whatever --quiet says.
    let line = ["volume", "ls", "-q", "--filter=label=a", "--format={{.Driver}}"];
    assert_eq!(bench.rbuild(line).ok().text(), "local");
    let place = bench.rbuild(["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).ok();
    assert!(std::path::Path::new(place.text()).is_dir());
    bench.rbuild(["volume", "rm", "data"]).fails(&["volume data is used by container one"]);
    bench.rbuild(["rm", "one"]).ok();
    assert_eq!(bench.rbuild(["volume", "prune", "--force"]).ok().text().len(), 64);
    assert_eq!(bench.rbuild(["volume", "ls", "-q"]).ok().text(), "data");
    bench.rbuild(["volume", "rm", "data"]).ok();
    bench.rbuild(["volume", "rm", "data"]).fails(&["there is no volume \"data\""]);
    for name in ["running", "ended"] {
        let last = if name == "running" { "1000" } else { "0" };
        bench.rbuild(["run", "-d", "--name", name, "-v=data:/d", "busybox", "sleep", last]).ok();
    }
    bench.rbuild(["volume", "rm", "-t", "0", "data"]).fails(&["--force"]);
    bench.rbuild(["volume", "rm", "-f", "data"]).fails(&["volume data is used by container"]);
    bench.rbuild(["volume", "rm", "-f", "-t", "0", "data"]).ok();
    bench.rbuild(["volume", "exists", "data"]).code(1);
    for name in ["running", "ended"] {
        bench.rbuild(["container", "exists", name]).code(1);
    }
    bench.rbuild(["volume", "create", "../x"]).fails(&["a volume's name"]);
    assert!(!bench.store().join("x").exists());
}

#[test]
fn processes_use_and_events_are_told() {
    if !root() {
        return;
    }
    let bench = bench();
    let run = ["run", "-d", "--name=one", "--label=k=v", "busybox", "sh", "-c", "sleep 1000; true"];
    bench.rbuild(run).ok();
    eventually("both processes are there", || {
        let top = bench.rbuild(["top", "one"]).ok().stdout;
        top.contains("PPID") && top.lines().any(|line| line.ends_with("sleep 1000"))
    });
    let stats = bench.rbuild(["stats", "--no-stream", "--format={{.Name}} {{.PIDs}}"]).ok();
    assert_eq!(stats.text(), "one 2");
    bench.rbuild(["kill", "one"]).ok();
    bench.rbuild(["wait", "one"]).ok();
    bench.rbuild(["rm", "-f", "one"]).ok();
    bench.rbuild(["top", "one"]).fails(&["there is no container"]);
    let line = ["events", "--since=0", "--until=0s", "--filter=label=k=v", "--format={{.Action}}"];
    eventually("its end was written down", || {
        let told = bench.rbuild(line).ok().stdout;
        let actions: Vec<&str> = told.lines().collect();
        ["create", "start", "kill", "die", "destroy"].iter().all(|action| actions.contains(action))
    });
}

#[test]
fn dockers_forms_are_the_same_commands() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["container", "create", "--name=one", "busybox", "echo", "hi"]).ok();
    assert_eq!(bench.rbuild(["container", "start", "-a", "one"]).ok().stdout, "hi\n");
    let listed = bench.rbuild(["container", "ls", "-a", "--format", "table {{.Names}}"]).ok();
    assert_eq!(listed.stdout, "NAMES\none\n");
    assert!(bench.rbuild(["image", "ls"]).ok().stdout.contains("busybox"));
    bench.rbuild(["system", "df"]).ok();
    bench.rbuild(["container", "prune", "--force"]).ok();
    assert_eq!(bench.rbuild(["ps", "-aq"]).ok().text(), "");
}

#[test]
fn volumes_are_exported_imported_and_counted() {
    if !root() {
        return;
    }
    let bench = bench();
    let script =
        "echo one > /d/one; chown 7:8 /d/one; mkfifo /d/pipe; head -c 100000 /dev/zero > /d/big";
    bench.rbuild(["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", script]).ok();
    let tar = bench.path().join("data.tar").display().to_string();
    bench.rbuild(["volume", "export", "-o", &tar, "data"]).ok();
    bench.rbuild(["volume", "create", "copy"]).ok();
    bench.rbuild(["volume", "import", "copy", &tar]).ok();
    let look = "cat /d/one; stat -c '%u %g' /d/one; test -p /d/pipe && echo pipe";
    let ran = bench.rbuild(["run", "--rm", "-v", "copy:/d", "busybox", "sh", "-c", look]).ok();
    assert_eq!(ran.stdout, "one\n7 8\npipe\n");
    bench.rbuild(["volume", "import", "missing", &tar]).fails(&["there is no volume"]);
    let df = bench.rbuild(["df", "--format={{.Type}} {{.Total}} {{.Bytes}}"]).ok().stdout;
    let line = df.lines().find_map(|line| line.strip_prefix("Volumes ")).expect("volumes");
    let (count, bytes) = line.split_once(' ').expect("two numbers");
    assert!(count == "2" && bytes.parse::<u64>().unwrap() >= 200_000, "{df}");
}

/// The names in the tar stream that `cp one:PATH -` writes.
fn streamed(bench: &Bench, path: &str, flags: &[&str]) -> Vec<String> {
    let from = format!("one:{path}");
    let line = ["cp"].iter().chain(flags).copied().chain([from.as_str(), "-"]);
    let out = bench.command("rbuild").args(line).output().unwrap();
    assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    let mut archive = tar::Archive::new(&out.stdout[..]);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn cp_streams_files_links_and_trees_under_their_own_names() {
    if !root() {
        return;
    }
    let bench = bench();
    let make = "mkdir -p /d/e; echo a >/d/e/f; ln -s /d/e/f /link; ln -s link /chain; sleep 1000";
    bench.rbuild(["run", "-d", "--name=one", "busybox", "sh", "-c", make]).ok();
    eventually("the links are there", || bench.rbuild(["exec", "one", "ls", "/chain"]).code == 0);
    for stopped in [false, true] {
        if stopped {
            bench.rbuild(["stop", "-t", "0", "one"]).ok();
        }
        assert_eq!(streamed(&bench, "/d/e/f", &[]), ["f"]);
        assert_eq!(streamed(&bench, "/d", &[]), ["d/", "d/e/", "d/e/f"]);
        assert_eq!(streamed(&bench, "/d/.", &[]), ["e/", "e/f"]);
        assert_eq!(streamed(&bench, "/chain", &[]), ["chain"]);
        assert_eq!(streamed(&bench, "/chain", &["-L"]), ["f"]);
    }
    bench.rbuild(["cp", "one:/chain", "link"]).ok();
    assert!(bench.path().join("link").is_symlink());
    bench.rbuild(["cp", "--follow-link", "one:/chain", "followed"]).ok();
    assert_eq!(std::fs::read_to_string(bench.path().join("followed")).unwrap(), "a\n");
    bench.rbuild(["rm", "-f", "one"]).ok();
}

#[test]
fn cp_makes_no_directory_that_is_not_there() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["create", "--name=one", "busybox", "true"]).ok();
    bench.write("file", "x");
    for to in ["one:/nowhere/file", "one:/nowhere/"] {
        bench.rbuild(["cp", "file", to]).fails(&["there is no directory /nowhere"]);
    }
    bench.rbuild(["cp", "one:/nowhere", "-"]).fails(&["nowhere"]);
    assert_eq!(bench.rbuild(["diff", "one"]).ok().stdout, "");
}

#[test]
fn the_history_of_a_committed_container_names_its_program() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.rbuild(["run", "--name=one", "busybox", "touch", "/made"]).ok();
    bench.rbuild(["commit", "one", "made"]).ok();
    // One more of the same moment is another image, unless the time is given.
    let id =
        |flags: &[&str]| bench.rbuild([&["commit", "-q"], flags, &["one"]].concat()).ok().stdout;
    assert_ne!(id(&[]), id(&[]));
    assert_eq!(id(&["--timestamp=0"]), id(&["--timestamp=0"]));
    let told = bench.rbuild(["history", "--no-trunc", "made"]).ok().stdout;
    assert!(told.lines().nth(1).is_some_and(|line| line.contains("touch /made")), "{told}");
}

#[test]
fn an_image_can_have_what_is_in_the_volumes_of_a_container() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let script =
        "echo x > /data/file; chown 5:6 /data/file; chmod 750 /data; echo y > /deep/er/file";
    let volumes = ["-v", "data:/data", "-v", "/deep/er"];
    let line = [&["run", "--name=one"], &volumes[..], &["busybox", "sh", "-c", script]].concat();
    bench.rbuild(line).ok();
    bench.rbuild(["commit", "one", "without"]).ok();
    bench.rbuild(["commit", "--include-volumes", "one", "with"]).ok();
    let look = ["stat", "-c", "%u:%g %a", "/data", "/data/file", "/deep/er/file"];
    let run = |image: &str| bench.rbuild([&["run", "--rm", image], &look[..]].concat());
    assert_ne!(run("without").code, 0);
    assert_eq!(run("with").ok().stdout, "0:0 750\n5:6 644\n0:0 644\n");
}

#[test]
fn programs_find_the_mounts_in_etc() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    for kept in [&["--rm"][..], &["--name=kept"], &["--rm", "--read-only"]] {
        let line = [
            &["run"],
            kept,
            &["busybox", "sh", "-c", "readlink /etc/mtab; grep -c ' / ' /etc/mtab"],
        ];
        assert_eq!(bench.rbuild(line.concat()).ok().stdout, "/proc/mounts\n1\n", "{kept:?}");
    }
    let changes = bench.rbuild(["diff", "kept"]).ok().stdout;
    assert!(!changes.contains("mtab"), "{changes}");
    bench.build("own", "FROM busybox\nRUN ln -s /elsewhere /etc/mtab\n", &[]).ok();
    for kept in [&["--rm"][..], &["--name=own"]] {
        let line = [&["run"], kept, &["own", "readlink", "/etc/mtab"]].concat();
        assert_eq!(bench.rbuild(line).ok().stdout, "/elsewhere\n");
    }
    // A build does not get it.
    let look = ["run", "--rm", "--entrypoint=", "own", "ls", "/etc"];
    bench.rbuild(look).ok();
}

#[test]
fn what_is_mounted_in_a_directory_does_not_change_it() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let dockerfile = "FROM busybox\nRUN rm -rf /etc/hosts /etc/hostname /etc/resolv.conf /etc/mtab; mkdir -p /etc /data && \
        touch -d 2001-01-01 /etc /data\n";
    bench.build("bare", dockerfile, &[]).ok();
    let run = ["run", "--name=it", "-v", "vol:/data/vol", "bare"];
    bench.rbuild([&run[..], &["sh", "-c", "sleep 0"]].concat()).ok();
    let changes = || bench.rbuild(["diff", "it"]).ok().stdout;
    assert_eq!(changes(), "");
    bench.rbuild(["commit", "it", "same"]).ok();
    bench.rbuild(["rm", "it"]).ok();
    bench.rbuild([&run[..], &["sh", "-c", "chmod 700 /etc; touch /data/x"]].concat()).ok();
    assert_eq!(changes(), "C /data\nA /data/x\nC /etc\n");
}
