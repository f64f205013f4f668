//! registries.conf as podman and buildah read it: mirrors, other locations, blocked registries,
//! short names; beside Debian's skopeo on the same file where that is possible.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are journeys")]

use std::process::Command;

use e2e::{Bench, peer, root, run};
use registry_server::{Options, Registry};

fn count(registry: &Registry, method: &str) -> usize {
    registry.requests().iter().filter(|request| request.method == method).count()
}

#[test]
fn names_lead_where_the_files_say() {
    let bench = Bench::new();
    let start = || Registry::start(Options::default()).unwrap();
    let (mirror, main, other) = (start(), start(), start());
    let layer = |text: &str| {
        let layer = e2e::image::Layer::new();
        layer.file("which", 0o644, text.as_bytes()).finish()
    };
    let image = mirror.put_image("proxied/team/app", "1", &[&layer("mirror")]).unwrap();
    let moved = other.put_image("real/tool", "1", &[&layer("tool")]).unwrap();
    main.put_image("team/only", "1", &[&layer("only here")]).unwrap();
    let (mirror_at, main_at, other_at) = (mirror.address(), main.address(), other.address());
    let conf = bench.write(
        "home/.config/containers/registries.conf",
        format!(
            r#"
unqualified-search-registries = ["{main_at}", "{other_at}"]
short-name-mode = "enforcing"

[[registry]]
prefix = "images.example/team"
location = "{main_at}/team"
[[registry.mirror]]
location = "{mirror_at}/proxied/team"

[[registry]]
prefix = "tools.example"
location = "{other_at}/real"

[[registry]]
prefix = "*.bad.example"
blocked = true

[[registry]]
prefix = "images.example/team/app:old"
location = "{other_at}/real/tool:1"
insecure = true

[aliases]
"app" = "images.example/team/app"
"#
        ),
    );
    let digest = |place: &str| bench.rcopy(["digest", place]).ok().text().to_owned();
    // The mirror has it; the registry is not asked.
    assert_eq!(digest("docker://images.example/team/app:1"), image.digest.to_string());
    assert_eq!(main.requests().len(), 0);
    // The mirror has it not: one question there, the rest at the registry.
    digest("docker://images.example/team/only:1");
    assert!(count(&mirror, "HEAD") >= 2 && count(&main, "HEAD") == 1);
    assert_eq!(digest("docker://tools.example/tool:1"), moved.digest.to_string());
    // One tag is another image elsewhere.
    assert_eq!(digest("docker://images.example/team/app:old"), moved.digest.to_string());
    if let Some(skopeo) = peer("skopeo") {
        // It looks names up without their tag, whatever its documentation says.
        let mut command = Command::new(&skopeo);
        command.env("HOME", bench.path().join("home")).args(["--registries-conf"]).arg(&conf);
        command.args(["inspect", "--tls-verify=false", "-n", "--format", "{{.Digest}}"]);
        let theirs = run(command.arg("docker://images.example/team/app:1")).ok();
        assert_eq!(theirs.text(), image.digest.to_string());
    }
    let blocked = bench.rcopy(["digest", "docker://x.bad.example/a:1"]);
    blocked.fails(&["x.bad.example/a:1 is blocked by", "registries.conf (registry[2]"]);

    // Drop-ins come later and win; a file that a flag names replaces the user's.
    bench.write(
        "home/.config/containers/registries.conf.d/50.conf",
        "[[registry]]\nprefix = \"tools.example\"\nlocation = \"tools.example\"\nblocked = true\n",
    );
    bench.rcopy(["digest", "docker://tools.example/tool:1"]).fails(&["50.conf (registry[0]"]);
    let empty = bench.write("empty.conf", "colour = 1\n");
    let flagged = ["--registries-conf", empty.to_str().unwrap(), "digest"];
    let told = bench.rcopy([&flagged[..], &[&format!("docker://{main_at}/team/only:1")]].concat());
    assert!(told.ok().stderr.contains("the unknown key colour is ignored"));
    let old = format!("[registries.block]\nregistries = ['{main_at}']\n");
    let old = bench.write("version1.conf", old);
    let flagged = ["--registries-conf", old.to_str().unwrap(), "digest"];
    let told = bench.rcopy([&flagged[..], &[&format!("docker://{main_at}/team/only:1")]].concat());
    told.fails(&["is blocked by", "version1.conf (registries.block"]);
    let broken = bench.write("broken.conf", "\n[[registry]]\nlocation = \"http://x\"\n");
    let mut command = bench.command("rcopy");
    command.env("CONTAINERS_REGISTRIES_CONF", &broken).args(["digest", "docker://a.example/b"]);
    run(&mut command).fails(&["broken.conf: line 2, registry[0].location"]);

    if !root() {
        return;
    }
    // Short names: an alias, a search that is not clear, and one that is tried in order.
    let dockerfile = "FROM app:1\nCOPY Dockerfile /\n";
    bench.build("built", dockerfile, &[]).ok();
    bench.rbuild(["pull", "app:1"]).ok();
    let names = bench.rbuild(["images"]).ok().stdout;
    assert!(names.contains("images.example/team/app"), "{names}");
    // It is found again by its short name.
    bench.rbuild(["tag", "app:1", "localhost/again:1"]).ok();
    let unclear = bench.rbuild(["pull", "team/only:1"]);
    unclear.fails(&["team/only:1", main_at.as_str(), other_at.as_str(), "enforcing"]);
    bench.write(
        "home/.config/containers/registries.conf.d/60.conf",
        format!(
            "short-name-mode = \"permissive\"\nunqualified-search-registries = [\"{other_at}\", \"{main_at}\"]\n"
        ),
    );
    bench.rbuild(["pull", "team/only:1"]).ok();
    bench.build("searched", "FROM team/only:1\nCOPY Dockerfile /\n", &[]).ok();
    bench.rbuild(["pull", "team/nowhere:1"]).fails(&[main_at.as_str(), "404"]);
}
