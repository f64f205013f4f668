//! Collections while clients push and delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use registry_server::{Admin, Limits, Pattern, Retention};

use super::*;

fn options(directory: &Path, grace: u64) -> Options {
    let limits = Limits { grace: Duration::from_secs(grace), ..Limits::default() };
    let retention = vec![Retention {
        repositories: vec![Pattern::new("tidy/**").unwrap()],
        delete_untagged: true,
        ..Retention::default()
    }];
    Options { limits, retention, ..in_directory(directory) }
}

#[tokio::test]
async fn what_nothing_needs_goes_and_the_rest_stays() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::start(options(home.path(), 3600)).unwrap();
    let http = Http::of(&registry);
    let (kept, gone, loose) = (image_of(&[b"kept"]), image_of(&[b"gone"]), image_of(&[]));
    let mut signature = image_of(&[b"signature"]);
    signature["subject"] = json!({
        "mediaType": kept["mediaType"], "digest": digest_of(&kept), "size": 1,
    });
    for name in ["tidy/a", "b"] {
        for blob in [CONFIG, b"kept", b"gone", b"signature"] {
            assert_eq!(http.blob(name, blob).await, 201);
        }
        for (tag, image) in [("kept", &kept), ("gone", &gone)] {
            assert_eq!(http.manifest(name, tag, image).await.status(), 201);
        }
        for image in [&loose, &signature] {
            let digest = digest_of(image).to_string();
            assert_eq!(http.manifest(name, &digest, image).await.status(), 201);
        }
    }
    assert_eq!(http.blob("b", b"never used").await, 201);
    for name in ["tidy/a", "b"] {
        let path = format!("/v2/{name}/manifests/{}", digest_of(&gone));
        assert_eq!(http.send("DELETE", &path, &[], "").await.status(), 202);
    }
    // With a grace, only what was deleted goes: somebody may be about to use the rest.
    let careful = Admin::open(options(home.path(), 3600)).unwrap();
    assert_eq!(careful.garbage().await.unwrap().content, [digest_of(&gone)]);
    assert_eq!(careful.collect().await.unwrap().unwrap().erased, 1);
    let admin = Admin::open(options(home.path(), 0)).unwrap();
    let garbage = admin.garbage().await.unwrap();
    assert!(garbage.content.contains(&Digest::of(b"never used")));
    assert_eq!(garbage.manifests, [("tidy/a".to_owned(), digest_of(&loose))]);
    let done = admin.collect().await.unwrap().unwrap();
    // The deleted image's layer, and the blob of no manifest. The loose manifest is in `b`, too.
    assert_eq!((done.erased, done.delisted, done.spared), (2, 1, 0));
    assert_eq!(admin.collect().await.unwrap().unwrap().erased, 0);
    for name in ["tidy/a", "b"] {
        for (blob, status) in [(&b"kept"[..], 200), (b"gone", 404), (b"signature", 200)] {
            let path = format!("/v2/{name}/blobs/{}", Digest::of(blob));
            assert_eq!(http.get(&path).await.status(), status, "{name} {blob:?}");
        }
        let loose = format!("/v2/{name}/manifests/{}", digest_of(&loose));
        let expected = if name == "b" { 200 } else { 404 };
        assert_eq!(http.get(&loose).await.status(), expected);
        let attached = format!("/v2/{name}/referrers/{}", digest_of(&kept));
        let attached: Value = parsed(http.get(&attached).await).await;
        assert_eq!(attached["manifests"].as_array().unwrap().len(), 1);
    }
    let scrubbed = admin.scrub(false).await.unwrap();
    assert!(scrubbed.broken.is_empty() && scrubbed.missing.is_empty());
}

/// Pushes an image as a client that checks first; `None` if it was asked to retry.
async fn push(http: &Http, name: &str, tag: &str, layers: &[&[u8]]) -> Option<Digest> {
    for blob in layers.iter().copied().chain([CONFIG]) {
        let path = format!("/v2/{name}/blobs/{}", Digest::of(blob));
        if http.send("HEAD", &path, &[], "").await.status() != 200
            && http.blob(name, blob).await != 201
        {
            return None;
        }
    }
    let image = image_of(layers);
    let put = http.manifest(name, tag, &image).await;
    let status = put.status().as_u16();
    assert!(matches!(status, 201 | 404 | 503), "{status}");
    (status == 201).then(|| digest_of(&image))
}

