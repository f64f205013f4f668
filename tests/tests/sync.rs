//! `rcopy sync`: mirrors between registries and directories, shared by workers, and as skopeo does.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are journeys")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::registry::DockerRegistry;
use e2e::watch::guarded;
use e2e::{Bench, Ran, peer, repository};
use image::{Descriptor, Document, Index, MediaType};
use registry_server::{Effect, Fault, Options, Registry};
use serde_json::Value;

struct Scene {
    bench: Bench,
    source: Registry,
    target: Registry,
}

impl Scene {
    fn new() -> Scene {
        let source = Registry::start(Options::default()).unwrap();
        let target = Registry::start(Options::default()).unwrap();
        Scene { bench: Bench::new(), source, target }
    }

    fn sync(&self, arguments: &[&str]) -> Ran {
        let mut command = self.bench.command("rcopy");
        command.env("XDG_STATE_HOME", self.bench.path().join("state"));
        guarded(command.current_dir(self.bench.path()).arg("sync").args(arguments))
    }

    /// From the one registry to the other.
    fn mirror(&self, repository: &str, below: &str, more: &[&str]) -> Ran {
        let (from, to) = (
            format!("{}/{repository}", self.source.address()),
            format!("{}/{below}", self.target.address()),
        );
        let mut arguments = vec!["--src", "docker", "--dest", "docker", &from, &to];
        arguments.extend(more);
        self.sync(&arguments)
    }

    /// How many requests the registries had of this method about manifests, and of another kind.
    fn asked(&self, method: &str) -> usize {
        let all = self.source.requests().into_iter().chain(self.target.requests());
        all.filter(|record| record.method == method && record.path.contains("/manifests/")).count()
    }

    fn forget(&self) {
        self.source.forget();
        self.target.forget();
    }

    /// An index of an image for amd64 and one for arm64.
    fn index(&self, repository: &str, tag: &str) -> Descriptor {
        let mut all = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let layer = format!("{tag} for {architecture}");
            let mut one = self.source.put_image(repository, "unused", &[layer.as_bytes()]).unwrap();
            one.platform = Some(format!("linux/{architecture}").parse().unwrap());
            all.push(one);
        }
        let index = Document::write(MediaType::OCI_INDEX, Index::new(all));
        let bytes = index.bytes().clone();
        self.source.put_manifest(repository, Some(tag), MediaType::OCI_INDEX, bytes).unwrap()
    }
}

