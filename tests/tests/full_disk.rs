//! A disk that is full: each command says which one and what to do, the store stays whole, and room
//! can be made on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, Ran, root, run};

/// A small file system with the store of a bench.
struct Disk<'a> {
    bench: &'a Bench,
    _mounted: Mounted,
}

/// A small file system of its own.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf) -> Mounted {
        std::fs::create_dir(&path).expect("a directory");
        let line = ["-t", "tmpfs", "-o", "size=32m,mode=700", "none"];
        run(Command::new("mount").args(line).arg(&path)).ok();
        Mounted(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}

impl<'a> Disk<'a> {
    fn mount(bench: &'a Bench) -> Disk<'a> {
        Disk { bench, _mounted: Mounted::new(bench.store()) }
    }

    fn free(&self) -> u64 {
        let system = rustix::fs::statvfs(self.bench.store()).expect("a file system");
        system.f_bavail * system.f_frsize
    }

    /// Something else takes all there is.
    fn fill(&self) {
        let path = self.bench.store().join("fill");
        let mut fill = Command::new("dd");
        fill.args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", path.display()));
        assert_ne!(run(&mut fill).code, 0);
        assert_eq!(self.free(), 0);
    }

    /// What was freed since is taken too.
    fn refill(&self) {
        let path = self.bench.store().join("fill");
        let mut fill = Command::new("sh");
        fill.args(["-c", "cat /dev/zero >> \"$0\""]).arg(&path);
        assert_ne!(run(&mut fill).code, 0);
        assert_eq!(self.free(), 0);
    }

    fn unfill(&self) {
        std::fs::remove_file(self.bench.store().join("fill")).expect("a file");
    }

    /// It failed for want of room, and said so.
    #[track_caller]
    fn full(&self, ran: Ran) {
        let store = self.bench.store().display().to_string();
        let told = ran.fails(&[&format!("the file system of {store} is full"), "rbuild prune -a"]);
        assert_eq!(told.stderr.matches("hint:").count(), 1, "{}", told.told());
        self.bench.rbuild(["check"]).ok();
    }
}

fn noise(path: &Path, mebibytes: usize) {
    std::fs::write(path, e2e::kill::Chance::new(7).bytes(mebibytes << 20)).expect("a file");
}

#[test]
fn a_full_disk_is_named_and_room_can_be_made_on_it() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    // What is to be pulled and imported comes from a store that has room.
    let plenty = Bench::new();
    plenty.write("context/Dockerfile", "FROM scratch\nCOPY big /\n");
    noise(&plenty.path().join("context/big"), 40);
    let (image, cache) = (bench.path().join("image"), bench.path().join("cache"));
    let output = format!("type=oci,tar=false,dest={}", image.display());
    let to = format!("type=local,dest={},mode=max", cache.display());
    plenty.rbuild(["bud", "-q", "-o", &output, "--cache-to", &to, "context"]).ok();

    let disk = Disk::mount(&bench);
    bench.busybox();
    let empty = disk.free();
    bench.write("run/Dockerfile", "FROM busybox\nRUN head -c 40m /dev/urandom > /big\n");
    bench.write("copy/Dockerfile", "FROM scratch\nCOPY big /\n");
    std::fs::hard_link(plenty.path().join("context/big"), bench.path().join("copy/big"))
        .expect("a link");
    disk.full(bench.rbuild(["bud", "-t", "run", "run"]));
    disk.full(bench.rbuild(["bud", "-t", "copy", "copy"]));
    let root = plenty.path().join("root.tar").display().to_string();
    run(Command::new("tar")
        .args(["-C", "context", "-cf", &root, "big"])
        .current_dir(plenty.path()))
    .ok();
    disk.full(bench.rbuild(["import", &root, "imported"]));
    disk.full(bench.rbuild(["pull", &format!("oci:{}", image.display())]));
    let from = format!("type=local,src={}", cache.display());
    disk.full(bench.rbuild(["bud", "-t", "cached", "--cache-from", &from, "copy"]));
    bench.rbuild(["from", "--name=work", "busybox"]).ok();
    let write = "head -c 16m /dev/urandom > /big";
    bench.rbuild(["run", "work", "sh", "-c", write]).ok();
    disk.full(bench.rbuild(["commit", "work", "committed"]));
    bench.rbuild(["rm", "work"]).ok();
    assert_eq!(
        bench.rbuild(["images", "-n", "--format={{.Name}}"]).ok().text(),
        "localhost/busybox"
    );
    bench.rbuild(["prune"]).ok();
    assert!(disk.free() + (1 << 20) > empty, "{} of {empty} are free", disk.free());

