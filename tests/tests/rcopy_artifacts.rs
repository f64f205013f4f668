//! Artifacts, single blobs and manifests, tags, GPG signatures of files.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::process::Command;

use e2e::registry::DockerRegistry;
use e2e::scene::Scene;
use e2e::watch::guarded;
use e2e::{Ran, peer};
use registry_server::{Options, Registry};
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn artifacts_are_pushed_attached_found_and_copied() {
    let scene = Scene::new();
    let ours = Registry::start(Options::default()).unwrap();
    let debians = DockerRegistry::start();
    let hosts = [Some(ours.address()), debians.as_ref().map(|r| r.address.clone())];
    let noise = e2e::kill::Chance::new(7).bytes(300_000);
    scene.bench.write("model.bin", &noise);
    scene.bench.write("card.md", "# card\n");
    scene.bench.write("sbom.json", "{}");
    let read = |name: &str| std::fs::read(scene.bench.path().join(name)).unwrap();
    let mut places: Vec<String> =
        hosts.into_iter().flatten().map(|h| format!("docker://{h}/team")).collect();
    places.push("oci:layout".to_owned());
    for (at, at_place) in places.iter().enumerate() {
        let place = |name: &str| match at_place.strip_prefix("oci:") {
            Some(layout) => format!("oci:{layout}:{name}"),
            None => format!("{at_place}/{name}:1"),
        };
        let push = ["artifact", "push", "--artifact-type=application/vnd.x.model", "-a=a=b"];
        let files = ["model.bin", "card.md:text/markdown"];
        scene.rcopy(&[&push[..], &[&place("model")], &files].concat()).ok();
        let raw = parsed(&scene.rcopy(&["manifest", "get", &place("model")]).ok().stdout);
        assert_eq!(raw["artifactType"], "application/vnd.x.model");
        assert_eq!(raw["layers"][1]["mediaType"], "text/markdown");
        assert_eq!(raw["annotations"], json!({"a": "b"}));
        let out = format!("out-{at}");
        scene.rcopy(&["artifact", "pull", &place("model"), "-o", &out]).ok();
        assert_eq!(read(&format!("{out}/model.bin")), noise);
        assert_eq!(read(&format!("{out}/card.md")), b"# card\n");
        let again = ["artifact", "pull", &place("model"), "-o", &out];
        scene.rcopy(&again).code(1).fails(&["there already"]);
        scene.rcopy(&[&again[..], &["--overwrite"]].concat()).ok();
        scene.rcopy(&["validate", &place("model")]).ok();

        // An SBOM on an image and a signature on the SBOM.
        scene.copy("oci:image:app", &place("app")).ok();
        let attach = ["artifact", "attach", "--artifact-type=application/spdx+json"];
        let sbom = scene.rcopy(&[&attach[..], &[&place("app"), "sbom.json"]].concat()).ok();
        let digest = sbom.text().rsplit('@').next().unwrap().to_owned();
        let pinned = match at_place.strip_prefix("oci:") {
            Some(layout) => format!("oci:{layout}@{digest}"),
            None => format!("{at_place}/app@{digest}"),
        };
        let sign = ["artifact", "attach", "--artifact-type=application/vnd.x.sig", &pinned];
        scene.rcopy(&[&sign[..], &["card.md"]].concat()).ok();
        scene
            .rcopy(&["artifact", "attach", "--artifact-type=application/vnd.x.note", &place("app")])
            .ok();
        let tree = scene.rcopy(&["tree", &place("app")]).ok();
        for word in ["application/spdx+json", "└── application/vnd.x.sig", "application/vnd.x.note"]
        {
            assert!(tree.stdout.contains(word), "{word}: {}", tree.told());
        }
        let find = |place: &str, more: &[&str]| {
            let line = [&["artifact", "discover", "--format=json"], more, &[place]].concat();
            parsed(&scene.rcopy(&line).ok().stdout)["referrers"].as_array().unwrap().clone()
        };
        assert_eq!(find(&place("app"), &[]).len(), 2);
        let spdx = find(&place("app"), &["--artifact-type=application/spdx+json"]);
        assert_eq!(spdx.len(), 1);
        assert_eq!(spdx[0]["referrers"][0]["artifactType"], "application/vnd.x.sig");
        // All of it travels; of a type only that, with what is attached to it.
        let next = &places[(at + 1) % places.len()];
        let there = |name: &str| match next.strip_prefix("oci:") {
            Some(layout) => format!("oci:{layout}-{at}-{name}:app"),
            None => format!("{next}/copied-{at}/{name}:1"),
        };
        scene.copy(&place("app"), &there("all")).ok();
        let all = find(&there("all"), &[]);
        assert_eq!(all.len(), 2, "{all:#?}");
        let one = "--artifact-type=application/spdx+json";
        scene.rcopy(&["copy", one, &place("app"), &there("one")]).ok();
        let found = find(&there("one"), &[]);
        assert_eq!((found.len(), found[0]["referrers"].as_array().unwrap().len()), (1, 1));
        scene.rcopy(&["copy", "--referrers=false", &place("app"), &there("none")]).ok();
        assert!(find(&there("none"), &[]).is_empty());
    }
    // A stranger's file name never leads out of the directory.
    let evil = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x.y","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"text/plain","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"org.opencontainers.image.title":"../evil"}}]}"#;
    scene.bench.write("evil.json", evil);
    let name = format!("docker://{}/team/evil:1", ours.address());
    let repository = format!("docker://{}/team/evil", ours.address());
    scene.rcopy(&["blob", "put", &repository, "sbom.json"]).ok();
    scene.rcopy(&["manifest", "put", &name, "evil.json"]).ok();
    scene.rcopy(&["artifact", "pull", &name, "-o", "in"]).code(1).fails(&["../evil"]);
    assert!(!scene.bench.path().join("evil").exists() && !scene.bench.path().join("in").exists());
    let nothing = ["artifact", "push", &name, "card.md"];
    scene.rcopy(&nothing).code(1).fails(&["--artifact-type"]);
}

