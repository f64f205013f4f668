//! Images made out of others without a daemon: `append`, `mutate`, `flatten`, `rebase`, `export`,
//! `index`, and what looks at them: `diff`, `validate`.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use e2e::image::{Layer, layout};
use e2e::peer;
use e2e::scene::Scene;
use image::{Config, History};
use registry_server::{Options, Registry};
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Names in an archive and the contents of its files.
fn entries(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).unwrap());
    let one = |entry: std::io::Result<tar::Entry<'_, std::fs::File>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, String::from_utf8_lossy(&content).into_owned())
    };
    archive.entries().unwrap().map(one).collect()
}

fn steps(config: &mut Config, steps: &[&str]) {
    let step = |text: &&str| History { created_by: Some((*text).to_owned()), ..History::default() };
    config.history = steps.iter().map(step).collect();
}

/// Layouts `base1`, `base2` and `app` (on `base1`).
fn stack(scene: &Scene, app: &[Vec<u8>]) {
    let path = |name: &str| scene.bench.path().join(name);
    let base = |name: &str, version: &str| {
        let layer = Layer::new()
            .dir("etc", 0o755)
            .file("etc/conf", 0o644, version.as_bytes())
            .file("etc/same", 0o644, b"same")
            .file("lib/libc", 0o755, version.as_bytes())
            .finish();
        layout(&path(name), name, std::slice::from_ref(&layer), |config| {
            config.config.env = vec!["PATH=/bin".to_owned(), format!("BASE={version}")];
            steps(config, &[&format!("ADD base {version}")]);
        });
        layer
    };
    let first = base("base1", "1");
    base("base2", "2");
    let mut layers = vec![first];
    layers.extend(app.to_vec());
    layout(&path("app"), "app", &layers, |config| {
        config.config.env = vec!["PATH=/bin".to_owned(), "BASE=1".to_owned(), "APP=yes".to_owned()];
        config.config.cmd = Some(vec!["/app/run".to_owned()]);
        let mut told = vec!["ADD base 1".to_owned()];
        told.extend((0..app.len()).map(|at| format!("COPY app {at}")));
        steps(config, &told.iter().map(String::as_str).collect::<Vec<_>>());
    });
}

#[test]
fn export_append_and_flatten() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let place = |name: &str| format!("docker://{}/team/{name}:1", registry.address());
    let lower = Layer::new()
        .file("etc/gone", 0o644, b"old")
        .file("etc/stays", 0o644, b"stays")
        .file("whole/one", 0o644, b"1")
        .file("owner", 0o644, b"shared")
        .raw(tar::EntryType::Link, "other", "owner", b"")
        .finish();
    let upper = Layer::new()
        .file("etc/.wh.gone", 0o644, b"")
        .file("whole/.wh..wh..opq", 0o644, b"")
        .file("whole/two", 0o644, b"2")
        .file(".wh.owner", 0o644, b"")
        .finish();
    layout(&scene.bench.path().join("two"), "app", &[lower], |_| {});
    scene.bench.write("upper.tar", &upper);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, &upper).unwrap();
    scene.bench.write("upper.tar.gz", zipped.finish().unwrap());
    let append = |file: &str, to: &str| {
        let ran = scene.rcopy(&["append", "-b", "oci:two:app", "-f", file, "-t", to]).ok();
        assert!(!ran.told().contains("FAILED"), "{}", ran.told());
    };
    append("upper.tar.gz", &place("gz"));
    append("upper.tar", "oci:plain:app");
    append("upper.tar", "oci:again:app");
    assert_eq!(scene.digest("oci:plain:app"), scene.digest("oci:again:app"));
    for made in [place("gz"), "oci:plain:app".to_owned()] {
        scene.rcopy(&["validate", &made]).ok();
        scene.rcopy(&["export", &made, "out.tar"]).ok();
        let out = entries(&scene.bench.path().join("out.tar"));
        let names: Vec<_> = out.keys().map(String::as_str).collect();
        assert_eq!(names, ["etc/", "etc/stays", "other", "whole/", "whole/two"]);
        // Its first name is gone, the contents are not.
        assert_eq!(out["other"], "shared");
    }
    let direct = scene.rcopy(&["export", "oci:plain:app"]).ok();
    let file = std::fs::read(scene.bench.path().join("out.tar")).unwrap();
    assert_eq!(direct.stdout.as_bytes(), file, "standard output is the same");
    scene.rcopy(&["flatten", "oci:plain:app", "-t", &place("flat")]).ok();
    let seen = parsed(&scene.rcopy(&["inspect", &place("flat")]).ok().stdout);
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 1, "{seen:#}");
    scene.rcopy(&["export", &place("flat"), "flat.tar"]).ok();
    assert_eq!(std::fs::read(scene.bench.path().join("flat.tar")).unwrap(), file);
    // Without a destination: beside the original, by its digest.
    let told = scene.rcopy(&["flatten", &place("gz")]).ok();
    scene.rcopy(&["validate", told.text()]).ok();
}

