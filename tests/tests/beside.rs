//! What lies beside an image: shown, downloaded and removed, in both forms.
#![allow(clippy::unwrap_used, reason = "test support fails loudly")]

use e2e::watch::guarded;
use e2e::{Bench, Ran};
use registry_server::{Options, Registry};
use serde_json::Value;

const SPDX: &str = "https://spdx.dev/Document";

fn run(bench: &Bench, line: &[&str]) -> Ran {
    let mut command = bench.command("rcopy");
    command.current_dir(bench.path()).env("COSIGN_PASSWORD", "x").args(line);
    guarded(&mut command)
}

#[test]
fn signatures_and_attestations_are_shown_downloaded_and_removed() {
    let (bench, registry) = (Bench::new(), Registry::start(Options::default()).unwrap());
    let layer = e2e::image::Layer::new().file("f", 0o644, b"content").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let name = format!("{}/team/app:1", registry.address());
    let ours = |line: &[&str]| run(&bench, line);
    ours(&["copy", "oci:image:app", &format!("docker://{name}")]).ok();
    ours(&["generate-key-pair", "--output=k"]).ok();
    bench.write("sbom.json", "{\"spdxVersion\":\"SPDX-2.3\"}");
    for what in ["signature", "attestation", "sbom"] {
        ours(&["download", what, &name]).code(2).fails(&["has no"]);
    }
    ours(&["sign", "--key=k.key", "--form=bundle", "--form=tag", &name]).ok();
    let mut attest = bench.command("rbuild");
    attest.current_dir(bench.path()).env("COSIGN_PASSWORD", "x");
    attest.args(["attest", "--key=k.key", "--type=spdxjson", "--predicate=sbom.json", &name]);
    guarded(&mut attest).ok();
    let tree = ours(&["tree", &name]).ok();
    assert!(tree.stdout.contains(".sig sha256:"), "{}", tree.told());
    assert_eq!(tree.stdout.matches("sigstore.bundle").count(), 2, "{}", tree.told());
    let lines = |line: &[&str]| -> Vec<Value> {
        let printed = ours(line).ok().stdout;
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let signatures = lines(&["download", "signature", &name]);
    assert_eq!(signatures.len(), 2);
    assert!(
        signatures
            .iter()
            .any(|one| one["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json")
    );
    assert!(signatures.iter().any(|one| one["Base64Signature"].is_string()), "{signatures:?}");
    let envelopes = lines(&["download", "attestation", "--predicate-type=spdxjson", &name]);
    assert_eq!(envelopes[0]["payloadType"], "application/vnd.in-toto+json");
    ours(&["download", "attestation", "--predicate-type=vuln", &name]).fails(&["no attestation"]);
    assert_eq!(lines(&["download", "sbom", &name])[0]["spdxVersion"], "SPDX-2.3");
    // Each kind goes without the other.
    let removed = ours(&["clean", "--type=signature", "--yes", &name]).ok();
    assert!(removed.stdout.starts_with("removed 2 manifests"), "{}", removed.told());
    ours(&["verify", "--key=k.pub", &name]).code(10).fails(&["no signature"]);
    assert_eq!(lines(&["download", "attestation", &name]).len(), 1);
    ours(&["clean", "--yes", &name]).ok();
    ours(&["download", "attestation", "--predicate-type", SPDX, &name]).code(2);
    let nothing = ours(&["clean", "--yes", &name]).ok();
    assert!(nothing.stdout.starts_with("removed 0 manifests"), "{}", nothing.told());
    ours(&["clean", "oci:image:app"]).fails(&["not on a registry"]);
}
