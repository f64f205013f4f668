//! How commands end and what they answer, where scripts for buildah, podman, docker and skopeo
//! depend on it.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::{Bench, binary, peer, root, run};
use registry_server::{Options, Registry};

#[test]
fn rbuild_ends_with_125_and_rcopy_with_1_or_2() {
    let bench = Bench::new();
    for line in [
        &["inspect", "nothing"][..],
        &["push", "nothing"],
        &["from", "--pull-never", "nothing"],
        &["bud", "no/such/context"],
        &["--no-such-flag"],
        &["no-such-verb"],
        &["images", "--filter", "odd=1"],
    ] {
        bench.rbuild(line).code(125);
    }
    let registry = Registry::start(Options::default()).unwrap();
    let gone = format!("docker://{}/no/such:1", registry.address());
    bench.rcopy(["inspect", &gone]).code(2);
    bench.rcopy(["copy", &gone, "dir:x"]).code(2);
    bench.rcopy(["inspect", "docker://127.0.0.1:1/x"]).code(1);
    bench.rcopy(["inspect", "--no-such-flag", &gone]).code(1);
    bench.rcopy(["inspect", "odd:place:x"]).code(1);
    bench.rcopy(["--help"]).ok();
}

#[test]
fn help_lists_common_commands_and_all_of_them_and_explains_one() {
    let bench = Bench::new();
    let help = |line: &[&str]| bench.rbuild(line).ok().stdout;
    let first = help(&["help"]);
    assert_eq!(first, help(&["--help"]));
    assert!(first.contains("\n  bud, build ") && !first.contains("\n  verify-build "), "{first}");
    assert!(first.contains("rbuild help all"), "{first}");
    let all = help(&["help", "all"]);
    assert!(all.contains("\n  verify-build ") && all.contains("\n  run "), "{all}");
    assert_eq!(help(&["help", "volume", "ls"]), help(&["volume", "ls", "--help"]));
    bench.rbuild(["help", "no-such-verb"]).code(125).fails(&["no-such-verb"]);
    let rcopy = bench.rcopy(["help", "all"]).ok().stdout;
    assert!(rcopy.contains("\n  standalone-sign "), "{rcopy}");
}

#[test]
fn without_proc_a_failed_build_says_so() {
    if !root() || peer("unshare").is_none() {
        return;
    }
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /a/\n");
    let script = "mount -t tmpfs none /proc && exec \"$0\" bud context";
    let ours = bench.command("rbuild");
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["-m", "sh", "-c", script]).arg(binary("rbuild")).current_dir(bench.path());
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    run(&mut unshare).code(125).fails(&["mount /proc"]);
}

#[test]
fn switches_take_truth_values_and_the_last_of_an_option_counts() {
    let bench = Bench::new();
    let layer = e2e::image::Layer::new().file("a", 0o644, b"x").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let id = bench.rbuild(["pull", "--quiet=true", "oci:image:app"]).ok();
    assert_eq!(id.stderr, "", "{}", id.told());
    let id = id.text().to_owned();
    let listed = |line: &[&str]| bench.rbuild([&["images"][..], line].concat()).ok().stdout;
    assert_eq!(listed(&["--quiet=false"]), listed(&[]));
    assert_eq!(listed(&["-q", "--no-trunc=true"]).trim(), format!("sha256:{id}"));
    assert_eq!(listed(&["--quiet", "--no-trunc", "--quiet=0"]), listed(&["--no-trunc"]));
    let last = listed(&["--format={{.Tag}}", "--format", "{{.ID}}", "--no-trunc"]);
    assert_eq!(last.trim(), format!("sha256:{id}"));
    bench.rbuild(["images", "--quiet=maybe"]).code(125).fails(&["maybe"]);
}

