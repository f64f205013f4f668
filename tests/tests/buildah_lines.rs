//! Lines of scripts for buildah, under its name: names, lists, templates and destinations.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use e2e::git::Repositories;
use e2e::{Bench, root, run};
use serde_json::Value;

/// A bench with a working container `c` of nothing but the file `/a`.
fn scratch() -> Bench {
    let bench = Bench::new();
    let file = bench.write("a", "text").display().to_string();
    bench.line("buildah from --name c scratch").ok();
    bench.line(&format!("buildah copy -q c {file} /a")).ok();
    bench
}

#[track_caller]
fn shown(bench: &Bench, image: &str, format: &str) -> String {
    let mut command = bench.tool("buildah");
    run(command.args(["inspect", "-t", "image", "--format", format, image])).ok().text().to_owned()
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The manifest of a layout's only image.
#[track_caller]
fn manifest_of_layout(layout: &Path) -> Value {
    let index = json(&std::fs::read_to_string(layout.join("index.json")).unwrap());
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    json(&std::fs::read_to_string(layout.join("blobs").join(digest)).unwrap())
}

#[test]
fn containers_storage_is_the_store_of_buildah() {
    let bench = scratch();
    bench.line("buildah commit -q c containers-storage:made").ok();
    bench.line("buildah from --name other made").ok();
    bench.line("buildah push -q made containers-storage:pushed:v1").ok();
    bench.line("buildah inspect --type image pushed:v1").ok();
    bench.line("buildah manifest create list containers-storage:made").ok();
    let storage = bench.path().join("theirs").display().to_string();
    let elsewhere = format!("rbuild push made containers-storage:[overlay@{storage}+{storage}]x");
    bench.line(&elsewhere.replace("made", "nothing")).code(125);
}

#[test]
fn scripts_that_ask_for_vfs_run() {
    let bench = scratch();
    bench.line("buildah --storage-driver vfs images -q").ok();
    run(bench.tool("buildah").args(["containers", "-q"]).env("STORAGE_DRIVER", "vfs")).ok();
    bench.line("buildah --storage-driver btrfs images").code(125).fails(&["btrfs"]);
}

#[test]
fn a_list_of_an_absent_image_fails_for_buildah_alone() {
    let bench = scratch();
    bench.line("buildah commit -q c made").ok();
    bench.line("buildah images made").ok();
    bench.line("buildah images absent").code(125).fails(&["absent"]);
    bench.line("docker images absent").ok();
    let list = json(bench.line("buildah images --json made").ok().text());
    assert_eq!(list[0]["history"], list[0]["names"]);
}

#[test]
fn patterns_of_copy_can_be_refused_and_may_match_nothing() {
    if !root() {
        return;
    }
    let bench = scratch();
    bench.write("some/x.txt", "x");
    let pattern = |name: &str| bench.path().join("some").join(name).display().to_string();
    let copy =
        |flag: &str, from: &str| bench.line(&format!("buildah copy -q {flag} c {from} /to/"));
    copy("--allow-wildcard", &pattern("*.txt")).ok();
    let refused = copy("--allow-wildcard=false", &pattern("*.txt")).code(125);
    refused.fails(&["wildcards are not allowed"]);
    copy("--allow-wildcard=false", &pattern("x.txt")).ok();
    copy("--allow-wildcard=true", &pattern("*.none")).code(125).fails(&["*.none"]);
    copy("--allow-empty-wildcard", &pattern("*.none")).ok();
    copy("--allow-empty-wildcard", &pattern("none")).code(125).fails(&["none"]);
}

#[test]
fn a_pattern_of_a_build_must_match_for_buildah() {
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nCOPY a *.none /to/\n");
    bench.write("context/a", "a");
    bench.line("buildah bud -q context").code(125).fails(&["*.none"]);
    bench.line("docker build -q context").ok();
}

#[test]
fn containers_are_named_after_images_and_suffixes() {
    let bench = scratch();
    let nothing = bench.line("buildah from --pull --name quiet scratch").ok();
    assert_eq!(nothing.stderr, "");
    bench.line("buildah commit -q c made").ok();
    assert_eq!(bench.line("buildah from --suffix box made").ok().text(), "made-box");
    assert_eq!(bench.line("buildah from --suffix box made").ok().text(), "made-box-1");
    let id = shown(&bench, "made", "{{.FromImageID}}");
    let named = bench.line(&format!("buildah from --suffix id sha256:{id}")).ok();
    assert_eq!(named.text(), "made-id");
    bench.line("buildah from --suffix a --name b made").code(125);
}

#[test]
fn templates_print_what_go_prints() {
    let bench = scratch();
    bench.line("buildah config --port 80/tcp --volume /v --env A=1 --annotation k=v c").ok();
    bench.line("buildah commit -q --omit-history=false c made").ok();
    for (format, wanted) in [
        ("{{.OCIv1.Config.ExposedPorts}}", "map[80/tcp:{}]"),
        ("{{.Docker.Config.Volumes}}", "map[/v:{}]"),
        ("{{.Docker.Config.Labels}}", "map[]"),
        ("{{json .OCIv1.Config.ExposedPorts}}", "{\"80/tcp\":{}}"),
        ("{{printf \"%q\" .OCIv1.Config.Env}}", "[\"A=1\"]"),
        ("{{len .Docker.RootFS.DiffIDs}} {{.OCIv1.RootFS.Type}}", "1 layers"),
    ] {
        assert_eq!(shown(&bench, "made", format), wanted, "{format}");
    }
    assert!(!shown(&bench, "made", "{{range .History}}{{println .CreatedBy}}{{end}}").is_empty());
    let config = json(&shown(&bench, "made", "{{.Config}}"));
    assert_eq!(config["config"]["ExposedPorts"]["80/tcp"], json("{}"));
    bench.line("buildah inspect registry.example/a/b:c").code(125).fails(&["image not known"]);
    let info = json(bench.line("buildah info").ok().text());
    assert_eq!(info["host"]["os"], "linux");
}

#[test]
fn annotations_are_removed_and_tell_the_time() {
    let bench = scratch();
    bench.line("buildah config --annotation a=1 --annotation b=2 c").ok();
    bench.line("buildah config --unsetannotation a c").ok();
    let created = |flag: &str| {
        bench.line(&format!("buildah commit -q {flag} c oci:made")).ok();
        let manifest = manifest_of_layout(&bench.path().join("made"));
        std::fs::remove_dir_all(bench.path().join("made")).unwrap();
        assert_eq!(manifest["annotations"]["a"], Value::Null);
        assert_eq!(manifest["annotations"]["b"], "2");
        manifest["annotations"]["org.opencontainers.image.created"].clone()
    };
    assert_eq!(created("--timestamp=60"), "1970-01-01T00:01:00Z");
    assert_eq!(created("--created-annotation=false"), Value::Null);
    let unset = created("--unsetannotation=org.opencontainers.image.created");
    assert_eq!(unset, Value::Null);
    bench.write("when", "");
    assert_ne!(created("--reference-time=when"), Value::Null);
}

#[test]
fn a_manifest_list_takes_the_name_of_an_image() {
    let bench = scratch();
    bench.line("buildah commit -q c one").ok();
    bench.line("buildah commit -q c two").ok();
    let entries = |list: &str| {
        let text = bench.line(&format!("buildah manifest inspect {list}")).ok().text().to_owned();
        json(&text)["manifests"].as_array().unwrap().len()
    };
    let id = shown(&bench, "one", "{{.FromImageID}}");
    bench.line("buildah manifest create one").code(125).fails(&["already in use", "--replace"]);
    bench.line("buildah manifest create --amend --replace one").code(125);
    bench.line("buildah manifest create --amend one").ok();
    assert_eq!(entries("one"), 1);
    bench.line("buildah manifest create --replace one").ok();
    assert_eq!(entries("one"), 0);
    bench.line("buildah manifest create --replace two").ok();
    assert_eq!(entries("two"), 0);
    bench.line(&format!("buildah inspect --type image {id}")).ok();
}

#[test]
fn artifacts_of_files_are_added_to_a_manifest_list() {
    let bench = scratch();
    bench.line("buildah commit -q c subject").ok();
    bench.line("buildah manifest create list").ok();
    let file = bench.write("picture", "pixels").display().to_string();
    let add = "buildah manifest add --artifact --artifact-type image/png \
               --artifact-layer-type image/png --artifact-config-type text/none \
               --artifact-subject subject --artifact-annotation k=v list";
    let ran = bench.line(&format!("{add} {file}")).ok();
    let digest = ran.text().rsplit_once(": ").unwrap().1.to_owned();
    bench.line("buildah manifest push -q --all list oci:out").ok();
    let blob = bench.path().join("out/blobs").join(digest.replace(':', "/"));
    let artifact = json(&std::fs::read_to_string(blob).unwrap());
    assert_eq!(artifact["artifactType"], "image/png");
    assert_eq!(artifact["config"]["mediaType"], "text/none");
    assert_eq!(artifact["layers"][0]["mediaType"], "image/png");
    assert_eq!(artifact["layers"][0]["annotations"]["org.opencontainers.image.title"], "picture");
    assert_eq!(artifact["annotations"]["k"], "v");
    assert!(artifact["subject"]["digest"].is_string());
    let layer = artifact["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let content = std::fs::read(bench.path().join("out/blobs").join(layer)).unwrap();
    assert_eq!(content, b"pixels");
    let plain = "buildah manifest add --artifact --artifact-exclude-titles list";
    bench.line(&format!("{plain} {file}")).ok();
    bench.line("buildah manifest add --artifact-type image/png list subject").code(125);
}

#[test]
fn layers_are_plain_in_directories_and_compressed_as_asked() {
    let bench = scratch();
    let kinds = |line: &str, out: &str| -> Vec<String> {
        bench.line(line).ok();
        let path = bench.path().join(out);
        let manifest = match path.join("manifest.json").exists() {
            true => json(&std::fs::read_to_string(path.join("manifest.json")).unwrap()),
            false => manifest_of_layout(&path),
        };
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect()
    };
    let tar = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(kinds("buildah commit -q c dir:plain", "plain"), [tar]);
    let diff_id = {
        bench.line("buildah commit -q c made").ok();
        shown(&bench, "made", "{{index .OCIv1.RootFS.DiffIDs 0}}")
    };
    assert!(bench.path().join("plain").join(diff_id.trim_start_matches("sha256:")).exists());
    assert_eq!(kinds("buildah push -q made dir:pushed", "pushed"), [tar]);
    let gzip = format!("{tar}+gzip");
    assert_eq!(kinds("buildah push -q -f oci made oci:layout", "layout"), [gzip.as_str()]);
    let zstd = format!("{tar}+zstd");
    let asked = "buildah commit -q --compression-format zstd --compression-level 3 c";
    assert_eq!(kinds(&format!("{asked} dir:zstd"), "zstd"), [zstd.as_str()]);
    assert_eq!(kinds(&format!("{asked} oci:zlayout"), "zlayout"), [zstd.as_str()]);
    // Also the layer that the store keeps.
    bench.line(&format!("{asked} zstored")).ok();
    let raw = bench.rcopy(["inspect", "--raw", "store:localhost/zstored"]).ok();
    assert!(raw.stdout.contains("tar+zstd"), "{}", raw.stdout);
    for (flags, words) in [
        ("--compression-format bogus", ["bogus", "gzip, zstd"]),
        ("--compression-format zstd:chunked", ["zstd:chunked", "store"]),
        ("--compression-format gzip --force-compression", ["--force-compression", "store"]),
        ("--compression-format gzip --compression-level 10", ["level 10", "0 to 9"]),
    ] {
        bench.line(&format!("buildah commit -q {flags} c none")).code(125).fails(&words);
    }
    let both = "buildah commit -q -D --compression-format zstd c dir:none";
    bench.line(both).code(125).fails(&["cannot be used together"]);
    let conf = bench.write("containers.conf", "[engine]\ncompression_format=\"zstd\"\n");
    let line = ["commit", "-q", "--disable-compression=false", "c", "dir:conf"];
    run(bench.tool("buildah").args(line).env("CONTAINERS_CONF", conf)).ok();
    let manifest = std::fs::read_to_string(bench.path().join("conf/manifest.json")).unwrap();
    assert!(manifest.contains("tar+zstd"), "{manifest}");
}

#[test]
fn a_date_of_the_image_leaves_the_files_of_buildah_alone() {
    let bench = scratch();
    let diff_id = |flags: &str| {
        bench.line(&format!("buildah commit -q {flags} c dated")).ok();
        shown(&bench, "dated", "{{index .OCIv1.RootFS.DiffIDs 0}} {{.OCIv1.Created}}")
    };
    let plain = diff_id("--omit-history=false");
    let (layer, _) = plain.split_once(' ').unwrap();
    assert_eq!(diff_id("--source-date-epoch 60"), format!("{layer} 1970-01-01T00:01:00Z"));
    let rewritten = diff_id("--source-date-epoch 60 --rewrite-timestamp");
    assert_ne!(rewritten.split_once(' ').unwrap().0, layer);
    assert_eq!(diff_id("--timestamp 60"), rewritten);
}

#[test]
fn a_named_context_goes_before_the_stage_that_reads_it() {
    let bench = Bench::new();
    bench.write("source/file", "of the context");
    let dockerfile = "FROM scratch AS here\nCOPY --from=here file /file\n";
    bench.write("context/Dockerfile", dockerfile);
    for tool in ["buildah", "docker"] {
        let out = format!("out-{tool}");
        let line = format!("{tool} build -q --build-context here=source -o {out} context");
        bench.line(&line).ok();
        let file = std::fs::read_to_string(bench.path().join(out).join("file"));
        assert_eq!(file.unwrap(), "of the context");
    }
    bench.line("buildah build -q context").code(125).fails(&["cannot read itself"]);
}

#[test]
fn a_dockerfile_of_this_machine_builds_a_repository() {
    let bench = Bench::new();
    let Some(served) = Repositories::serve(bench.path()) else { return };
    served.script("repo", "echo inside >inside; commit one");
    let url = format!("{}/repo", served.url);
    let file = bench.write("mine", "FROM scratch\nCOPY inside /inside\n").display().to_string();
    bench.line(&format!("buildah build -q -f {file} -o out {url}")).ok();
    let content = std::fs::read_to_string(bench.path().join("out/inside")).unwrap();
    assert_eq!(content, "inside\n");
}

#[test]
fn pulled_images_have_the_name_of_their_archive_and_the_platform_asked_for() {
    let bench = scratch();
    bench.line("buildah commit -q c made").ok();
    bench.line("buildah push -q made docker-archive:file.tar:inner:v1").ok();
    bench.line("buildah rmi -a").ok();
    bench.line("buildah pull -q docker-archive:file.tar").ok();
    bench.line("buildah images inner:v1").ok();
    bench.line("rbuild pull -q docker-archive:file.tar").ok();
    bench.line("buildah images localhost/file:latest").ok();
    bench.write("other/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    bench.line("buildah build -q --platform linux/arm64 -t oci:other-image:x other").ok();
    bench.line("buildah build -q --platform linux/amd64 -t oci-image other").ok();
    let missing = "buildah pull -q --policy missing --platform linux/arm64 localhost/oci-image";
    bench.line(missing).code(125);
    bench.line("buildah pull -q --policy missing --platform linux/amd64 localhost/oci-image").ok();
}

#[test]
fn copies_of_files_say_nothing_but_their_digest() {
    if !root() {
        return;
    }
    let bench = scratch();
    for line in ["buildah copy c a /b", "buildah add c a /c"] {
        assert_eq!(bench.line(line).ok().stderr, "", "{line}");
    }
}

#[test]
fn comments_of_a_preprocessed_dockerfile_are_no_errors() {
    let bench = Bench::new();
    let common = "# This is a comment\nLABEL made=BY\n";
    bench.write("context/Common", common);
    let dockerfile = "FROM scratch\n#define BY cpp\n#include \"Common\"\n";
    let file = bench.write("context/Containerfile.in", dockerfile).display().to_string();
    bench.line(&format!("buildah build -q -f {file} -t made context")).ok();
    assert_eq!(shown(&bench, "made", "{{.OCIv1.Config.Labels.made}}"), "cpp");
    bench.write("context/Containerfile.in", "FROM scratch\n#error no\n");
    bench.line(&format!("buildah build -q -f {file} context")).code(125).fails(&["no"]);
}

#[test]
fn rules_of_registries_in_the_environment_are_refused_by_name() {
    let bench = Bench::new();
    let layout = e2e::image::busybox(&bench.path().join("layout"));
    let pull = |rules: &str| {
        let mut command = bench.tool("buildah");
        command.env("BUILD_REGISTRY_SOURCES", rules);
        run(command.args(["pull", &format!("oci:{}:busybox", layout.display())]))
    };
    let blocked = r#"{"blockedRegistries": ["registry.example"]}"#;
    pull(blocked).fails(&["BUILD_REGISTRY_SOURCES", "registries.conf", "policy.json"]);
    pull("").ok();
}
