//! `run --lazy`: a program starts before its image is here.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]

use std::process::Stdio;

use e2e::image::{Layer, busybox_layer, layout};
use e2e::kill::Chance;
use e2e::{Bench, eventually, root};
use image::ContainerConfig;
use registry_server::{Effect, Fault, Options, Registry};

const LARGE: usize = 9_000_000;

/// An image on a registry: a shell, and a layer with a large file that nobody needs.
struct There {
    registry: Registry,
    bench: Bench,
    name: String,
    /// The digest of the layer with the large file.
    large: String,
}

fn there(format: &str, change: impl FnOnce(&mut ContainerConfig)) -> There {
    let (bench, registry) = (Bench::new(), Registry::start(Options::default()).unwrap());
    let more = Layer::new()
        .dir("data", 0o755)
        .owned("data/one", 0o640, (7, 8), b"one")
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nwho:x:12:13::/:/bin/sh\n")
        .finish();
    let large = Layer::new().file("large", 0o644, &Chance::new(5).bytes(LARGE)).finish();
    layout(&bench.path().join("made"), "app", &[busybox_layer(), more, large], |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
        change(&mut config.config);
    });
    let name = format!("{}/team/app:1", registry.address());
    let to = format!("docker://{name}");
    bench.rcopy(["copy", "--dest-compress-format", format, "oci:made:app", &to]).ok();
    let raw = bench.rcopy(["inspect", "--raw", &to]).ok();
    let manifest: serde_json::Value = serde_json::from_str(raw.text()).unwrap();
    let large = manifest["layers"][2]["digest"].as_str().unwrap().to_owned();
    There { registry, bench, name, large }
}

impl There {
    fn line<'a>(&'a self, command: &'a [&'a str]) -> Vec<&'a str> {
        [&["run", "--rm", "--lazy", "--network=none", &self.name][..], command].concat()
    }

    fn is_kept(&self) -> bool {
        self.bench.rbuild(["images"]).ok().stdout.contains("/team/app")
    }
}

#[test]
fn a_program_runs_although_the_rest_of_its_image_cannot_be_fetched() {
    if !root() {
        return;
    }
    let there = there("zstd:chunked", |config| config.user = "who".to_owned());
    // Of the large layer only the table of contents can be had.
    let blob = format!("*/blobs/{}", there.large);
    let fault = Fault::always("GET", blob, Effect::status(404)).after(1);
    there.registry.fault(fault.clone());
    let script = "id -u; id -g; stat -c '%u %g %a %s' /data/one; ls /large";
    let ran = there.bench.rbuild(there.line(&["sh", "-c", script])).ok();
    assert_eq!(ran.text(), "12\n13\n7 8 640 3\n/large");
    assert!(!there.is_kept());
    there.registry.heal();
    there.registry.fault(fault);
    // The program gets an error for what cannot be read, and the user its reason.
    let ran = there.bench.rbuild(there.line(&["cat", "/large"]));
    assert_ne!(ran.code, 0, "{}", ran.told());
    assert!(ran.stderr.contains("a file could not be read"), "{}", ran.told());
    there.bench.rbuild(["check"]).ok();
}