#[test]
fn templates_have_the_fields_of_the_peers_and_no_others() {
    let bench = Bench::new();
    let layer = e2e::image::Layer::new().file("a", 0o644, b"x").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |config| {
        config.config.env = vec!["A=1".to_owned()];
        config.config.cmd = Some(vec!["run".to_owned()]);
    });
    bench.rbuild(["pull", "-q", "oci:image:app"]).ok();
    let show = |template: &str| {
        let shown = bench.rbuild(["inspect", "--format", template, "app"]).ok();
        shown.text().to_owned()
    };
    let id = show("{{.Id}}");
    for (template, expected) in [
        ("{{.FromImage}}", "localhost/app:latest"),
        ("{{.FromImageID}}", id.strip_prefix("sha256:").unwrap()),
        ("{{.OCIv1.Config.Env}}", "[A=1]"),
        ("{{.OCIv1.Architecture}}", "amd64"),
        ("{{.Docker.Config.Cmd}}", "[run]"),
        ("{{.Docker.Config.Labels}}", "map[]"),
        ("{{.Config.Env}} {{.Config.Entrypoint}}", "[A=1] []"),
        ("{{.Config.WorkingDir}}{{.Config.StopSignal}}{{.Config.User}}{{.Author}}", ""),
        ("{{.RepoTags}} {{.Os}}", "[localhost/app:latest] linux"),
        ("{{.RootFS.Type}} {{.GraphDriver.Name}}", "layers overlay"),
        ("{{.Docker.Container}}{{.Docker.ContainerConfig.Env}}", "[A=1]"),
        ("{{range .Docker.History}}{{.EmptyLayer}}{{.CreatedBy}};{{end}}", "false;"),
        ("{{slice .Manifest 0 1}}", "{"),
    ] {
        assert_eq!(show(template), expected, "{template}");
    }
    let info = |template: &str| {
        let shown = bench.rbuild(["info", "--format", template]).ok();
        shown.text().to_owned()
    };
    let store = bench.store().display().to_string();
    for (template, expected) in [
        ("{{.host.arch}} {{.host.os}}", "amd64 linux"),
        ("{{.store.GraphRoot}}", &store),
        ("{{.Store.GraphRoot}}", &store),
        ("{{.DockerRootDir}}", &store),
        ("{{.Host.Arch}} {{.OSType}}", "amd64 linux"),
        ("{{.store.ImageStore.number}} {{.Store.ImageStore.Number}} {{.Images}}", "1 1 1"),
        ("{{.host.OCIRuntime}}", "rbuild"),
    ] {
        assert_eq!(info(template), expected, "{template}");
    }
    // What there is not is an error, never "<no value>" and 0.
    for line in [
        &["inspect", "--format", "{{.Nope}}", "app"][..],
        &["inspect", "--format", "{{.Config.Nope}}", "app"],
        &["info", "--format", "{{.Host.Nope}}"],
        &["version", "--format", "{{.Nope}}"],
        &["images", "--format", "{{.Nope}}"],
        &["history", "--format", "{{.Nope}}", "app"],
    ] {
        let ran = bench.rbuild(line).code(125).fails(&["Nope"]);
        assert!(!ran.stdout.contains("no value"), "{}", ran.told());
    }
    bench.rcopy(["inspect", "--format", "{{.Nope}}", "oci:image:app"]).code(1).fails(&["Nope"]);
}

#[test]
fn an_authfile_that_is_named_must_be_there() {
    let bench = Bench::new();
    bench.rbuild(["images", "--authfile", "none.json"]).code(125).fails(&["none.json"]);
    bench.rcopy(["inspect", "--authfile", "none.json", "oci:x"]).fails(&["none.json"]);
    bench.rbuild(["logout", "--all", "--authfile", "none.json"]).ok();
}

#[test]
fn a_pull_by_digest_is_named_by_it() {
    let bench = Bench::new();
    let registry = Registry::start(Options::default()).unwrap();
    let layer = e2e::image::Layer::new().file("a", 0o644, b"x").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let tagged = format!("docker://{}/team/app:1", registry.address());
    bench.rcopy(["copy", "oci:image:app", &tagged]).ok();
    let digest = bench.rcopy(["digest", &tagged]).ok().text().to_owned();
    let name = format!("{}/team/app@{digest}", registry.address());
    let id = bench.rbuild(["pull", "-q", &name]).ok().text().to_owned();
    let listed = bench.rbuild(["images", "--format", "{{.Repository}} {{.Tag}}"]).ok();
    assert_eq!(listed.text(), format!("{}/team/app <none>", registry.address()));
    let show = ["inspect", "--format", "{{.Id}} {{.RepoTags}} {{.RepoDigests}}", &name];
    let expected = format!("sha256:{id} [] [{name}]");
    assert_eq!(bench.rbuild(show).ok().text(), expected);
    // A name by digest is of that digest.
    let other = format!("store:other@sha256:{}", "0".repeat(64));
    bench.rcopy(["copy", "oci:image:app", &other]).code(1).fails(&["named by a digest"]);
    bench.rbuild(["rmi", &name]).ok();
    assert_eq!(bench.rbuild(["images", "-q"]).ok().stdout, "");
}

