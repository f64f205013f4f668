//! Images go into the storage of podman and buildah, which then run them.
#![allow(clippy::unwrap_used, reason = "tests are journeys")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::kill::{Aim, kill_after, start};
use e2e::{Bench, Ran, peer, root, run};
use serde_json::Value;

/// A storage of podman and buildah, and its driver.
struct Theirs(PathBuf, &'static str);

impl Theirs {
    fn new(bench: &Bench, name: &str) -> Theirs {
        Theirs::with(bench, name, "overlay")
    }

    fn with(bench: &Bench, name: &str, driver: &'static str) -> Theirs {
        Theirs(bench.path().join(name), driver)
    }

    fn place(&self, name: &str) -> String {
        let (graph, run) = (self.0.join("graph"), self.0.join("run"));
        let driver = self.1;
        format!("containers-storage:[{driver}@{}+{}]{name}", graph.display(), run.display())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program);
        command.args(["--storage-driver", self.1, "--root"]).arg(self.0.join("graph"));
        run(command.arg("--runroot").arg(self.0.join("run")).args(arguments))
    }

    /// What a command prints in a container of the image.
    fn says(&self, image: &str, arguments: &[&str]) -> String {
        let name = self.run("buildah", &["from", "--pull-never", image]).ok();
        let isolated = ["run", "--isolation=chroot", name.text(), "--"];
        let said = self.run("buildah", &[&isolated[..], arguments].concat()).ok();
        self.run("buildah", &["rm", name.text()]).ok();
        said.stdout
    }

    fn images(&self) -> Vec<Value> {
        let listed = self.run("buildah", &["images", "--json"]).ok();
        serde_json::from_str::<Vec<Value>>(&listed.stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let images = self.images();
        let names = images.iter().flat_map(|image| image["names"].as_array().unwrap());
        let mut names: Vec<String> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }
}

/// An image whose layers take away, replace, link and own things.
fn app(bench: &Bench) -> &'static str {
    bench.busybox();
    bench.write(
        "context/Dockerfile",
        "FROM busybox\n\
         COPY --chown=7:8 one /deep/er/one\n\
         RUN echo two > /deep/er/two && ln /deep/er/two /deep/hard && ln -s er/two /deep/soft \
         && echo gone > /gone && mkdir /cover && echo old > /cover/old && chmod 1777 /cover\n\
         RUN rm /gone && rm -r /cover && mkdir /cover && echo new > /cover/new\n\
         CMD [\"/bin/cat\", \"/deep/soft\"]\n",
    );
    bench.write("context/one", "one\n");
    bench.rbuild(["bud", "-q", "-t", "localhost/app:1", "context"]).ok();
    "store:localhost/app:1"
}

const LOOK: &str = "cat /deep/er/one /deep/soft /deep/hard; stat -c '%u:%g %h' /deep/er/one /deep/hard; \
                    ls / /cover; stat -c %a / /deep /cover";

#[test]
fn an_image_in_the_storage_of_podman_runs_there() {
    if !root() || peer("buildah").is_none() || peer("skopeo").is_none() {
        return;
    }
    for driver in ["overlay", "vfs"] {
        runs_there(driver);
    }
}

fn runs_there(driver: &'static str) {
    let bench = Bench::new();
    let from = app(&bench);
    let theirs = Theirs::with(&bench, "theirs", driver);
    bench.rcopy(["copy", from, "oci:packed:app"]).ok();
    bench.rcopy(["copy", "oci:packed:app", &theirs.place("localhost/app:1")]).ok();

    // What buildah sees is what there was.
    let digest = bench.rcopy(["digest", "oci:packed:app"]).ok();
    let images = theirs.images();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0]["digest"], digest.text());
    let said = theirs.says("localhost/app:1", &["/bin/sh", "-c", LOOK]);
    let ours = bench.rbuild(["run", "--rm", "localhost/app:1", "/bin/sh", "-c", LOOK]).ok();
    let owners = |text: &str| text.lines().take(5).collect::<Vec<_>>().join(" ");
    assert!(said.contains("7:8 1\n0:0 2\n") && said.contains("new"), "{said}");
    assert!(!said.contains("gone") && !said.contains("old"), "{said}");
    assert_eq!(owners(&said), owners(&ours.stdout));

    // It comes out as it went in, through theirs and through ours.
    let out = format!("dir:{}", bench.path().join("out").display());
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "-q", &theirs.place("localhost/app:1"), &out]);
    run(&mut skopeo).ok();
    let config = |place: &str| bench.rcopy(["inspect", "--raw", "--config", place]).ok().stdout;
    assert_eq!(config(&out), config("oci:packed:app"));
    assert_eq!(config(&theirs.place("app:1")), config("oci:packed:app"));
    bench.rcopy(["validate", &out]).ok();

    // They build on it, and remove it.
    let context = bench.write("above/Dockerfile", "FROM localhost/app:1\nCOPY Dockerfile /d\n");
    let context = context.parent().unwrap().to_str().unwrap();
    theirs.run("buildah", &["bud", "-q", "--layers", "-t", "localhost/above", context]).ok();
    assert_eq!(theirs.says("localhost/above", &["cat", "/deep/hard"]), "two\n");
    theirs.run("buildah", &["rmi", "-a", "-f"]).ok();
    let layers = theirs.0.join(format!("graph/{driver}-layers/layers.json"));
    let left = std::fs::read_to_string(layers).unwrap();
    assert_eq!(left.trim(), "[]");
}

