//! The files for CI services: their steps run as the service runs them, with a release made of the
//! programs of this build.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

use e2e::http::Files;
use e2e::served::ServedRegistry;
use e2e::{Bench, binary, peer, repository, root, run};
use serde_json::Value;

/// The first yaml block of a page, or a whole file.
fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(repository().join(path)).unwrap();
    let text = match text.split_once("```yaml\n") {
        Some((_, rest)) => rest.split("```").next().unwrap(),
        None => &text,
    };
    serde_saphyr::from_str(text).unwrap()
}

/// `rbuild-0-ARCH.tar.gz` of the programs of this build, served; its address and checksum.
fn release(bench: &Bench) -> (Files, String, String) {
    let release = bench.path().join("release");
    let inside = release.join("rbuild-0");
    std::fs::create_dir_all(&inside).unwrap();
    // Not a link: tar fails for a file that gets or loses one meanwhile.
    std::fs::copy(binary("rbuild"), inside.join("rbuild")).unwrap();
    std::os::unix::fs::symlink("rbuild", inside.join("rcopy")).unwrap();
    let mut tar = Command::new("tar");
    tar.current_dir(&release).args(["--use-compress-program", "gzip -1"]);
    run(tar.args(["-cf", "rbuild.tar.gz", "rbuild-0"])).ok();
    let sum = run(Command::new("sha256sum").arg(release.join("rbuild.tar.gz"))).ok();
    let sum = sum.text().split(' ').next().unwrap().to_owned();
    let files = Files::serve(release);
    let url = format!("{}/rbuild.tar.gz", files.url);
    (files, url, sum)
}

/// A shell that runs a step in a directory with a Dockerfile, with a home and a store of the bench.
fn step(bench: &Bench, script: &str) -> Command {
    let project = bench.path().join("project");
    if !project.exists() {
        bench.write("project/Dockerfile", "FROM scratch\nCOPY f /f\n");
        bench.write("project/f", "text");
    }
    let ours = bench.command("rbuild");
    let mut bash = Command::new("bash");
    bash.current_dir(project).args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    bash
}

fn path_with(directory: &Path) -> String {
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_action_for_github_installs_a_release_and_the_workflow_builds_with_it() {
    if !root() || ["bash", "curl", "tar"].iter().any(|program| peer(program).is_none()) {
        return;
    }
    let bench = Bench::new();
    let (_files, url, sum) = release(&bench);
    let temporary = bench.path().join("runner");
    std::fs::create_dir(&temporary).unwrap();
    let action = yaml("packaging/github/action.yml");
    let install = action["runs"]["steps"][0]["run"].as_str().unwrap();
    let install = |sum: &str| {
        let mut bash = step(&bench, install);
        bash.env("URL", &url).env("SHA256", sum).env("RUNNER_TEMP", &temporary);
        run(bash.env("GITHUB_PATH", temporary.join("path")))
    };
    install(&"0".repeat(64)).fails(&["did NOT match"]);
    install(&sum).ok();
    let added = std::fs::read_to_string(temporary.join("path")).unwrap();

    let served = ServedRegistry::start(bench.command("rbuild"), &["--directory", "registry"]);
    let workflow = yaml("docs/tutorials/ci-github.md");
    let steps = workflow["jobs"]["image"]["steps"].as_array().unwrap();
    for name in ["Log in", "Build and push"] {
        let found = steps.iter().find(|step| step["name"] == name).unwrap();
        let script = found["run"].as_str().unwrap().replace("ghcr.io", &served.address);
        let mut bash = step(&bench, &script);
        bash.env("PATH", path_with(Path::new(added.trim()))).env("TOKEN", "secret");
        bash.env("GITHUB_ACTOR", "ann").env("GITHUB_REPOSITORY", "Team/App");
        run(bash.env("GITHUB_SHA", "3f9c")).ok();
    }
    let tree = bench.rcopy(["tree", "--format=json", &served.name("team/app:3f9c")]).ok();
    assert!(tree.stdout.contains("in-toto") || tree.stdout.contains("spdx"), "{}", tree.told());
}

#[test]
fn the_template_for_gitlab_installs_a_release_builds_and_pushes() {
    if !root() || ["bash", "curl", "tar"].iter().any(|program| peer(program).is_none()) {
        return;
    }
    let bench = Bench::new();
    let (_files, url, sum) = release(&bench);
    let programs = bench.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let served = ServedRegistry::start(bench.command("rbuild"), &["--directory", "registry"]);
    let job = &yaml("packaging/gitlab/rbuild.gitlab-ci.yml")[".rbuild"];
    let lines = |key: &str| job[key].as_array().unwrap().clone();
    // The packages are of the job's image; the programs go to a directory of the test.
    let before = lines("before_script").into_iter().skip(1);
    for line in before.chain(lines("script")) {
        let line = line.as_str().unwrap().replace("/usr/local/bin", programs.to_str().unwrap());
        let line = line.replace("/tmp/rbuild.tar.gz", "../rbuild.tar.gz");
        let mut bash = step(&bench, &line);
        bash.env("PATH", path_with(&programs)).env("RBUILD_URL", &url).env("RBUILD_SHA256", &sum);
        bash.env("RBUILD_CONTEXT", job["variables"]["RBUILD_CONTEXT"].as_str().unwrap());
        bash.env("CI_REGISTRY", &served.address).env("CI_REGISTRY_USER", "ann");
        bash.env("CI_REGISTRY_PASSWORD", "secret").env("CI_COMMIT_SHA", "3f9c");
        bash.env("CI_REGISTRY_IMAGE", served.name("team/app")).env("CI_COMMIT_REF_SLUG", "main");
        run(&mut bash).ok();
    }
    let tags = bench.rcopy(["ls", &served.name("team/app")]).ok();
    assert_eq!(tags.text(), "3f9c\nmain");
}

#[test]
fn the_job_for_kubernetes_builds_with_its_arguments() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let served = ServedRegistry::start(bench.command("rbuild"), &["--directory", "registry"]);
    bench.write("context/Dockerfile", "FROM scratch\nLABEL a=b\n");
    let job = yaml("docs/tutorials/ci-kubernetes.md");
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"][0], "rbuild");
    let arguments = container["args"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
    let arguments = arguments.map(|one| match one.starts_with("https://git.example/") {
        true => "context".to_owned(),
        false => one.replace("registry.example", &served.address),
    });
    bench.rbuild(arguments).ok();
    bench.rcopy(["digest", &served.name("team/app:latest")]).ok();
}
