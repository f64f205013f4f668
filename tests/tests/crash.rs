//! `kill -9` at random moments of everything that writes: the store opens, every name is whole,
//! and the same command again does what it would have done (invariant I7).
//!
//! `RBUILD_CRASH_ROUNDS=N` for more rounds than the default, `RBUILD_CRASH_SEED=N` to repeat.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use e2e::image::{busybox_layer, layout};
use e2e::kill::{self, Aim, Chance};
use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran, root, run};
use serde_json::Value;

/// Rounds of both tests together.
const ROUNDS: u64 = 220;

#[test]
fn names_are_whole_whenever_a_build_a_transfer_or_a_collection_is_killed() {
    Torture::new(1).rounds();
}

#[test]
fn names_are_whole_whenever_a_build_a_transfer_or_a_collection_is_killed_in_another_order() {
    Torture::new(2).rounds();
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Build,
    Rebuild,
    Pull,
    Push,
    Load,
    CopyIn,
    CopyOut,
    Save,
    Run,
    Detach,
    Prune,
}

const DEEDS: [Deed; 11] = [
    Deed::Build,
    Deed::Rebuild,
    Deed::Pull,
    Deed::Push,
    Deed::Load,
    Deed::CopyIn,
    Deed::CopyOut,
    Deed::Save,
    Deed::Run,
    Deed::Detach,
    Deed::Prune,
];

struct Torture {
    bench: Bench,
    registry: Option<DockerRegistry>,
    salt: u64,
    seed: u64,
    chance: Chance,
    round: u64,
    /// What is happening, for a failing test.
    story: String,
    /// How long each operation takes without a kill.
    takes: BTreeMap<Deed, Duration>,
    /// The digest each deed must give.
    gives: BTreeMap<Deed, String>,
}

impl Drop for Torture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.bench.path().join("log")).unwrap_or_default();
            eprintln!(
                "RBUILD_CRASH_SEED={} round {}: {}\n{log}",
                self.seed, self.round, self.story
            );
            // What still runs would outlive the test.
            let mut command = self.bench.command("rbuild");
            let _ = command.args(["rm", "--force", "one"]).status();
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The cgroups of this name, in every tree that is mounted where they usually are.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let trees = walkdir::WalkDir::new("/sys/fs/cgroup").max_depth(2).into_iter().flatten();
    trees.map(walkdir::DirEntry::into_path).filter(|path| path.ends_with(name)).collect()
}

impl Torture {
    fn new(salt: u64) -> Torture {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let seed = variable("RBUILD_CRASH_SEED").unwrap_or(now.as_secs());
        Torture {
            bench: Bench::new(),
            registry: DockerRegistry::start(),
            salt,
            seed,
            chance: Chance::new(seed ^ salt << 32),
            round: 0,
            story: "preparing".to_owned(),
            takes: BTreeMap::new(),
            gives: BTreeMap::new(),
        }
    }

    fn rounds(mut self) {
        if !root() {
            return;
        }
        let rounds = variable("RBUILD_CRASH_ROUNDS").unwrap_or(ROUNDS) / 2;
        self.prepare();
        let deeds: Vec<Deed> = DEEDS
            .into_iter()
            .filter(|deed| self.registry.is_some() || ![Deed::Pull, Deed::Push].contains(deed))
            .collect();
        for deed in &deeds {
            self.measure(*deed);
        }
        let mut killed: BTreeMap<Deed, (u64, u64)> = BTreeMap::new();
        for round in 0..rounds {
            self.round = round;
            let deed = deeds[usize::try_from(round).expect("small") % deeds.len()];
            let tally = killed.entry(deed).or_default();
            tally.0 += u64::from(self.round(deed));
            tally.1 += 1;
        }
        eprintln!("killed before the end, of how many: {killed:?}");
        assert!(rounds < 50 || killed.values().all(|(killed, _)| *killed > 0), "{killed:?}");
        self.end();
    }

    fn path(&self, name: &str) -> String {
        self.bench.path().join(name).display().to_string()
    }