#[test]
fn short_names_are_those_of_the_store_first() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let layer = e2e::image::Layer::new().file("a", 0o644, b"x").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    bench.rcopy(["copy", "oci:image:app", "store:docker.io/library/busybox:latest"]).ok();
    let listed = ["images", "--format", "{{.Repository}}", "busybox"];
    assert_eq!(bench.rbuild(listed).ok().text(), "docker.io/library/busybox");
    bench.rbuild(["inspect", "busybox"]).ok();
    bench.rbuild(["tag", "busybox", "mine"]).ok();
    let made = bench.rbuild(["from", "--name", "w", "busybox"]).ok();
    assert_eq!((made.text(), made.stderr.as_str()), ("w", ""), "what is here needs no telling");
    let labels = ["inspect", "--format", "{{.FromImage}} {{.Docker.Config.Labels}}", "w"];
    assert_eq!(bench.rbuild(labels).ok().text(), "docker.io/library/busybox:latest map[]");
    // Whatever registries.conf says, a build finds what a build named.
    bench.write("home/.config/containers/registries.conf", "short-name-mode = \"enforcing\"\n");
    bench.write("one/Dockerfile", "FROM busybox\nLABEL a=1\n");
    bench.write("two/Dockerfile", "FROM app\nLABEL b=1\n");
    bench.rbuild(["build-using-dockerfile", "-q", "-t", "app", "one"]).ok();
    bench.rbuild(["bud", "-q", "-t", "more", "two"]).ok();
    let labels = ["inspect", "--format", "{{json .Config.Labels}}", "more"];
    assert_eq!(bench.rbuild(labels).ok().text(), r#"{"a":"1","b":"1"}"#);
    bench.rbuild(["rmi", "more"]).ok();
}

#[test]
fn flags_of_wrappers_and_pull_policies_mean_what_they_mean_elsewhere() {
    let bench = Bench::new();
    let registry = Registry::start(Options::default()).unwrap();
    let layer = e2e::image::Layer::new().file("a", 0o644, b"x").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let name = format!("{}/app:1", registry.address());
    // A registry without TLS that is not on loopback by name is reached where this is allowed.
    bench.rcopy(["--tls-verify=false", "copy", "oci:image:app", &format!("docker://{name}")]).ok();
    let pull = |policy: &str| bench.rbuild(["pull", "-q", "--policy", policy, &name]);
    pull("never").code(125).fails(&["there is no image"]);
    let id = pull("missing").ok().text().to_owned();
    registry.forget();
    assert_eq!(pull("ifmissing").ok().text(), id);
    assert_eq!(pull("never").ok().text(), id);
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    assert_eq!(pull("always").ok().text(), id);
    assert!(!registry.requests().is_empty());
    bench.rbuild(["pull", "-q", "--policy", "none.json", &name]).fails(&["none.json"]);
    let aliases = format!("[aliases]\n\"short\" = \"{}/app\"\n", registry.address());
    let aliases = bench.write("aliases.conf", aliases);
    let aliases = format!("--short-name-alias-conf={}", aliases.display());
    let short = bench.rbuild([&aliases, "pull", "-q", "short:1"]).ok();
    assert_eq!(short.text(), id);
    bench.rbuild(["--storage-driver=overlay", "--runroot=/x", "images", "-q"]).ok();
}

