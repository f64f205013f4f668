//! Build caches in buckets and in the cache service of GitHub Actions, and BuildKit's own caches.

use std::process::Command;

use e2e::bucket::{Cloud, S3};
use e2e::{Bench, Ran, run};
use image::Digest;
use serde_json::{Value, json};

/// A build with two steps and a layer that is sent in several parts.
fn project(bench: &Bench) {
    bench.busybox();
    bench.write(
        "context/Dockerfile",
        "FROM localhost/busybox\nCOPY large small /\nRUN cat /small >/out\n",
    );
    bench.write("context/small", "content");
    bench.write("context/large", e2e::kill::Chance::new(7).bytes(20 << 20));
}

fn bud(bench: &Bench, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Ran {
    let mut command = bench.command("rbuild");
    command.args(["bud", "--progress=plain", "-t", "app"]).args(arguments).arg("context");
    prepare(&mut command);
    run(&mut command)
}

/// Exports from one machine, and builds on another one without running a step.
#[track_caller]
fn travels(place: &str, prepare: impl Fn(&mut Command)) {
    let (to, from) = (format!("--cache-to={place}"), format!("--cache-from={place}"));
    let maker = Bench::new();
    project(&maker);
    let none = bud(&maker, &[&from, &to], &prepare).ok();
    assert!(none.stderr.contains("there is no cache"), "{}", none.told());
    let fresh = Bench::new();
    project(&fresh);
    let ran = bud(&fresh, &[&from, "--fail-if-not-cached"], &prepare).ok();
    assert_eq!(ran.text(), none.text(), "the same image");
    let shown = fresh.rbuild(["run", "--rm", "app", "cat", "/out"]).ok();
    assert_eq!(shown.stdout, "content");
    // A second export replaces the first.
    fresh.write("context/small", "changed");
    bud(&fresh, &[&from, &to], &prepare).ok();
    let last = Bench::new();
    project(&last);
    last.write("context/small", "changed");
    bud(&last, &[&from, "--fail-if-not-cached"], &prepare).ok();
    for told in [none.told(), ran.told()] {
        assert!(!told.contains("hidden"), "{told}");
    }
}

#[test]
fn a_fresh_machine_builds_from_the_cache_in_a_bucket() {
    let Some(store) = S3::start() else { return };
    let place = format!(
        "type=s3,bucket=images,region=us-east-1,endpoint_url=http://{},prefix=ci/,name=app;other",
        store.address
    );
    travels(&place, |command| store.key(command));
    for name in ["app", "other"] {
        let manifest = store.object(&format!("ci/manifests/{name}.rbuild")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        assert!(store.object(&format!("ci/blobs/{layer}")).is_some(), "{layer}");
    }

    // Without a bucket the image is there and the export is an error.
    let bench = Bench::new();
    project(&bench);
    let absent = place.replace("bucket=images", "bucket=absent");
    let ran = bud(&bench, &[&format!("--cache-to={absent}")], |command| store.key(command));
    ran.code(125).fails(&["exporting the cache to s3://absent/ci/manifests/app"]);
    bench.rbuild(["inspect", "app"]).ok();
}

#[test]
fn a_fresh_machine_builds_from_the_cache_in_a_container_of_azure() {
    let cloud = Cloud::start();
    let place = format!(
        "type=azblob,account_url=http://{}/account,account_name=account,container=ci,\
         secret_access_key=aGlkZGVu,name=app",
        cloud.address
    );
    travels(&place, |_| ());
    let names = cloud.names();
    assert!(names.contains(&"account/ci/manifests/app.rbuild".to_owned()), "{names:?}");
    let blob = |name: &&String| name.starts_with("account/ci/blobs/sha256:");
    assert!(names.iter().filter(blob).count() > 2, "{names:?}");
    let parts = cloud.asked().iter().filter(|asked| asked.starts_with("PUT")).count();
    assert!(parts > names.len(), "the large layer came in parts");
}

#[test]
fn a_fresh_machine_builds_from_the_cache_of_github_actions() {
    let cloud = Cloud::start();
    let job = |command: &mut Command| {
        command.env("ACTIONS_RESULTS_URL", format!("http://{}/", cloud.address));
        command.env("ACTIONS_RUNTIME_TOKEN", "job");
    };
    cloud.busy(2);
    travels("type=gha,scope=app", job);
    let names = cloud.names();
    let newest = "signed/rbuild-index-1-app_1".to_owned();
    assert!(names.contains(&newest), "{names:?}");

    let bench = Bench::new();
    project(&bench);
    let expired = |command: &mut Command| {
        job(command);
        command.env("ACTIONS_RUNTIME_TOKEN", "hidden");
    };
    let ran = bud(&bench, &["--cache-to=type=gha"], expired).code(125);
    ran.fails(&["GitHub's cache", "401", "ACTIONS_RUNTIME_TOKEN"]);
    bud(&bench, &["--cache-to=type=gha"], |_| ()).code(125).fails(&["ACTIONS_RESULTS_URL"]);
}

/// What BuildKit lists: one layer and two records, the second made from the first.
fn list() -> Vec<u8> {
    let (layer, first, second) =
        (Digest::of(b"layer"), Digest::of(b"first"), Digest::of(b"second"));
    let annotations = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "diffID": layer.to_string(), "size": 5, "createdAt": "2026-01-01T00:00:00Z" });
    let list = json!({
        "layers": [{ "blob": layer.to_string(), "parent": -1, "annotations": annotations }],
        "records": [
            { "digest": first.to_string(),
              "layers": [{ "layer": 0, "createdAt": "2026-01-01T00:00:00Z" }] },
            { "digest": second.to_string(), "inputs": [[{ "link": 0 }]] }
        ]
    });
    list.to_string().into_bytes()
}

