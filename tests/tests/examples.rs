//! The scripts beside the examples.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use e2e::{Bench, Ran, repository, run};

/// Runs `examples/base/make` in the bench's directory with this program as `mmdebstrap`.
fn make(bench: &Bench, mmdebstrap: &str) -> Ran {
    let program = bench.write("bin/mmdebstrap", format!("#!/bin/sh\n{mmdebstrap}"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let script = bench.path().join("make");
    std::fs::copy(repository().join("examples/base/make"), &script).expect("a script");
    let path = format!("{}:/usr/bin:/bin", bench.path().join("bin").display());
    run(Command::new("sh").arg(&script).env("PATH", path))
}

fn archive(bench: &Bench) -> Vec<u8> {
    std::fs::read(bench.path().join("rootfs.tar")).expect("a file")
}

#[test]
fn the_base_is_an_archive_whatever_mmdebstrap_makes_of_a_suffix() {
    let bench = Bench::new();
    let by_suffix = r#"
        for target; do :; done
        case "$target" in
            *.tar) printf archive >"$target" ;;
            *) mkdir "$target" ;;
        esac"#;
    make(&bench, by_suffix).ok();
    assert_eq!(archive(&bench), b"archive");
}

#[test]
fn a_directory_is_never_taken_for_the_base() {
    let bench = Bench::new();
    let directory = "for target; do :; done\nmkdir \"$target\"";
    make(&bench, directory).fails(&["made no archive"]);
    // What an older script has left is made again.
    bench.write("rootfs.tar/etc/passwd", "root");
    let archive_program = "for target; do :; done\nrm -rf \"$target\"\nprintf archive >\"$target\"";
    make(&bench, archive_program).ok();
    assert_eq!(archive(&bench), b"archive");
    make(&bench, "exit 1").ok();
}
