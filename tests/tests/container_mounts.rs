//! Mounts of containers beside paths and volumes: overlays, images, terminals, patterns, options.

use e2e::{Bench, root};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench
}

/// Runs a line of a shell in a container that is removed, in both ways that containers run.
fn both(bench: &Bench, flags: &[&str], line: &str) -> [String; 2] {
    [&["run", "--rm"][..], &["run", "--rm", "--name=kept"]].map(|way| {
        let all = [way, flags, &["busybox", "sh", "-c", line]].concat();
        bench.rbuild(all).ok().stdout
    })
}

#[test]
fn writes_to_an_overlay_are_gone_after_the_container() {
    if !root() {
        return;
    }
    let bench = bench();
    let file = bench.write("host/file", "old");
    let volume = format!("{}:/data:O", file.parent().unwrap().display());
    let line = "cat /data/file; echo new > /data/file; touch /data/more; cat /data/file; ls /data";
    for told in both(&bench, &["-v", &volume], line) {
        assert_eq!(told, "oldnew\nfile\nmore\n");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    // The next start of a container begins with the files of the machine too.
    let line = "ls /data; touch /data/more";
    bench.rbuild(["create", "--name=one", "-v", &volume, "busybox", "sh", "-c", line]).ok();
    for _ in 0..2 {
        assert_eq!(bench.rbuild(["start", "-a", "one"]).ok().stdout, "file\n");
    }
    bench.rbuild(["rm", "one"]).ok();
}

#[test]
fn an_image_is_mounted_read_only_or_with_changes_that_are_forgotten() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.build("data", "FROM scratch\nCOPY f /dir/f\n", &[("f", "content")]).ok();
    let mount = "--mount=type=image,source=data,target=/mnt";
    let line = "cat /mnt/dir/f; echo x > /mnt/dir/f || echo refused";
    for told in both(&bench, &[mount], line) {
        assert_eq!(told, "contentrefused\n");
    }
    for told in both(&bench, &[&format!("{mount},rw=true")], &format!("{line}; cat /mnt/dir/f")) {
        assert_eq!(told, "contentx\n");
    }
    let missing = ["run", "--rm", "--mount=type=image,src=none,dst=/x", "busybox", "true"];
    bench.rbuild(missing).code(125).fails(&["mounting an image", "none"]);
}

#[test]
fn options_of_mounts_bite() {
    if !root() {
        return;
    }
    let bench = bench();
    for name in ["a.conf", "b.conf", "other"] {
        bench.write(&format!("etc/{name}"), name);
    }
    let etc = bench.path().join("etc");
    let glob = format!("--mount=type=glob,source={}/*.conf,target=/etc/own", etc.display());
    for told in both(&bench, &[&glob], "ls /etc/own; cat /etc/own/a.conf") {
        assert_eq!(told, "a.conf\nb.conf\na.conf");
    }
    let pts = ["--mount=type=devpts,target=/pts,uid=7,mode=0600"];
    for told in both(&bench, &pts, "mount | grep ' /pts ' | grep -o 'uid=7\\|mode=600'; ls /pts") {
        assert_eq!(told, "uid=7\nmode=600\nptmx\n");
    }
    let line = "cp /bin/busybox /v/true; /v/true && echo ran || echo refused";
    for told in both(&bench, &["-v", "data:/v:noexec"], line) {
        assert_eq!(told, "refused\n");
    }
    let owner = "stat -c %u:%g /v /v/true";
    for told in both(&bench, &["-u", "7:8", "-v", "data:/v:U"], owner) {
        assert_eq!(told, "7:8\n7:8\n");
    }
    let unmapped = ["run", "--rm", "-v", "data:/v:idmap", "busybox"];
    bench.rbuild(unmapped).code(125).fails(&["/v has idmap", "maps users and groups"]);
}
