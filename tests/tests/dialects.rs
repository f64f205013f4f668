//! The programs under the names of the tools they stand in for: everyday lines, and what those
//! tools do at the places where they contradict each other.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use e2e::git::Repositories;
use e2e::{Bench, Ran, binary, peer, root, run};
use registry_server::{Options, Registry};

/// A bench whose programs are started under other names.
struct Names {
    bench: Bench,
}

impl Names {
    fn new() -> Names {
        Names { bench: Bench::new() }
    }

    fn command(&self, name: &str) -> Command {
        self.bench.tool(name)
    }

    /// Runs a line whose first word is the name of a tool.
    #[track_caller]
    fn line(&self, line: &str) -> Ran {
        self.bench.line(line)
    }

    fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        self.bench.write(&format!("{name}/Dockerfile"), dockerfile);
        self.bench.write(&format!("{name}/a"), "a");
        self.bench.write(&format!("{name}/b"), "b");
        self.bench.path().join(name)
    }

    /// Where working container `name` is mounted; the files in it.
    fn files(&self, image: &str) -> Vec<String> {
        let out = self.bench.path().join("files");
        let _ = std::fs::remove_dir_all(&out);
        self.context("export", &format!("FROM {image}\n"));
        self.bench.rbuild(["bud", "-q", "-o", "files", "export"]).ok();
        let all = walkdir::WalkDir::new(&out).sort_by_file_name().min_depth(1);
        all.into_iter()
            .map(|entry| entry.unwrap().path().strip_prefix(&out).unwrap().display().to_string())
            .collect()
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn each_tool_ends_with_its_own_codes() {
    let names = Names::new();
    for (line, code) in [
        ("buildah inspect nothing", 125),
        ("buildah rmi nothing", 125),
        ("buildah rm nothing", 125),
        ("buildah run nothing ls", 125),
        ("buildah nosuch", 125),
        ("buildah images --nosuch", 125),
        ("podman inspect nothing", 125),
        ("podman rmi nothing", 1),
        ("podman rm nothing", 1),
        ("podman run --pull never nothing", 125),
        ("podman nosuch", 125),
        ("podman image exists nothing", 1),
        ("docker inspect nothing", 1),
        ("docker rmi nothing", 1),
        ("docker run --pull never nothing", 125),
        ("docker build nowhere", 1),
        ("skopeo inspect docker://127.0.0.1:1/x", 1),
        ("skopeo nosuch", 1),
        ("crane manifest 127.0.0.1:1/x", 1),
    ] {
        names.line(line).code(code);
    }
    let registry = Registry::start(Options::default()).unwrap();
    let gone = format!("{}/no/such:1", registry.address());
    names.line(&format!("skopeo --tls-verify=false inspect docker://{gone}")).code(2);
    // A registry on this machine is like others, and a name needs a transport.
    let plain = names.line(&format!("skopeo inspect docker://{gone}"));
    plain.code(1).fails(&["speaks plain HTTP"]);
    names.line(&format!("skopeo inspect {gone}")).code(1).fails(&["does not start with docker://"]);
    names.line(&format!("crane digest {gone}")).code(1);
}

#[test]
fn peers_beside_us_end_with_the_same_codes() {
    if !root() {
        return;
    }
    let names = Names::new();
    let at = |name: &str| names.bench.path().join(name).display().to_string();
    for (name, lines) in [
        (
            "buildah",
            &[
                "inspect nothing",
                "rmi nothing",
                "rm nothing",
                "run nothing ls",
                "nosuch",
                "images --nosuch",
            ][..],
        ),
        (
            "podman",
            &["inspect nothing", "rmi nothing", "rm nothing", "nosuch", "image exists nothing"],
        ),
        ("skopeo", &["inspect docker://127.0.0.1:1/x", "nosuch"]),
    ] {
        if peer(name).is_none() {
            continue;
        }
        for line in lines {
            let mut theirs = Command::new(name);
            if name != "skopeo" {
                theirs.args(["--root", &at("theirs"), "--runroot", &at("run")]);
                theirs.args(["--storage-driver", "vfs"]);
            }
            let theirs = run(theirs.args(line.split(' ')));
            let ours = names.line(&format!("{name} {line}"));
            assert_eq!(ours.code, theirs.code, "{}\n{}", ours.told(), theirs.told());
        }
    }
}

#[test]
fn builds_and_lists_print_what_each_tool_prints() {
    let names = Names::new();
    names.context("one", "FROM scratch\nCOPY a /a\nCOPY b /b\n");
    let id = names.line("buildah build -q -t app one").ok().text().to_owned();
    assert!(is_id(&id), "{id}");
    let layers = |line: &str| {
        let shown =
            names.line(&format!("{line} inspect --type image --format {{{{.RootFS.Layers}}}} app"));
        shown.ok().text().split(' ').count()
    };
    // buildah makes one layer of all steps, unless told otherwise.
    assert_eq!(layers("buildah"), 1);
    assert_eq!(names.line("podman build -q -t app one").ok().text().len(), 64);
    assert_eq!(layers("podman"), 2);
    names.line("buildah build --layers -q -t app one").ok();
    assert_eq!(layers("buildah"), 2);
    let quiet = names.line("docker build -q -t hub one").ok().text().to_owned();
    assert!(quiet.strip_prefix("sha256:").is_some_and(is_id), "{quiet}");
    assert_eq!(names.line("docker build -t hub one").ok().stdout, "");
    assert_eq!(names.line("docker buildx build -q -t hub one").ok().text(), quiet);

    // Names: docker's own registry is left out, and a name without a registry is on it.
    let list = |tool: &str, name: &str| {
        names
            .line(&format!("{tool} images --format {{{{.Repository}}}}:{{{{.Tag}}}} {name}"))
            .ok()
            .text()
            .to_owned()
    };
    assert_eq!(list("docker", "hub"), "hub:latest");
    assert_eq!(list("podman", "hub"), "docker.io/library/hub:latest");
    assert_eq!(list("buildah", "app"), "localhost/app:latest");
    names.line("docker tag hub team/hub:2").ok();
    assert_eq!(list("docker", "team/hub"), "team/hub:2");
    for tool in ["buildah", "podman", "docker"] {
        let whole = names.line(&format!("{tool} images -q --no-trunc hub")).ok();
        assert_eq!(whole.text().split('\n').next(), Some(&*quiet), "{}", whole.told());
        assert_eq!(names.line(&format!("{tool} images -q app")).ok().text().len(), 12);
    }
    // What is inspected.
    assert!(names.line("buildah inspect --type image app").ok().stdout.starts_with('{'));
    assert!(names.line("podman inspect app").ok().stdout.starts_with('['));
    assert!(names.line("docker inspect app").ok().stdout.starts_with('['));
    // What is taken away.
    names.line("docker tag hub other").ok();
    assert_eq!(names.line("docker rmi other").ok().text(), "Untagged: other:latest");
    names.line("podman tag app other").ok();
    assert_eq!(names.line("podman rmi other").ok().text(), "Untagged: localhost/other:latest");
    names.line("buildah tag app other").ok();
    assert_eq!(names.line("buildah rmi other").ok().text(), "untagged: localhost/other:latest");
}

#[test]
fn run_means_a_working_container_for_buildah_and_an_image_for_docker() {
    if !root() {
        return;
    }
    let names = Names::new();
    names.bench.busybox();
    assert_eq!(names.line("buildah from --name box busybox").ok().text(), "box");
    assert_eq!(names.line("buildah run box echo in it").ok().text(), "in it");
    names.line("buildah run busybox true").code(125).fails(&["container not known"]);
    names.line("docker run --pull never --rm box true").code(125);
    assert_eq!(names.line("docker run --rm busybox echo new").ok().text(), "new");
    assert_eq!(names.line("podman run --rm busybox echo new").ok().text(), "new");
    // All of buildah's containers are working containers, and -q prints whole ids.
    let id = names.line("buildah ps -q").ok().text().to_owned();
    assert!(is_id(&id), "{id}");
    assert_eq!(names.line("buildah containers -q").ok().text(), id);
    // A container keeps its image.
    names.line("buildah rmi busybox").code(125).fails(&["box", "uses"]);
    names.line("podman rmi busybox").code(2);
    assert_eq!(names.line("buildah rm box").ok().text(), id);
    names.line("podman rmi busybox").ok();
}

#[test]
fn a_failed_run_ends_with_its_code_but_for_docker() {
    if !root() {
        return;
    }
    let names = Names::new();
    names.bench.busybox();
    names.context("fails", "FROM busybox\nRUN exit 7\n");
    names.line("buildah bud fails").code(7);
    names.line("podman build fails").code(7);
    names.line("docker build fails").code(1);
}

#[test]
fn builds_differ_as_the_builders_do() {
    let names = Names::new();
    let text = "FROM scratch\nCOPY a b /new\nCOPY d /dd\nVOLUME /vol/x\n";
    names.context("differ", text);
    names.bench.write("differ/d/f", "f");
    names.bench.write("differ/d/e/g", "g");
    names.bench.write("differ/.dockerignore", "d\n!d/e/g\n");
    let buildah = ["dd", "dd/e", "dd/e/g", "new", "new/a", "new/b", "vol", "vol/x"];
    let buildkit = ["dd", "dd/e", "dd/e/g", "new"];
    for (line, files) in [
        ("buildah bud -t app differ", &buildah[..]),
        ("podman build -t app differ", &buildah),
        ("docker build -t localhost/app differ", &buildkit),
        ("docker build --compat buildah -t localhost/app differ", &buildah),
        ("buildah bud --compat docker -t app differ", &buildkit),
    ] {
        names.line(line).ok();
        assert_eq!(names.files("localhost/app"), files, "{line}");
    }
    names.bench.rbuild(["bud", "-t", "app", "differ"]).ok();
    assert_eq!(names.files("localhost/app"), buildkit);
    names.context("glob", "FROM scratch\nCOPY [ab] /new\nCOPY a* /one\n");
    names.line("buildah bud -t app glob").ok();
    assert_eq!(names.files("localhost/app"), ["new", "one"]);
}

#[test]
fn buildah_beside_us_builds_the_same_files() {
    if !root() {
        return;
    }
    if peer("buildah").is_none() {
        return;
    }
    let names = Names::new();
    let text = "FROM scratch\nCOPY a b /new\nCOPY d /dd\nCOPY [ab] /glob\nVOLUME /vol/x\n";
    let context = names.context("differ", text);
    names.bench.write("differ/d/f", "f");
    names.bench.write("differ/d/e/g", "g");
    names.bench.write("differ/.dockerignore", "d\n!d/e/g\n");
    names.line("buildah bud -t app differ").ok();
    let ours = names.files("localhost/app");
    let at = |name: &str| names.bench.path().join(name).display().to_string();
    let theirs = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--root", &at("theirs"), "--runroot", &at("run"), "--storage-driver", "vfs"]);
        run(command.args(arguments)).ok().text().to_owned()
    };
    theirs(&["bud", "-t", "app", &context.display().to_string()]);
    theirs(&["push", "localhost/app", &format!("oci:{}:app", at("layout"))]);
    names.bench.rbuild(["pull", "-q", "oci:layout:app"]).ok();
    names.bench.rbuild(["tag", "app", "theirs"]).ok();
    assert_eq!(names.files("localhost/theirs"), ours);
}