    fn prepare(&mut self) {
        let mut image = |name: &str| {
            let noise = self.chance.bytes(3 << 20);
            let mut layer = e2e::image::Layer::new().file("noise", 0o644, &noise);
            for number in 0..300 {
                layer = layer.file(&format!("small/{number}"), 0o644, name.as_bytes());
            }
            let more = e2e::image::Layer::new().file("more", 0o600, &self.chance.bytes(1 << 20));
            let layers = [busybox_layer(), layer.finish(), more.finish()];
            layout(&self.bench.path().join(name), name, &layers, |_| {});
        };
        for name in ["kept", "pulled", "pushed", "loaded", "copied"] {
            image(name);
        }
        let from = |name: &str| format!("oci:{}:{name}", self.path(name));
        for name in ["kept", "pushed"] {
            self.bench.rcopy(["copy", &from(name), &format!("store:localhost/{name}")]).ok();
        }
        self.bench.busybox();
        let archive = format!("docker-archive:{}:localhost/loaded:latest", self.path("loaded.tar"));
        self.bench.rcopy(["copy", &from("loaded"), &archive]).ok();
        if let Some(registry) = &self.registry {
            let to = format!("docker://{}", registry.name("pulled:latest"));
            self.bench.rcopy(["copy", &from("pulled"), &to]).ok();
        }
        let mark = self.bench.path().display().to_string();
        let dockerfile = format!(
            "FROM localhost/busybox\nENV MARK={mark}\nWORKDIR /w\n\
             RUN seq 1 20000 > numbers; rm /home/user -r; sleep 0.02\n\
             COPY files files\nRUN --mount=type=cache,target=/c echo x >> /c/x; mv files moved\n\
             COPY changing .\nRUN cat changing moved/* > all\nCMD [\"cat\", \"all\"]\n"
        );
        for context in ["build", "rebuild"] {
            self.bench.write(&format!("{context}/Dockerfile"), &dockerfile);
            self.bench.write(&format!("{context}/changing"), "changing");
            for number in 0..100 {
                let name = format!("{context}/files/{number}");
                self.bench.write(&name, self.chance.bytes(4096));
            }
        }
    }

    /// The command of a deed.
    fn command(&self, deed: Deed) -> Command {
        let of = |program: &str, arguments: &[&str]| {
            let mut command = self.bench.command(program);
            command.args(arguments).env("SOURCE_DATE_EPOCH", "1700000000");
            command
        };
        let registry =
            |name: &str| self.registry.as_ref().map(|r| r.name(name)).unwrap_or_default();
        match deed {
            Deed::Build => of("rbuild", &["bud", "--no-cache", "-t", "built", &self.path("build")]),
            Deed::Rebuild => of("rbuild", &["bud", "-t", "rebuilt", &self.path("rebuild")]),
            Deed::Pull => of("rbuild", &["pull", &registry("pulled:latest")]),
            Deed::Push => of("rbuild", &["push", "pushed", &registry(&self.pushed())]),
            Deed::Load => of("rbuild", &["load", "-i", &self.path("loaded.tar")]),
            Deed::CopyIn => {
                let from = format!("oci:{}:copied", self.path("copied"));
                of("rcopy", &["copy", &from, "store:localhost/copied:latest"])
            }
            Deed::CopyOut => {
                let to = format!("oci:{}:new", self.path("out"));
                of("rcopy", &["copy", "store:localhost/pushed:latest", &to])
            }
            Deed::Save => of("rbuild", &["save", "-o", &self.path("saved.tar"), "pushed"]),
            Deed::Run => {
                let script = "seq 1 20000 > /n; sleep 0.02";
                let mark = format!("MARK={}", self.bench.path().display());
                let parent = format!("--cgroup-parent={}", self.cgroup());
                let limited = ["run", "--rm", "--memory=64m", &parent];
                let rest = ["-e", &mark, "kept", "sh", "-c", script];
                of("rbuild", &[&limited[..], &rest].concat())
            }
            Deed::Detach => {
                let mark = format!("MARK={}", self.bench.path().display());
                let flags = ["run", "-d", "--name=one", "-e", &mark, "kept", "sleep", "1000"];
                of("rbuild", &flags)
            }
            Deed::Prune => of("rbuild", &["prune", "-a"]),
        }
    }

