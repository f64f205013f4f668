//! Every Dockerfile of `differential/` is built by `rbuild bud` and by buildah from the same base
//! and context. Both results must hold the same files and the same config, save what the case
//! lists with a reason; and the layers of `rbuild`, unpacked by buildah, must give what `rbuild`
//! itself writes out. `differential/README.md` tells the format of a case; `DIFFERENTIAL=word`
//! runs the cases whose name holds the word (or one of several, with commas between).
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use e2e::http;
use e2e::{Bench, Ran, peer, repository, root, run};
use serde_json::Value;

#[path = "differential/tree.rs"]
mod tree;

/// Every time of a context, so that kept times differ from new ones.
const OLD: &str = "@1600000000";

#[derive(Default)]
struct Case {
    name: String,
    arguments: Vec<String>,
    /// Why buildah does not build it.
    lacks: Option<String>,
    /// What the message of a build that must fail says.
    fails: Option<String>,
    /// Paths and `config.Key`s that may differ, with the reason.
    differs: Vec<(String, String)>,
    dockerfile: String,
    setup: String,
    expect: Vec<String>,
}

fn parse(name: &str, text: &str) -> Case {
    let mut case = Case { name: name.to_owned(), ..Case::default() };
    let mut section = "head";
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("--- ") {
            section = ["Dockerfile", "setup", "expect"]
                .into_iter()
                .find(|known| *known == next)
                .unwrap_or_else(|| panic!("{name}: section {next}"));
            continue;
        }
        match section {
            "Dockerfile" => case.dockerfile += &format!("{line}\n"),
            "setup" => case.setup += &format!("{line}\n"),
            "expect" if !line.is_empty() => case.expect.push(line.to_owned()),
            "head" => head(&mut case, line),
            _ => {}
        }
    }
    case
}

fn head(case: &mut Case, line: &str) {
    let Some((key, value)) = line.split_once(": ") else { return };
    match key {
        "args" => case.arguments = value.split(' ').map(str::to_owned).collect(),
        "lacks" => case.lacks = Some(value.to_owned()),
        "fails" => case.fails = Some(value.to_owned()),
        "differs" => {
            let (what, why) = value.split_once(" | ").expect("WHAT | reason");
            case.differs.push((what.to_owned(), why.to_owned()));
        }
        _ => {}
    }
}

fn cases() -> Vec<Case> {
    let only = std::env::var("DIFFERENTIAL").unwrap_or_default();
    let directory = repository().join("tests/differential");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.extension() == Some(OsStr::new("case"))
            && only.split(',').any(|word| name.contains(word))
        {
            cases.push(parse(&name, &std::fs::read_to_string(&path).expect("a case")));
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// buildah with a storage of its own.
struct Buildah(PathBuf);

impl Buildah {
    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.0.join("root")).arg("--runroot").arg(self.0.join("run"));
        command.args(["--storage-driver", "overlay"]).args(arguments);
        // Debian's crun takes no hybrid cgroups.
        command.env("BUILDAH_RUNTIME", "runc");
        run(command.current_dir(&self.0).env_remove("SOURCE_DATE_EPOCH"))
    }

    /// Mounts an image and gives back where.
    fn mount(&self, image: &str) -> PathBuf {
        let name = self.run(["from", "--pull-never", image]).ok();
        let name = name.text().lines().last().expect("a container").to_owned();
        PathBuf::from(self.run(["mount", &name]).ok().text())
    }

    /// Brings an image of a layout in; its id.
    fn pull(&self, from: &str) -> String {
        let ran = self.run(["pull", "-q", from]).ok();
        ran.text().lines().last().expect("an id").to_owned()
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // Unmounting through buildah takes a second per container; the directory goes anyway.
        let room = self.0.to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if place.starts_with(&room) {
                rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).ok();
            }
        }
    }
}

