//! Manifest lists: made, changed and pushed by `rbuild manifest`, read by the peers.

use std::process::Command;

use e2e::image::{Layer, layout};
use e2e::registry::DockerRegistry;
use e2e::{Bench, peer, run};
use serde_json::Value;

/// Puts an image for another architecture into the store.
fn import(bench: &Bench, name: &str, architecture: &str) {
    let layer = Layer::new().file("arch", 0o644, architecture.as_bytes()).finish();
    let layout = layout(&bench.path().join(name), name, &[layer], |config| {
        config.architecture = architecture.to_owned();
    });
    let from = format!("oci:{}:{name}", layout.display());
    let platform = format!("--platform=linux/{architecture}");
    bench.rcopy(["copy", "-q", &platform, &from, &format!("store:localhost/{name}")]).ok();
}

fn inspect(bench: &Bench, list: &str) -> Value {
    let shown = bench.rbuild(["manifest", "inspect", list]).ok();
    serde_json::from_str(&shown.stdout).expect("JSON")
}

fn digest(bench: &Bench, name: &str) -> String {
    bench.rcopy(["digest", &format!("store:localhost/{name}")]).ok().text().to_owned()
}

#[test]
fn a_list_is_made_changed_and_pushed() {
    let bench = Bench::new();
    for (name, architecture) in [("one", "amd64"), ("two", "arm64"), ("three", "s390x")] {
        import(&bench, name, architecture);
    }
    let two = digest(&bench, "two");
    bench.rbuild(["manifest", "exists", "list"]).code(1);
    bench.rbuild(["manifest", "create", "list", "one"]).ok();
    bench.rbuild(["manifest", "exists", "list"]).ok();
    bench.rbuild(["manifest", "create", "list"]).fails(&["localhost/list:latest", "--amend"]);
    bench.rbuild(["manifest", "create", "--amend", "list", "two"]).ok();
    bench.rbuild(["manifest", "create", "bad", "no-such-transport:x"]).fails(&["no-such"]);
    bench.rbuild(["manifest", "exists", "bad"]).code(1);
    let flags = ["--variant=z13", "--os-version=9", "--os-features=a,b", "--annotation=k=v"];
    bench.rbuild(["manifest", "add"].iter().chain(&flags).chain(&["list", "three"])).ok();
    bench.rbuild(["manifest", "add", "--features=x", "list", "three"]).fails(&["--features"]);
    bench.rbuild(["manifest", "annotate", "--annotation=a=b", "--arch=arm", "list", &two]).ok();
    bench.rbuild(["manifest", "annotate", "--index", "--annotation=of=list", "list"]).ok();
    bench.rbuild(["manifest", "annotate", "--os=x", "list", "sha256:00"]).fails(&["is not in"]);
    let list = inspect(&bench, "list");
    assert_eq!(list["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(list["annotations"]["of"], "list");
    assert_eq!(list["manifests"].as_array().unwrap().len(), 3);
    assert_eq!(list["manifests"][0]["platform"]["architecture"], "amd64");
    assert_eq!(list["manifests"][1]["platform"]["architecture"], "arm");
    assert_eq!(list["manifests"][1]["annotations"]["a"], "b");
    let third = &list["manifests"][2];
    assert_eq!(third["platform"]["variant"], "z13");
    assert_eq!(third["platform"]["os.version"], "9");
    assert_eq!(third["platform"]["os.features"], serde_json::json!(["a", "b"]));
    assert_eq!(third["annotations"]["k"], "v");
    bench.rbuild(["manifest", "remove", "list", "two"]).ok();
    assert_eq!(inspect(&bench, "list")["manifests"].as_array().unwrap().len(), 2);
    bench.rbuild(["manifest", "remove", "list", &two]).fails(&["is not in", "its images are"]);

    // A list keeps its images although their names are gone, and leaves nothing behind itself.
    bench.rbuild(["rmi", "one", "three"]).ok();
    bench.rbuild(["prune"]).ok();
    let archive = format!("oci-archive:{}", bench.path().join("list.tar").display());
    let file = bench.path().join("digest");
    let digestfile = format!("--digestfile={}", file.display());
    bench.rbuild(["manifest", "push", "-q", &digestfile, "list", &archive]).ok();
    let pushed = std::fs::read_to_string(file).unwrap();
    assert_eq!(bench.rcopy(["digest", &archive]).ok().text(), pushed);
    bench.rbuild(["manifest", "push", "-q", "list"]).fails(&["localhost/list:latest"]);
    bench.rbuild(["check"]).ok();
    bench.rbuild(["manifest", "rm", "list"]).ok();
    bench.rbuild(["manifest", "rm", "list"]).fails(&["there is no manifest list"]);
    bench.rbuild(["manifest", "push", "list", "dir:x"]).fails(&["there is no manifest list"]);
    bench.rbuild(["manifest", "annotate", "--os=x", "two", &two]).fails(&["a single image"]);
}

#[test]
fn a_registry_takes_lists_and_the_peers_read_them() {
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::new();
    import(&bench, "one", "amd64");
    import(&bench, "two", "arm64");
    bench.rbuild(["manifest", "create", "list", "one", "two"]).ok();
    let there = registry.name("list:1");
    let bare = registry.name("bare:1");
    let push = ["manifest", "push", "-q", "--tls-verify=false"];
    bench.rbuild(push.iter().chain(&["--all=false", "list", &bare])).fails(&["bare:1"]);
    bench.rbuild(push.iter().chain(&["--all", "list", &there])).ok();
    let docker = registry.name("docker:1");
    bench.rbuild(push.iter().chain(&["--format=v2s2", "--purge", "list", &docker])).ok();
    bench.rbuild(["manifest", "exists", "list"]).code(1);

    // Other images of the registry, all of them or this platform's, without taking names here.
    let tls = "--tls-verify=false";
    bench.rbuild(["manifest", "create", tls, "again", &there]).ok();
    assert_eq!(inspect(&bench, "again")["manifests"].as_array().unwrap().len(), 1);
    let images = bench.rbuild(["images", "-q", "--no-trunc"]).ok();
    bench.rbuild(["manifest", "add", tls, "--all", "again", &format!("docker://{docker}")]).ok();
    assert_eq!(inspect(&bench, "again")["manifests"].as_array().unwrap().len(), 3);
    assert_eq!(bench.rbuild(["images", "-q", "--no-trunc"]).ok().stdout, images.stdout);
    bench.rbuild(["check"]).ok();

    if peer("skopeo").is_none() {
        return;
    }
    for (name, kind) in [
        (&there, "application/vnd.oci.image.index.v1+json"),
        (&docker, "application/vnd.docker.distribution.manifest.list.v2+json"),
    ] {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
        let raw: Value = serde_json::from_str(&run(&mut skopeo).ok().stdout).expect("JSON");
        assert_eq!(raw["mediaType"], kind);
        assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
        let mut skopeo = Command::new("skopeo");
        let from = format!("docker://{name}");
        let to = format!("dir:{}", bench.path().join("peer").display());
        skopeo.args(["copy", "--all", "--src-tls-verify=false", &from, &to]);
        run(&mut skopeo).ok();
    }
}

#[test]
fn lists_changed_at_the_same_time_lose_nothing() {
    let bench = Bench::new();
    bench.rbuild(["manifest", "create", "list"]).ok();
    let names: Vec<String> = (0..6).map(|n| format!("image{n}")).collect();
    for (name, architecture) in names.iter().zip(["a", "b", "c", "d", "e", "f"]) {
        import(&bench, name, architecture);
    }
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| bench.rbuild(["manifest", "add", "list", name]).ok());
        }
    });
    assert_eq!(inspect(&bench, "list")["manifests"].as_array().unwrap().len(), 6);
}