    /// The cgroup in which this test's containers get theirs.
    fn cgroup(&self) -> String {
        format!("rbuild-test-{}-{}", std::process::id(), self.salt)
    }

    fn pushed(&self) -> String {
        format!("pushed-{}:latest", self.round)
    }

    /// The name in the store that a deed sets.
    fn name(&self, deed: Deed) -> Option<String> {
        match deed {
            Deed::Build => Some("localhost/built:latest".to_owned()),
            Deed::Rebuild => Some("localhost/rebuilt:latest".to_owned()),
            Deed::Pull => self.registry.as_ref().map(|registry| registry.name("pulled:latest")),
            Deed::Load => Some("localhost/loaded:latest".to_owned()),
            Deed::CopyIn => Some("localhost/copied:latest".to_owned()),
            _ => None,
        }
    }

    /// Makes sure that a deed has something to do.
    fn undo(&mut self, deed: Deed) {
        match deed {
            Deed::Build | Deed::Run | Deed::Push => {}
            Deed::Detach => self.remove_containers(),
            Deed::Rebuild => {
                self.bench.write("rebuild/changing", format!("round {}", self.round));
            }
            Deed::Pull | Deed::Load | Deed::CopyIn => {
                let name = self.name(deed).expect("these have names");
                self.bench.rbuild(["rmi", "--force", &name]).ok();
                if self.chance.below(2) == 0 {
                    self.bench.rbuild(["prune"]).ok();
                } else {
                    self.bench.rbuild(["prune", "-a"]).ok();
                }
            }
            Deed::CopyOut => {
                let out = self.bench.path().join("out");
                if self.chance.below(2) == 0 && out.exists() {
                    std::fs::remove_dir_all(&out).expect("a directory");
                }
                let kept = format!("oci:{}:kept", out.display());
                self.bench.rcopy(["copy", "store:localhost/kept:latest", &kept]).ok();
            }
            Deed::Save => {
                let _ = std::fs::remove_file(self.bench.path().join("saved.tar"));
            }
            Deed::Prune => {
                let dockerfile = format!(
                    "FROM localhost/busybox\nRUN seq 1 {} > n\nRUN seq 1 9999 > m\n",
                    10_000 + self.round
                );
                self.bench.build("garbage", &dockerfile, &[]).ok();
                self.bench.rbuild(["rmi", "garbage"]).ok();
            }
        }
    }

    /// How long a deed takes, and what it gives.
    fn measure(&mut self, deed: Deed) {
        self.story = format!("measuring {deed:?}");
        let mut times = Vec::new();
        for round in 0..2 {
            self.round = 1_000_000 + round;
            self.undo(deed);
            let since = Instant::now();
            run(&mut self.command(deed)).ok();
            times.push(since.elapsed());
        }
        if deed == Deed::Detach {
            self.remove_containers();
        }
        self.takes.insert(deed, times.into_iter().min().unwrap_or_default());
        self.note(deed);
    }

    /// Holds what a deed gave against what it gave before.
    fn note(&mut self, deed: Deed) {
        let Some(given) = self.given(deed) else { return };
        // Every round's rebuild is of something else.
        if deed != Deed::Rebuild {
            let known = self.gives.entry(deed).or_insert_with(|| given.clone());
            assert_eq!(*known, given, "{deed:?} gives another digest");
        }
    }

    /// The digest of what a deed made, where it has one, after a look at its bytes.
    fn given(&self, deed: Deed) -> Option<String> {
        match deed {
            Deed::Push => self.remote(&self.pushed()),
            Deed::CopyOut => layout_image(&self.bench.path().join("out"), "new"),
            Deed::Save => self.saved(),
            _ => self.name(deed).map(|name| self.names().get(&name).cloned().unwrap_or_default()),
        }
    }