#[test]
fn what_is_no_layer_is_not_appended() {
    let scene = Scene::new();
    let good = Layer::new().file("a", 0o644, b"a").finish();
    scene.bench.write("good.tar", &good);
    scene.bench.write("short.tar", &good[..700]);
    scene.bench.write("noise.tar", e2e::kill::Chance::new(1).bytes(5000));
    let escape = Layer::new().raw(tar::EntryType::Regular, "../x", "", b"x").finish();
    scene.bench.write("escape.tar", escape);
    let to = ["-t", "oci:out:app"];
    for bad in ["short.tar", "noise.tar", "escape.tar", "missing.tar"] {
        let line = ["append", "-b", "oci:image:app", "-f", "good.tar", "-f", bad];
        scene.rcopy(&[&line[..], &to].concat()).code(1).fails(&[bad]);
        assert!(!scene.bench.path().join("out/index.json").exists());
    }
    scene.rcopy(&["append", "-f", "good.tar", "-t", "localhost/x:1", "-o", "x.tar"]).ok();
    scene.rcopy(&["validate", "--tarball", "x.tar"]).ok();
    if peer("skopeo").is_some() {
        scene.skopeo(&["copy", "docker-archive:x.tar", "dir:theirs"]).ok();
    }
}

#[test]
fn mutate_changes_only_what_is_named() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let name = format!("{}/team/app", registry.address());
    scene.copy("oci:image:app", &format!("docker://{name}:1")).ok();
    let before =
        parsed(&scene.rcopy(&["inspect", "--config", &format!("docker://{name}:1")]).ok().stdout);
    scene.bench.write("more.tar", Layer::new().file("more", 0o644, b"more").finish());
    let line = [
        "mutate",
        &format!("{name}:1"),
        "--env=B=2",
        "--env=A=x",
        "--label=k=v",
        "--annotation=n=m",
        "--entrypoint=/bin/sh,-c",
        "--cmd=echo hi",
        "--user=me",
        "--workdir=/w",
        "--exposed-ports=80,53/udp",
        "--stop-signal=SIGINT",
        "--set-platform=linux/arm64",
        "--append=more.tar",
        "--tag",
        &format!("{name}:2"),
    ];
    let told = scene.rcopy(&line).ok();
    assert!(told.text().starts_with(&format!("{name}@sha256:")), "{}", told.told());
    let two = format!("docker://{name}:2");
    let after =
        parsed(&scene.rcopy(&["inspect", "--config", "--override-arch=arm64", &two]).ok().stdout);
    let config = &after["config"];
    assert_eq!(config["Env"], json!(["A=x", "B=2"]));
    assert_eq!(config["Labels"], json!({"k": "v"}));
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c"]));
    assert_eq!(config["Cmd"], json!(["echo hi"]));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("me"), &json!("/w")));
    assert_eq!(config["ExposedPorts"], json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(after["architecture"], "arm64");
    assert_eq!(after["created"], before["created"]);
    let raw = parsed(&scene.rcopy(&["manifest", "get", &two]).ok().stdout);
    assert_eq!(raw["annotations"], json!({"n": "m"}));
    assert_eq!(raw["layers"].as_array().unwrap().len(), 3);
    scene.rcopy(&["validate", &two]).ok();
    if peer("skopeo").is_some() {
        let theirs =
            scene.skopeo(&["inspect", "--tls-verify=false", "--override-arch=arm64", &two]).ok();
        let theirs = parsed(&theirs.stdout);
        let ours = parsed(&scene.rcopy(&["inspect", "--override-arch=arm64", &two]).ok().stdout);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for key in keys(&theirs) {
            if key != "RepoTags" {
                assert_eq!(ours[&key], theirs[&key], "{key}");
            }
        }
    }
    // Nothing changed is the same image; by digest into another repository.
    let same = scene.rcopy(&["mutate", &format!("{name}:1")]).ok();
    assert!(same.text().ends_with(&scene.digest("oci:image:app")), "{}", same.told());
    let other = format!("{}/other/app", registry.address());
    let moved =
        scene.rcopy(&["mutate", &format!("{name}:1"), "--label=a=b", "--repo", &other]).ok();
    scene.rcopy(&["validate", "--fast", moved.text()]).ok();
    for (bad, word) in [
        ("--env=A", "--env"),
        ("--label=x", "--label"),
        ("--exposed-ports=http", "--exposed-ports"),
        ("--set-created=yesterday", "--set-created"),
        ("--set-platform=a/b/c/d", "--set-platform"),
        ("--append=missing.tar", "missing.tar"),
    ] {
        scene.rcopy(&["mutate", &format!("{name}:1"), bad, "-t", "oci:bad:app"]).fails(&[word]);
        assert!(!scene.bench.path().join("bad").exists());
    }
}