/// The context of a case.
fn context(case: &Case, place: &Path, url: &str) -> PathBuf {
    let context = place.join("context");
    std::fs::create_dir_all(&context).expect("a context");
    let place = context.display().to_string();
    let dockerfile = case.dockerfile.replace("{URL}", url).replace("{CONTEXT}", &place);
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let script =
        format!("set -e\numask 022\n{}\nfind . -exec touch -h -d {OLD} {{}} +", case.setup);
    run(Command::new("bash").args(["-c", &script]).current_dir(&context)).ok();
    context
}

fn arguments(case: &Case, context: &Path) -> Vec<String> {
    let place = context.display().to_string();
    case.arguments.iter().map(|argument| argument.replace("{CONTEXT}", &place)).collect()
}

type Files = BTreeMap<String, String>;

/// What must be the same in the two configs: without what is empty, and what only buildah adds.
fn settings(config: &Value) -> Files {
    let mut found = Files::new();
    for key in [
        "Env",
        "Cmd",
        "Entrypoint",
        "User",
        "WorkingDir",
        "Labels",
        "ExposedPorts",
        "Volumes",
        "StopSignal",
        "Healthcheck",
        "OnBuild",
        "Shell",
    ] {
        let mut value = config[key].clone();
        if let Some(labels) = value.as_object_mut() {
            labels.remove("io.buildah.version");
        }
        let text = value.to_string();
        // No working directory and `/` are the same.
        if !["null", "\"\"", "\"/\"", "[]", "{}"].contains(&text.as_str()) {
            found.insert(format!("config.{key}"), text);
        }
    }
    found
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// The config of the one image of a layout.
fn config(layout: &Path) -> Value {
    let blob = |digest: &Value| {
        let digest = digest.as_str().expect("a digest");
        read(&layout.join("blobs").join(digest.replace(':', "/")))
    };
    let manifest = blob(&read(&layout.join("index.json"))["manifests"][0]["digest"]);
    blob(&manifest["config"]["digest"])["config"].clone()
}

fn compare(what: (&str, &str), one: &Files, two: &Files, allowed: &[(String, String)]) -> String {
    let mut told = String::new();
    let mut seen = vec![false; allowed.len()];
    let paths: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    for path in paths {
        if one.get(path) == two.get(path) {
            continue;
        }
        if let Some(at) = allowed.iter().position(|(name, _)| name == path) {
            seen[at] = true;
            continue;
        }
        let side = |files: &Files| files.get(path).cloned().unwrap_or_else(|| "-".to_owned());
        told +=
            &format!("  {path}\n    {:8} {}\n    {:8} {}\n", what.0, side(one), what.1, side(two));
    }
    for (at, (name, why)) in allowed.iter().enumerate() {
        if !seen[at] {
            told += &format!("  {name} does not differ any more ({why})\n");
        }
    }
    told
}

fn expect(case: &Case, found: &Files) -> String {
    let mut told = String::new();
    for line in &case.expect {
        if let Some(path) = line.strip_prefix("absent ") {
            if let Some(there) = found.get(path) {
                told += &format!("  {path} must be absent but is {there}\n");
            }
            continue;
        }
        let (path, wanted) = line.split_once(' ').expect("a path and what is there");
        let there = found.get(path).cloned().unwrap_or_default();
        if !there.starts_with(wanted) {
            told += &format!("  {path}\n    expected {wanted}\n    rbuild   {there}\n");
        }
    }
    told
}

/// What a case has against `rbuild`; nothing when all is well.
fn judge(case: &Case, place: &Path, bench: &Bench, buildah: &Buildah, url: &str) -> String {
    let start = SystemTime::now() - Duration::from_secs(3600);
    let context = context(case, place, url);
    let (archive, layout) = (place.join("oci.tar"), place.join("layout"));
    let files = place.join("files");
    let mut line = vec!["bud".to_owned(), "--progress=plain".to_owned()];
    line.push(format!("--output=type=oci,dest={}", archive.display()));
    line.push(format!("--output=type=local,dest={}", files.display()));
    line.extend(arguments(case, &context));
    line.push(context.display().to_string());
    let ours = bench.rbuild(line);
    let theirs = || {
        let id = place.join("id");
        let mut line: Vec<String> = "bud --layers=false --format=docker --pull-never -q"
            .split(' ')
            .map(str::to_owned)
            .collect();
        line.push(format!("--iidfile={}", id.display()));
        line.extend(arguments(case, &context));
        line.push(context.display().to_string());
        (buildah.run(line), id)
    };
    if let Some(words) = &case.fails {
        let mut told = String::new();
        if ours.code == 0 || !ours.stderr.contains(words) {
            told += &format!("  must fail with {words:?}: {}\n", ours.told());
        }
        if case.lacks.is_none() && theirs().0.code == 0 {
            told += "  buildah builds it\n";
        }
        return told;
    }
    if ours.code != 0 {
        return format!("  {}\n", ours.told());
    }
    std::fs::create_dir(&layout).expect("a directory");
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout)).ok();
    let mut mounted = tree::scan(&files, start);
    let unpacked = buildah.pull(&format!("oci:{}", layout.display()));
    let unpacked = tree::scan(&buildah.mount(&unpacked), start);
    let mut told = compare(("mounted", "unpacked"), &mounted, &unpacked, &[]);
    mounted.append(&mut settings(&config(&layout)));
    told += &expect(case, &mounted);
    if case.lacks.is_some() {
        return told;
    }
    let (ran, id) = theirs();
    if ran.code != 0 {
        return format!("{told}  buildah: {}\n", ran.told());
    }
    let id = std::fs::read_to_string(id).expect("an id");
    let id = id.trim_start_matches("sha256:");
    let mut peer = tree::scan(&buildah.mount(id), start);
    let inspected = buildah.run(["inspect", "--type=image", "--format={{.Config}}", id]).ok();
    let inspected: Value = serde_json::from_str(inspected.text()).expect("JSON");
    peer.append(&mut settings(&inspected["config"]));
    told + &compare(("rbuild", "buildah"), &mounted, &peer, &case.differs)
}

