//! What a large step takes at most: disk beside what stays, and memory.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use e2e::{Bench, root};

const LAYER: u64 = 200 << 20;

/// Bytes on disk of everything below a directory.
fn usage(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = walkdir::WalkDir::new(directory).into_iter();
    files.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks() * 512)).sum()
}

/// Runs to the end; the most that the store took meanwhile, and the most memory in bytes.
fn watched(mut command: std::process::Command, store: &Path) -> (u64, u64) {
    let child = command.spawn().expect("rbuild");
    let pid = i32::try_from(child.id()).expect("a number");
    let mut most = 0;
    loop {
        let (mut status, mut used) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: plain system call on memory of ours; nobody else waits for the child.
        let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, used.as_mut_ptr()) };
        if ended == pid {
            let status = std::process::ExitStatus::from_raw(status);
            assert!(status.success(), "{status}");
            // SAFETY: all zeroes is a value, and the kernel has filled it in.
            let used = unsafe { used.assume_init() };
            return (most, used.ru_maxrss.unsigned_abs() * 1024);
        }
        assert_eq!(ended, 0, "the child is ours");
        most = most.max(usage(store));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
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
        let (most, memory) = watched(command, &bench.store());
        let after = usage(&bench.store());
        // The files and the compressed layer stay; nothing is there beside them at any time.
        assert!(most - before < (after - before) + LAYER / 20, "{before} {most} {after}");
        assert!(memory < 96 << 20, "{what}: {memory} bytes of memory");
        after - before
    };
    let zeroes = build("zero");
    assert!(zeroes < LAYER + LAYER / 10, "{zeroes}");
    let noise = build("urandom");
    assert!(noise < 2 * LAYER + LAYER / 10, "{noise}");
}