#[test]
fn rebase_only_where_that_is_safe() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let place = |name: &str| format!("{}/team/{name}", registry.address());
    let own = Layer::new().dir("etc", 0o755).file("app/run", 0o755, b"run").finish();
    stack(&scene, std::slice::from_ref(&own));
    for name in ["base1", "base2", "app"] {
        scene.copy(&format!("oci:{name}:{name}"), &format!("docker://{}", place(name))).ok();
    }
    let (base1, base2) = (place("base1"), place("base2"));
    let bases = ["--old-base", base1.as_str(), "--new-base", base2.as_str()];
    let rebase = |more: &[&str]| {
        let mut line = vec!["rebase"];
        line.extend(more);
        scene.rcopy(&line)
    };
    let app = place("app");
    let found = rebase(&[&[&app, "--check", "--json"][..], &bases].concat()).ok();
    let found = parsed(&found.stdout);
    assert_eq!((&found["safe"], &found["image"]), (&json!(true), &Value::Null), "{found:#}");
    assert!(!found["assumptions"].as_array().unwrap().is_empty());
    let out = place("rebased");
    rebase(&[&[&app, "--tag", &out][..], &bases].concat()).ok();
    let config = |name: &str| parsed(&scene.rcopy(&["inspect", "--config", name]).ok().stdout);
    let (made, new) = (config(&format!("docker://{out}")), config("oci:base2:base2"));
    let diff_ids = made["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(diff_ids[0], new["rootfs"]["diff_ids"][0]);
    assert_eq!(diff_ids[1], image::Digest::of(&own).to_string());
    assert_eq!(made["config"]["Env"], json!(["PATH=/bin", "BASE=2", "APP=yes"]));
    assert_eq!(made["config"]["Cmd"], json!(["/app/run"]));
    assert_eq!(made["history"].as_array().unwrap().len(), 2);
    assert_eq!(made["history"][0]["created_by"], "ADD base 2");
    scene.rcopy(&["validate", &out]).ok();
    // It names its base now, so the next time no flag has to.
    let manifest = parsed(&scene.rcopy(&["manifest", "get", &out]).ok().stdout);
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.name"], format!("{base2}:latest"));
    scene.copy("oci:base1:base1", &format!("docker://{base2}:latest")).ok();
    let back = place("back");
    rebase(&[&out, "--tag", &back]).ok();
    let lowest = &config(&format!("docker://{back}"))["rootfs"]["diff_ids"][0];
    assert_eq!(*lowest, config("oci:base1:base1")["rootfs"]["diff_ids"][0]);
    scene.copy("oci:base2:base2", &format!("docker://{base2}:latest")).ok();

    // The image changed what the new base has otherwise.
    let unsafe_own = Layer::new()
        .file("etc/conf", 0o644, b"mine")
        .file("etc/same", 0o644, b"mine")
        .file("lib/.wh.libc", 0o644, b"")
        .finish();
    stack(&scene, &[unsafe_own]);
    let bad = place("bad");
    scene.copy("oci:app:app", &format!("docker://{bad}")).ok();
    let out = place("unsafe");
    let refused = rebase(&[&[&bad, "--tag", &out][..], &bases].concat()).code(1);
    refused.fails(&["conflict: /etc/conf", "note: /lib/libc", "--force"]);
    assert!(registry.tag("team/unsafe", "latest").is_none());
    rebase(&[&[&bad, "--tag", &out, "--force"][..], &bases].concat()).ok();
    scene.rcopy(&["validate", &out]).ok();
    let not_its_base = ["--old-base", &base2, "--new-base", &base1];
    rebase(&[&[app.as_str()][..], &not_its_base].concat()).code(1).fails(&["is not its base"]);
    rebase(&[&app]).code(1).fails(&["--old-base"]);
}