    // Not a byte is left: what there is can be seen and removed.
    let small = "FROM busybox\nRUN head -c 4m /dev/urandom > /big\n";
    bench.build("small", small, &[]).ok();
    disk.fill();
    bench.rbuild(["images"]).ok();
    bench.rbuild(["rmi", "small"]).ok();
    bench.rbuild(["prune", "-a"]).ok();
    assert!(disk.free() > 4 << 20, "{}", disk.free());
    bench.rbuild(["check"]).ok();
    disk.unfill();
    bench.build("small", small, &[]).ok();
    bench.rbuild(["check"]).ok();
}

#[test]
fn containers_on_a_full_disk_are_seen_and_removed() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let disk = Disk::mount(&bench);
    bench.busybox();
    let write = "head -c 1m /dev/urandom > /big; head -c 1m /dev/urandom > /data/big";
    let run = |name: &str, flag: &str| {
        let volume = format!("--volume={name}:/data");
        let line = ["run", flag, "--name", name, &volume, "busybox", "sh", "-c"];
        let last = if flag == "-d" {
            format!("{write}; echo written; sleep 1000")
        } else {
            write.to_owned()
        };
        bench.rbuild(line.into_iter().chain([&*last])).ok();
    };
    for name in ["one", "two", "three"] {
        run(name, "--interactive=false");
    }
    run("runs", "-d");
    e2e::eventually("it has written", || bench.rbuild(["logs", "runs"]).stdout == "written\n");
    disk.fill();
    let all = bench.rbuild(["ps", "-a", "--sort=names", "--format={{.Names}}"]).ok();
    assert_eq!(all.stdout, "one\nruns\nthree\ntwo\n");
    bench.rbuild(["logs", "runs"]).ok();
    bench.rbuild(["inspect", "runs"]).ok();
    bench.rbuild(["volume", "ls"]).ok();
    bench.rbuild(["stop", "-t0", "runs"]).ok();
    // Each begins without a byte.
    bench.rbuild(["rm", "one"]).ok();
    disk.refill();
    bench.rbuild(["rm", "-f", "runs"]).ok();
    disk.refill();
    bench.rbuild(["volume", "rm", "one"]).ok();
    disk.refill();
    bench.rbuild(["container", "prune", "-f"]).ok();
    disk.refill();
    bench.rbuild(["volume", "prune", "-a", "-f"]).ok();
    disk.refill();
    bench.rbuild(["system", "prune", "-a", "-f"]).ok();
    assert_eq!(bench.rbuild(["ps", "-aq"]).ok().stdout, "");
    assert_eq!(bench.rbuild(["volume", "ls", "-q"]).ok().stdout, "");
    bench.rbuild(["check"]).ok();
}

#[test]
fn the_full_disk_of_a_destination_is_named_and_holds_no_image() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nCOPY big /\n");
    noise(&bench.path().join("context/big"), 40);
    bench.rbuild(["bud", "-q", "-t", "big", "context"]).ok();
    let mounted = Mounted::new(bench.path().join("small"));
    let at = |name: &str| mounted.0.join(name).display().to_string();
    for place in [
        format!("oci:{}:1", at("oci")),
        format!("dir:{}", at("dir")),
        format!("oci-archive:{}", at("oci.tar")),
        format!("docker-archive:{}:big:1", at("docker.tar")),
        format!("containers-storage:[overlay@{}+{}]localhost/big:1", at("root"), at("run")),
    ] {
        let ran = bench.rcopy(["copy", "store:localhost/big", &place]).code(1);
        assert!(
            ran.stderr.contains(&format!("the file system of {}", mounted.0.display())),
            "{}",
            ran.told()
        );
        assert!(!ran.stderr.contains("prune"), "{}", ran.told());
        bench.rcopy(["inspect", &place]).fails(&[]);
        run(Command::new("sh").arg("-c").arg(format!("rm -rf {}/*", mounted.0.display()))).ok();
    }
}
