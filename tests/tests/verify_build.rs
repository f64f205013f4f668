//! Building an image again and saying what differs.

use std::os::unix::fs::PermissionsExt;

use e2e::image::{Layer, busybox_layer, layout};
use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran};
use serde_json::Value;

/// Pushes an image with a shell and this content.
fn push_base(bench: &Bench, name: &str, content: &str) {
    let directory = bench.path().join(format!("layout-{content}"));
    let layers = [busybox_layer(), Layer::new().file("f", 0o644, content.as_bytes()).finish()];
    let layout = layout(&directory, "app", &layers, |_| {});
    let from = format!("oci:{}:app", layout.display());
    bench.rcopy(["copy", "-q", "--dest-tls-verify=false", &from, &format!("docker://{name}")]).ok();
}

fn bud(bench: &Bench, more: &[&str]) -> Ran {
    let common = ["bud", "--progress=plain", "--timestamp=1", "--tls-verify=false"];
    bench.rbuild([&common[..], more, &["ctx"]].concat())
}

#[test]
fn an_image_is_built_again_and_the_file_that_differs_is_named() {
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::new();
    let (base, app) = (registry.name("base:1"), registry.name("app:1"));
    push_base(&bench, &base, "first");
    let dockerfile = format!(
        "FROM {base}\nARG WHO\nCOPY text script /\nRUN --network=none echo $WHO > /who && cat /f >> /who\n"
    );
    bench.write("ctx/Dockerfile", &dockerfile);
    let text = bench.write("ctx/text", "one\ntwo\nthree\n");
    let script = bench.write("ctx/script", "true\n");
    let max = ["--provenance=mode=max", "--build-arg=WHO=me", "--push", "-t", &app];
    bud(&bench, &max).ok();

    // Elsewhere, after the tag of the base has moved, and without the Dockerfile.
    push_base(&bench, &base, "second");
    std::fs::remove_file(bench.path().join("ctx/Dockerfile")).expect("a file");
    let elsewhere = Bench::new();
    let context = bench.path().join("ctx").display().to_string();
    let remote = format!("docker://{app}");
    let verify = |more: &[&str]| {
        let common = ["verify-build", "--tls-verify=false", "--context", &context, &remote];
        elsewhere.rbuild([&common[..], more].concat())
    };
    assert!(verify(&[]).ok().text().starts_with("identical: "));

    // What differs is named: the layer, the file, and what of it.
    std::fs::write(&text, "one\n2\nthree\n").expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let differs = verify(&[]).code(3);
    for words in [
        "different: ",
        "COPY text script /",
        "  /script mode: 0644 -> 0755",
        "  /text content: 14 bytes, differs at line 2, byte 4 -> 12 bytes",
    ] {
        assert!(differs.stdout.contains(words), "{words:?}: {}", differs.told());
    }
    assert!(!differs.stdout.contains("/who"), "{}", differs.told());
    let json = verify(&["--format=json", "--build-flag=--label=a=b"]).code(3);
    let answer: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(answer["identical"], false);
    let places = answer["differences"].as_array().expect("differences").iter();
    let places: Vec<_> = places.filter_map(|found| found["place"].as_str()).collect();
    assert!(places.contains(&"/text") && places.contains(&"config.config.Labels"), "{places:?}");

    // A command that gives something else each time.
    let random = "FROM scratch\nCOPY text /\n";
    bench.write("ctx/Dockerfile", random);
    bud(&bench, &["-t", "silent"]).ok();
    let silent = |more: &[&str]| {
        bench.rbuild([&["verify-build", "silent", "--context", &context][..], more].concat())
    };
    silent(&[]).fails(&["no provenance is attached", "--lock"]).code(125);
    bench.rbuild(["lock", "ctx"]).ok();
    let lock = format!("--lock={context}/rbuild.lock");
    silent(&[&lock, "--build-flag=--timestamp=1"]).ok();
    let unlike = silent(&[&lock]).code(3);
    assert!(unlike.stdout.contains("config.created"), "{}", unlike.told());
    let times = silent(&[&lock, "--ignore-times"]).ok();
    assert!(times.text().starts_with("identical but for times: "), "{}", times.told());
    silent(&[&lock, "--ignore-times", "--build-flag=--label=a=b"]).code(3);

    let random = format!(
        "FROM {base}\nRUN --mount=type=secret,id=key cat /proc/sys/kernel/random/uuid > /id\n"
    );
    bench.write("ctx/Dockerfile", random);
    let key = format!("--secret=id=key,src={}", text.display());
    bud(&bench, &["--provenance", &key, "-t", "random"]).ok();
    let random = |more: &[&str]| {
        let common = ["verify-build", "random", "--tls-verify=false", "--context", &context];
        bench.rbuild([&common[..], more].concat())
    };
    random(&[]).fails(&["secret", "key"]).code(125);
    let unlike = random(&[&key]).code(3);
    assert!(unlike.stdout.contains("/id content: 37 bytes"), "{}", unlike.told());
    bench.rbuild(["check"]).ok();
}