#[test]
fn differences_down_to_files() {
    let scene = Scene::new();
    let own = Layer::new()
        .file("etc/conf", 0o600, b"changed")
        .file("lib/.wh.libc", 0o644, b"")
        .symlink("new-link", "etc/conf")
        .finish();
    stack(&scene, &[own]);
    let diff = |more: &[&str]| {
        scene.rcopy(&[&["diff"], more, &["oci:base1:base1", "oci:app:app"]].concat())
    };
    let text = diff(&[]).ok();
    for line in [
        "1 layers are the same",
        "/etc/conf (content, 1 -> 7 bytes, mode 0644 -> 0600)",
        "- 0755 0:0          1 /lib/libc  [layer 0: ADD base 1]",
        "/new-link  [layer 1: COPY app 0]",
        "config config.Env",
        "added: 1 files",
        "removed: 1 files, 1 bytes",
    ] {
        assert!(text.stdout.contains(line), "{line:?}: {}", text.told());
    }
    let seen = parsed(&diff(&["--format=json"]).ok().stdout);
    let files = seen["files"].as_array().unwrap();
    let by_path = |path: &str| files.iter().find(|file| file["path"] == path).unwrap();
    assert_eq!(by_path("/etc/conf")["what"], json!(["content", "mode"]));
    assert_eq!(by_path("/etc/conf")["b"]["step"], "COPY app 0");
    assert_eq!(by_path("/new-link")["b"]["target"], "etc/conf");
    assert_eq!((files.len(), &seen["sharedLayers"]), (3, &json!(1)));
    diff(&["--exit-code"]).code(1);
    let same = ["diff", "--exit-code", "oci:app:app", "oci:app:app"];
    let same = scene.rcopy(&same).ok();
    assert!(!same.stdout.contains("config "), "{}", same.told());
    diff(&["--no-files"]).ok();
    scene.rcopy(&["diff", "oci:app:app", "oci:app:none"]).code(2).fails(&["none"]);
}

