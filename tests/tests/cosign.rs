//! Signing and verifying both ways with cosign 3, against stand-ins of the services on loopback.
#![allow(clippy::unwrap_used, reason = "test support fails loudly")]

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::Bench;
use e2e::watch::guarded;
use registry_server::{Options, Registry};
use serde_json::{Value, json};
use standins::{StandinServer, World, serve};

const DEV: &str = "dev@team.example";

/// Where to sign, in cosign's words; with one log or the other.
fn signing_config(served: &StandinServer, tiles: bool) -> Value {
    let service = |url: &str, version: u8| {
        json!([{
            "url": url, "majorApiVersion": version, "operator": "standin.example",
            "validFor": { "start": "2026-01-01T00:00:00Z" },
        }])
    };
    let stamps = format!("{}/api/v1/timestamp", served.url);
    let log = if tiles { service(&served.tiles_url, 2) } else { service(&served.url, 1) };
    json!({
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": service(&served.url, 1), "oidcUrls": service(&served.url, 1),
        "rekorTlogUrls": log, "rekorTlogConfig": { "selector": "ANY" },
        "tsaUrls": service(&stamps, 1), "tsaConfig": { "selector": "ANY" },
    })
}

fn policy(registry: &str, root: &str, issuer: &str, email: &str) -> Value {
    let fulcio = json!({ "trustedRootPath": root, "oidcIssuer": issuer, "subjectEmail": email });
    json!({
        "default": [{ "type": "reject" }],
        "transports": { "docker": { registry: [{ "type": "sigstoreSigned", "fulcio": fulcio }] } },
    })
}

#[test]
fn cosign_and_we_verify_what_the_other_signs() {
    if requires::program("cosign").is_none() {
        return;
    }
    let (bench, served) = (Bench::new(), serve(World::default()));
    let registry = Registry::start(Options::default()).unwrap();
    let (address, provider) = (registry.address().to_string(), &served.world.provider);
    let root = bench.write("root.json", served.world.trusted_root().to_string());
    let root = root.display().to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    bench.write("token", provider.of_email(DEV, now));
    bench.write("config-1.json", signing_config(&served, false).to_string());
    bench.write("config-2.json", signing_config(&served, true).to_string());
    for (name, email) in [("good.json", DEV), ("evil.json", "evil@example.com")] {
        bench.write(name, policy(&address, &root, &provider.issuer, email).to_string());
    }
    let layer = e2e::image::Layer::new().file("f", 0o644, b"content").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cosign-interop");
    let mut command = Command::new(script);
    command.current_dir(bench.path()).env("HOME", bench.path());
    command.env("RBUILD_ROOT", bench.store());
    command.env("RBUILD", e2e::binary("rbuild")).env("RCOPY", e2e::binary("rcopy"));
    command.env("REGISTRY", &address).env("IDENTITY", DEV).env("ISSUER", &provider.issuer);
    let ran = guarded(&mut command).ok();
    assert!(ran.stdout.ends_with("done\n"), "{}", ran.told());
}
