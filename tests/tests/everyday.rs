//! Everyday command lines of other tools, and the pages for people who come from them: every line
//! that is written there runs.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "everyday/lines.rs"]
mod lines;

use e2e::{repository, root};

use self::lines::{Lines, shown};

#[track_caller]
fn page(name: &str, least: usize) {
    if !root() {
        return;
    }
    let text = std::fs::read_to_string(repository().join("docs/coming-from").join(name)).unwrap();
    run(&shown(&text), least);
}

#[track_caller]
fn run(text: &str, least: usize) {
    let (count, wrong) = Lines::new().check(text);
    assert!(count >= least, "{count} lines");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_page_for_docker_holds() {
    page("docker.md", 25);
}

#[test]
fn the_page_for_buildah_holds() {
    page("buildah.md", 25);
}

#[test]
fn the_page_for_skopeo_holds() {
    page("skopeo.md", 15);
}

#[test]
fn the_page_for_crane_holds() {
    page("crane.md", 15);
}

#[test]
fn the_page_for_regctl_holds() {
    page("regctl.md", 35);
}

#[test]
fn the_page_for_oras_holds() {
    page("oras.md", 30);
}

#[test]
fn the_page_for_kaniko_holds() {
    page("kaniko.md", 5);
}

#[test]
fn everyday_lines_of_docker_run() {
    if root() {
        run(include_str!("everyday/docker"), 70);
    }
}

#[test]
fn everyday_lines_of_buildah_run() {
    if root() {
        run(include_str!("everyday/buildah"), 70);
    }
}
