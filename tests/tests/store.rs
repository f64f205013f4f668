//! The verbs that keep images on this machine: names, looks, archives, room, credentials.

use std::path::Path;

use e2e::image::{Layer, busybox_layer, layout};
use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran, peer, run};
use serde_json::Value;

/// A bench whose store has `localhost/app` of two layers.
fn bench() -> Bench {
    let bench = Bench::new();
    import(&bench, "app", "content of app");
    bench
}

/// Puts an image with this content into the store, as `localhost/<name>`.
fn import(bench: &Bench, name: &str, content: &str) {
    let layers = [busybox_layer(), Layer::new().file("f", 0o644, content.as_bytes()).finish()];
    let layout = layout(&bench.path().join(format!("layout-{name}")), name, &layers, |config| {
        config.config.cmd = Some(vec!["cat".to_owned(), "/f".to_owned()]);
        config.config.labels.insert("made".to_owned(), "by hand".to_owned());
        for (step, by) in config.history.iter_mut().zip(["base", "add the file f"]) {
            step.created_by = Some(by.to_owned());
        }
    });
    let from = format!("oci:{}:{name}", layout.display());
    bench.rcopy(["copy", "--quiet", &from, &format!("store:localhost/{name}")]).ok();
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.told()))
}

/// One field of an image.
fn field(bench: &Bench, name: &str, template: &str) -> String {
    bench.rbuild(["inspect", "--format", template, name]).ok().text().to_owned()
}

