//! `COPY --link`: a layer that does not depend on what it lies on.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::path::Path;

use e2e::registry::DockerRegistry;
use e2e::{Bench, root};
use serde_json::Value;

/// The digests of the layers of an image of a registry.
fn layers(bench: &Bench, name: &str) -> Vec<String> {
    let line = ["inspect", "--raw", &format!("docker://{name}")];
    let manifest: Value = serde_json::from_str(bench.rcopy(line).ok().text()).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

fn has(bench: &Bench, digest: &str) -> bool {
    bench.store().join("blobs").join(digest.replace(':', "/")).exists()
}

#[test]
fn a_linked_layer_needs_no_base_and_outlives_it() {
    if !root() {
        return;
    }
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::new();
    bench.busybox();
    for (name, text) in [("one", "1"), ("two", "2")] {
        let dockerfile =
            format!("FROM localhost/busybox\nRUN mkdir -m 700 /d && echo {text} > /d/old\n");
        bench.build(name, &dockerfile, &[]).ok();
        let to = format!("docker://{}", registry.name(&format!("base:{name}")));
        let from = format!("store:localhost/{name}");
        bench.rcopy(["copy", &from, &to]).ok();
    }
    // Another machine, which has never seen the base.
    let fresh = Bench::new();
    fresh.write("context/f", "file\n");
    let build = |base: &str, to: &str| {
        let dockerfile = format!(
            "FROM {}\nCOPY --link f /d/new\nCOPY --link --chown=7:8 --chmod=600 f /e/\nENV A=1\n",
            registry.name(&format!("base:{base}"))
        );
        fresh.write("context/Dockerfile", dockerfile);
        let output = format!("--output=type=registry,name={}", registry.name(to));
        let line = ["bud", "--progress=plain", &output, "context"];
        let built = fresh.rbuild(line).ok();
        (layers(&fresh, &registry.name(to)), built.stderr)
    };
    let (first, _) = build("one", "app:one");
    let one = layers(&fresh, &registry.name("base:one"));
    assert_eq!(first[..one.len()], one[..]);
    assert_eq!(first.len(), one.len() + 2);
    for digest in &one {
        assert!(!has(&fresh, digest), "layer {digest} of the base was fetched");
    }
    // On another base the same layers.
    let (second, told) = build("two", "app:two");
    let two = layers(&fresh, &registry.name("base:two"));
    assert_eq!(second[..two.len()], two[..]);
    assert_eq!(second[two.len()..], first[one.len()..]);
    assert!(told.contains("0 steps run"), "{told}");

    // What comes after it sees both.
    let dockerfile = format!(
        "FROM {}\nCOPY --link f /d/new\nRUN cat /d/old /d/new > /both && stat -c %a /d >> /both\nCOPY --link f /last\n",
        registry.name("base:two")
    );
    fresh.write("context/Dockerfile", dockerfile);
    let line = ["bud", "--progress=plain", "-t", "app", "-o", "out", "context"];
    fresh.rbuild(line).ok();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&fresh.path().join("out/both")), "2\nfile\n755\n");
    assert_eq!(read(&fresh.path().join("out/last")), "file\n");
    let ran = fresh.rbuild(["run", "--rm", "app", "cat", "/both", "/last"]).ok();
    assert_eq!(ran.text(), "2\nfile\n755\nfile");
    // And the image is the same when it comes back from a registry, to a store without snapshots.
    let pushed = format!("docker://{}", registry.name("app:three"));
    fresh.rcopy(["copy", "store:localhost/app", &pushed]).ok();
    let other = Bench::new();
    other.rcopy(["copy", &pushed, "store:localhost/app"]).ok();
    let ran = other.rbuild(["run", "--rm", "app", "cat", "/both", "/last", "/d/old"]).ok();
    assert_eq!(ran.text(), "2\nfile\n755\nfile\n2");
}

#[test]
fn an_image_that_is_pushed_by_name_leaves_a_base_that_no_step_needs_where_it_is() {
    if !root() {
        return;
    }
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::new();
    bench.busybox();
    let base = registry.name("base:1");
    bench.rcopy(["copy", "store:localhost/busybox", &format!("docker://{base}")]).ok();
    let fresh = Bench::new();
    let app = registry.name("app:1");
    fresh.write("context/f", "file\n");
    fresh.write("context/Dockerfile", format!("FROM {base}\nCOPY --link f /d/\nENV A=1\n"));
    let build = |more: &[&str]| {
        let line = [&["bud", "--progress=plain", "-t", &app, "--push"], more, &["context"]];
        fresh.rbuild(line.concat()).ok()
    };
    let is_named = || fresh.rbuild(["images"]).ok().text().contains("/app");
    let told = build(&[]).stderr;
    assert!(told.contains("not kept in the store") && told.contains("--load"), "{told}");
    let below = layers(&fresh, &base);
    assert_eq!(layers(&fresh, &app)[..below.len()], below[..]);
    for digest in &below {
        assert!(!has(&fresh, digest), "layer {digest} of the base was fetched");
    }
    assert!(!is_named());
    // Who wants it here says so.
    let told = build(&["--load"]).stderr;
    assert!(!told.contains("not kept"), "{told}");
    assert!(below.iter().all(|digest| has(&fresh, digest)) && is_named());
    let ran = fresh.rbuild(["run", "--rm", "--pull=never", &app, "cat", "/d/f"]).ok();
    assert_eq!(ran.text(), "file");
    // What is here is kept.
    fresh.rbuild(["rmi", &app]).ok();
    let told = build(&[]).stderr;
    assert!(!told.contains("not kept") && is_named(), "{told}");
}
