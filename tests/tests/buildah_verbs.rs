//! What scripts ask of working containers and of `bud` that only buildah has.

use e2e::{Bench, Ran, root};

/// A bench with `busybox` in its store.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// The files of an image with their times and contents, by a container of it.
#[track_caller]
fn inside(bench: &Bench, image: &str, script: &str) -> String {
    bench.rbuild(["run", "--rm", image, "sh", "-c", script]).ok().text().to_owned()
}

#[track_caller]
fn layers(bench: &Bench, image: &str) -> String {
    let format = "{{len .RootFS.Layers}}";
    bench.rbuild(["inspect", "--type", "image", "--format", format, image]).ok().text().to_owned()
}

#[test]
fn linked_files_are_a_layer_above_everything_that_commands_change() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("file", "linked").display().to_string();
    let later = bench.write("later", "later").display().to_string();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    bench.rbuild(["copy", "-q", "--link", "--chown", "7:8", "c", &file, "/both"]).ok();
    bench.rbuild(["run", "c", "sh", "-c", "test ! -e /both && echo run >/both"]).ok();
    bench.rbuild(["add", "-q", "--link", "c", &later, "/new/later"]).ok();
    bench.rbuild(["commit", "-q", "c", "apart"]).ok();
    let look = "cat /both /new/later; stat -c %u:%g /both";
    assert_eq!(inside(&bench, "apart", look), "linkedlater7:8");
    assert_eq!(layers(&bench, "apart"), "4");
    let history = bench.rbuild(["history", "apart"]).ok();
    assert!(history.stdout.contains("COPY --link"), "{}", history.told());
    bench.rbuild(["commit", "-q", "--squash", "c", "whole"]).ok();
    assert_eq!(inside(&bench, "whole", look), "linkedlater7:8");
    assert_eq!(layers(&bench, "whole"), "1");
}

#[test]
fn copied_files_get_the_time_that_is_given() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.write("dir/a", "a");
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    let dir = bench.path().join("dir").display().to_string();
    bench.rbuild(["copy", "-q", "--timestamp", "86400", "c", &dir, "/dated"]).ok();
    let times = ["run", "c", "stat", "-c", "%Y", "/dated/a"];
    assert_eq!(bench.rbuild(times).ok().text(), "86400");
    bench
        .rbuild(["copy", "-q", "--timestamp", "5", "--from", "busybox", "c", "/bin", "/five"])
        .ok();
    assert_eq!(bench.rbuild(["run", "c", "stat", "-c", "%Y", "/five/sh"]).ok().text(), "5");
}

#[test]
fn files_are_added_to_the_image_alone() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("notes", "added").display().to_string();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    let to = format!("{file}:/usr/share/doc/notes");
    bench.rbuild(["commit", "-q", "--add-file", &to, "c", "image"]).ok();
    let look = "cat /usr/share/doc/notes; stat -c %a:%u /usr/share/doc/notes /usr/share/doc";
    assert_eq!(inside(&bench, "image", look), "added644:0\n755:0");
    bench.rbuild(["run", "c", "test", "!", "-e", "/usr/share/doc/notes"]).ok();
    bench.rbuild(["commit", "-q", "--squash", "--add-file", &file, "c", "same-path"]).ok();
    assert_eq!(inside(&bench, "same-path", &format!("cat {file}")), "added");
    let bad = bench.rbuild(["commit", "-q", "--add-file", "/nothing/here", "c", "bad"]);
    bad.code(125).fails(&["--add-file", "/nothing/here"]);
    bench
        .rbuild(["commit", "-q", "--add-file", &format!("{file}:/x/../../y"), "c", "bad"])
        .code(125);
}

#[test]
fn exit_codes_can_be_declared_success() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    let run = |valid: &str, code: &str| -> Ran {
        let script = format!("exit {code}");
        bench.rbuild(["run", "--valid-exit-codes", valid, "c", "sh", "-c", &script])
    };
    run("0,3", "3").ok();
    run("0,3", "0").ok();
    run("0,3", "4").code(4);
    run("3", "0").code(1);
    let ran = bench.rbuild(["run", "--valid-exit-codes", "3", "busybox", "true"]);
    ran.code(125).fails(&["--valid-exit-codes"]);
}

#[test]
fn commands_find_the_file_that_tells_of_their_container() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    let read = "cd /run && . ./.containerenv && echo $name $image $rootless && echo ${#id}";
    let ran = bench.rbuild(["run", "c", "sh", "-c", read]).ok();
    assert_eq!(ran.text(), "c localhost/busybox:latest 0\n64");
    let dockerfile = "FROM busybox\nRUN test -f /run/.containerenv\n";
    bench.write("Dockerfile", dockerfile);
    let context = bench.path().display().to_string();
    bench.rbuild(["bud", "-q", "--compat", "buildah", "-t", "built", &context]).ok();
    // It is mounted, and no part of the image.
    bench.rbuild(["commit", "-q", "c", "image"]).ok();
    for image in ["built", "image"] {
        bench.rbuild(["create", "--name", image, image]).ok();
        let from = format!("{image}:/run/.containerenv");
        bench.rbuild(["cp", &from, "out"]).code(125).fails(&["containerenv"]);
    }
}