#[test]
fn indexes_and_faults_in_images() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let place = |name: &str| format!("{}/team/{name}:1", registry.address());
    scene.rcopy(&["copy", "--all", "oci:index:app", &format!("docker://{}", place("index"))]).ok();
    let list = scene.rcopy(&["index", "list", &place("index")]).ok();
    assert_eq!(list.stdout.lines().count(), 4, "{}", list.told());
    let two = "--platform=linux/arm64,linux/riscv64";
    scene.rcopy(&["index", "filter", &place("index"), two, "-t", &place("two")]).ok();
    let list = |name: &str| parsed(&scene.rcopy(&["index", "list", "--json", name]).ok().stdout);
    assert_eq!(list(&place("two")).as_array().unwrap().len(), 2);
    let amd = ["copy", "--platform=linux/amd64", "oci:index:app", "oci:amd:app"];
    scene.rcopy(&amd).ok();
    let append = ["index", "append", &place("two"), "-m", "oci:amd:app"];
    scene.rcopy(&[&append[..], &["-t", &place("three")]].concat()).ok();
    let three = list(&place("three"));
    let platforms: Vec<_> =
        three.as_array().unwrap().iter().map(|m| m["platform"]["architecture"].clone()).collect();
    assert_eq!(platforms, ["arm64", "riscv64", "amd64"]);
    scene.rcopy(&["index", "append", "-m", "oci:amd:app", "-t", "oci:made:app"]).ok();
    for good in [place("three"), "oci:made:app".to_owned(), "oci:image:app".to_owned()] {
        let seen = scene.rcopy(&["validate", &good]).ok();
        assert!(seen.stdout.contains("PASS"), "{}", seen.told());
    }
    scene.rcopy(&["index", "list", "oci:image:app"]).code(1).fails(&["no index"]);

    // One bit of a layer, a diffID, a config that is gone.
    let directory = scene.bench.path().join("image");
    let manifest = parsed(&scene.rcopy(&["manifest", "get", "oci:image:app"]).ok().stdout);
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let file = directory.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let seen = scene.rcopy(&["validate", "--json", "oci:image:app"]).code(1);
    let seen = parsed(&seen.stdout);
    let problem = seen["parts"][0]["problems"][0].as_str().unwrap();
    assert!(problem.starts_with("layer 0") && problem.contains("does not match"), "{problem}");
    scene.rcopy(&["validate", "--fast", "oci:image:app"]).ok();
    let layer = Layer::new().file("x", 0o644, b"x").finish();
    layout(&scene.bench.path().join("lying"), "app", &[layer], |config| {
        config.rootfs.diff_ids[0] = image::Digest::of(b"else");
    });
    let lying = scene.rcopy(&["validate", "oci:lying:app"]).code(1);
    assert!(lying.stdout.contains("FAIL"), "{}", lying.told());
    scene.rcopy(&["export", "oci:lying:app", "lying.tar"]).code(1).fails(&["does not match"]);
    assert!(!scene.bench.path().join("lying.tar").exists());
}