/// A layout with BuildKit's cache as an index, or as an image.
fn buildkit(bench: &Bench, name: &str, image: bool) -> String {
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        bench.write(&format!("{name}/blobs/sha256/{}", digest.hex()), bytes);
        json!({ "digest": digest.to_string(), "size": bytes.len() })
    };
    let mut config = put(&list());
    config["mediaType"] = "application/vnd.buildkit.cacheconfig.v0".into();
    let mut layer = put(b"layer");
    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    let (media_type, root) = if image {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        (
            kind,
            json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] }),
        )
    } else {
        let kind = "application/vnd.oci.image.index.v1+json";
        (kind, json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [layer, config] }))
    };
    let mut root = put(root.to_string().as_bytes());
    root["mediaType"] = media_type.into();
    root["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [root] });
    bench.write(&format!("{name}/index.json"), index.to_string());
    bench.write(&format!("{name}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    format!("type=local,src={name}")
}

#[test]
fn a_cache_of_buildkit_is_named_as_such_and_not_used() {
    let bench = Bench::new();
    project(&bench);
    let words =
        ["is not used", "BuildKit wrote it (layers: 1, records: 2)", "own definitions of steps"];
    let check = |from: &str, prepare: &dyn Fn(&mut Command)| {
        bench.write("context/small", from);
        let from = format!("--cache-from={from}");
        let ran = bud(&bench, &[&from], prepare).ok();
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.told());
        }
    };
    check(&buildkit(&bench, "as-index", false), &|_| ());
    check(&buildkit(&bench, "as-image", true), &|_| ());
    let Some(store) = S3::start() else { return };
    store.put("manifests/buildkit", &list());
    let place =
        format!("type=s3,bucket=images,region=us-east-1,endpoint_url=http://{}", store.address);
    check(&place, &|command| store.key(command));
    let to = format!("--cache-to={place}");
    bud(&bench, &[&to], |command| store.key(command)).ok();
    assert_eq!(store.object("manifests/buildkit"), Some(list()), "BuildKit's stays");
}
