//! Gzip layers of which single files are fetched, by an index.
#![allow(clippy::unwrap_used)]

mod asked;

use e2e::image::{Layer, busybox_layer, layout};
use e2e::kill::Chance;
use e2e::root;
use e2e::scene::Scene;
use registry_server::{Effect, Fault, Options, Registry};

const LARGE: usize = 12_000_000;
/// The most that is fetched of a layer for a small file.
const MOST: u64 = 2_500_000;

/// An image with gzip layers on a registry.
struct There {
    scene: Scene,
    registry: Registry,
    name: String,
}

fn there() -> There {
    let (scene, registry) = (Scene::new(), Registry::start(Options::default()).unwrap());
    let noise = Chance::new(9).bytes(LARGE);
    let layer = Layer::new()
        .dir("etc", 0o755)
        .file("etc/before", 0o644, &noise[..LARGE / 2])
        .owned("etc/small", 0o640, (7, 8), b"small")
        .symlink("link", "etc")
        .file("etc/large", 0o644, &noise)
        .finish();
    layout(&scene.bench.path().join("made"), "app", &[busybox_layer(), layer], |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
    let name = format!("{}/team/app:1", registry.address());
    let to = format!("docker://{name}");
    scene.rcopy(&["copy", "--dest-compress-format=gzip", "oci:made:app", &to]).ok();
    registry.forget();
    There { scene, registry, name }
}

impl There {
    fn manifest(&self) -> serde_json::Value {
        let raw = self.scene.rcopy(&["inspect", "--raw", &format!("docker://{}", self.name)]).ok();
        serde_json::from_str(raw.text()).unwrap()
    }

    /// Gives the image an index.
    fn index(&self) {
        let place = format!("docker://{}", self.name);
        self.scene.rcopy(&["copy", "--gzip-index", &place, &place]).ok();
        self.registry.forget();
    }

    fn fetched(&self) -> Option<u64> {
        asked::fetched(&self.registry, &self.scene, &self.name)
    }

    /// Bytes of indexes that were asked for.
    fn indexes(&self) -> u64 {
        let requests = self.registry.requests();
        let manifest = self.manifest();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let said = |layer: &serde_json::Value, what: &str| {
            layer["annotations"][format!("dev.rbuild.gzip-index.{what}")]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let asked = layers.filter(|layer| {
            let digest = said(layer, "digest");
            requests.iter().any(|one| one.method == "GET" && one.path.ends_with(&digest))
        });
        asked.map(|layer| said(layer, "size").parse::<u64>().unwrap()).sum()
    }
}

#[test]
fn a_layer_that_was_read_whole_once_is_read_in_parts_then() {
    let there = there();
    let get = |path: &str| there.scene.rcopy(&["get-file", &there.name, path]).ok().stdout;
    assert_eq!(get("/etc/small"), "small");
    assert_eq!(there.fetched(), None, "the layer is fetched whole");
    for path in ["/etc/small", "/link/small"] {
        there.registry.forget();
        assert_eq!(get(path), "small");
        let bytes = there.fetched();
        assert!(bytes.is_some_and(|bytes| (5..MOST).contains(&bytes)), "{path}: {bytes:?}");
    }
    there.registry.forget();
    let export = ["export", "--path", "/etc/small", &there.name, "x.tar"];
    there.scene.rcopy(&export).ok();
    assert!(there.fetched().is_some_and(|bytes| bytes < MOST));
    // A large file is read whole, and is right.
    there.scene.rcopy(&["get-file", &there.name, "/etc/large", "large"]).ok();
    let large = std::fs::read(there.scene.bench.path().join("large")).unwrap();
    assert!(large == Chance::new(9).bytes(LARGE));
}

#[test]
fn an_index_in_the_registry_serves_machines_that_never_saw_the_layer() {
    let there = there();
    let before = there.manifest();
    there.index();
    // The layers are the same, the manifest names the indexes, and refers to none by digest only.
    let after = there.manifest();
    for number in 0..2 {
        assert_eq!(before["layers"][number]["digest"], after["layers"][number]["digest"]);
    }
    let tree = there.scene.rcopy(&["tree", &there.name]).ok();
    assert!(
        tree.stdout.contains("application/vnd.dev.rbuild.gzip-index.v1+zstd"),
        "{}",
        tree.told()
    );
    there.registry.forget();
    assert_eq!(there.scene.rcopy(&["get-file", &there.name, "/etc/small"]).ok().stdout, "small");
    let (bytes, indexes) = (there.fetched(), there.indexes());
    assert!(bytes.is_some_and(|bytes| (5..MOST).contains(&bytes)), "{bytes:?}");
    assert!((100..500_000).contains(&indexes), "{indexes}");
    // Another run makes no other index, and changes nothing.
    there.index();
    assert_eq!(there.manifest(), after);
}

#[test]
fn copy_from_an_indexed_image_fetches_only_the_file() {
    let there = there();
    there.index();
    let dockerfile = format!("FROM scratch\nCOPY --from={} /etc/small /to/\n", there.name);
    there.scene.bench.build("one", &dockerfile, &[]).ok();
    let bytes = there.fetched();
    assert!(bytes.is_some_and(|bytes| (5..MOST).contains(&bytes)), "{bytes:?}");
    let got = there.scene.rcopy(&["get-file", "store:localhost/one", "/to/small"]).ok();
    assert_eq!(got.stdout, "small");
    // What was built is pushed with an index of its own.
    let to = there.name.replace("app:1", "one:1");
    there.scene.bench.rbuild(["push", "-q", "--gzip-index", "localhost/one", &to]).ok();
    let raw = there.scene.rcopy(&["inspect", "--raw", &format!("docker://{to}")]).ok();
    assert!(raw.stdout.contains("dev.rbuild.gzip-index.digest"), "{}", raw.told());
}

#[test]
fn an_index_that_is_not_what_the_manifest_promises_is_not_used() {
    let there = there();
    there.index();
    let manifest = there.manifest();
    let index = manifest["layers"][1]["annotations"]["dev.rbuild.gzip-index.digest"].as_str();
    let blob = format!("*/blobs/{}", index.unwrap());
    for effect in [Effect::status(404), Effect::Corrupt(50)] {
        there.registry.forget();
        there.registry.fault(Fault::always("GET", blob.clone(), effect));
        let bench = Scene::new();
        let got = bench.rcopy(&["get-file", &there.name, "/etc/small"]).ok();
        assert_eq!(got.stdout, "small");
        assert_eq!(there.fetched(), None, "the layer is fetched whole");
        there.registry.heal();
    }
    // Bytes of the layer that are not what the index says are an error, never the file.
    let layer = manifest["layers"][1]["digest"].as_str().unwrap();
    let blob = format!("*/blobs/{layer}");
    there.registry.fault(Fault::always("GET", blob, Effect::Corrupt(3_000_000)));
    let got = there.scene.rcopy(&["get-file", &there.name, "/etc/large"]);
    assert_ne!(got.code, 0, "{}", got.told());
}

#[test]
fn a_program_runs_from_indexed_gzip_layers_before_they_are_here() {
    if !root() {
        return;
    }
    let there = there();
    there.index();
    let line = ["run", "--rm", "--lazy", "--network=none", &there.name, "cat", "/etc/small"];
    let ran = there.scene.bench.rbuild(line).ok();
    assert_eq!(ran.text(), "small");
    assert!(!ran.stderr.contains("pulled whole"), "{}", ran.told());
    let large = there.manifest()["layers"][1]["digest"].as_str().unwrap().to_owned();
    let requests = there.registry.requests().into_iter();
    let mut asked = requests.filter(|one| one.method == "GET" && one.path.ends_with(&large));
    assert!(asked.all(|request| request.header("range").is_some()));
}

#[test]
fn where_no_index_can_be_kept_none_is_promised() {
    let there = there();
    let from = format!("docker://{}", there.name);
    there.scene.rcopy(&["copy", "--gzip-index", &from, "dir:x"]).fails(&["referrers"]);
    let docker = ["copy", "--gzip-index", "--format=v2s2", &from, "oci:y:app"];
    there.scene.rcopy(&docker).fails(&["Docker's documents"]);
    let same = ["copy", "--gzip-index", "--preserve-digests", &from, "oci:z:app"];
    there.scene.rcopy(&same).fails(&["same digests"]);
    there.scene.rcopy(&["copy", "--gzip-index", &from, "oci:w:app"]).ok();
    let got = there.scene.rcopy(&["get-file", "oci:w:app", "/etc/small"]).ok();
    assert_eq!(got.stdout, "small");
}