#[test]
fn what_is_written_is_the_containers_own_and_the_image_is_kept_once_it_is_whole() {
    if !root() {
        return;
    }
    let there = there("zstd:chunked", |config| {
        config.volumes = [("/data".to_owned(), serde_json::json!({}))].into();
    });
    there.registry.forget();
    let door = there.bench.path().join("door");
    std::fs::create_dir(&door).unwrap();
    let script = "cat /data/one && echo two > /data/two && echo new > /etc/passwd && rm /large \
                  && while ! test -e /door/open; do sleep 0.05; done && cat /data/two /etc/passwd";
    let volume = format!("{}:/door", door.display());
    let mut command = there.bench.command("rbuild");
    command.args(["run", "--rm", "--lazy", "--network=none", "-v", &volume, &there.name]);
    let child = command.args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    while !there.is_kept() {
        std::thread::yield_now();
    }
    std::fs::write(door.join("open"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "onetwo\nnew\n");
    // Every byte was asked for once, and no layer as a whole.
    let requests = there.registry.requests().into_iter();
    let mut asked = requests.filter(|one| one.method == "GET" && one.path.ends_with(&there.large));
    assert!(asked.all(|request| request.header("range").is_some()));
    there.bench.rbuild(["check"]).ok();
    // The next run needs no registry.
    there.registry.fault(Fault::always("", "*", Effect::Reset));
    let ran = there.bench.rbuild(there.line(&["cat", "/data/one"])).ok();
    assert_eq!(ran.text(), "one");
    let ran = there.bench.rbuild(there.line(&["sh", "-c", "wc -c </large"])).ok();
    assert_eq!(ran.text(), LARGE.to_string());
}

#[test]
fn an_image_without_tables_is_pulled_whole() {
    if !root() {
        return;
    }
    let there = there("gzip", |_| {});
    let ran = there.bench.rbuild(there.line(&["cat", "/data/one"])).ok();
    assert_eq!(ran.text(), "one");
    assert!(ran.stderr.contains("no table of contents"), "{}", ran.told());
    assert!(there.is_kept());
}

#[test]
fn a_registry_that_gives_no_parts_is_asked_for_the_whole() {
    if !root() {
        return;
    }
    let there = there("zstd:chunked", |_| {});
    there.registry.fault(Fault::always("GET", "*/blobs/*", Effect::Ignore("range")));
    let ran = there.bench.rbuild(there.line(&["cat", "/data/one"])).ok();
    assert_eq!(ran.text(), "one");
    assert!(ran.stderr.contains("gives no parts of layers"), "{}", ran.told());
    assert!(there.is_kept());
}

#[test]
fn a_kill_leaves_no_program_no_mount_and_no_image() {
    if !root() {
        return;
    }
    let there = there("zstd:chunked", |_| {});
    // The image cannot become whole.
    let blob = format!("*/blobs/{}", there.large);
    there.registry.fault(Fault::always("GET", blob, Effect::status(404)).after(1));
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts().matches(" - fuse").count();
    let door = there.bench.path().join("door");
    std::fs::create_dir(&door).unwrap();
    let volume = format!("{}:/door", door.display());
    let mut command = there.bench.command("rbuild");
    command.args(["run", "--rm", "--lazy", "--network=none", "-v", &volume, &there.name]);
    // The program has a lock as long as it lives.
    let script = "exec 9>/door/lock; touch /door/ready; exec sleep 1000";
    let mut child = command.args(["sh", "-c", script]).spawn().unwrap();
    eventually("the program runs", || door.join("ready").exists());
    let open = |pid: &str| {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        all.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.ends_with("door/lock"))
    };
    let lives = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|one| one.file_name().into_string().ok()).any(|pid| open(&pid))
    };
    assert!(lives());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the program has ended", || !lives());
    assert_eq!(mounts().matches(" - fuse").count(), before);
    assert!(!there.is_kept());
    there.bench.rbuild(["check"]).ok();
    there.registry.heal();
    let ran = there.bench.rbuild(there.line(&["cat", "/data/one"])).ok();
    assert_eq!(ran.text(), "one");
}

#[test]
fn a_container_that_lasts_is_not_started_lazily_and_the_policy_is_asked_first() {
    if !root() {
        return;
    }
    let there = there("zstd:chunked", |_| {});
    for more in [&["--lazy"][..], &["--lazy", "--rm", "-d"], &["--lazy", "--rm", "--name=x"]] {
        let line = [&["run"], more, &[&there.name, "true"]].concat();
        there.bench.rbuild(line).code(125).fails(&["--lazy", "whole image", "--rm"]);
    }
    let policy = there.bench.write("policy.json", r#"{"default":[{"type":"reject"}]}"#);
    let policy = format!("--signature-policy={}", policy.display());
    let line = [&[policy.as_str()][..], &there.line(&["true"])].concat();
    there.bench.rbuild(line).fails(&["policy"]);
}
