//! Memory, processes, processors.

use runtime::{ContainerSpec, Error, ExitStatus, Limits, ProcessSpec};

use crate::support::*;

pub(crate) const CASES: &[crate::Case] = &[
    ("pids_limit", pids_limit),
    ("memory_limit", memory_limit),
    ("cpu_limits", cpu_limits),
    ("impossible_limits", impossible_limits),
];

fn plain() -> ContainerSpec {
    ContainerSpec::default()
}

/// Runs with limits, where this machine and user can have them.
fn limited(line: &str, spec: &ContainerSpec) -> Option<(ExitStatus, String)> {
    let root = Rootfs::new();
    match root.try_run(&with_shell(line, spec)) {
        Err(error @ Error::Limit { .. }) => {
            assert!(!real_root(), "{}", describe(&error));
            requires::cannot(&describe(&error));
            None
        }
        other => Some(other.unwrap()),
    }
}

fn leftovers() -> Vec<String> {
    let mut found = Vec::new();
    let lines = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in lines.lines().filter(|line| line.contains(" - cgroup")) {
        let top = std::path::Path::new(line.split(' ').nth(4).unwrap());
        let mut stack = vec![top.to_owned()];
        while let Some(directory) = stack.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    if entry
                        .file_name()
                        .to_string_lossy()
                        .contains(&format!("runtime-test-{}-", std::process::id()))
                    {
                        found.push(entry.path().display().to_string());
                    }
                    stack.push(entry.path());
                }
            }
        }
    }
    found
}

fn pids_limit() {
    let spec =
        ContainerSpec { limits: Limits { pids_limit: Some(6), ..Limits::default() }, ..plain() };
    let line = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>/dev/null; echo started";
    let Some((status, text)) = limited(line, &spec) else { return };
    assert!(!status.success() || !text.contains("started"), "{status:?} {text}");
    assert_eq!(leftovers(), Vec::<String>::new());
}

fn memory_limit() {
    let spec = ContainerSpec {
        limits: Limits { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..Limits::default() },
        process: ProcessSpec { init: true, ..ProcessSpec::default() },
        ..plain()
    };
    let line = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let Some((status, _)) = limited(line, &spec) else { return };
    assert_eq!(status, ExitStatus::OutOfMemory(137));
    let (status, _) = limited("echo fine", &spec).unwrap();
    assert_eq!(status, ExitStatus::Code(0));
    assert_eq!(leftovers(), Vec::<String>::new());
}

fn cpu_limits() {
    let spec = ContainerSpec {
        limits: Limits {
            cpus: Some(0.5),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0".into()),
            ..Limits::default()
        },
        ..plain()
    };
    let Some((_, text)) = limited("nproc", &spec) else { return };
    assert_eq!(text, "1\n");
}

fn impossible_limits() {
    let root = Rootfs::new();
    let spec = {
        let mut spec = with_shell("true", &plain());
        spec.limits.cpuset_cpus = Some("4000".into());
        spec
    };
    let error = root.try_run(&spec).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{}", describe(&error));
    assert_eq!(leftovers(), Vec::<String>::new());
}