#[test]
fn add_of_a_repository_keeps_git_for_buildah() {
    let names = Names::new();
    let Some(served) = Repositories::serve(&names.bench.path().join("git-root")) else { return };
    served.script("repo.git", "echo x >file && commit one");
    let url = format!("{}/repo.git", served.url);
    names.context("git", &format!("FROM scratch\nADD {url} /src\n"));
    names.line("docker build -t localhost/app git").ok();
    assert_eq!(names.files("localhost/app"), ["src", "src/file"]);
    names.line("buildah bud -t app git").ok();
    assert!(names.files("localhost/app").contains(&"src/.git".to_owned()));
}

#[test]
fn skopeo_and_crane_differ_on_copies_and_deletes() {
    let scene = e2e::scene::Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let at = registry.address();
    scene.copy("oci:index:app", &format!("docker://{at}/a:1")).ok();
    let rcopy = |name: &str, line: &str| {
        let link = scene.bench.path().join(name);
        if !link.exists() {
            symlink(binary("rcopy"), &link).unwrap();
        }
        let mut command = Command::new(&link);
        command.current_dir(scene.bench.path()).env("HOME", scene.bench.path().join("home"));
        run(command.args(line.split(' ')))
    };
    rcopy("skopeo", &format!("--tls-verify=false copy --all oci:index:app docker://{at}/a:1")).ok();
    let index = rcopy("crane", &format!("digest {at}/a:1")).ok().text().to_owned();
    rcopy("skopeo", &format!("--tls-verify=false copy docker://{at}/a:1 docker://{at}/b:1")).ok();
    assert_ne!(rcopy("crane", &format!("digest {at}/b:1")).ok().text(), index);
    rcopy("crane", &format!("copy {at}/a:1 {at}/c:1")).ok();
    assert_eq!(rcopy("crane", &format!("digest {at}/c:1")).ok().text(), index);
    rcopy("crane", &format!("tag {at}/c:1 2")).ok();
    assert_eq!(rcopy("crane", &format!("ls {at}/c")).ok().text(), "1\n2");
    rcopy("crane", &format!("delete {at}/c:1")).ok();
    assert_eq!(rcopy("crane", &format!("ls {at}/c")).ok().text(), "2");
    rcopy("crane", &format!("tag {at}/c:2 3")).ok();
    rcopy("skopeo", &format!("--tls-verify=false delete docker://{at}/c:2")).ok();
    rcopy("crane", &format!("digest {at}/c:3")).code(1);
}