#[test]
fn an_image_of_an_index_is_in_the_storage_of_podman_under_the_digest_of_the_index() {
    if !root() || peer("podman").is_none() {
        return;
    }
    let bench = Bench::new();
    let from = app(&bench);
    bench.rcopy(["copy", from, "oci:layout:app"]).ok();
    bench.rcopy(["index", "append", "-m", "oci:layout:app", "-t", "oci:layout:all"]).ok();
    let digest = |name: &str| bench.rcopy(["digest", name]).ok().text().to_owned();
    let (index, image) = (digest("oci:layout:all"), digest("oci:layout:app"));
    for driver in ["overlay", "vfs"] {
        let theirs = Theirs::with(&bench, driver, driver);
        for name in [&index, &image] {
            let named = theirs.place(&format!("r.example/app@{name}"));
            bench.rcopy(["copy", "oci:layout:all", &named]).ok();
            let id = ["inspect", "--format", "{{.Id}}"];
            let id = theirs.run("podman", &[&id[..], &[&format!("r.example/app@{name}")]].concat());
            assert!(!id.ok().text().is_empty());
            bench.rcopy(["inspect", &named]).ok();
        }
        let other = theirs.place(&format!("r.example/app@sha256:{}", "a".repeat(64)));
        bench.rcopy(["copy", "oci:layout:all", &other]).fails(&["digest", "aaaa"]);
    }
}

#[test]
fn the_digest_of_an_index_means_the_image_for_this_machine() {
    if !root() {
        return;
    }
    let scene = e2e::scene::Scene::new();
    let theirs = Theirs::with(&scene.bench, "theirs", "vfs");
    for arch in ["arm64", "amd64"] {
        let one = ["digest", "--platform", &format!("linux/{arch}"), "oci:index:app"];
        let named = theirs.place(&format!("r.example/app@{}", scene.rcopy(&one).ok().text()));
        scene.rcopy(&["--override-arch", arch, "copy", "oci:index:app", &named]).ok();
    }
    let all = theirs.place(&format!("r.example/app@{}", scene.digest("oci:index:app")));
    let shown = scene.rcopy(&["inspect", "--format", "{{.Architecture}}", &all]).ok();
    assert_eq!(shown.text(), image::Platform::host().architecture);
}

#[test]
fn storage_conf_says_with_which_driver_images_are_written() {
    if !root() || peer("podman").is_none() {
        return;
    }
    let bench = Bench::new();
    let from = app(&bench);
    let theirs = Theirs::with(&bench, "theirs", "vfs");
    let conf = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        theirs.0.join("graph").display(),
        theirs.0.join("run").display()
    );
    let conf = bench.write("storage.conf", &conf);
    let mut copy = bench.command("rcopy");
    copy.env("CONTAINERS_STORAGE_CONF", conf).args(["copy", from, "containers-storage:app"]);
    run(&mut copy).ok();
    assert_eq!(theirs.names(), ["docker.io/library/app:latest"]);
}

#[test]
fn podman_runs_an_image_that_was_pushed_into_its_storage() {
    if !root() || peer("podman").is_none() || peer("runc").is_none() {
        return;
    }
    let bench = Bench::new();
    app(&bench);
    let theirs = Theirs::new(&bench, "theirs");
    bench.rbuild(["push", "-q", "localhost/app:1", &theirs.place("app:1")]).ok();
    // podman asks for more files and processes than a machine with few capabilities grants, and
    // crun for one hierarchy of cgroups.
    let machine = ["--runtime=runc", "--cgroup-manager=cgroupfs", "run"];
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
    let image = ["--rm", "--network=none", "docker.io/library/app:1"];
    let ran = theirs.run("podman", &[&machine[..], &limits, &image].concat()).ok();
    assert_eq!(ran.text(), "two");
}