    fn names(&self) -> BTreeMap<String, String> {
        let format = "{{.Repository}}:{{.Tag}} {{.Digest}}";
        let listed = self.bench.rbuild(["images", "--format", format]).ok();
        let pairs = listed.stdout.lines().filter_map(|line| line.split_once(' '));
        let pairs = pairs.filter(|(name, _)| !name.starts_with("<none>"));
        pairs.map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect()
    }

    /// The digest of a name on the registry, if it is there; then all of it must be.
    fn remote(&self, name: &str) -> Option<String> {
        let name = format!("docker://{}", self.registry.as_ref()?.name(name));
        let digest = self.bench.rcopy(["digest", &name]);
        if digest.code != 0 {
            let missing =
                ["404", "not found", "there is no"].iter().any(|m| digest.stderr.contains(m));
            assert!(missing, "{}", digest.told());
            return None;
        }
        let to = self.bench.path().join("fetched");
        let _ = std::fs::remove_dir_all(&to);
        self.bench.rcopy(["copy", &name, &format!("oci:{}:x", to.display())]).ok();
        assert_eq!(layout_image(&to, "x").as_deref(), Some(digest.text()));
        Some(digest.text().to_owned())
    }

    fn saved(&self) -> Option<String> {
        let file = self.bench.path().join("saved.tar");
        if !file.exists() {
            return None;
        }
        let from = format!("docker-archive:{}", file.display());
        let to = self.bench.path().join("unsaved");
        let _ = std::fs::remove_dir_all(&to);
        self.bench.rcopy(["copy", &from, &format!("oci:{}:x", to.display())]).ok();
        layout_image(&to, "x")
    }

    /// One deed, killed, looked at, and done again. Says whether it was killed before its end.
    fn round(&mut self, deed: Deed) -> bool {
        self.story = format!("preparing {deed:?}");
        self.undo(deed);
        let before = self.names();
        let aim = if self.chance.below(3) == 0 { Aim::Main } else { Aim::All };
        let delay = self.chance.within(self.takes[&deed]);
        self.story = format!("{deed:?} killed ({aim:?}) after {delay:?}");
        let bystander = self.bystander(deed);
        let log = self.bench.path().join("log");
        let child = kill::start(&mut self.command(deed), &log);
        let ended = match deed {
            // Its container may be there already, and is looked at later.
            Deed::Detach => kill::kill_starter(child, delay, aim),
            _ => kill::kill_after(child, delay, aim),
        };
        assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
        // The machine may be busier or idler than when this was measured.
        let factor = if ended.is_some() { 0.7 } else { 1.05 };
        let takes = self.takes[&deed].mul_f64(factor);
        self.takes.insert(deed, takes);
        if let Some((line, mut child)) = bystander {
            let status = child.wait().expect("a child");
            let said = std::fs::read_to_string(self.bench.path().join("log-other"));
            assert!(status.success(), "{line}: {}", said.unwrap_or_default());
        }
        self.look(deed, &before);
        self.story.push_str(", done again");
        run(&mut self.command(deed)).ok();
        self.note(deed);
        if deed == Deed::Detach {
            let script = ["exec", "one", "echo", "alive"];
            assert_eq!(self.bench.rbuild(script).ok().text(), "alive");
            self.remove_containers();
            kill::wait_for_none(&self.bench.path().display().to_string());
        }
        if self.round.is_multiple_of(5) {
            self.sound();
        }
        if deed == Deed::Rebuild && self.round.is_multiple_of(3) {
            let again = self.given(deed);
            let mut command = self.command(deed);
            run(command.arg("--no-cache")).ok();
            assert_eq!(self.given(deed), again, "cached and uncached builds differ");
        }
        ended.is_none()
    }

    /// In some rounds another process works on the store meanwhile, and must not notice.
    fn bystander(&mut self, deed: Deed) -> Option<(String, std::process::Child)> {
        let others = [Deed::Build, Deed::Run, Deed::Prune, Deed::CopyOut];
        let chosen = usize::try_from(self.chance.below(12)).expect("small");
        let other = others.get(chosen).filter(|other| **other != deed)?;
        self.story.push_str(&format!(" beside {other:?}"));
        let mut command = self.command(*other);
        let child = kill::start(&mut command, &self.bench.path().join("log-other"));
        Some((format!("{command:?}"), child))
    }