#[test]
fn an_index_is_changed_with_all_its_images() {
    let scene = Scene::new();
    let index = |name: &str| parsed(&scene.rcopy(&["manifest", "get", name]).ok().stdout);
    let platforms = |index: &Value| -> Vec<Value> {
        let entries = index["manifests"].as_array().unwrap();
        entries.iter().map(|entry| entry["platform"].clone()).collect()
    };
    // What says something about an image as it was cannot go along.
    let mut attested = index("oci:index:app");
    let (before, mut about) = (platforms(&attested), attested["manifests"][0].clone());
    about["annotations"] = json!({ "vnd.docker.reference.digest": about["digest"] });
    about["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attested["manifests"].as_array_mut().unwrap().push(about);
    let whole = attested.to_string();
    scene.bench.write("attested.json", &whole);
    let registry = Registry::start(Options::default()).unwrap();
    let place = |tag: &str| format!("{}/team/index:{tag}", registry.address());
    scene.rcopy(&["copy", "--all", "oci:index:app", &format!("docker://{}", place("1"))]).ok();
    let attested = place("attested");
    scene.rcopy(&["manifest", "put", &attested, "attested.json"]).ok();
    // Nothing would be left of what is only about images.
    let mut only: Value = serde_json::from_str(&whole).unwrap();
    only["manifests"].as_array_mut().unwrap().retain(|entry| entry.get("annotations").is_some());
    scene.bench.write("only.json", only.to_string());
    scene.rcopy(&["manifest", "put", &place("only"), "only.json"]).ok();
    let line = ["mutate", &place("only"), "--label=team=blue", "-t", "oci:none:app"];
    scene.rcopy(&line).fails(&["an index without images"]);
    assert!(!scene.bench.path().join("none").exists());
    let label = "--label=team=blue";
    let line = ["mutate", &attested, label, "-t", "oci:mutated:app"];
    let ran = scene.rcopy(&line).ok();
    assert!(ran.stderr.contains("1 manifests of the index are about"), "{}", ran.told());
    scene.rcopy(&["flatten", "oci:mutated:app", "-t", &place("flat")]).ok();
    let flat = index(&place("flat"));
    assert_eq!(platforms(&flat), before);
    assert!(before.len() > 2, "{before:?}");
    for entry in flat["manifests"].as_array().unwrap() {
        let digest = entry["digest"].as_str().unwrap();
        let one = format!("docker://{}/team/index@{digest}", registry.address());
        let config = parsed(&scene.rcopy(&["inspect", "--config", &one]).ok().stdout);
        assert_eq!(config["config"]["Labels"]["team"], "blue", "{config:#}");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    }
    scene.rcopy(&["validate", &place("flat")]).ok();

    // A platform chooses one image, and so does a place that holds no more.
    let one = ["mutate", "oci:index:app", label, "--platform=linux/arm64", "-t", "oci:one:app"];
    scene.rcopy(&one).ok();
    assert!(index("oci:one:app")["layers"].is_array());
    scene.rcopy(&["mutate", "oci:index:app", label, "--output", "one.tar", "-t", "app"]).ok();
    let wrong = ["mutate", "oci:index:app", "--set-platform=linux/arm64", "-t", "oci:wrong:app"];
    scene.rcopy(&wrong).code(1).fails(&["--set-platform", "--platform"]);

    stack(&scene, &[Layer::new().file("app/run", 0o755, b"run").finish()]);
    scene.rcopy(&["index", "append", "-m", "oci:app:app", "-t", "oci:apps:app"]).ok();
    let bases = ["--old-base=oci:base1:base1", "--new-base=oci:base2:base2"];
    let rebased = place("rebased");
    let line = ["rebase", "oci:apps:app", "-t", &rebased];
    scene.rcopy(&[&line[..], &bases].concat()).ok();
    let entry = &index(&rebased)["manifests"][0];
    let digest = entry["digest"].as_str().unwrap();
    let image = index(&format!("{}/team/index@{digest}", registry.address()));
    assert_eq!(image["layers"][0], index("oci:base2:base2")["layers"][0]);
    assert_eq!(entry["platform"], index("oci:apps:app")["manifests"][0]["platform"]);
}

#[test]
fn a_layer_is_taken_away_from_every_image_of_an_index() {
    let scene = Scene::new();
    let app = |text: &[u8]| Layer::new().file("secret", 0o600, text).finish();
    let top = Layer::new().file("app", 0o755, b"app").finish();
    stack(&scene, &[app(b"wrong"), top]);
    let layers = |place: &str| {
        let told = scene.rcopy(&["inspect", "--config", place]).ok().stdout;
        let config = parsed(&told);
        let steps = config["history"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let steps = steps.map(|step| step["created_by"].as_str().unwrap_or_default().to_owned());
        let count = config["rootfs"]["diff_ids"].as_array().unwrap().len();
        (count, steps.collect::<Vec<_>>())
    };
    let (count, before) = layers("oci:app:app");
    assert_eq!((count, before.len()), (3, 3), "{before:?}");
    scene.rcopy(&["mutate", "oci:app:app", "--drop-layer=1", "-t", "oci:without:app"]).ok();
    assert_eq!(layers("oci:without:app"), (2, vec![before[0].clone(), before[2].clone()]));
    scene.rcopy(&["validate", "oci:without:app"]).ok();
    scene.rcopy(&["export", "oci:without:app", "without.tar"]).ok();
    let files = entries(&scene.bench.path().join("without.tar"));
    assert!(files.contains_key("app") && !files.contains_key("secret"), "{files:?}");

    let index =
        ["index", "append", "-m", "oci:app:app", "-m", "oci:base2:base2", "-t", "oci:both:app"];
    scene.rcopy(&index).ok();
    let registry = Registry::start(Options::default()).unwrap();
    let place = |end: &str| format!("docker://{}/team/none{end}", registry.address());
    scene.rcopy(&["mutate", "oci:both:app", "--drop-layer=0", "-t", &place(":1")]).ok();
    let raw = parsed(&scene.rcopy(&["inspect", "--raw", &place(":1")]).ok().stdout);
    let counts = raw["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| layers(&place(&format!("@{}", entry["digest"].as_str().unwrap()))).0);
    assert_eq!(counts.collect::<Vec<_>>(), [2, 0]);
    let line = ["mutate", "oci:both:app", "--drop-layer=1", "-t", "oci:wrong:app"];
    scene.rcopy(&line).fails(&["--drop-layer 1: the image has no such layer", "it has 1"]);
}

#[test]
fn files_go_out_of_every_image_of_an_index_and_times_are_clamped() {
    let scene = Scene::new();
    let layer = |arch: &str| {
        Layer::new()
            .dir("etc", 0o755)
            .file("etc/secret", 0o600, b"s")
            .file("etc/kept", 0o644, arch.as_bytes())
            .finish()
    };
    for arch in ["amd64", "arm64"] {
        layout(&scene.bench.path().join(arch), "app", &[layer(arch)], |config| {
            config.architecture = arch.to_owned();
            config.created = Some("2030-01-01T00:00:00Z".to_owned());
            steps(config, &["COPY all"]);
            config.history[0].created = Some("2030-01-01T00:00:00Z".to_owned());
        });
    }
    let append = ["index", "append", "-m", "oci:amd64:app", "-m", "oci:arm64:app", "-t"];
    scene.rcopy(&[&append[..], &["oci:both:app"]].concat()).ok();
    let change = ["mutate", "oci:both:app", "--strip", "/etc/secret", "--timestamp", "0", "-t"];
    let made = scene.rcopy(&[&change[..], &["oci:less:app"]].concat()).ok().stdout;
    assert_eq!(scene.rcopy(&[&change[..], &["oci:again:app"]].concat()).ok().stdout, made);
    for arch in ["amd64", "arm64"] {
        let platform = format!("--platform=linux/{arch}");
        let get = |file: &str| scene.rcopy(&["get-file", &platform, "oci:less:app", file]);
        get("/etc/secret").code(1);
        assert_eq!(get("/etc/kept").ok().text(), arch);
        let config = parsed(&scene.rcopy(&["config", &platform, "oci:less:app"]).ok().stdout);
        assert_eq!(config["created"], "1970-01-01T00:00:00Z");
        assert_eq!(config["history"][0]["created"], "1970-01-01T00:00:00Z");
    }
    scene.rcopy(&["validate", "oci:less:app"]).ok();
    scene.rcopy(&["mutate", "oci:both:app", "--timestamp", "soon", "-t", "oci:x:y"]).code(1);
    // An entry goes with what is about it.
    let remove =
        ["index", "remove", "oci:both:app", "--platform", "linux/arm64", "-t", "oci:one:app"];
    scene.rcopy(&remove).ok();
    let left = parsed(&scene.rcopy(&["index", "list", "--json", "oci:one:app"]).ok().stdout);
    assert_eq!(left.as_array().unwrap().len(), 1);
    let none = ["index", "remove", "oci:one:app", "--platform", "linux/arm64", "-t", "oci:x:y"];
    scene.rcopy(&none).code(2).fails(&["no entry for linux/arm64"]);
}