/// Gives both an image that is for another machine.
fn foreign(bench: &Bench, buildah: &Buildah, room: &Path) {
    let of = e2e::image::Layer::new().owned("of", 0o640, (3, 4), b"another machine's\n").finish();
    let layout = e2e::image::layout(&room.join("foreign"), "foreign", &[of], |config| {
        config.architecture = "s390x".to_owned();
        config.variant = None;
    });
    let from = format!("oci:{}:foreign", layout.display());
    bench.rcopy(["copy", &from, "store:localhost/foreign:latest"]).ok();
    let id = buildah.pull(&from);
    buildah.run(["tag", &id, "localhost/foreign:latest"]).ok();
}

#[test]
fn dockerfiles_build_as_with_buildah() {
    if !root() || peer("buildah").is_none() {
        return;
    }
    let (bench, cases) = (Bench::new(), cases());
    bench.busybox();
    // buildah takes no upper case in the path of a layout.
    let name = format!("differential-{}", std::process::id());
    let room = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("a place");
    let buildah = Buildah(room.path().join("buildah"));
    std::fs::create_dir(&buildah.0).expect("a directory");
    let layout = e2e::image::busybox(&room.path().join("base"));
    let base = buildah.pull(&format!("oci:{}:busybox", layout.display()));
    buildah.run(["tag", &base, "localhost/busybox:latest"]).ok();
    foreign(&bench, &buildah, room.path());
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let place = room.path().join(&case.name);
                    std::fs::create_dir_all(&place).expect("a directory");
                    let url = http::Files::serve(place.join("context")).url;
                    let judge = || judge(case, &place, &bench, &buildah, &url);
                    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge));
                    let told = told.unwrap_or_else(|_| "  panicked\n".to_owned());
                    if !told.is_empty() {
                        wrong.lock().unwrap().push(format!("{}:\n{told}", case.name));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    let alone = cases.iter().filter(|case| case.lacks.is_some()).count();
    println!("{} cases, {alone} of them without buildah, {} wrong", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
