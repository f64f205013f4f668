//! The list of images, in buildah's words, and what is removed by it.

use std::io::Read;
use std::process::Stdio;

use e2e::{Bench, Ran, root};
use serde_json::Value;

#[test]
fn images_are_listed_filtered_and_pruned_as_buildah_does() {
    let bench = Bench::new();
    for (name, label, epoch) in [("old", "a=1", "1000000000"), ("new:2", "b=2", "1600000000")] {
        bench.write("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
        let label = format!("--label={label}");
        bench.rbuild(["bud", "-q", "--timestamp", epoch, &label, "-t", name, "ctx"]).ok();
    }
    bench.rbuild(["bud", "-q", "--timestamp=1300000000", "ctx"]).ok();
    let images = |more: &[&str]| -> Ran { bench.rbuild([&["images"][..], more].concat()) };
    let names = |filter: &str| {
        let shown = images(&["-n", "--format={{.Name}}:{{.Tag}}", "--filter", filter]).ok();
        shown.text().replace('\n', " ")
    };
    let (old, new, none) = ("localhost/old:latest", "localhost/new:2", "<none>:<none>");
    for (filter, expected) in [
        ("dangling=true", none.to_owned()),
        ("dangling=false", format!("{new} {old}")),
        ("reference=ol*", old.to_owned()),
        ("reference=localhost/*:2", new.to_owned()),
        ("label=a", old.to_owned()),
        ("label=b=2", new.to_owned()),
        ("label!=a", format!("{new} {none}")),
        ("before=new:2", format!("{none} {old}")),
        ("since=old", format!("{new} {none}")),
        ("until=2005-01-01T00:00:00Z", old.to_owned()),
        ("until=24h", format!("{new} {none} {old}")),
        ("readonly=true", String::new()),
    ] {
        assert_eq!(names(filter), expected, "{filter}");
    }
    let table = images(&["--format", "table {{.Repository}}\\t{{.Tag}}", "old"]).ok();
    assert_eq!(table.stdout, "REPOSITORY     IMAGE TAG\nlocalhost/old  latest\n");
    assert_eq!(images(&["-a"]).ok().stdout.lines().count(), 4);
    assert_eq!(images(&["--noheading"]).ok().stdout.lines().count(), 3);
    let json: Value = serde_json::from_str(&images(&["--json", "old"]).ok().stdout).expect("JSON");
    assert_eq!(json[0]["names"][0], old);
    assert_eq!(json[0]["created"], 1_000_000_000);
    for (line, word) in [
        (&["--history"][..], "--history"),
        (&["--filter=colour=red"], "colour=red"),
        (&["--filter=before=nothing"], "nothing"),
        (&["--filter=dangling=perhaps"], "perhaps"),
        (&["--format={{.Id", "old"], "{{.Id"),
    ] {
        images(line).fails(&[word]);
    }
    let pruned = bench.rbuild(["rmi", "--prune"]).ok();
    assert_eq!(pruned.stdout.lines().count(), 1, "{}", pruned.told());
    assert_eq!(names("dangling=true"), "");
    bench.rbuild(["rmi", "-a"]).ok();
    assert_eq!(images(&["-q"]).ok().stdout, "");
}

#[test]
fn an_archive_of_a_root_file_system_becomes_an_image() {
    let bench = Bench::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    for directory in ["./", "etc/"] {
        archive.append_data(&mut header, directory, std::io::empty()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(if root() { 7 } else { 0 });
    archive.append_data(&mut header, "etc/a", &b"hi"[..]).unwrap();
    let bytes = archive.into_inner().unwrap();
    std::fs::write(bench.path().join("root.tar"), &bytes).unwrap();
    let line = ["import", "-c", "CMD [\"run\"]", "-c", "ENV A=1", "-m", "mine", "root.tar", "one"];
    let id = bench.rbuild(line).ok().text().to_owned();
    assert!(id.starts_with("sha256:"), "{id}");
    let look =
        |what: &str| bench.rbuild(["inspect", "--format", what, "one"]).ok().text().to_owned();
    assert_eq!(look("{{.Id}} {{.Config.Cmd}} {{.Config.Env}}"), format!("{id} [run] [A=1]"));
    let told = bench.rbuild(["history", "--format", "{{.CreatedBy}} {{.Comment}}", "one"]).ok();
    assert_eq!(told.text(), "import root.tar mine");
    let mut gzip = std::process::Command::new("gzip");
    assert!(gzip.arg("-k").arg(bench.path().join("root.tar")).status().unwrap().success());
    let piped = std::fs::File::open(bench.path().join("root.tar.gz")).unwrap();
    let mut command = bench.command("rbuild");
    command.args(["image", "import", "--platform=linux/arm64", "-", "two"]).stdin(piped);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let layers = |name: &str| {
        let line = ["inspect", "--format", "{{.RootFS.Layers}} {{.Architecture}}", name];
        bench.rbuild(line).ok().text().to_owned()
    };
    let (one, two) = (layers("one"), layers("two"));
    assert_eq!(one.split(' ').next(), two.split(' ').next(), "compressed or not");
    assert!(two.ends_with(" arm64"), "{two}");
}

#[test]
fn what_is_no_archive_is_not_imported() {
    let bench = Bench::new();
    bench.write("text", "no archive");
    bench.rbuild(["import", "text", "one"]).code(125).fails(&["text", "it is not an archive"]);
    bench.rbuild(["import", "nowhere", "one"]).code(125).fails(&["nowhere"]);
    let line = ["import", "-c", "RUN true", "text", "one"];
    bench.rbuild(line).code(125).fails(&["it is not an archive"]);
    assert_eq!(bench.rbuild(["images", "-q"]).ok().stdout, "");
    assert_eq!(bench.rbuild(["containers", "-q"]).ok().stdout, "");
}

#[test]
fn an_unknown_name_does_not_keep_the_others_back() {
    let bench = Bench::new();
    bench.write("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    bench.rbuild(["bud", "-q", "-t", "one", "-t", "two", "-t", "three", "ctx"]).ok();
    for volume in ["v1", "v2"] {
        bench.rbuild(["volume", "create", volume]).ok();
    }
    bench.rbuild(["network", "create", "n1"]).ok();
    let names = ["no-1", "one", "no-2", "v1", "n1"];
    let shown = bench.rbuild([&["inspect"][..], &names].concat()).code(125);
    assert!(shown.stderr.contains("no-1") && shown.stderr.contains("no-2"), "{}", shown.told());
    let documents: Vec<Value> = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(documents.len(), 3);
    assert_eq!((&documents[1]["Name"], &documents[2]["Name"]), (&"v1".into(), &"n1".into()));
    bench.rbuild(["inspect", "--type=volume", "one"]).code(125).fails(&["one"]);
    bench.rbuild(["inspect", "--type=network", "v1"]).code(125).fails(&["v1"]);
    bench.rbuild(["volume", "rm", "nothing", "v1", "v2"]).code(125).fails(&["nothing"]);
    assert_eq!(bench.rbuild(["volume", "ls", "-q"]).ok().stdout, "");
    bench.rbuild(["network", "rm", "nothing", "n1"]).code(125).fails(&["nothing"]);
    bench.rbuild(["network", "inspect", "n1"]).code(125);
    bench.rbuild(["untag", "nothing", "one"]).code(125).fails(&["nothing"]);
    bench.rbuild(["rmi", "nothing", "two", "also-not", "three"]).code(125).fails(&["nothing"]);
    assert_eq!(bench.rbuild(["images", "-q"]).ok().stdout.lines().count(), 0);
}

#[test]
fn commands_of_peers_that_there_are_not_say_what_to_use() {
    let bench = Bench::new();
    for (line, word) in [
        (&["compose", "up"][..], "rbuild bake"),
        (&["search", "nginx"], "rcopy catalog"),
        (&["image", "scp", "a", "b"], "rbuild save"),
        (&["container", "checkpoint", "a"], "pause"),
        (&["volume", "mount", "a"], "rbuild cp"),
        (&["pod", "create"], "--network"),
        (&["secret", "ls"], "rbuild bud"),
        (&["context", "ls"], "daemon"),
    ] {
        bench.rbuild(line).code(125).fails(&["is not supported", word]);
    }
}

#[test]
fn a_killed_import_leaves_no_image_and_no_container() {
    let bench = Bench::new();
    let mut command = bench.command("rbuild");
    command.args(["import", "root.tar", "one"]).stdin(Stdio::null());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 20);
    header.set_mode(0o644);
    archive.append_data(&mut header, "a", std::io::repeat(b'x').take(1 << 20)).unwrap();
    std::fs::write(bench.path().join("root.tar"), archive.into_inner().unwrap()).unwrap();
    let active = bench.store().join("active");
    let mut child = command.spawn().unwrap();
    // The file is unpacked in the store before the image is there.
    while child.try_wait().unwrap().is_none() {
        if std::fs::read_dir(&active).is_ok_and(|mut entries| entries.next().is_some()) {
            child.kill().unwrap();
        }
    }
    let killed = !child.wait().unwrap().success();
    let images = bench.rbuild(["images", "-q"]).ok().stdout;
    assert_eq!(images.lines().count(), usize::from(!killed));
    assert_eq!(bench.rbuild(["containers", "-q"]).ok().stdout, "");
    bench.rbuild(["import", "-q", "root.tar", "one"]).ok();
    bench.rbuild(["check"]).ok();
    let left = || std::fs::read_dir(&active).map_or(0, |entries| entries.count());
    assert_eq!(left(), 0, "what was left is removed");
}