#[test]
fn skopeo_suits_images_to_where_they_go() {
    let scene = e2e::scene::Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let at = registry.address();
    symlink(binary("rcopy"), scene.bench.path().join("skopeo")).unwrap();
    let skopeo = |line: &str| {
        let mut command = Command::new(scene.bench.path().join("skopeo"));
        command.current_dir(scene.bench.path()).env("HOME", scene.bench.path().join("home"));
        run(command.args(line.split(' ')))
    };
    assert!(skopeo("--version").ok().stdout.starts_with("skopeo version 0."));
    skopeo(&format!(
        "--tls-verify=false copy --dcreds=me:secret oci:image:app docker://{at}/short:1"
    ))
    .ok();
    // What lies in a layout is OCI.
    let docker = format!("docker://{at}/docker:1");
    scene.rcopy(&["copy", "--format=v2s2", "oci:image:app", &docker]).ok();
    let raw = |place: &str| scene.rcopy(&["inspect", "--raw", place]).ok().stdout;
    skopeo(&format!("--tls-verify=false copy {docker} oci:suits:app")).ok();
    scene.rcopy(&["copy", &docker, "oci:is:app"]).ok();
    skopeo(&format!("--tls-verify=false copy --preserve-digests {docker} oci:keeps:app")).ok();
    assert!(raw("oci:suits:app").contains("vnd.oci.image.manifest"));
    for same in ["oci:is:app", "oci:keeps:app"] {
        assert_eq!(raw(same), raw(&docker), "{same}");
    }
    // What is pushed is compressed.
    scene.rcopy(&["copy", "--dest-decompress", "oci:image:app", "oci:plain:app"]).ok();
    skopeo(&format!("--tls-verify=false copy oci:plain:app docker://{at}/packed:1")).ok();
    skopeo(&format!(
        "--tls-verify=false copy --dest-decompress oci:plain:app docker://{at}/plain:1"
    ))
    .ok();
    assert!(raw(&format!("docker://{at}/packed:1")).contains("tar+gzip"));
    skopeo(&format!(
        "--tls-verify=false copy --preserve-digests oci:plain:app docker://{at}/kept:1"
    ))
    .ok();
    for plain in ["plain:1", "kept:1"] {
        assert!(!raw(&format!("docker://{at}/{plain}")).contains("tar+gzip"), "{plain}");
    }
    // An image of another platform is no missing image.
    skopeo("--override-arch=s390x --override-os=plan9 inspect oci:index:app").code(1);
    skopeo(&format!("--tls-verify=false inspect docker://{at}/packed:2"))
        .code(2)
        .fails(&["there is no tag 2"]);
    // No certificates are no reason to stop.
    let none = "inspect --tls-verify=false --cert-dir=/no/such docker://";
    let told = skopeo(&format!("{none}{at}/packed:1")).ok();
    assert!(told.stderr.contains("/no/such"), "{}", told.told());
}