#[test]
fn single_blobs_manifests_and_tags() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let repository = format!("{}/team/app", registry.address());
    let other = format!("{}/other/app", registry.address());
    scene.copy("oci:image:app", &format!("docker://{repository}:1")).ok();
    scene.bench.write("blob", "some bytes");
    let put = parsed(&scene.rcopy(&["blob", "put", &repository, "blob"]).ok().stdout);
    let digest = put["digest"].as_str().unwrap();
    assert_eq!(
        (put["size"].as_u64(), digest),
        (Some(10), image::Digest::of(b"some bytes").to_string().as_str())
    );
    let blob = format!("{repository}@{digest}");
    assert_eq!(scene.rcopy(&["blob", "get", &blob]).ok().stdout, "some bytes");
    scene.rcopy(&["blob", "get", &blob, "-o", "copy"]).ok();
    assert_eq!(std::fs::read(scene.bench.path().join("copy")).unwrap(), b"some bytes");
    assert_eq!(parsed(&scene.rcopy(&["blob", "head", &blob]).ok().stdout)["size"], 10);
    scene.rcopy(&["blob", "copy", &blob, &other]).ok();
    assert_eq!(
        scene.rcopy(&["blob", "get", &format!("{other}@{digest}")]).ok().stdout,
        "some bytes"
    );
    scene.rcopy(&["blob", "delete", &blob]).ok();
    scene.rcopy(&["blob", "head", &blob]).code(2).fails(&["no such blob"]);
    scene.rcopy(&["blob", "get", &blob, "-o", "gone"]).code(2);
    assert!(!scene.bench.path().join("gone").exists());
    scene.rcopy(&["blob", "get", &repository]).code(1).fails(&["digest"]);
    let wrong = format!("--digest={}", image::Digest::of(b"x"));
    scene.rcopy(&["blob", "put", &repository, "blob", &wrong]).code(1).fails(&["does not match"]);

    let raw = scene.rcopy(&["manifest", "get", &format!("{repository}:1")]).ok().stdout;
    scene.bench.write("manifest.json", &raw);
    let is = scene.digest("oci:image:app");
    assert_eq!(scene.rcopy(&["manifest-digest", "manifest.json"]).ok().text(), is);
    scene.rcopy(&["manifest", "put", &format!("{repository}:put"), "manifest.json"]).ok();
    let head =
        parsed(&scene.rcopy(&["manifest", "head", &format!("{repository}:put")]).ok().stdout);
    assert_eq!(head["digest"], is);
    scene.bench.write("bad.json", "{\"schemaVersion\":2}");
    let bad = ["manifest", "put", &format!("{repository}:bad"), "bad.json"];
    scene.rcopy(&bad).code(1).fails(&["--media-type"]);
    scene.rcopy(&["tag", &format!("{repository}:1"), "latest"]).ok();
    assert_eq!(scene.digest(&format!("docker://{repository}:latest")), is);
    scene.rcopy(&["tag", &format!("{repository}:1"), "a/b"]).code(1);
    let tags = |more: &[&str]| {
        let line = [&["list-tags", "--plain"], more, &[repository.as_str()]].concat();
        scene.rcopy(&line).ok().text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(tags(&[]), ["1", "latest", "put"]);
    assert_eq!(tags(&["--include=[0-9]+"]), ["1"]);
    assert_eq!(tags(&["--exclude=l.*", "--limit=1"]), ["1"]);
    scene.rcopy(&["list-tags", "--include=(", &repository]).code(1).fails(&["--include"]);
    let catalog = scene.rcopy(&["catalog", &registry.address()]).ok();
    assert!(catalog.stdout.contains("team/app"), "{}", catalog.told());
    scene.rcopy(&["catalog", &repository]).code(1).fails(&["registry"]);
    scene.rcopy(&["delete", "--tag-only", &format!("docker://{repository}:put")]).ok();
    assert_eq!(tags(&[]), ["1", "latest"]);
    scene.rcopy(&["manifest", "delete", &format!("{repository}@{is}")]).ok();
    scene.rcopy(&["manifest", "head", &format!("{repository}:1")]).code(2).fails(&["404"]);

    scene.rcopy(&["layers", "oci:image:app", "--output=layers"]).ok();
    let files = std::fs::read_dir(scene.bench.path().join("layers")).unwrap();
    for file in files.map(Result::unwrap) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(image::Digest::of(&bytes).hex(), file.file_name().to_str().unwrap());
    }
}

