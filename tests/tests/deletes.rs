//! What is deleted, and what is not.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::registry::DockerRegistry;
use e2e::scene::Scene;
use e2e::terminal::on_terminal;
use registry_server::{Effect, Fault, Options, Registry};

#[test]
fn a_tag_goes_with_its_manifest_unless_only_the_tag_is_meant() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let name = |rest: &str| format!("docker://{}/app{rest}", registry.address());
    let push = |tag: &str| drop(scene.copy("oci:image:app", &name(tag)).ok());
    [":1", ":2", ":3"].into_iter().for_each(push);
    let digest = scene.digest(&name(":1"));

    // One tag; the image stays.
    scene.rcopy(&["delete", "--tag-only", &name(":3")]).ok();
    assert_eq!(registry.tag("app", "3"), None);
    assert_eq!(scene.digest(&name(":2")), digest);
    // A digest is no tag: nothing is deleted.
    let refused = scene.rcopy(&["delete", "--tag-only", &name(&format!("@{digest}"))]);
    refused.code(1).fails(&["--tag-only", "digest"]);
    assert_eq!(scene.digest(&name(":1")), digest);
    // On a terminal there is a prompt.
    let ask = |typed: &str| on_terminal(&scene.bench, "rcopy", &["delete", &name(":1")], typed);
    let asked = ask("n\n");
    assert!(asked.stdout.contains("[y/N]"), "{}", asked.told());
    assert_eq!(scene.digest(&name(":1")), digest);
    // The manifest: every tag of it, and that is said.
    let deleted = scene.rcopy(&["delete", &name(":1")]).ok();
    assert!(deleted.stderr.contains(&digest), "{}", deleted.told());
    assert!(deleted.stderr.contains("every tag of it"), "{}", deleted.told());
    assert_eq!((registry.tag("app", "1"), registry.tag("app", "2")), (None, None));
    push(":1");
    ask("y\n").ok();
    assert_eq!(registry.tag("app", "1"), None);
}

#[test]
fn a_redirect_that_leads_nowhere_deletes_nothing() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let name = format!("docker://{}/app:1", registry.address());
    scene.copy("oci:image:app", &name).ok();
    for status in [300, 302, 304] {
        registry.heal();
        registry.fault(Fault::always("DELETE", "*", Effect::status(status)));
        let failed = scene.rcopy(&["delete", &name]);
        failed.code(1).fails(&[&status.to_string()]);
    }
    assert!(registry.tag("app", "1").is_some());
}

#[test]
fn an_archive_replaces_an_archive_and_no_other_file() {
    let scene = Scene::new();
    for form in ["docker-archive", "oci-archive"] {
        let to = |file: &str| format!("{form}:{file}:app:1");
        scene.bench.write("letter.txt", "dear all");
        scene.copy("oci:image:app", &to("letter.txt")).code(1).fails(&["letter.txt", "replaced"]);
        let letter = std::fs::read_to_string(scene.bench.path().join("letter.txt")).unwrap();
        assert_eq!(letter, "dear all");
        let mut other = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        other.append_data(&mut header, "notes", &b"x"[..]).unwrap();
        scene.bench.write("backup.tar", other.into_inner().unwrap());
        scene.copy("oci:image:app", &to("backup.tar")).code(1).fails(&["backup.tar", "replaced"]);
        scene.bench.write("empty.tar", "");
        for file in ["empty.tar", "empty.tar", "new.tar"] {
            scene.copy("oci:image:app", &to(file)).ok();
        }
    }
}

#[test]
fn a_mirror_keeps_what_is_attached_on_a_registry_without_referrers() {
    let Some(target) = DockerRegistry::start() else { return };
    let scene = Scene::new();
    let source = Registry::start(Options::default()).unwrap();
    let at = |name: &str| format!("{}/{name}", source.address());
    for tag in ["1", "2", "3"] {
        scene.copy("oci:image:app", &format!("docker://{}", at(&format!("team/app:{tag}")))).ok();
    }
    scene.bench.write("note", "n\n");
    scene.rcopy(&["mutate", &at("team/app:2"), "-l", "a=b", "-t", &at("team/app:2")]).ok();
    for tag in ["1", "2"] {
        let attach = ["artifact", "attach", "--artifact-type", "text/x"];
        let name = at(&format!("team/app:{tag}"));
        scene.rcopy(&[&attach[..], &[&name, "note"]].concat()).ok();
    }
    let (from, to) = (at("team/app"), target.name("m"));
    let sync = ["sync", "--src", "docker", "--dest", "docker", "--delete"];
    let sync = |more: &[&str]| scene.rcopy(&[&sync[..], more, &[&from, &to]].concat());
    let attached =
        |tag: &str| scene.rcopy(&["tree", &target.name(&format!("m/app:{tag}"))]).ok().stdout;
    for _ in 0..2 {
        sync(&[]).ok();
        assert!(attached("1").contains("text/x") && attached("2").contains("text/x"));
    }
    // What is attached goes with its image, and only with that.
    scene.rcopy(&["delete", "--tag-only", &at("team/app:2")]).ok();
    sync(&["--delete-limit", "50"]).ok();
    let left = scene.rcopy(&["ls", &target.name("m/app")]).ok().stdout;
    assert_eq!(left.lines().filter(|tag| tag.starts_with("sha256-")).count(), 1, "{left}");
    assert!(attached("1").contains("text/x"));
}