#[test]
fn everyday_lines_of_crane_run() {
    let scene = e2e::scene::Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let at = registry.address();
    symlink(binary("rcopy"), scene.bench.path().join("crane")).unwrap();
    let crane = |line: &str| {
        let mut command = Command::new(scene.bench.path().join("crane"));
        command.current_dir(scene.bench.path()).env("HOME", scene.bench.path().join("home"));
        run(command.args(line.split(' ')))
    };
    scene.copy("oci:image:app", &format!("docker://{at}/team/app:1")).ok();
    assert_eq!(crane(&format!("catalog --full-ref {at}")).ok().text(), format!("{at}/team/app"));
    assert_eq!(crane("version").ok().text(), env!("CARGO_PKG_VERSION"));
    let name = format!("{at}/team/app");
    crane(&format!("tag {name}:1 sha256-{}.sig", "a".repeat(64))).ok();
    assert_eq!(crane(&format!("ls -O {name}")).ok().text(), "1");
    let config = crane(&format!("config {name}:1")).ok().stdout;
    let digest = image::Digest::of(config.as_bytes());
    assert_eq!(crane(&format!("blob {name}@{digest}")).ok().stdout, config);
    crane(&format!("pull --format oci --annotate-ref {name}:1 pulled")).ok();
    let index = scene.bench.path().join("pulled/index.json");
    assert!(std::fs::read_to_string(index).unwrap().contains(&format!("{name}:1")));
    let pushed = crane(&format!("push --image-refs refs pulled {at}/team/again:1")).ok();
    let refs = std::fs::read_to_string(scene.bench.path().join("refs")).unwrap();
    assert_eq!(refs, pushed.text());
}