#[test]
fn names_move_and_layers_are_shared_in_the_storage_of_podman() {
    if !root() || peer("buildah").is_none() {
        return;
    }
    let bench = Bench::new();
    let from = app(&bench);
    let theirs = Theirs::new(&bench, "theirs");
    bench.rcopy(["copy", "store:busybox", &theirs.place("localhost/b:1")]).ok();
    bench.rcopy(["copy", from, &theirs.place("localhost/app:1")]).ok();
    bench.rcopy(["copy", from, &theirs.place("localhost/app:2")]).ok();
    assert_eq!(theirs.names(), ["localhost/app:1", "localhost/app:2", "localhost/b:1"]);
    assert_eq!(theirs.images().len(), 2);
    let layers = || {
        let text = std::fs::read(theirs.0.join("graph/overlay-layers/layers.json")).unwrap();
        serde_json::from_slice::<Vec<Value>>(&text).unwrap().len()
    };
    let all = layers();
    // The layers of the base are there once; a name belongs to one image.
    bench.rcopy(["copy", "store:busybox", &theirs.place("localhost/app:2")]).ok();
    assert_eq!(layers(), all);
    assert!(!theirs.says("localhost/app:2", &["ls", "/"]).contains("deep"));
    // The same layer above other ones.
    bench.write("twice/Dockerfile", "FROM scratch\nCOPY one /\nCOPY two /\n");
    bench.write("twice/one", "1");
    bench.write("twice/two", "2");
    bench.rbuild(["bud", "-q", "-t", "localhost/twice", "twice"]).ok();
    bench.rcopy(["copy", "store:localhost/twice", "oci:layout:twice"]).ok();
    bench.rcopy(["copy", "oci:layout:twice", &theirs.place("twice")]).ok();
    assert!(theirs.names().contains(&"docker.io/library/twice:latest".to_owned()));
}

#[test]
fn what_the_storage_of_podman_cannot_take_is_refused() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let from = app(&bench);
    let graph = bench.path().join("graph");
    let btrfs = format!("containers-storage:[btrfs@{}]app", graph.display());
    bench.rcopy(["copy", from, &btrfs]).fails(&["btrfs"]);
    assert!(!graph.exists());
}

#[test]
fn copies_into_the_storage_of_podman_wait_for_each_other_and_die_without_a_trace() {
    if !root() || peer("buildah").is_none() {
        return;
    }
    let bench = Bench::new();
    let from = app(&bench);
    let theirs = Theirs::new(&bench, "theirs");
    let log = |name: &str| bench.path().join(name);
    let copy = |name: &str| {
        let mut command = bench.command("rcopy");
        command.args(["copy", from, &theirs.place(name)]);
        command
    };
    // At once: both are there.
    let both: Vec<_> = ["localhost/a", "localhost/b"]
        .map(|name| start(&mut copy(name), &log("log")))
        .into_iter()
        .map(|mut child| child.wait().unwrap())
        .collect();
    assert!(both.iter().all(std::process::ExitStatus::success));
    assert_eq!(theirs.names(), ["localhost/a:latest", "localhost/b:latest"]);
    // Killed at any moment: each image that is named is whole.
    for round in 0..12 {
        let storage = Theirs::new(&bench, &format!("killed-{round}"));
        let mut command = bench.command("rcopy");
        command.args(["copy", from, &storage.place("localhost/c")]);
        let child = start(&mut command, &log("log"));
        kill_after(child, Duration::from_millis(20 * round), Aim::All);
        if storage.0.join("graph/overlay-images/images.json").exists() {
            assert_eq!(storage.says("localhost/c", &["cat", "/deep/soft"]), "two\n");
        }
        bench.rcopy(["copy", from, &storage.place("localhost/c")]).ok();
        assert_eq!(storage.says("localhost/c", &["cat", "/deep/soft"]), "two\n");
        let staged = std::fs::read_dir(storage.0.join("graph/tmp")).unwrap();
        assert_eq!(names_in(staged), Vec::<String>::new());
        std::fs::remove_dir_all(&storage.0).unwrap();
    }
}

fn names_in(entries: std::fs::ReadDir) -> Vec<String> {
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| Path::new(name) != Path::new("storage")).collect()
}