#[test]
fn a_mirror_asks_once_a_tag_and_deletes_what_was_dropped() {
    let scene = Scene::new();
    let shared: &[u8] = b"a layer that all have";
    for n in 0..120 {
        let own = format!("layer of {n}");
        scene.source.put_image("team/app", &format!("1.{n}"), &[shared, own.as_bytes()]).unwrap();
    }
    // Says what it would do, and does nothing.
    let told = scene.mirror("team/app", "mirror", &["--dry-run"]).ok();
    assert_eq!(told.stdout.lines().count(), 120, "{}", told.told());
    assert!(told.stdout.contains("would copy docker://"), "{}", told.told());
    assert!(scene.target.tag("mirror/app", "1.0").is_none());
    scene.forget();
    // The first run copies everything, and a layer they share once.
    let first = scene.mirror("team/app", "mirror", &[]).ok();
    assert!(first.stderr.contains("synced 120 names: 120 copied"), "{}", first.told());
    assert_eq!(scene.target.tag("mirror/app", "1.7"), scene.source.tag("team/app", "1.7"));
    let digest = image::Digest::of(shared).to_string();
    let sent = scene.source.requests();
    let sent = sent.iter().filter(|r| r.method == "GET" && r.path.contains(&digest)).count();
    assert_eq!(sent, 1, "the shared layer was read {sent} times");
    // The second asks the source once a tag, and the destination for its list.
    scene.forget();
    let again = scene.mirror("team/app", "mirror", &[]).ok();
    assert!(again.stderr.contains("120 unchanged"), "{}", again.told());
    assert_eq!((scene.asked("HEAD"), scene.asked("GET")), (120, 0));
    // Tags that never change are not asked about at all, with or without what is remembered.
    for flags in [&["--immutable-tags", r"^1\."][..], &["--missing-only", "--no-state"]] {
        scene.forget();
        let again = scene.mirror("team/app", "mirror", flags).ok();
        assert!(again.stderr.contains("120 unchanged"), "{}", again.told());
        assert_eq!((scene.asked("HEAD"), scene.asked("GET")), (0, 0), "{flags:?}");
    }
    // Without anything remembered both ends are asked, and it is the same.
    scene.forget();
    let again = scene.mirror("team/app", "mirror", &["--no-state", "--referrers=false"]).ok();
    assert!(again.stderr.contains("120 unchanged"), "{}", again.told());
    assert_eq!((scene.asked("HEAD"), scene.asked("GET")), (240, 0));
    // One tag moves, one is removed at the destination behind our back: both are mended.
    scene.source.put_image("team/app", "1.5", &[b"moved"]).unwrap();
    let gone = format!("docker://{}/mirror/app:1.9", scene.target.address());
    guarded(scene.bench.command("rcopy").args(["delete", "--tag-only", &gone])).ok();
    let report = scene.bench.path().join("report.json");
    let path = report.display().to_string();
    let again = scene.mirror("team/app", "mirror", &["--report", &path]).ok();
    assert!(again.stderr.contains("2 copied, 118 unchanged"), "{}", again.told());
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let names = report["names"].as_array().unwrap().iter();
    let copied: BTreeSet<&str> = names
        .filter(|name| name["outcome"] == "copied")
        .map(|name| name["destination"].as_str().unwrap().rsplit(':').next().unwrap())
        .collect();
    assert_eq!(copied, BTreeSet::from(["1.5", "1.9"]));
    // What the source dropped goes when asked to, but not too much of it.
    for n in 0..60 {
        let dropped = format!("docker://{}/team/app:1.{n}", scene.source.address());
        guarded(scene.bench.command("rcopy").args(["delete", "--tag-only", &dropped])).ok();
    }
    scene.target.put_image("mirror/app", "local", &[b"not of the mirror"]).unwrap();
    let only = ["--tag-regex", r"^1\."];
    let kept = scene.mirror("team/app", "mirror", &only).ok();
    assert!(kept.stderr.contains("60 unchanged"), "{}", kept.told());
    let delete = ["--tag-regex", r"^1\.", "--delete"];
    scene.mirror("team/app", "mirror", &delete).fails(&[
        "60 of 120 tags",
        "25 percent",
        "--delete-limit",
    ]);
    assert!(scene.target.tag("mirror/app", "1.3").is_some());
    let more = [&delete[..], &["--delete-limit", "50"]].concat();
    let preview = scene.mirror("team/app", "mirror", &[&more[..], &["--dry-run"]].concat()).ok();
    assert_eq!(preview.stdout.matches("would delete").count(), 60, "{}", preview.told());
    assert!(scene.target.tag("mirror/app", "1.3").is_some());
    let deleted = scene.mirror("team/app", "mirror", &more).ok();
    assert!(deleted.stderr.contains("60 unchanged, 60 deleted"), "{}", deleted.told());
    assert!(scene.target.tag("mirror/app", "1.3").is_none());
    assert!(scene.target.tag("mirror/app", "1.77").is_some());
    assert!(scene.target.tag("mirror/app", "local").is_some(), "it was none of the mirror's");
    // A source that is gone is a failure, not a reason to delete everything.
    scene
        .mirror("team/none", "mirror", &["--delete", "--delete-limit", "100"])
        .fails(&["listing the tags of", "team/none"]);
}