/// Released files are one program and links to it: `rcopy` is a name of `rbuild`.
#[test]
fn one_file_is_both_programs() {
    let names = Names::new();
    let version = names.line("rcopy version").ok();
    assert!(version.stdout.starts_with("rcopy "), "{}", version.stdout);
    let unknown = names.line("rcopy bud .");
    assert_eq!(unknown.code, 1, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("'bud'"), "{}", unknown.stderr);
    let other = names.bench.path().join("other-name");
    symlink(binary("rcopy"), &other).unwrap();
    let version = run(Command::new(&other).arg("version")).ok();
    assert!(version.stdout.starts_with("rcopy "), "{}", version.stdout);
}

#[test]
fn imagetools_puts_images_together_and_shows_them() {
    if !root() {
        return;
    }
    let names = Names::new();
    let registry = Registry::start(Options::default()).unwrap();
    let at = registry.address();
    names.context("context", "FROM scratch\nCOPY a /\n");
    let mut digests = Vec::new();
    for (platform, attest) in
        [("linux/amd64", "--provenance=false"), ("linux/arm64", "--provenance=true")]
    {
        let name = platform.replace('/', "-");
        names.line(&format!("docker buildx build {attest} --platform {platform} -t {at}/app:{name} --push context")).ok();
        digests.push(names.line(&format!("crane digest {at}/app:{name}")).ok().text().to_owned());
    }
    let inspect =
        |rest: &str| names.line(&format!("docker buildx imagetools inspect {at}/app:{rest}"));
    let create = |rest: &str| names.line(&format!("docker buildx imagetools create {rest}"));

    // Names and digests beside the first tag; two tags at once.
    let sources = format!("{at}/app:linux-amd64 {}", digests[1]);
    create(&format!("-t {at}/app:1 -t {at}/other:1 --annotation index:org.example=yes {sources}"))
        .ok();
    let raw = inspect("1 --raw").ok().stdout;
    assert_eq!(
        names.line(&format!("crane manifest {at}/other:1")).ok().stdout.trim_end(),
        raw.trim_end()
    );
    let index: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(index["annotations"]["org.example"], "yes");
    let platforms: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);

    let shown = inspect("1").ok().stdout;
    for text in [
        format!("Name:      {at}/app:1\n"),
        format!("  Name:      {at}/app@"),
        "  Platform:  linux/arm64\n".to_owned(),
    ] {
        assert!(shown.contains(&text), "{text}: {shown}");
    }
    let digest = inspect("1 --format {{.Manifest.Digest}}").ok().text().to_owned();
    assert_eq!(names.line(&format!("crane digest {at}/app:1")).ok().text(), digest);
    let field = |template: &str| {
        let line =
            ["buildx", "imagetools", "inspect", &format!("{at}/app:1"), "--format", template];
        run(names.command("docker").args(line)).ok().text().to_owned()
    };
    assert_eq!(field("{{(index .Image \"linux/arm64\").Architecture}}"), "arm64");
    assert_eq!(
        field("{{range $platform, $one := .Provenance}}{{$platform}}{{end}}"),
        "linux/arm64"
    );
    assert_eq!(field("{{len .Manifest.Manifests}} {{.SBOM}}"), "2 map[]");
    inspect("1 --format {{.None}}").fails(&["None"]);
    inspect("none").fails(&["none"]);

    // More is added; an image alone becomes an index, or stays as it is.
    create(&format!("-t {at}/app:two {at}/app:linux-amd64")).ok();
    create(&format!("-t {at}/app:two --append {}", digests[1])).ok();
    assert_eq!(inspect("two --format {{len(.Manifest.Manifests)}}").ok().text(), "2");
    create(&format!("-t {at}/app:same --prefer-index=false {at}/app:linux-amd64")).ok();
    assert_eq!(inspect("same --format {{.Manifest.Digest}}").ok().text(), digests[0]);
    create(&format!("-t {at}/app:copy {at}/app:1")).ok();
    assert_eq!(inspect("copy --format {{.Manifest.Digest}}").ok().text(), digest);

    // What is wrong writes nothing.
    create(&format!("-t {at}/app:new {at}/app:1 {at}/app:absent")).fails(&["absent"]);
    create(&format!("-t {at}/app:new --annotation manifest:a=b {at}/app:1"))
        .fails(&["manifest", "index:"]);
    create(&format!("-t {at}/app:new --platform linux/s390x {at}/app:1")).fails(&["platform"]);
    create(&format!("{at}/app:1")).fails(&["--tag"]);
    create(&format!("--dry-run {}", digests[0])).fails(&[&digests[0], "--tag"]);
    let planned = create(&format!("--dry-run --platform linux/amd64 {at}/app:1")).ok().stdout;
    assert!(planned.contains("amd64") && !planned.contains("arm64"), "{planned}");
    inspect("new").fails(&["new"]);
}
