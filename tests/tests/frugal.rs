//! What a large step takes at most: disk beside what stays, and memory.

use std::collections::BTreeMap;
use std::path::Path;

use e2e::{Bench, root};

const LAYER: u64 = 200 << 20;

/// Bytes on disk of everything below a directory. What is moved while we look counts once.
fn usage(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = walkdir::WalkDir::new(directory).into_iter();
    let found = files.filter_map(|entry| entry.ok()?.metadata().ok());
    let blocks: BTreeMap<u64, u64> = found.map(|file| (file.ino(), file.blocks())).collect();
    blocks.values().sum::<u64>() * 512
}

/// Runs to the end; the most that the store took meanwhile.
fn watched(mut command: std::process::Command, store: &Path) -> u64 {
    let mut child = command.spawn().expect("rbuild");
    let mut most = 0;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{status}");
            return most;
        }
        most = most.max(usage(store));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The most memory that any process took that this one has started, in bytes.
fn memory() -> u64 {
    let mut used = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: plain system call on memory of ours.
    let done = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, used.as_mut_ptr()) };
    assert_eq!(done, 0);
    // SAFETY: all zeroes is a value, and the kernel has filled it in.
    unsafe { used.assume_init() }.ru_maxrss.unsigned_abs() * 1024
}

#[test]
fn a_large_step_takes_no_more_disk_than_stays_and_little_memory() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let build = |what: &str| {
        let before = usage(&bench.store());
        let dockerfile = format!("FROM busybox\nRUN head -c {LAYER} /dev/{what} > /{what}\n");
        bench.write("context/Dockerfile", dockerfile);
        let mut command = bench.command("rbuild");
        command.args(["bud", "-q", "-t", what, "context"]);
        command.stdout(std::process::Stdio::null());
        let most = watched(command, &bench.store());
        let after = usage(&bench.store());
        // The files stay, and the layer only as they are; nothing else is there at any time.
        assert!(most - before < LAYER + LAYER / 10, "{before} {most} {after}");
        assert!(memory() < 96 << 20, "{what}: {} bytes of memory", memory());
        after - before
    };
    for what in ["zero", "urandom"] {
        let taken = build(what);
        assert!(taken < LAYER + LAYER / 10, "{what}: {taken}");
    }
}

/// Waits for a child; the most memory it took, in bytes.
fn peak(child: &std::process::Child) -> u64 {
    let mut used = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: plain system call on memory of ours.
    let done = unsafe { libc::wait4(pid, &raw mut status, 0, used.as_mut_ptr()) };
    assert_eq!((done, status), (pid, 0));
    // SAFETY: all zeroes is a value, and the kernel has filled it in.
    unsafe { used.assume_init() }.ru_maxrss.unsigned_abs() * 1024
}

#[test]
fn a_hundred_thousand_files_are_built_in_little_memory() {
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nCOPY . /app\n");
    for directory in 0..1000 {
        let directory = bench.path().join(format!("context/directory-{directory}"));
        std::fs::create_dir(&directory).expect("a directory");
        for file in 0..100 {
            std::fs::write(directory.join(format!("file-{file}")), "content").expect("a file");
        }
    }
    let mut command = bench.command("rbuild");
    command.args(["bud", "-q", "context"]).stdout(std::process::Stdio::null());
    let taken = peak(&command.spawn().expect("rbuild"));
    // The program is mapped, and counted, as far as it is used: one that is not optimised has more of it.
    let unoptimised = if cfg!(debug_assertions) { 16 << 20 } else { 0 };
    assert!(taken < unoptimised + (64 << 20), "{taken} bytes of memory");
}