#[test]
fn what_is_attached_later_comes_with_the_next_run() {
    let scene = Scene::new();
    for tag in ["1", "2", "edge"] {
        scene.source.put_image("app", tag, &[tag.as_bytes()]).unwrap();
    }
    let listed = |place: &Registry, repository: &str| {
        let name = format!("docker://{}/{repository}:1", place.address());
        guarded(scene.bench.command("rcopy").args(["artifact", "discover", &name])).ok().stdout
    };
    let attach = |text: &str| {
        let file = scene.bench.write("note.txt", text).display().to_string();
        let name = format!("docker://{}/app:1", scene.source.address());
        let mut attach = scene.bench.command("rcopy");
        attach.args(["artifact", "attach", &name, &format!("{file}:text/plain")]);
        guarded(attach.args(["--artifact-type", "application/x-note"])).ok();
    };
    let asked = |part: &str| {
        let all = scene.source.requests().into_iter().chain(scene.target.requests());
        all.filter(|record| record.path.contains(part)).count()
    };
    // By the API, and by the list of tags where there is none.
    for (api, choice, below) in [
        (true, &["--tag-regex", "^[12]$"][..], "api"),
        (true, &[], "all"),
        (false, &["--tag-regex", "^[12]$"], "tags"),
    ] {
        for registry in [&scene.source, &scene.target].into_iter().filter(|_| !api) {
            registry.fault(Fault::always("GET", "*/referrers/*", Effect::status(404)));
            registry.fault(Fault::always("PUT", "*", Effect::Remove("oci-subject")));
        }
        let run = |flags: &[&str]| scene.mirror("app", below, &[choice, flags].concat()).ok();
        run(&[]);
        attach(below);
        let told = run(&["--dry-run"]);
        assert!(told.stderr.contains("1 would copy"), "{}", told.told());
        let told = run(&[]);
        assert!(told.stderr.contains("1 copied"), "{}", told.told());
        let mirrored = format!("{below}/app");
        let (here, there) = (listed(&scene.source, "app"), listed(&scene.target, &mirrored));
        let count = |text: &str| text.matches("application/x-note").count();
        assert!(count(&here) > 0 && count(&here) == count(&there), "{here}\n{there}");
        // Then it is one question a tag more where there is the API, and none otherwise.
        scene.forget();
        let told = run(&[]);
        assert!(
            told.stderr.contains("unchanged") && !told.stderr.contains("copied"),
            "{}",
            told.told()
        );
        let names = if choice.is_empty() { 3 } else { 2 };
        match api {
            true => assert_eq!(asked("/referrers/"), names, "{below}"),
            false => assert!(asked("/referrers/") <= 2, "{below}"),
        }
        assert!(scene.asked("HEAD") <= names + 1, "{below}");
        scene.source.heal();
        scene.target.heal();
    }
}

#[test]
fn a_layout_gets_what_is_attached_and_a_directory_a_warning() {
    let scene = Scene::new();
    for tag in ["1", "2"] {
        scene.source.put_image("team/app", tag, &[tag.as_bytes()]).unwrap();
    }
    let from = format!("{}/team/app", scene.source.address());
    let attach = |tag: &str| {
        let file = scene.bench.write("note.txt", tag).display().to_string();
        let mut attach = scene.bench.command("rcopy");
        let name = format!("docker://{from}:{tag}");
        attach.args(["artifact", "attach", &name, &format!("{file}:text/plain")]);
        guarded(attach.args(["--artifact-type", "application/x-note"])).ok();
    };
    attach("1");
    let run =
        |dest: &str, to: &str| scene.sync(&["--src", "docker", "--dest", dest, &from, to]).ok();
    let digest = |name: &str| {
        guarded(scene.bench.command("rcopy").args(["digest", name])).ok().text().to_owned()
    };
    let notes = |name: &str| {
        let listed = guarded(scene.bench.command("rcopy").args(["artifact", "discover", name]));
        listed.ok().stdout.matches("application/x-note").count()
    };
    let told = run("oci", "usb");
    assert!(told.stderr.contains("2 copied"), "{}", told.told());
    let layout = format!("oci:{}", scene.bench.path().join("usb/app").display());
    for tag in ["1", "2"] {
        assert_eq!(digest(&format!("{layout}:{tag}")), digest(&format!("docker://{from}:{tag}")));
    }
    let mark = |tag: &str| notes(&format!("{layout}:{tag}"));
    assert_eq!((mark("1") > 0, mark("2")), (true, 0));
    // What comes later is found although the tag has not moved.
    attach("2");
    let told = run("oci", "usb");
    assert!(told.stderr.contains("2 unchanged"), "{}", told.told());
    assert!(mark("2") > 0);
    let told = run("dir", "stick");
    assert!(told.stderr.contains("warning") && told.stderr.contains("attached"), "{}", told.told());
    let gone = ["--src", "docker", "--dest", "oci", "--delete", &from, "usb"];
    scene.sync(&gone).code(1).fails(&["--delete works between registries only"]);
    let scoped = ["--src", "docker", "--dest", "oci", "--scoped", &from, "usb"];
    scene.sync(&scoped).code(1).fails(&["colon", "--scoped"]);
}