#[test]
fn what_commands_write_below_a_volume_is_dropped_if_asked() {
    if !root() {
        return;
    }
    let bench = bench();
    let text = "FROM busybox\nRUN mkdir /vol && echo old >/vol/old\nVOLUME /vol\n\
                RUN cat /vol/old && echo new >/vol/new && echo x >/beside\nCOPY file /vol/copied\n";
    bench.write("ctx/Dockerfile", text);
    bench.write("ctx/file", "copied\n");
    let context = bench.path().join("ctx").display().to_string();
    for (flag, left) in
        [("--compat-volumes", "copied old"), ("--compat-volumes=false", "copied new old")]
    {
        let out = bench.path().join(left.replace(' ', "-")).display().to_string();
        bench.rbuild(["bud", "-q", flag, "-o", &out, &context]).ok();
        let mut names: Vec<String> = std::fs::read_dir(format!("{out}/vol"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        assert_eq!(names.join(" "), left, "{flag}");
        assert!(std::path::Path::new(&format!("{out}/beside")).exists());
    }
}

#[test]
fn files_keep_their_times_if_only_the_image_is_dated() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.write("ctx/Dockerfile", "FROM scratch\nCOPY a /a\n");
    let file = bench.write("ctx/a", "a");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    std::fs::File::options()
        .write(true)
        .open(file)
        .and_then(|file| file.set_modified(time))
        .expect("a time");
    let context = bench.path().join("ctx").display().to_string();
    let build = |name: &str, flags: &[&str]| {
        use std::os::unix::fs::MetadataExt;
        let out = bench.path().join(name);
        let place = out.display().to_string();
        bench.rbuild([&["bud", "-q", "-o", &place], flags, &[&context]].concat()).ok();
        std::fs::metadata(out.join("a")).expect("a file").mtime()
    };
    let keep = "--rewrite-timestamp=false";
    // Whatever the cache holds from the build before.
    assert_eq!(build("one", &["--timestamp", "5"]), 5);
    assert_eq!(build("two", &["--timestamp", "5", keep]), 1_700_000_000);
    assert_eq!(build("three", &["--timestamp", "1800000000"]), 1_800_000_000);
    assert_eq!(build("four", &["--timestamp", "9"]), 9);
    assert_eq!(build("five", &[]), 1_700_000_000);
}

#[test]
fn a_removed_image_is_not_found_by_its_name() {
    if !root() {
        return;
    }
    let bench = bench();
    let registry = registry_server::Registry::start(registry_server::Options::default()).unwrap();
    let name = format!("{}/team/app:1", registry.address());
    bench.rbuild(["push", "-q", "busybox", &format!("docker://{name}")]).ok();
    bench.rbuild(["from", "-q", "--name", "c", &format!("docker://{name}")]).ok();
    bench.rbuild(["from", "-q", "--name", "d", &name]).ok();
    bench.rbuild(["from", "--pull=never", "--name", "e", &name]).ok();
    bench.rbuild(["rmi", "-f", &name]).ok();
    bench.rbuild(["rmi", "-f", "busybox"]).ok();
    bench.rbuild(["from", "--pull=never", &name]).code(125);
    let copy = ["copy", "-q", "--pull=never", "--from", &name, "c", "/bin/sh", "/x"];
    bench.rbuild(copy).code(125);
}

#[test]
fn files_of_images_and_of_other_containers_are_mounted_for_one_command() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.write("secret", "hidden");
    bench.rbuild(["from", "--name", "c", "busybox"]).ok();
    bench.rbuild(["from", "--name", "other", "busybox"]).ok();
    bench.rbuild(["run", "other", "sh", "-c", "echo theirs >/made"]).ok();
    let run = |mount: &str, script: &str| -> Ran {
        bench.rbuild(["run", "--mount", mount, "c", "sh", "-c", script])
    };
    let image = "type=bind,from=busybox,src=/etc,dst=/m";
    run(image, "test -f /m/passwd && ! echo x >/m/passwd").ok();
    run(&format!("{image},rw"), "echo x >/m/passwd && cat /m/passwd").ok();
    assert_ne!(run(image, "cat /m/passwd").ok().text(), "x", "what is written is dropped");
    let other = "type=bind,from=other,src=/made,dst=/there";
    assert_eq!(run(other, "cat /there").ok().text(), "theirs");
    let secret = format!("type=secret,id=key,src={}", bench.path().join("secret").display());
    assert_eq!(run(&secret, "cat /run/secrets/key").ok().text(), "hidden");
    for bad in [
        "type=bind,from=busybox,src=/none,dst=/m",
        "type=bind,from=busybox",
        "type=bind,from=nothing.invalid/x,dst=/m",
        "type=secret,id=key",
        "type=secret,id=key,src=/none",
    ] {
        run(bad, "true").code(125);
    }
    // Nothing of it is in the image.
    bench.rbuild(["commit", "-q", "c", "image"]).ok();
    inside(&bench, "image", "test ! -e /m && test ! -e /there && test ! -e /run/secrets");
}

#[test]
fn commands_that_only_buildah_has_are_refused_with_the_reason() {
    let bench = bench();
    for (command, hint) in [("source", "rcopy artifact"), ("mkcw", "confidential")] {
        bench.rbuild([command, "create", "x"]).code(125).fails(&[command, "not supported", hint]);
    }
    bench.rbuild(["sorce"]).code(125).fails(&["unrecognized"]);
}

#[test]
fn quiet_verbs_say_nothing_and_false_pulls_nothing() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("file", "text").display().to_string();
    bench.rbuild(["from", "--quiet", "--pull=false", "--name", "c", "busybox"]).ok();
    for line in [
        ["copy", "--quiet", "c", &file, "/a"],
        ["add", "-q", "c", &file, "/b"],
        ["add", "--quiet", "--from=busybox", "c", "/bin/busybox"],
    ] {
        let ran = bench.rbuild(line).ok();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{}", ran.told());
    }
    let absent = bench.rbuild(["from", "--pull=false", "registry.example/absent"]).code(125);
    absent.fails(&["registry.example/absent", "image not known"]);
    bench.rbuild(["rename", "c", "c"]).code(125).fails(&["\"c\" is the name it has"]);
    bench.rbuild(["rename", "c", "d"]).ok();
}
