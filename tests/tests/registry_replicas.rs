//! Several servers on one bucket of a real S3-compatible store (moto's server, where installed).
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::process::{Command, Stdio};

use e2e::bucket::S3;
use e2e::served::ServedRegistry;
use e2e::{Bench, peer, run, wire};
use image::Digest;

#[test]
fn clients_read_blobs_from_the_bucket_where_the_server_redirects_them() {
    let Some(store) = S3::start() else { return };
    let bench = Bench::new();
    let server = store.server(&bench, &["--s3-redirect"]);
    let layout = e2e::image::busybox(&bench.path().join("busybox"));
    let from = format!("oci:{}:busybox", layout.display());
    let name = format!("docker://{}", server.name("team/app:1"));
    bench.rcopy(["copy", &from, &name]).ok();

    let manifest = bench.rcopy(["manifest", &name]).ok();
    let manifest: serde_json::Value = serde_json::from_str(&manifest.stdout).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let at = format!("/v2/team/app/blobs/{layer}");
    let get = wire::send(&server.address, "GET", &at, &[("range", "bytes=0-9")], b"");
    assert_eq!((get.status, get.header("docker-content-digest")), (307, layer));
    let url = get.header("location");
    let path = url.strip_prefix(&format!("http://{}", store.address)).expect("the bucket");
    assert!(path.contains("X-Amz-Signature=") && path.contains("X-Amz-Expires=1200"), "{path}");
    let content = wire::send(&store.address, "GET", path, &[], b"");
    assert_eq!(Digest::of(&content.body).to_string(), layer);
    // Questions stay at the server.
    assert_eq!(wire::send(&server.address, "HEAD", &at, &[], b"").status, 200);
    let none = format!("/v2/team/other/blobs/{layer}");
    assert_eq!(wire::send(&server.address, "GET", &none, &[], b"").status, 404);

    bench.rcopy(["copy", &name, "oci:back:1"]).ok();
    if let Some(skopeo) = peer("skopeo") {
        let mut skopeo = Command::new(&skopeo);
        skopeo.args(["--insecure-policy", "copy", "--src-tls-verify=false", &name]);
        run(skopeo.arg(format!("dir:{}", bench.path().join("skopeo").display()))).ok();
    }
}

#[test]
fn three_servers_share_a_bucket_and_one_dies_in_mid_upload() {
    let Some(store) = S3::start() else { return };
    let bench = Bench::new();
    let mut servers: Vec<ServedRegistry> = (0..3).map(|_| store.server(&bench, &[])).collect();
    let layout = e2e::image::busybox(&bench.path().join("busybox"));
    let from = format!("oci:{}:busybox", layout.display());
    let on = |server: &ServedRegistry, name: &str| format!("docker://{}", server.name(name));

    // Pushed to one, read from another, by us and by others.
    bench.rcopy(["copy", &from, &on(&servers[0], "team/app:1")]).ok();
    let digest = bench.rcopy(["digest", &on(&servers[1], "team/app:1")]).ok().text().to_owned();
    if let Some(skopeo) = peer("skopeo") {
        let to = on(&servers[1], "team/skopeo:1");
        run(Command::new(&skopeo).args([
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--preserve-digests",
            &on(&servers[2], "team/app:1"),
            &to,
        ]))
        .ok();
        let got = bench.rcopy(["digest", &on(&servers[0], "team/skopeo:1")]).ok();
        assert_eq!(got.text(), digest);
    }
    bench.rcopy(["copy", &on(&servers[2], "team/app:1"), "oci:back:1"]).ok();

    // One upload through all three; the second dies with a piece half way.
    let blob: Vec<u8> = (0..300_000_u32).map(|n| (n % 253) as u8).collect();
    let begun = wire::send(&servers[0].address, "POST", "/v2/team/app/blobs/uploads/", &[], b"");
    assert_eq!(begun.status, 202);
    let location = begun.header("location").to_owned();
    let sent = wire::send(&servers[0].address, "PATCH", &location, &[], &blob[..100_000]);
    assert_eq!((sent.status, sent.header("range")), (202, "0-99999"));
    let half =
        wire::begin(&servers[1].address, "PATCH", &location, 200_000, &blob[100_000..150_000]);
    servers[1].kill();
    drop(half);
    let known = wire::send(&servers[2].address, "GET", &location, &[], b"");
    assert_eq!((known.status, known.header("range")), (204, "0-99999"));
    let sent = wire::send(&servers[2].address, "PATCH", &location, &[], &blob[100_000..]);
    assert_eq!((sent.status, sent.header("range")), (202, "0-299999"));
    let sum = Digest::of(&blob);
    let put = format!("{location}&digest={sum}");
    assert_eq!(wire::send(&servers[0].address, "PUT", &put, &[], b"").status, 201);
    let at = format!("/v2/team/app/blobs/{sum}");
    assert_eq!(wire::send(&servers[2].address, "GET", &at, &[], b"").body, blob);
    let part = wire::send(&servers[0].address, "GET", &at, &[("range", "bytes=5-9")], b"");
    assert_eq!((part.status, part.body.as_slice()), (206, &blob[5..10]));

    // Others push meanwhile through those that are left, at once.
    let pushes: Vec<_> = (0..4)
        .map(|number| {
            let to = on(&servers[if number % 2 == 0 { 0 } else { 2 }], &format!("many/{number}:1"));
            let mut command = bench.command("rcopy");
            command.args(["copy", &from, &to]).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut push in pushes {
        assert!(push.wait().unwrap().success());
    }
    for number in 0..4 {
        let name = on(&servers[if number % 2 == 0 { 2 } else { 0 }], &format!("many/{number}:1"));
        assert_eq!(bench.rcopy(["digest", &name]).ok().text(), digest);
    }

    // A collection beside the servers takes what nothing needs, and nothing else.
    let endpoint = format!("http://{}", store.address);
    let care = |arguments: &[&str]| {
        let mut command = bench.command("rbuild");
        store.key(&mut command);
        command.arg("registry").args(arguments);
        command.args(["--s3-bucket", "images", "--s3-endpoint", &endpoint, "--s3-prefix", "one"]);
        run(&mut command).ok()
    };
    let planned = care(&["gc", "--dry-run", "--grace", "0s"]);
    assert_eq!(planned.text(), format!("content {sum}"));
    care(&["gc", "--grace", "0s"]);
    assert_eq!(wire::send(&servers[0].address, "GET", &at, &[], b"").status, 404);
    let scrubbed = care(&["scrub"]);
    assert!(scrubbed.text().ends_with("0 broken, 0 manifests with parts missing"));
    bench.rcopy(["copy", &on(&servers[0], "many/3:1"), "oci:again:1"]).ok();
}