    /// Every container there is a trace of can be removed, running or not.
    fn remove_containers(&self) {
        let listed = self.bench.rbuild(["ps", "-aq"]).ok();
        for id in listed.stdout.lines() {
            self.bench.rbuild(["rm", "--force", id]).ok();
        }
        assert_eq!(self.bench.rbuild(["ps", "-aq"]).ok().text(), "");
    }

    /// What must hold after a kill.
    fn look(&self, deed: Deed, before: &BTreeMap<String, String>) {
        self.sound();
        let (after, own) = (self.names(), self.name(deed));
        for (name, digest) in before {
            match (Some(name) == own.as_ref(), after.get(name)) {
                (true, Some(_)) => {}
                (_, now) => assert_eq!(now, Some(digest), "{name} has changed"),
            }
        }
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            assert_eq!(Some(name), own.as_ref(), "a name out of nowhere");
        }
        let known = self.gives.get(&deed);
        if let (Some(known), Some(given)) = (known, self.given(deed)) {
            assert!(given.is_empty() || given == *known, "half of {known}: {given}");
        }
        if deed == Deed::Detach {
            self.remove_containers();
        }
        if deed == Deed::CopyOut {
            let kept = layout_image(&self.bench.path().join("out"), "kept");
            assert_eq!(kept.as_ref(), before.get("localhost/kept:latest"));
        }
        kill::wait_for_none(&self.bench.path().display().to_string());
    }

    fn sound(&self) -> Ran {
        let ran = self.bench.rbuild(["check"]).ok();
        assert!(ran.stdout.contains("the store is sound"), "{}", ran.told());
        ran
    }

    /// When everything is removed, nothing is left.
    fn end(&mut self) {
        self.story = "looking at what is left".to_owned();
        self.bench.rbuild(["prune", "-a"]).ok();
        let ran = self.sound();
        assert!(!ran.stdout.contains("garbage"), "{}", ran.told());
        for place in [self.bench.path().join("out/blobs/sha256"), self.bench.path().join("out")] {
            let files = std::fs::read_dir(&place).expect("a layout").flatten();
            let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
            let left: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
            assert!(left.is_empty(), "{}: {left:?}", place.display());
        }
        self.remove_containers();
        // The next container with limits finds what those that were killed have left.
        run(&mut self.command(Deed::Run)).ok();
        self.bench.rbuild(["rmi", "-a"]).ok();
        self.bench.rbuild(["prune", "-a"]).ok();
        let store = self.bench.store();
        for place in
            ["active", "ingest", "trash", "leases", "blobs", "snapshots", "containers", "mounts"]
        {
            let left: Vec<PathBuf> = walkdir::WalkDir::new(store.join(place))
                .min_depth(if place == "blobs" { 2 } else { 1 })
                .into_iter()
                .flatten()
                .map(walkdir::DirEntry::into_path)
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let path = self.bench.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        assert!(!mounts.contains(&path), "{mounts}");
        kill::wait_for_none(&path);
        for parent in cgroups(&self.cgroup()) {
            // Empty, or it could not be removed.
            std::fs::remove_dir(&parent).unwrap_or_else(|e| panic!("{}: {e}", parent.display()));
        }
    }
}

/// The digest of a name in a layout, if it is there; then every byte of it must be.
fn layout_image(layout: &Path, name: &str) -> Option<String> {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).ok()?)
        .expect("index.json is whole");
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
    let root = index["manifests"].as_array()?.iter().find(named)?;
    let manifest: Value = serde_json::from_slice(&blob(layout, root)).expect("a manifest");
    blob(layout, &manifest["config"]);
    manifest["layers"].as_array().expect("layers").iter().for_each(|one| drop(blob(layout, one)));
    Some(root["digest"].as_str()?.to_owned())
}

fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(image::Digest::of(&bytes).to_string(), digest, "{}", path.display());
    bytes
}
