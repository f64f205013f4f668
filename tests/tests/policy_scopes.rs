//! A policy decides about the place that is opened, whatever way leads there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;
use std::path::Path;

use e2e::{Bench, Ran};
use serde_json::{Value, json};

/// The transports with paths.
const TRANSPORTS: [&str; 4] = ["oci", "dir", "oci-archive", "docker-archive"];

/// A bench with one image in `trusted` and another in `bad`, in every form.
fn scene() -> Bench {
    let bench = Bench::new();
    let path = |name: &str| bench.path().join(name);
    for place in ["trusted", "bad"] {
        std::fs::create_dir_all(path(place)).unwrap();
        let layer = e2e::image::Layer::new().file("f", 0o644, place.as_bytes()).finish();
        let from = e2e::image::layout(&path(&format!("from-{place}")), "app", &[layer], |_| {});
        for transport in TRANSPORTS {
            let from = format!("oci:{}:app", from.display());
            copy(&bench, &from, &to(transport, &path(place).join(transport)), &[]).ok();
        }
    }
    for transport in TRANSPORTS {
        symlink(format!("../bad/{transport}"), path("trusted").join(format!("link-{transport}")))
            .unwrap();
    }
    symlink("bad", path("alias")).unwrap();
    symlink("trusted", path("good")).unwrap();
    bench
}

/// A destination: archives of Docker hold images by names alone.
fn to(transport: &str, path: &Path) -> String {
    match transport {
        "docker-archive" => format!("{transport}:{}:r.example/app:1", path.display()),
        "oci" | "oci-archive" => format!("{transport}:{}:v1", path.display()),
        _ => format!("{transport}:{}", path.display()),
    }
}

fn copy(bench: &Bench, from: &str, to: &str, more: &[&str]) -> Ran {
    let mut command = bench.command("rcopy");
    command.current_dir(bench.path().join("from-here"));
    std::fs::create_dir_all(bench.path().join("from-here")).unwrap();
    e2e::run(command.arg("copy").args(more).args([from, to]))
}

fn policy(bench: &Bench, default: &str, scopes: &Value) -> String {
    let policy = json!({ "default": [{ "type": default }], "transports": scopes });
    format!("--policy={}", bench.write("policy.json", policy.to_string()).display())
}

/// All the ways to the image in `bad` of one transport.
fn ways(bench: &Bench, transport: &str) -> Vec<String> {
    let base = bench.path().display().to_string();
    let texts = [
        format!("{base}/bad/{transport}"),
        format!("{base}/trusted/../bad/{transport}"),
        format!("{base}//bad///{transport}"),
        format!("{base}/trusted/./../bad/./{transport}"),
        format!("{base}/trusted/link-{transport}"),
        format!("{base}/alias/{transport}"),
        format!("../trusted/../bad/{transport}"),
        format!("/proc/self/cwd/../bad/{transport}"),
    ];
    texts.into_iter().map(|path| format!("{transport}:{path}")).collect()
}

#[test]
fn no_way_around_a_scope_of_paths() {
    let bench = scene();
    let only = |place: &str, what: &str| {
        let scopes = json!({ bench.path().join(place).display().to_string(): [{ "type": what }] });
        Value::from_iter(TRANSPORTS.iter().map(|t| ((*t).to_owned(), scopes.clone())))
    };
    let target = format!("oci:{}:app", bench.path().join("target").display());
    let accepting = only("trusted", "insecureAcceptAnything");
    let rejecting = only("bad", "reject");
    for transport in TRANSPORTS {
        for way in ways(&bench, transport) {
            for (default, scopes) in
                [("reject", &accepting), ("insecureAcceptAnything", &rejecting)]
            {
                let policy = policy(&bench, default, scopes);
                let refused = copy(&bench, &way, &target, &[&policy]).code(1);
                refused.fails(&["rejected"]);
            }
        }
        // The ways to the trusted one stay open, also under a scope that is written with a link.
        for accepting in [&accepting, &only("good", "insecureAcceptAnything")] {
            let policy = policy(&bench, "reject", accepting);
            let way = format!("{transport}:{}/good/{transport}", bench.path().display());
            copy(&bench, &way, &target, &[&policy]).ok();
        }
    }
}

#[test]
fn an_image_that_is_meant_without_its_name_is_decided_by_it() {
    let bench = scene();
    let target = format!("oci:{}:app", bench.path().join("target").display());
    for (transport, name) in
        [("oci", "v1"), ("oci-archive", "v1"), ("docker-archive", "r.example/app:1")]
    {
        let path = bench.path().join("bad").join(transport).display().to_string();
        let scopes = json!({ transport: { format!("{path}:{name}"): [{ "type": "reject" }] } });
        let policy = policy(&bench, "insecureAcceptAnything", &scopes);
        for way in [format!(":{name}"), String::new(), ":@0".to_owned()] {
            let from = format!("{transport}:{path}{way}");
            copy(&bench, &from, &target, &[&policy]).code(1).fails(&["rejected"]);
        }
    }
}

#[test]
fn a_user_policy_that_is_there_and_cannot_be_read_fails() {
    let bench = scene();
    let config = bench.path().join("config");
    let containers = config.join("containers");
    let pull = || {
        let mut command = bench.command("rcopy");
        let from = format!("oci:{}", bench.path().join("bad/oci").display());
        let to = format!("oci:{}:app", bench.path().join("target").display());
        e2e::run(command.env("XDG_CONFIG_HOME", &config).args(["copy", &from, &to]))
    };
    std::fs::create_dir_all(&config).unwrap();
    // The directory of all policies leads nowhere; then the policy alone; then it is no file.
    symlink("nowhere", &containers).unwrap();
    pull().code(1).fails(&["containers"]);
    std::fs::remove_file(&containers).unwrap();
    std::fs::create_dir(&containers).unwrap();
    symlink("nowhere", containers.join("policy.json")).unwrap();
    pull().code(1).fails(&["policy.json", "no such file"]);
    std::fs::remove_file(containers.join("policy.json")).unwrap();
    std::fs::create_dir(containers.join("policy.json")).unwrap();
    pull().code(1).fails(&["policy.json"]);
    std::fs::remove_dir(containers.join("policy.json")).unwrap();
    std::fs::write(
        containers.join("policy.json"),
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    pull().ok();
    // What says where signatures lie must not be passed over either.
    symlink("nowhere", containers.join("registries.d")).unwrap();
    pull().code(1).fails(&["registries.d"]);
}