#[test]
fn a_signature_tag_that_moved_comes_with_the_next_run_for_one_question() {
    let scene = Scene::new();
    let image = scene.source.put_image("app", "1", &[b"one"]).unwrap();
    // Two tags of one image ask about its signature once.
    scene.source.put_image("app", "2", &[b"one"]).unwrap();
    let signature = format!("sha256-{}.sig", image.digest.hex());
    let sign = |text: &str| scene.source.put_image("app", &signature, &[text.as_bytes()]).unwrap();
    let asked = || {
        let requests = scene.source.requests();
        requests.iter().filter(|record| record.path.ends_with(".sig")).count()
    };
    let first = sign("by anna");
    // Once as what belongs to an image, once as a tag among all.
    for (below, choice) in [("some", &["--tag-regex", "^[12]$"][..]), ("all", &[])] {
        let run = || scene.mirror("app", below, choice).ok();
        let mirrored = || scene.target.tag(&format!("{below}/app"), &signature);
        sign("by anna");
        run();
        assert_eq!(mirrored(), Some(first.digest));
        run();
        scene.forget();
        let told = run();
        assert!(told.stderr.contains("unchanged"), "{}", told.told());
        assert!(!told.stderr.contains("copied"), "{}", told.told());
        assert_eq!(asked(), 1, "{below}");
        let moved = sign(&format!("by berta, {below}"));
        run();
        assert_eq!(mirrored(), Some(moved.digest), "{below}");
    }
}