fn names(bench: &Bench) -> Vec<String> {
    let listed = bench.rbuild(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut names: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn images_have_names_and_lose_them() {
    let bench = bench();
    bench.rbuild(["tag", "app", "other:v1", "registry.example/team/app"]).ok();
    let (app, other) = ("localhost/app:latest", "localhost/other:v1");
    assert_eq!(names(&bench), [app, other, "registry.example/team/app:latest"]);
    bench.rbuild(["tag", "app", "UPPER"]).fails(&["UPPER"]);
    bench.rbuild(["tag", "missing", "x"]).fails(&["missing", "rbuild pull"]);
    bench.rbuild(["untag", "registry.example/team/app"]).ok();
    bench.rbuild(["untag", "registry.example/team/app"]).fails(&["registry.example/team/app"]);
    let id = field(&bench, "app", "{{.Id}}");
    let short = &id["sha256:".len()..][..12];
    bench.rbuild(["untag", short]).code(125).fails(&["id", "not a name"]);
    bench.rbuild(["rmi", short]).fails(&["several names", app, other, "--force"]);
    // A moved name leaves its image behind, without one.
    import(&bench, "second", "content of second");
    bench.rbuild(["tag", "second", "other:v1"]).ok();
    assert_ne!(field(&bench, "other:v1", "{{.Id}}"), id);
    assert_eq!(bench.rbuild(["rmi", "app"]).ok().stdout.lines().count(), 2, "untagged, deleted");
    bench.rbuild(["inspect", "app"]).fails(&["app"]);
    bench.rbuild(["rmi", "app"]).fails(&["app"]);
    bench.rbuild(["rmi", "--force", "app"]).ok();
    bench.rbuild(["untag", "other:v1", "second"]).ok();
    assert_eq!(names(&bench), ["<none>:<none>"]);
    bench.rbuild(["rmi", "-a"]).ok();
    assert_eq!(names(&bench), Vec::<String>::new());
    bench.rbuild(["rmi"]).code(125);
}

#[test]
fn ids_are_found_by_their_beginning_unless_ambiguous() {
    let bench = bench();
    // Enough images that two ids begin with the same digit.
    for number in 0..16 {
        import(&bench, &format!("n{number}"), &format!("content {number}"));
    }
    let ids = bench.rbuild(["images", "-q", "--no-trunc"]).ok();
    let ids: Vec<&str> = ids.stdout.lines().map(|id| id.strip_prefix("sha256:").unwrap()).collect();
    assert_eq!(ids.len(), 17);
    let twice = ids.iter().find(|a| ids.iter().filter(|b| b[..1] == a[..1]).count() > 1);
    let one = twice.expect("17 ids and 16 digits");
    bench.rbuild(["inspect", &one[..1]]).fails(&[&one[..1], "ambiguous"]);
    for text in [(*one).to_owned(), one[..16].to_owned(), format!("sha256:{one}")] {
        assert_eq!(field(&bench, &text, "{{.Id}}"), format!("sha256:{one}"), "{text}");
    }
    let digest = field(&bench, one, "{{.Digest}}");
    assert_eq!(field(&bench, &digest, "{{.Digest}}"), digest);
    let by = format!("localhost/app@{digest}");
    assert_eq!(field(&bench, &by, "{{.Digest}}"), digest);
}

#[test]
fn lists_and_looks_take_templates_and_json() {
    let bench = bench();
    let table = bench.rbuild(["images"]).ok();
    let first = table.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("REPOSITORY") && first.contains("IMAGE ID"), "{}", table.told());
    let rows = json(&bench.rbuild(["images", "--format", "json"]).ok());
    assert_eq!(rows[0]["Repository"], "localhost/app");
    assert_eq!(rows[0]["Tag"], "latest");
    let wide = bench.rbuild(["images", "--digests", "--no-trunc", "app"]).ok();
    assert!(wide.stdout.contains(rows[0]["Digest"].as_str().unwrap()), "{}", wide.told());
    assert_eq!(bench.rbuild(["images", "-q", "no-such"]).ok().stdout, "");

    let document = &json(&bench.rbuild(["inspect", "app"]).ok())[0];
    assert_eq!(document["RepoTags"][0], "localhost/app:latest");
    assert_eq!(document["Architecture"], image::Platform::host().architecture);
    assert_eq!(document["Config"]["Cmd"][1], "/f");
    assert_eq!(field(&bench, "app", "{{.Config.Cmd}}"), "[cat /f]");
    assert_eq!(field(&bench, "app", r#"{{index .Config.Labels "made"}}"#), "by hand");
    assert_eq!(field(&bench, "app", "{{json .RepoTags}}"), r#"["localhost/app:latest"]"#);
    assert_eq!(field(&bench, "app", "{{len .RootFS.Layers}}"), "2");
    bench.rbuild(["inspect", "--format", "{{.Id", "app"]).fails(&["{{.Id"]);
    bench.rbuild(["inspect", "--type=container", "app"]).fails(&["app"]);

    let steps = bench.rbuild(["history", "--format", "{{.createdBy}}", "app"]).ok();
    assert_eq!(steps.stdout, "add the file f\nbase\n", "the newest first");
    let steps = json(&bench.rbuild(["history", "--format", "json", "app"]).ok());
    assert_eq!(steps[0]["digest"], document["Layers"][1]["digest"]);
    let table = bench.rbuild(["history", "app"]).ok();
    assert!(table.stdout.starts_with("CREATED"), "{}", table.told());
    bench.rbuild(["history", "missing"]).fails(&["missing"]);
}

#[test]
fn versions_and_info_are_told() {
    let bench = Bench::new();
    let version = bench.rbuild(["version", "--format", "{{.Version}}"]).ok();
    assert_eq!(version.text(), env!("CARGO_PKG_VERSION"));
    assert!(bench.rbuild(["--version"]).ok().stdout.contains(version.text()));
    assert!(bench.rcopy(["--version"]).ok().stdout.contains(version.text()));
    assert_eq!(json(&bench.rbuild(["version", "--format", "json"]).ok())["Program"], "rbuild");
    let info = json(&bench.rbuild(["info", "--format", "json"]).ok());
    assert_eq!(info["store"]["root"], bench.store().display().to_string());
    assert_eq!(info["store"]["images"], 0);
    assert!(bench.rbuild(["info"]).ok().stdout.contains("kernel"));
    bench.rbuild(["no-such-verb"]).code(125).fails(&["no-such-verb"]);
}

#[test]
fn archives_bring_images_back() {
    let bench = bench();
    let digest = field(&bench, "app", "{{.Digest}}");
    let id = field(&bench, "app", "{{.Id}}");
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        let path = format!("saved-{format}");
        bench.rbuild(["save", "--quiet", "--format", format, "-o", &path, "app"]).ok();
        if peer("skopeo").is_some() {
            let transport = match format {
                "oci-dir" => "oci",
                "docker-dir" => "dir",
                other => other,
            };
            let place = format!("{transport}:{}", bench.path().join(&path).display());
            let config = run(std::process::Command::new("skopeo")
                .args(["inspect", "--config", &place])
                .env("HOME", bench.path()))
            .ok();
            assert_eq!(json(&config)["config"]["Cmd"][1], "/f", "{format}");
        }
        if format == "docker-dir" {
            continue;
        }
        let other = Bench::new();
        let path = bench.path().join(&path).display().to_string();
        let loaded = other.rbuild(["load", "-i", &path]).ok();
        assert_eq!(loaded.stdout, "Loaded image: localhost/app:latest\n", "{format}");
        assert_eq!(field(&other, "app", "{{.Id}}"), id, "{format}");
        if format != "docker-archive" {
            assert_eq!(field(&other, "app", "{{.Digest}}"), digest, "{format}");
        }
        other.rbuild(["check"]).ok();
    }
    bench.rbuild(["save", "-o", "x", "missing"]).fails(&["missing"]);
    bench.rbuild(["load", "-i", "no-such-file"]).fails(&["no-such-file"]);
    bench.write("junk", "this is not an archive");
    bench.rbuild(["load", "-i", "junk"]).fails(&["junk"]);
    assert_eq!(names(&bench), ["localhost/app:latest"]);
}

#[test]
fn prune_keeps_what_has_a_name() {
    let bench = bench();
    import(&bench, "gone", "content that nobody needs");
    let size = |bench: &Bench| {
        let files = walkdir::WalkDir::new(bench.store().join("blobs")).into_iter().flatten();
        files.filter(|entry| entry.file_type().is_file()).count()
    };
    let before = size(&bench);
    bench.rbuild(["untag", "gone"]).ok();
    let dry = bench.rbuild(["prune", "-a", "--dry-run"]).ok();
    assert!(dry.stdout.contains("would remove 3 blobs"), "{}", dry.told());
    assert_eq!(size(&bench), before);
    let real = bench.rbuild(["prune", "-a"]).ok();
    assert!(real.stdout.contains("removed 3 blobs"), "{}", real.told());
    assert_eq!(size(&bench), before - 3, "its manifest, its config and the layer of its own");
    assert_eq!(names(&bench), ["localhost/app:latest"]);
    let again = bench.rbuild(["prune", "-a"]).ok();
    assert!(again.stdout.contains("removed 0 blobs"), "{}", again.told());
    bench.rbuild(["check"]).ok();
    bench.rbuild(["prune", "--older-than", "soon"]).code(125).fails(&["soon"]);
    let rows = bench.rbuild(["df", "--format", "{{.Type}} {{.Total}}"]).ok();
    assert!(rows.stdout.contains("Images 1\n"), "{}", rows.told());
    assert!(bench.rbuild(["df"]).ok().stdout.starts_with("TYPE"));
}

#[test]
fn check_names_what_is_broken() {
    let bench = bench();
    assert!(bench.rbuild(["check"]).ok().stdout.contains("the store is sound"));
    bench.write("store/blobs/sha256/stray", "nothing knows of me");
    let stray = bench.rbuild(["check"]).ok();
    assert!(stray.stdout.contains("garbage: blobs/sha256/stray"), "{}", stray.told());
    bench.rbuild(["prune"]).ok();
    assert!(!bench.rbuild(["check"]).ok().stdout.contains("garbage"));
    let layer = field(&bench, "app", "{{(index .Layers 1).digest}}");
    let blob = bench.store().join("blobs").join(layer.replace(':', "/"));
    let mut permissions = blob.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&blob, permissions).unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let broken = bench.rbuild(["check"]).code(1);
    assert!(broken.stdout.contains(&format!("broken: blob {layer}")), "{}", broken.told());
    std::fs::remove_file(&blob).unwrap();
    let missing = bench.rbuild(["check"]).code(1);
    assert!(missing.stdout.contains(&layer), "{}", missing.told());
}

#[test]
fn names_of_containers_and_images_in_use_are_kept() {
    if !e2e::root() {
        return;
    }
    let bench = bench();
    bench.rbuild(["run", "--name", "one", "app"]).ok();
    bench.rbuild(["run", "--name", "one", "app"]).code(125).fails(&["one", "taken by"]);
    bench.rbuild(["rmi", "--force", "app"]).ok();
    bench.rbuild(["prune", "-a"]).ok();
    // A container keeps what it lies on.
    assert_eq!(bench.rbuild(["logs", "one"]).ok().text(), "content of app");
    bench.rbuild(["check"]).ok();
    bench.rbuild(["rm", "one"]).ok();
    bench.rbuild(["prune", "-a"]).ok();
    assert_eq!(std::fs::read_dir(bench.store().join("snapshots")).unwrap().count(), 0);
}

/// Bytes that are free on the file system of a path.
fn free(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).expect("a file system");
    found.f_bfree * found.f_frsize
}

#[test]
fn a_copy_to_a_layout_is_read_by_others_and_shares_bytes_where_the_disk_can() {
    let bench = Bench::new();
    let noise = e2e::kill::Chance::new(7).bytes(8 << 20);
    let big = layout(
        &bench.path().join("big"),
        "big",
        &[Layer::new().file("noise", 0o644, &noise).finish()],
        |_| {},
    );
    let from = format!("oci:{}:big", big.display());
    bench.rcopy(["copy", &from, "store:localhost/big:latest"]).ok();
    let digest = field(&bench, "big", "{{.Digest}}");
    let out = format!("oci:{}:copied", bench.path().join("out").display());
    rustix::fs::sync();
    let before = free(bench.path());
    bench.rcopy(["copy", "store:localhost/big:latest", &out]).ok();
    rustix::fs::sync();
    let took = before.saturating_sub(free(bench.path()));
    assert_eq!(bench.rcopy(["digest", &out]).ok().text(), digest);
    if peer("skopeo").is_some() {
        let seen = run(std::process::Command::new("skopeo")
            .args(["inspect", "--format", "{{.Digest}}", &out])
            .env("HOME", bench.path()))
        .ok();
        assert_eq!(seen.text(), digest);
    }
    // Both ends own their files: the layout cannot change the store.
    let layer = field(&bench, "big", "{{(index .Layers 0).digest}}").replace(':', "/");
    let inode = |directory: &str| {
        let file = bench.path().join(directory).join("blobs").join(&layer);
        std::os::unix::fs::MetadataExt::ino(&file.metadata().expect("a blob"))
    };
    assert_ne!(inode("store"), inode("out"));
    if reflinks(bench.path()) {
        assert!(took < noise.len() as u64 / 2, "{took} bytes of a disk that can share them");
    } else {
        e2e::cannot("the file system cannot share bytes");
    }
}

fn reflinks(directory: &Path) -> bool {
    let (from, to) = (directory.join("clone-from"), directory.join("clone-to"));
    std::fs::write(&from, "x").expect("a file");
    let (from, to) = (std::fs::File::open(from), std::fs::File::create(to));
    rustix::fs::ioctl_ficlone(to.expect("a file"), from.expect("a file")).is_ok()
}

#[test]
fn credentials_are_checked_kept_and_forgotten() {
    let Some(registry) = DockerRegistry::with_password("ann", "secret") else { return };
    let bench = bench();
    let name = registry.name("team/app:1");
    bench.rbuild(["push", "app", &name]).fails(&["denied", "rbuild login"]);
    let login = |password: &str| {
        let file = bench.write("password", password);
        let mut command = bench.command("rbuild");
        command.args(["login", "-u", "ann", "--password-stdin", &registry.address]);
        let output = command.stdin(std::fs::File::open(file).unwrap()).output().unwrap();
        e2e::ran(format!("{command:?}"), &output)
    };
    login("wrong").fails(&["logging in to"]);
    bench.rbuild(["logout", &registry.address]).fails(&["not logged in"]);
    let done = login("secret").ok();
    assert!(!done.told().contains("secret"), "{}", done.told());
    let who = bench.rbuild(["login", "--get-login", &registry.address]).ok();
    assert_eq!(who.text(), "ann");
    let file = bench.path().join("home/.docker/config.json");
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600, "others cannot read it");
    bench.rbuild(["push", "app", &name]).ok();
    // rcopy knows them too; --creds and --no-creds come first.
    let remote = format!("docker://{name}");
    bench.rcopy(["inspect", &remote]).ok();
    bench.rcopy(["inspect", "--creds", "ann:wrong", &remote]).fails(&["rejected the credentials"]);
    let other = Bench::new();
    other.rbuild(["pull", "--creds", "ann:secret", &name]).ok();
    assert_eq!(field(&other, &name, "{{.Id}}"), field(&bench, "app", "{{.Id}}"));
    bench.rbuild(["logout", &registry.address]).ok();
    bench.rcopy(["inspect", &remote]).fails(&["login"]);
    bench.rbuild(["logout", "--all"]).ok();
}