/// Whether all of a tagged image is there.
async fn whole(http: &Http, name: &str, tag: &str) -> bool {
    let manifest = http.get(&format!("/v2/{name}/manifests/{tag}")).await;
    if manifest.status() != 200 {
        return false;
    }
    let manifest: Value = parsed(manifest).await;
    let layers = manifest["layers"].as_array().unwrap();
    for part in layers.iter().chain([&manifest["config"]]) {
        let digest: Digest = part["digest"].as_str().unwrap().parse().unwrap();
        let got = http.get(&format!("/v2/{name}/blobs/{digest}")).await;
        if got.status() != 200 || Digest::of(&got.bytes().await.unwrap()) != digest {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_deletions_and_two_collectors_at_once() {
    let home = tempfile::tempdir().unwrap();
    // Two servers and two collectors on one directory; what nothing needs goes at once.
    let servers: Vec<_> =
        (0..2).map(|_| Registry::start(options(home.path(), 1)).unwrap()).collect();
    let over = Arc::new(AtomicBool::new(false));
    let collected = Arc::new(AtomicU64::new(0));
    let collectors: Vec<_> = (0..2)
        .map(|_| {
            let (over, collected) = (Arc::clone(&over), Arc::clone(&collected));
            let admin = Admin::open(options(home.path(), 1)).unwrap();
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if let Some(done) = admin.collect().await.unwrap() {
                        collected.fetch_add(done.erased, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    let pushers: Vec<_> = (0..4_usize)
        .map(|me| {
            let http = Http::of(&servers[me % 2]);
            tokio::spawn(async move {
                let mut standing = Vec::new();
                for round in 0..40_usize {
                    // Layers come again and again, in both repositories, after they were deleted.
                    let layers =
                        [format!("layer {}", round % 5), format!("own {me} {}", round % 9)];
                    let layers: Vec<&[u8]> = layers.iter().map(String::as_bytes).collect();
                    let name = if round % 2 == 0 { "a" } else { "tidy/b" };
                    let tag = format!("t{me}-{}", round % 6);
                    let digest = loop {
                        if let Some(digest) = push(&http, name, &tag, &layers).await {
                            break digest;
                        }
                    };
                    standing.retain(|(n, t, _)| (*n, t) != (name, &tag));
                    standing.push((name, tag, digest));
                    if round % 3 > 0 {
                        let path = format!("/v2/{name}/manifests/{digest}");
                        assert_eq!(http.send("DELETE", &path, &[], "").await.status(), 202);
                        standing.retain(|(n, _, d)| (*n, *d) != (name, digest));
                    }
                    for (name, tag, _) in &standing {
                        assert!(whole(&http, name, tag).await, "{name}:{tag} in round {round}");
                    }
                }
                standing
            })
        })
        .collect();
    let mut standing = Vec::new();
    for pusher in pushers {
        standing.extend(pusher.await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    for collector in collectors {
        collector.await.unwrap();
    }
    let http = Http::of(&servers[0]);
    for (name, tag, _) in &standing {
        assert!(whole(&http, name, tag).await, "{name}:{tag}");
    }
    // Now that it is quiet, exactly what is needed is left.
    let admin = Admin::open(options(home.path(), 0)).unwrap();
    collected.fetch_add(admin.collect().await.unwrap().unwrap().erased, Ordering::Relaxed);
    let scrubbed = admin.scrub(false).await.unwrap();
    assert!(scrubbed.broken.is_empty() && scrubbed.missing.is_empty(), "{scrubbed:?}");
    for (name, tag, _) in &standing {
        assert!(whole(&http, name, tag).await, "{name}:{tag}");
    }
    assert!(collected.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn blobs_of_artifacts_stay_and_an_emptied_repository_leaves_the_catalog() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::start(options(home.path(), 3600)).unwrap();
    let http = Http::of(&registry);
    let artifact = json!({
        "mediaType": "application/vnd.cncf.oras.artifact.manifest.v1+json",
        "blobs": [{ "mediaType": "x", "digest": Digest::of(b"part"), "size": 4 }],
    });
    for name in ["kept/a", "gone/b"] {
        assert_eq!(http.blob(name, b"part").await, 201);
        assert_eq!(http.manifest(name, "v1", &artifact).await.status(), 201);
    }
    let catalog = async || parsed(http.get("/v2/_catalog").await).await["repositories"].clone();
    let admin = Admin::open(options(home.path(), 0)).unwrap();
    let done = admin.collect().await.unwrap().unwrap();
    assert_eq!((done.erased, done.emptied), (0, 0));
    assert_eq!(catalog().await, json!(["gone/b", "kept/a"]));
    let path = format!("/v2/gone/b/manifests/{}", digest_of(&artifact));
    assert_eq!(http.send("DELETE", &path, &[], "").await.status(), 202);
    assert_eq!(admin.collect().await.unwrap().unwrap().emptied, 1);
    assert_eq!(catalog().await, json!(["kept/a"]));
    assert_eq!(code(http.get("/v2/gone/b/tags/list").await).await, (404, "NAME_UNKNOWN".into()));
    let part = format!("/v2/kept/a/blobs/{}", Digest::of(b"part"));
    assert_eq!(http.get(&part).await.status(), 200);
    // The next push brings it back, at a server that knew the name before.
    assert_eq!(http.blob("gone/b", b"part").await, 201);
    assert_eq!(http.manifest("gone/b", "v1", &artifact).await.status(), 201);
    assert_eq!(catalog().await, json!(["gone/b", "kept/a"]));
}