#[test]
fn gpg_signatures_of_files_as_skopeo_makes_and_reads_them() {
    if peer("gpg").is_none() || peer("skopeo").is_none() {
        return;
    }
    let scene = Scene::new();
    let home = tempfile::tempdir_in("/tmp").unwrap();
    let with_home = |mut command: Command, arguments: &[&str]| -> Ran {
        command.current_dir(scene.bench.path()).env("GNUPGHOME", home.path());
        guarded(command.args(arguments))
    };
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(home.path(), permissions).unwrap();
    let make =
        ["--batch", "--passphrase", "", "--quick-gen-key", "me@example.org", "ed25519", "sign"];
    with_home(Command::new("gpg"), &make).ok();
    let keys = with_home(Command::new("gpg"), &["--with-colons", "--list-keys"]).ok();
    let key = keys.stdout.lines().find(|line| line.starts_with("fpr")).unwrap();
    let key = key.split(':').nth(9).unwrap().to_owned();
    let raw = scene.rcopy(&["manifest", "get", "oci:image:app"]).ok().stdout;
    scene.bench.write("manifest.json", raw);
    let name = "registry.example/team/app:1";
    let ours = |arguments: &[&str]| with_home(scene.bench.command("rcopy"), arguments);
    let theirs = |arguments: &[&str]| with_home(Command::new("skopeo"), arguments);
    ours(&["standalone-sign", "manifest.json", name, &key, "-o", "ours.sig"]).ok();
    theirs(&["standalone-sign", "manifest.json", name, &key, "-o", "theirs.sig"]).ok();
    for signature in ["ours.sig", "theirs.sig"] {
        theirs(&["standalone-verify", "manifest.json", name, &key, signature]).ok();
        let good = ours(&["standalone-verify", "manifest.json", name, &key, signature]).ok();
        assert!(good.stdout.contains(&key), "{}", good.told());
        ours(&["standalone-verify", "manifest.json", name, "any", signature]).ok();
        let other = "registry.example/team/other:1";
        ours(&["standalone-verify", "manifest.json", other, &key, signature])
            .code(1)
            .fails(&[name]);
        scene.bench.write("other.json", "{}");
        let wrong = ["standalone-verify", "other.json", name, &key, signature];
        ours(&wrong).code(1).fails(&["sha256:"]);
        let nobody = "0000000000000000000000000000000000000000";
        ours(&["standalone-verify", "manifest.json", name, nobody, signature])
            .code(1)
            .fails(&[&key]);
    }
    scene.bench.write("noise.sig", "noise");
    ours(&["standalone-verify", "manifest.json", name, &key, "noise.sig"]).code(1).fails(&["gpg"]);
    // Signed on the way, into a lookaside that skopeo's policy reads, and into a directory.
    let registry = Registry::start(Options::default()).unwrap();
    let to = format!("docker://{}/team/app:1", registry.address());
    let lookaside = scene.bench.path().join("lookaside");
    let said = format!("default-docker:\n  lookaside: file://{}\n", lookaside.display());
    scene.bench.write("registries.d/all.yaml", said);
    let by = format!("--sign-by={key}");
    ours(&["copy", "--registries.d=registries.d", &by, "oci:image:app", &to]).ok();
    let armored = with_home(Command::new("gpg"), &["--armor", "--export", &key]).ok();
    scene.bench.write("key.asc", &armored.stdout);
    let demand = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": scene.bench.path().join("key.asc")}]);
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {"": demand}}});
    scene.bench.write("policy.json", policy.to_string());
    let checked = |from: &str| {
        let line = [
            "--policy=policy.json",
            "--registries.d=registries.d",
            "copy",
            "--src-tls-verify=false",
        ];
        theirs(&[&line[..], &["--remove-signatures", from, "dir:checked"]].concat())
    };
    checked(&to).ok();
    let unsigned = format!("docker://{}/team/unsigned:1", registry.address());
    scene.rcopy(&["mutate", &to, "--label=a=b", "-t", &unsigned]).ok();
    checked(&unsigned).code(1);
    ours(&["copy", &by, &format!("--sign-identity={name}"), "oci:image:app", "dir:signed"]).ok();
    ours(&["standalone-verify", "signed/manifest.json", name, &key, "signed/signature-1"]).ok();
    ours(&["copy", "--sign-by=0000", "oci:image:app", &to]).code(1).fails(&["gpg"]);
    // The agent of this key ring ends with it.
    let _ = with_home(Command::new("gpgconf"), &["--kill", "all"]);
}
