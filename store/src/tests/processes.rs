//! Several processes on one store, some of which are killed. The processes are this test binary,
//! started again to run only the test `worker`.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use task::Task;

use super::layers::archive;
use super::{Sample, broken, digest, listing, open, problems};
use crate::{Budget, SnapshotId, Store};

const ROLE: &str = "STORE_TEST_ROLE";
const STORE: &str = "STORE_TEST_STORE";
const SEED: &str = "STORE_TEST_SEED";

fn spawn(role: &str, store: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::processes::worker", "--nocapture", "--test-threads=1", "-q"])
        .env(ROLE, role)
        .env(STORE, store)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how the parent tells this process what to do")]
fn worker() {
    let path = || std::path::PathBuf::from(std::env::var_os(STORE).unwrap());
    let random = || Random(std::env::var(SEED).unwrap().parse().unwrap());
    match std::env::var(ROLE).as_deref() {
        Ok("churn") => churn(&path(), &mut random()),
        Ok("victim") => victim(&path(), &mut random()),
        Ok(other) => panic!("no such role: {other}"),
        // One of the tests, and not a process of theirs.
        Err(_) => {}
    }
}

/// xorshift: the same schedule for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One of a few images that share layers.
fn sample(n: u64) -> Sample {
    let layer = |n: u64| archive(&[("dir/", ""), ("dir/file", &format!("layer {n}"))]);
    Sample::new(&n.to_string(), &[layer(n), layer(n + 1)])
}

/// Publishes, looks up, takes away and collects; whatever it is promised must hold.
fn churn(path: &Path, random: &mut Random) {
    let store = open(path);
    let task = Task::silent();
    let platform = "linux/amd64".parse().unwrap();
    for _ in 0..40 {
        let work = store.lease().unwrap();
        let name = format!("localhost/n{}:1", random.below(4));
        match random.below(6) {
            0..3 => sample(random.below(5)).publish(&work, &name),
            3 => {
                store.unname(&name).unwrap();
            }
            4 => {
                store.collect(&Budget::default(), &task).unwrap();
            }
            _ => {
                let Some(root) = work.resolve(&name).unwrap() else { continue };
                // Pinned: whatever the others do, all of it is there.
                let image = work.image(&root, &platform).unwrap();
                for layer in image.layers() {
                    let file = work.open_blob(layer.descriptor.digest).unwrap();
                    let found = crate::file::hash(image::Algorithm::Sha256, file).unwrap();
                    assert_eq!(found, (layer.descriptor.digest, layer.descriptor.size));
                }
                let step = digest(&format!("step {}", random.below(8)));
                work.begin().unwrap().commit(SnapshotId(step), None).unwrap();
                assert!(work.has_snapshot(SnapshotId(step)).unwrap());
                assert!(work.stack(SnapshotId(step)).unwrap().lower[0].is_dir());
            }
        }
    }
}

#[test]
fn four_processes_publish_and_collect_at_once() {
    let directory = super::directory();
    let path = directory.path().join("store");
    // The store does not exist yet: that is a race as well.
    let mut workers: Vec<Child> = (1..=4).map(|seed| spawn("churn", &path, seed * 77)).collect();
    for worker in &mut workers {
        let mut said = String::new();
        worker.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(worker.wait().unwrap().success(), "{said}");
    }
    let store = open(&path);
    assert_eq!(broken(&store), Vec::<String>::new());
    assert!(crate::file::list(&path.join("leases")).unwrap().is_empty());
    store.collect(&Budget::default(), &Task::silent()).unwrap();
    assert_eq!(problems(&store), Vec::<String>::new());
}

/// Does everything that writes, over and over, and says so after each piece, until it is killed.
fn victim(path: &Path, random: &mut Random) {
    let say_so = || {
        let mut out = std::io::stdout();
        out.write_all(b".").and_then(|()| out.flush()).unwrap();
    };
    loop {
        let store = open(path);
        let task = Task::silent();
        let sample = sample(random.below(5));
        let mut pending = Vec::new();
        for (descriptor, bytes) in &sample.layers {
            pending.push(store.put_layer(descriptor, bytes.as_slice(), &task).unwrap());
            say_so();
        }
        store.insert(sample.config.bytes()).unwrap();
        store.insert(sample.manifest.bytes()).unwrap();
        say_so();
        if rustix::process::geteuid().is_root() {
            let image = store.image(sample.root(), &"linux/amd64".parse().unwrap()).unwrap();
            store.commit_image(&image, pending, &task).unwrap();
        }
        say_so();
        let name = format!("localhost/n{}:1", random.below(3));
        store.publish(&name, sample.root()).unwrap();
        say_so();
        let id = format!("{:016x}", random.below(u64::MAX));
        store.add_container(&id, &id, Some(sample.root()), None).unwrap();
        store.remove_container(&id).unwrap();
        say_so();
        store.unname(&format!("localhost/n{}:1", random.below(3))).unwrap();
        drop(store);
        open(path).collect(&Budget { all: true, ..Budget::default() }, &task).unwrap();
        say_so();
    }
}

/// What a store must be after any crash: it opens, and everything with a name is whole.
fn survives(path: &Path) -> Store {
    let store = open(path);
    assert_eq!(broken(&store), Vec::<String>::new());
    let platform = "linux/amd64".parse().unwrap();
    for name in store.names().unwrap() {
        let image = store.image(&name.descriptor, &platform).unwrap();
        for layer in image.layers() {
            store.open_blob(layer.descriptor.digest).unwrap();
        }
    }
    store
}

#[test]
fn a_process_may_be_killed_at_any_instant() {
    let directory = super::directory();
    let path = directory.path().join("store");
    let mut random = Random(0x5eed);
    for round in 0..60u64 {
        let mut child = spawn("victim", &path, round * 7919 + 1);
        // After so many pieces of work, and wherever it is by then in the next one.
        let mut left = random.below(24);
        let mut out = BufReader::with_capacity(1, child.stdout.take().unwrap()).bytes();
        while left > 0 {
            left -= u64::from(out.next().unwrap().unwrap() == b'.');
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended by itself");
        if round % 4 == 0 && path.join("store.json").exists() {
            survives(&path);
        }
    }
    let store = survives(&path);
    let task = Task::silent();
    for name in store.names().unwrap() {
        store.unname(&name.name).unwrap();
    }
    drop(store);
    let store = open(&path);
    store.collect(&Budget { all: true, ..Budget::default() }, &task).unwrap();
    assert_eq!(problems(&store), Vec::<String>::new());
    for place in ["blobs", "snapshots", "active", "ingest", "containers"] {
        assert_eq!(listing(&store, place), Vec::<String>::new(), "{place}");
    }
    for place in ["leases", "trash"] {
        assert!(fs::read_dir(path.join(place)).unwrap().next().is_none(), "{place}");
    }
}
