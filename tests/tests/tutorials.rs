//! The commands of the tutorials and of README.md, run as they are written.

use std::process::Command;

use e2e::{Bench, binary, peer, repository, root, run};

/// What a tutorial finds: a network of its own with a stand-in for Docker Hub, which has busybox.
const BEFORE: &str = r#"
set -euo pipefail
ip link set lo up
rbuild registry serve --address 127.0.0.1:4999 --directory "$HUB" --port-file "$HUB.port" 2>"$HUB.log" &
disown
hub=$!
trap 'kill $hub $(jobs -p) 2>/dev/null || true' EXIT
until [ -s "$HUB.port" ]; do sleep 0.1; done
rcopy copy store:localhost/busybox docker://127.0.0.1:4999/library/busybox:latest
cd tutorial
"#;

/// The `sh` blocks of a page, in their order.
fn script(page: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            // `set -e` does not see that a negated command succeeds.
            line if inside && line.starts_with("! ") => {
                script += &format!("if {}; then exit 9; fi\n", &line[2..]);
            }
            line if inside => script += &format!("{line}\n"),
            _ => {}
        }
    }
    script
}

/// Runs the commands of a page in a network namespace of their own.
fn follow(page: &str) {
    if !root() || peer("unshare").is_none() || peer("ip").is_none() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    std::fs::create_dir(bench.path().join("tutorial")).expect("a directory");
    let hub =
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:4999\"\ninsecure = true\n";
    let registries = bench.write("registries.conf", hub);
    let page = std::fs::read_to_string(repository().join(page)).expect("a page");
    let commands = script(&page);
    assert!(commands.lines().count() > 10, "{commands}");
    let script = bench.write("script", format!("{BEFORE}set -x\n{commands}"));
    let programs = binary("rbuild").parent().expect("a directory").to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let bash = bench.command("rbuild");
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "bash"]).arg(script).current_dir(bench.path());
    for (name, value) in bash.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare.env("PATH", path).env("HUB", bench.path().join("hub"));
    unshare.env("CONTAINERS_REGISTRIES_CONF", registries);
    run(&mut unshare).ok();
}

#[test]
fn what_the_readme_says_to_try_works() {
    follow("README.md");
}

#[test]
fn the_tutorial_of_the_first_image_works() {
    follow("docs/tutorials/first-image.md");
}

#[test]
fn the_tutorial_of_mirrors_works() {
    follow("docs/tutorials/mirror.md");
}

#[test]
fn the_tutorial_of_signing_works() {
    follow("docs/tutorials/sign-and-enforce.md");
}

#[test]
fn the_tutorial_of_a_private_registry_works() {
    if peer("htpasswd").is_some() {
        follow("docs/tutorials/private-registry.md");
    }
}

#[test]
fn the_tutorial_of_debugging_works() {
    follow("docs/tutorials/debug-a-build.md");
}

/// The pages of CI services: the tests of packaging run them.
const CI: &[&str] = &["ci-github", "ci-gitlab", "ci-kubernetes"];

#[test]
fn every_tutorial_is_run_by_a_test_and_says_so() {
    let followed =
        ["first-image", "mirror", "sign-and-enforce", "private-registry", "debug-a-build"];
    let pages = std::fs::read_dir(repository().join("docs/tutorials")).expect("tutorials");
    for page in pages {
        let path = page.expect("a page").path();
        let text = std::fs::read_to_string(&path).expect("a page");
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let last = text.trim_end().lines().next_back().unwrap_or_default();
        assert!(followed.contains(&name) || CI.contains(&name), "no test runs {name}");
        assert!(last.starts_with("*A test runs the "), "{name}: {last}");
    }
}