#[test]
fn lists_say_what_to_take_and_directories_go_both_ways() {
    let scene = Scene::new();
    for tag in ["3.11.2", "3.12", "3.20.1", "edge"] {
        scene.source.put_image("alpine", tag, &[tag.as_bytes()]).unwrap();
    }
    for tag in ["1.13.1-perl", "1.13.2-perl", "1.14-perl"] {
        scene.source.put_image("nginx", tag, &[tag.as_bytes()]).unwrap();
    }
    let pinned = scene.source.put_image("redis", "2", &[b"two"]).unwrap().digest;
    scene.source.put_image("redis", "1.0", &[b"one"]).unwrap();
    let index = scene.index("multi/tool", "v1");
    let list = format!(
        "{}:\n  tls-verify: false\n  images:\n    redis: [1.0, \"{pinned}\"]\n  images-by-tag-regex:\n    nginx: ^1\\.13\\.[12]-perl$\n  images-by-semver:\n    alpine: \">= 3.12.0\"\n",
        scene.source.address()
    );
    std::fs::write(scene.bench.path().join("list.yaml"), &list).unwrap();
    let below = format!("{}/all", scene.target.address());
    let to_registry = ["--src", "yaml", "--dest", "docker", "--all", "list.yaml", &below];
    let done = scene.sync(&to_registry).ok();
    assert!(done.stderr.contains("6 copied"), "{}", done.told());
    let tags = |repository: &str| {
        let name = format!("docker://{below}/{repository}");
        let told = guarded(scene.bench.command("rcopy").args(["list-tags", &name])).ok();
        let told: Value = serde_json::from_str(&told.stdout).unwrap();
        let tags = told["Tags"].as_array().unwrap().iter();
        tags.map(|tag| tag.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(tags("alpine"), ["3.12", "3.20.1"]);
    assert_eq!(tags("nginx"), ["1.13.1-perl", "1.13.2-perl"]);
    assert_eq!(tags("redis"), ["1.0"]);
    let by_digest = format!("docker://{below}/redis@{pinned}");
    guarded(scene.bench.command("rcopy").args(["inspect", "--raw", &by_digest])).ok();
    // To directories, as skopeo writes them, and back.
    std::fs::create_dir(scene.bench.path().join("ours")).unwrap();
    scene.sync(&["--src", "yaml", "--dest", "dir", "--all", "list.yaml", "ours"]).ok();
    if peer("skopeo").is_some() {
        std::fs::create_dir(scene.bench.path().join("theirs")).unwrap();
        // Debian's does not know ranges of versions yet.
        let ranges = "  images-by-semver:\n    alpine: \">= 3.12.0\"\n";
        std::fs::write(scene.bench.path().join("old.yaml"), list.replace(ranges, "")).unwrap();
        let alpine = ["ours/alpine:3.12", "ours/alpine:3.20.1"];
        let mut skopeo = Command::new("skopeo");
        skopeo.current_dir(scene.bench.path()).args(["--insecure-policy", "sync", "--all"]);
        guarded(skopeo.args(["--src", "yaml", "--dest", "dir", "old.yaml", "theirs"])).ok();
        let (ours, theirs) = (scene.bench.path().join("ours"), scene.bench.path().join("theirs"));
        let both = (files(&ours), files(&theirs));
        let names = |files: &[(String, image::Digest)]| {
            files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let without = both.0.iter().filter(|(name, _)| !name.starts_with("alpine:"));
        let without: Vec<_> = without.cloned().collect();
        assert_eq!(names(&without), names(&both.1));
        assert_eq!(without, both.1);
        assert!(alpine.iter().all(|image| scene.bench.path().join(image).is_dir()));
    }
    let back = format!("{}/back", scene.target.address());
    let done = scene
        .sync(&["--src", "dir", "--dest", "docker", "--append-suffix", "-usb", "ours", &back])
        .ok();
    assert!(done.stderr.contains("copied"), "{}", done.told());
    assert_eq!(scene.target.tag("back/alpine", "3.12-usb"), scene.source.tag("alpine", "3.12"));
    // Some platforms of an index, as a smaller index; or the whole of it.
    let one = ["--platform", "linux/arm64,linux/amd64"];
    scene.mirror("multi/tool:v1", "some", &one).ok();
    let some = scene.target.tag("some/tool", "v1").unwrap();
    let raw: Value = serde_json::from_slice(&scene.target.content(some).unwrap().unwrap()).unwrap();
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
    scene.mirror("multi/tool:v1", "whole", &["--all"]).ok();
    assert_eq!(scene.target.tag("whole/tool", "v1"), Some(index.digest));
    let again = scene.mirror("multi/tool:v1", "some", &one).ok();
    assert!(again.stderr.contains("1 unchanged"), "{}", again.told());
}

/// Every file below a directory with the digest of its bytes.
fn files(directory: &Path) -> Vec<(String, image::Digest)> {
    let walk = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter();
    let files = walk.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let name = entry.path().strip_prefix(directory).unwrap().display().to_string();
            (name, image::Digest::of(&std::fs::read(entry.path()).unwrap()))
        })
        .collect()
}

#[test]
fn wrong_use_and_failures_are_told() {
    let scene = Scene::new();
    scene.source.put_image("a", "1", &[b"1"]).unwrap();
    scene.source.put_image("a", "2", &[b"2"]).unwrap();
    for (flags, words) in [
        (&["--shard", "4/4"][..], "0"),
        (&["--tag-regex", "("], "regex"),
        (&["--tag-semver", "><1"], "><1"),
        (&["--append-suffix", " x"], "--append-suffix"),
        (&["--watch", "--dry-run"], "--watch"),
        (&["--delete-limit", "101"], "101"),
    ] {
        let told = scene.mirror("a", "b", flags);
        assert_ne!(told.code, 0, "{}", told.told());
        assert!(told.stderr.contains(words), "{}", told.told());
    }
    std::fs::write(scene.bench.path().join("bad.yaml"), "r.example:\n  imges: {}\n").unwrap();
    let below = format!("{}/x", scene.target.address());
    scene
        .sync(&["--src", "yaml", "--dest", "docker", "bad.yaml", &below])
        .fails(&["bad.yaml", "imges"]);
    // One that is not there ends the run, or not.
    let list = format!(
        "{}:\n  tls-verify: false\n  images:\n    a: [\"0\", \"1\", \"2\"]\n",
        scene.source.address()
    );
    std::fs::write(scene.bench.path().join("list.yaml"), list).unwrap();
    let all = ["--src", "yaml", "--dest", "docker", "--parallel", "1", "list.yaml", &below];
    scene.sync(&all).code(1).fails(&["a:0"]);
    assert!(scene.target.tag("x/a", "1").is_none());
    let going = [&all[..], &["--keep-going"]].concat();
    let told = scene.sync(&going).code(1);
    assert!(told.stderr.contains("2 copied, 1 failed"), "{}", told.told());
    assert!(scene.target.tag("x/a", "1").is_some());
}

/// The command of the container in a manifest of `docs/kubernetes`.
fn container(file: &str) -> (Vec<String>, u64) {
    let path = repository().join("docs/kubernetes").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let job = documents.iter().find(|d| d["kind"] == "Job" || d["kind"] == "CronJob").unwrap();
    let spec = match job["kind"].as_str() {
        Some("CronJob") => &job["spec"]["jobTemplate"]["spec"],
        _ => &job["spec"],
    };
    let container = &spec["template"]["spec"]["containers"][0];
    let words = ["command", "args"].iter().flat_map(|key| container[*key].as_array().unwrap());
    let words = words.map(|word| word.as_str().unwrap().to_owned()).collect();
    (words, spec["completions"].as_u64().unwrap_or(1))
}

#[test]
fn workers_share_a_mirror_through_the_registry_alone() {
    let scene = Scene::new();
    let shared: Vec<u8> = vec![7; 300_000];
    for n in 0..40 {
        let own = format!("layer of {n}");
        scene.source.put_image("app", &format!("{n}"), &[&shared, own.as_bytes()]).unwrap();
    }
    let Some(target) = DockerRegistry::start() else { return };
    std::fs::write(
        scene.bench.path().join("list.yaml"),
        format!("{}:\n  images:\n    app: []\n", scene.source.address()),
    )
    .unwrap();
    let (words, count) = container("mirror-job.yaml");
    assert_eq!(&words[..2], ["rcopy", "sync"]);
    assert!(count > 1);
    let work = |index: u64| {
        let mut command = scene.bench.command("rcopy");
        let report = format!("report-{index}.json");
        let replaced = words[1..].iter().map(|word| match word.as_str() {
            "/etc/mirror/list.yaml" => "list.yaml".to_owned(),
            "registry.example/mirror" => target.name("mirror"),
            other => other.replace("$(JOB_COMPLETION_INDEX)", &index.to_string()),
        });
        command.current_dir(scene.bench.path()).args(replaced);
        command.args(["--report", &report]).env("HOME", scene.bench.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    // All at once, and one of them is killed in the middle and started again.
    let mut workers: Vec<_> = (0..count).map(|index| work(index).spawn().unwrap()).collect();
    workers[0].kill().unwrap();
    workers[0].wait().unwrap();
    workers[0] = work(0).spawn().unwrap();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut seen = BTreeSet::new();
    for index in 0..count {
        let report =
            std::fs::read(scene.bench.path().join(format!("report-{index}.json"))).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        let names = report["names"].as_array().unwrap();
        assert!(names.len() < 40, "a worker did everything");
        for name in names {
            assert!(seen.insert(name["destination"].as_str().unwrap().to_owned()), "{name}");
        }
    }
    assert_eq!(seen.len(), 40);
    for name in seen {
        let digest = guarded(scene.bench.command("rcopy").args(["digest", &name])).ok();
        let tag = name.rsplit(':').next().unwrap();
        let expected = scene.source.tag("app", tag).unwrap().to_string();
        assert_eq!(digest.text(), expected, "{name}");
    }
    // The one of the CronJob finds nothing to do.
    let (words, _) = container("mirror-cronjob.yaml");
    assert!(words.iter().any(|word| word == "--delete"), "{words:?}");
}

#[test]
fn watching_brings_what_comes_later_and_ends_when_told() {
    repeated(&["--watch=100ms"]);
}

#[test]
fn a_schedule_says_when_a_mirror_runs() {
    // Every second.
    repeated(&["--schedule", "* * * * * *"]);
    let bench = e2e::Bench::new();
    let ends = ["--src", "docker", "--dest", "docker", "localhost:1/a", "localhost:1/b"];
    let never = [&["sync", "--schedule", "61 * * * *"], &ends[..]].concat();
    bench.rcopy(never).fails(&["61 * * * *"]);
    let none = [&["sync", "--schedule", "0 0 30 2 *"], &ends[..]].concat();
    bench.rcopy(none).fails(&["--schedule"]);
    let dry = [&["sync", "--dry-run", "--schedule", "* * * * *"], &ends[..]].concat();
    bench.rcopy(dry).fails(&["--dry-run"]);
}

/// A mirror that runs again and again.
#[track_caller]
fn repeated(how: &[&str]) {
    let scene = Scene::new();
    scene.source.put_image("a", "1", &[b"1"]).unwrap();
    let (from, to) =
        (format!("{}/a", scene.source.address()), format!("{}/b", scene.target.address()));
    let mut command = scene.bench.command("rcopy");
    command.arg("sync").args(how).args([
        "--no-state",
        "--src",
        "docker",
        "--dest",
        "docker",
        &from,
        &to,
    ]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let wait = |tag: &str| {
        for _ in 0..600 {
            if scene.target.tag("b/a", tag).is_some() {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        false
    };
    assert!(wait("1"));
    scene.source.put_image("a", "2", &[b"2"]).unwrap();
    assert!(wait("2"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 130)), "{status:?}");
}