/// Lines of other programs, and what ours says of the flag.
const ELSEWHERE: &[(&str, &str)] = &[
    // docker, buildx and buildctl
    ("rbuild bud --attests=type=sbom .", "a similar argument exists: '--attest'"),
    ("rbuild bud --publish=80 .", "-p in `rbuild run`"),
    ("rbuild bud --stream .", "output is shown as it comes"),
    ("rbuild bud --frontend=dockerfile.v0 .", "the Dockerfile frontend is built in"),
    ("rbuild bud --local=context=. .", "--build-context"),
    ("rbuild bud --opt=target=a .", "--target"),
    ("rbuild bud --export-cache=type=inline .", "here: --cache-to"),
    ("rbuild bud --import-cache=type=registry .", "here: --cache-from"),
    ("rbuild push --disable-content-trust app", "policy.json"),
    ("rbuild push --all-tags app", "push each name by itself"),
    ("rbuild images --tree", "`rcopy tree`"),
    ("rbuild history --human app", "--format json has numbers"),
    // podman and buildah
    ("rbuild save --multi-image-archive a b", "name several images"),
    ("rbuild save --uncompressed a", "are not compressed"),
    ("rbuild ps --pod", "there are no pods"),
    ("rbuild pull --decryption-key=key app", "decrypt the image with skopeo"),
    ("rbuild push --encryption-key=jwe:key app", "encrypt the image with skopeo"),
    ("rbuild push --encrypt-layer=0 app", "encrypt the image with skopeo"),
    ("rbuild login --tls registry.example", "a similar argument exists: '--tls-verify'"),
    // kaniko
    ("rbuild bud --destination=app", "-t NAME --push"),
    ("rbuild bud --dockerfile=f", "-f FILE"),
    ("rbuild bud --context=dir", "name the context without a flag"),
    ("rbuild bud --cache-dir=d .", "--cache-from type=local,src=DIR"),
    ("rbuild bud --no-push .", "nothing is pushed without --push"),
    ("rbuild bud --single-snapshot .", "--squash=new"),
    ("rbuild bud --snapshot-mode=redo .", "changes are found by an overlay"),
    ("rbuild bud --use-new-run .", "each step is an overlay"),
    ("rbuild bud --reproducible .", "--timestamp 0"),
    ("rbuild bud --tarPath=f .", "-o type=docker,dest=FILE"),
    ("rbuild bud --skip-tls-verify .", "--tls-verify=false"),
    ("rbuild bud --customPlatform=linux/arm64 .", "--platform OS/ARCH"),
    // crane, regctl and oras
    ("rcopy copy --allow-nondistributable-artifacts a b", "foreign layers are copied"),
    ("rcopy pull --cache_path=d a b", "`rbuild pull`"),
    ("rcopy copy --force-recursive a b", "never sent again"),
    ("rcopy copy --include-external a b", "foreign layers are copied"),
    ("rcopy copy --plain-http a b", "--tls-verify=false"),
    ("rcopy copy --from-oci-layout a b", "oci:PATH"),
    ("rcopy copy --to-oci-layout a b", "oci:PATH"),
    ("rcopy copy --recursive a b", "--referrers"),
    ("rcopy copy --concurrency=3 a b", "--jobs"),
    ("rcopy copy --registry-config=f a b", "--authfile"),
    ("rcopy manifest --descriptor a", "`rcopy manifest head`"),
    ("rcopy manifest --pretty a", "jq"),
    ("rcopy tree --depth=2 a", "everything that is attached"),
    // cosign
    ("rcopy sign --yes a", "there are no questions"),
    ("rcopy sign --sk a", "PKCS#11"),
    ("rcopy sign --tlog-upload=false a", "never logged"),
    ("rcopy verify --insecure-ignore-tlog a", "needs no log entry"),
    ("rcopy verify --check-claims=false a", "always compared"),
];

#[test]
fn flags_of_other_programs_are_translated() {
    let bench = Bench::new();
    bench.rbuild(["bud", "--cache-repo=x", "."]).code(125).fails(&["--cache-repo", "--cache-to"]);
    bench.rcopy(["copy", "--insecure", "a", "b"]).code(1).fails(&["--tls-verify=false"]);
    for (line, here) in ELSEWHERE {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        let flag = words.clone().find(|word| word.starts_with("--")).unwrap();
        let ran = if program == "rbuild" { bench.rbuild(words) } else { bench.rcopy(words) };
        ran.fails(&[&format!("'{}'", flag.split('=').next().unwrap()), here]);
    }
    for (line, silly) in [("bud --no-pusk .", "--cpus"), ("bud --frontends=x .", "--root")] {
        let ran = bench.rbuild(line.split(' ')).code(125).fails(&["unexpected argument"]);
        assert!(!ran.stderr.contains(silly), "{}", ran.stderr);
    }
    let ran = bench.rbuild(["run", "--ntework=host", "busybox"]).code(125);
    ran.fails(&["there is no flag --ntework", "did you mean --network?"]);
    bench.rbuild(["man", "pages"]).ok();
    for page in ["rbuild.1", "rbuild-bud.1", "rbuild-registry-serve.1"] {
        let text = std::fs::read_to_string(bench.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}
