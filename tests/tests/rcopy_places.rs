//! Places that images are read from: archives as layers, images inside indexes of layouts, layouts
//! that share their blobs; and what is listed in them.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::image::Layer;
use e2e::scene::Scene;
use registry_server::{Options, Registry};
use serde_json::Value;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn archives_are_the_layers_of_an_image() {
    let scene = Scene::new();
    let path = scene.bench.path();
    let layer = |name: &str, text: &str| Layer::new().file(name, 0o644, text.as_bytes()).finish();
    std::fs::write(path.join("a.tar"), layer("etc/a", "first")).unwrap();
    std::fs::write(path.join("b.tar"), layer("etc/a", "second")).unwrap();
    let gzip = |from: &str| {
        assert!(
            std::process::Command::new("gzip")
                .arg("-kn")
                .arg(path.join(from))
                .status()
                .unwrap()
                .success()
        );
    };
    gzip("b.tar");
    scene.copy("tarball:a.tar:b.tar.gz", "oci:made:app").ok();
    let file = |image: &str| scene.rcopy(&["get-file", image, "/etc/a"]).ok().text().to_owned();
    assert_eq!(file("oci:made:app"), "second");
    assert_eq!(file("tarball:a.tar"), "first");
    // The same archives give the same image, and their bytes stay.
    let digest = scene.digest("tarball:a.tar:b.tar.gz");
    assert_eq!(digest, scene.digest("oci:made:app"));
    let manifest = parsed(&scene.rcopy(&["manifest", "oci:made:app"]).ok().stdout);
    let kinds = manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["mediaType"]);
    let kinds: Vec<_> =
        kinds.map(|kind| kind.as_str().unwrap().rsplit('.').next().unwrap()).collect();
    assert_eq!(kinds, ["tar", "tar+gzip"]);
    scene.rcopy(&["validate", "oci:made:app"]).ok();
    // Standard input is an archive, too.
    let mut piped = std::process::Command::new("sh");
    piped.args(["-c", "cat a.tar | \"$0\" copy tarball:- oci:piped:app"]).arg(e2e::binary("rcopy"));
    e2e::run(piped.current_dir(path)).ok();
    assert_eq!(file("oci:piped:app"), "first");
    std::fs::write(path.join("text"), "no archive\n").unwrap();
    for (place, words) in [
        ("tarball:text", "not a tar archive"),
        ("tarball:nowhere.tar", "nowhere.tar"),
        ("tarball:image", "not a plain file"),
        ("tarball:a.tar:", "a path is empty"),
    ] {
        scene.rcopy(&["inspect", place]).code(1).fails(&[words]);
    }
    scene.copy("oci:made:app", "tarball:out.tar").code(1).fails(&["tarball:", "cannot do that"]);
}

#[test]
fn an_image_inside_an_index_is_found_by_its_digest() {
    let scene = Scene::new();
    scene.rcopy(&["copy", "--all", "oci:index:app", "oci-archive:index.tar:app"]).ok();
    let arm = scene
        .rcopy(&["digest", "--platform", "linux/arm64", "oci:index:app"])
        .ok()
        .text()
        .to_owned();
    for place in ["oci:index", "oci-archive:index.tar"] {
        let inspected = scene.rcopy(&["inspect", &format!("{place}@{arm}")]).ok();
        assert_eq!(parsed(&inspected.stdout)["Architecture"], "arm64", "{place}");
        assert_eq!(scene.digest(&format!("{place}@{arm}")), arm);
        let none = format!("sha256:{}", "0".repeat(64));
        scene.rcopy(&["inspect", &format!("{place}@{none}")]).code(2).fails(&[&none]);
    }
    scene.copy(&format!("oci:index@{arm}"), "dir:arm").ok();
}

#[test]
fn an_image_is_listed_the_same_way_wherever_it_comes_from() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let place = format!("docker://{}/team/app:1", registry.address());
    scene.copy("oci:index:app", "oci:first:app").ok();
    scene.copy("oci:first:app", &place).ok();
    scene.copy(&place, "oci:second:app").ok();
    let list = |name: &str| {
        std::fs::read_to_string(scene.bench.path().join(name).join("index.json")).unwrap()
    };
    assert_eq!(list("first"), list("second"));
}

#[test]
fn a_layout_whose_blobs_are_elsewhere_holds_none() {
    let scene = Scene::new();
    scene.rcopy(&["copy", "--dest-shared-blob-dir=shared", "oci:image:app", "oci:thin:app"]).ok();
    let path = scene.bench.path();
    assert_eq!(std::fs::read_dir(path.join("thin/blobs")).unwrap().count(), 0);
    assert!(path.join("shared/sha256").is_dir());
    scene.rcopy(&["copy", "--src-shared-blob-dir=shared", "oci:thin:app", "dir:whole"]).ok();
}

#[test]
fn a_file_of_credentials_that_is_not_there_is_named() {
    let scene = Scene::new();
    for command in ["logout", "whoami"] {
        scene.rcopy(&[command, "--authfile=none.json", "r.example"]).code(1).fails(&["none.json"]);
    }
}
