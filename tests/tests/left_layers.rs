//! Layers that stay unpacked until their image leaves the store.

use e2e::registry::DockerRegistry;
use e2e::{Bench, peer, root, run};
use serde_json::Value;

/// The media types of an image's layers, from the bytes of its manifest.
fn types(manifest: &str) -> Vec<String> {
    let manifest: Value = serde_json::from_str(manifest).expect(manifest);
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["mediaType"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The digest that `rbuild images` shows for a name.
fn digest(bench: &Bench, name: &str) -> String {
    let format = ["images", "--no-trunc", "--format", "{{.Name}}:{{.Tag}} {{.Digest}} {{.ID}}"];
    let shown = bench.rbuild(format).ok();
    let line = shown.text().lines().find(|line| line.starts_with(&format!("localhost/{name}:")));
    line.unwrap_or_else(|| panic!("{name} in {}", shown.told())).to_owned()
}

/// The types of the layers an image of the store has now. Reading it as a transport would compress
/// them.
fn stored(bench: &Bench, name: &str) -> Vec<String> {
    let shown = digest(bench, name);
    let hex = shown.split(' ').nth(1).and_then(|digest| digest.strip_prefix("sha256:"));
    let path = bench.store().join("blobs/sha256").join(hex.expect("a digest"));
    types(&std::fs::read_to_string(path).expect("a manifest"))
}

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[test]
fn layers_are_compressed_when_their_image_leaves_and_only_once() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let dockerfile = "FROM busybox\nCOPY text /text\nRUN echo made > /made && rm /text\n";
    bench.write("context/Dockerfile", dockerfile);
    bench.write("context/text", "words ".repeat(100_000));
    let build = |more: &[&str]| {
        bench.rbuild([&["bud", "-q"], more, &["context"]].concat()).ok();
    };
    build(&["-t", "app"]);
    let before = digest(&bench, "app");
    assert_eq!(stored(&bench, "app")[1..], [PLAIN, PLAIN]);
    // Everything that needs no bytes of the layers works on it, and what needs them has them.
    bench.rbuild(["run", "--rm", "app", "cat", "/made"]).ok();
    bench.rbuild(["check"]).ok();
    bench.rbuild(["sbom", "app"]).ok();
    assert_eq!(digest(&bench, "app"), before);

    let layout = |name: &str| format!("oci:{}", bench.path().join(name).display());
    let pushed = bench.rbuild(["push", "app", &layout("one")]).ok();
    assert!(pushed.stderr.contains("compressing layer"), "{}", pushed.told());
    let there = bench.rcopy(["inspect", "--raw", &layout("one")]).ok();
    assert_eq!(types(there.text())[1..], [GZIP, GZIP], "{}", there.told());
    // The image in the store is that one now, under its name and under the digest it had.
    let after = digest(&bench, "app");
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let ([_, old, id], [_, new, same]) = (&words(&before)[..], &words(&after)[..]) else {
        panic!("{before} {after}");
    };
    assert!(old != new && id == same, "{before} {after}");
    assert_eq!(bench.rcopy(["digest", &layout("one")]).ok().text().trim(), new);
    let again = bench.rbuild(["push", old, &layout("two:x")]).ok();
    assert!(!again.stderr.contains("compressing layer"), "{}", again.told());
    assert_eq!(bench.rbuild(["images", "-q", "-a"]).ok().text().lines().count(), 2);
    // Built again it is the same, and what was compressed is used.
    build(&["-t", "app"]);
    assert_eq!(digest(&bench, "app"), after);
    build(&["-o", &format!("type=oci,dest={}", bench.path().join("three.tar").display())]);
    let archive = format!("oci-archive:{}", bench.path().join("three.tar").display());
    assert_eq!(bench.rcopy(["digest", &archive]).ok().text().trim(), new);
    bench.rbuild(["check"]).ok();
}

#[test]
fn what_is_built_on_such_an_image_leaves_compressed_as_a_whole() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let Some(registry) = DockerRegistry::start() else { return };
    bench.busybox();
    bench.build("base", "FROM busybox\nRUN echo base > /base\n", &[]).ok();
    bench.write("context/Dockerfile", "FROM localhost/base\nRUN echo app > /app\n");
    let name = registry.name("app:1");
    bench.rbuild(["bud", "-q", "--push", "--tls-verify=false", "-t", &name, "context"]).ok();
    let place = format!("docker://{name}");
    let manifest = bench.rcopy(["inspect", "--raw", "--tls-verify=false", &place]).ok();
    assert_eq!(types(manifest.text())[1..], [GZIP, GZIP], "{}", manifest.told());
    if let Some(skopeo) = peer("skopeo") {
        let mut command = std::process::Command::new(skopeo);
        let to = format!("dir:{}", bench.path().join("dir").display());
        run(command.args(["copy", "--src-tls-verify=false", &place, &to])).ok();
    }
    // The base itself stayed as it was, and is still there to build on and to push.
    assert_eq!(stored(&bench, "base")[1..], [PLAIN]);
    let to = format!("docker://{}", registry.name("base:1"));
    bench.rbuild(["push", "--tls-verify=false", "base", &to]).ok();
    let manifest = bench.rcopy(["inspect", "--raw", "--tls-verify=false", &to]).ok();
    assert_eq!(types(manifest.text())[1..], [GZIP], "{}", manifest.told());
    // What nothing needs any more goes, and the snapshots it was made of with it.
    bench.rbuild(["rmi", "base", &name]).ok();
    bench.rbuild(["prune", "-a", "-f"]).ok();
    bench.rbuild(["check"]).ok();
}
