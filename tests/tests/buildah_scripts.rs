//! What scripts for buildah read: lines of progress, names of images that come from files, words of
//! errors, and what its builds do where BuildKit's do something else.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::image::{Layer, layout};
use e2e::{Bench, Ran, root, run};
use registry_server::{Options, Registry};

/// A bench with busybox, where commands can be run.
fn ready() -> Option<Bench> {
    if !root() {
        return None;
    }
    let bench = Bench::new();
    bench.busybox();
    Some(bench)
}

/// A bench with an image `made` of nothing but the file `/a`.
fn made() -> Bench {
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nCOPY a /\n");
    bench.write("context/a", "a");
    bench.line("buildah bud -q -t made context").ok();
    bench
}

#[track_caller]
fn says(ran: &Ran, words: &[&str]) {
    let mut rest = ran.stderr.as_str();
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} in {}", ran.told()));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn builds_say_their_steps_as_scripts_expect() {
    let Some(bench) = ready() else { return };
    let text =
        "FROM busybox AS one\nRUN echo of-one\nFROM busybox\nCOPY --from=one /etc/passwd /p\n";
    bench.write("context/Dockerfile", text);
    let line = "buildah bud --layers --skip-unused-stages=false -t short context";
    let first = bench.line(line).ok();
    says(&first, &["[one] STEP 2/2: RUN echo of-one\nof-one\n"]);
    says(&first, &["\nSTEP 2/2: COPY --from=one", "COMMIT short\n", "--> ", "Successfully tagged"]);
    assert!(!first.stderr.contains("layer"), "{}", first.told());
    let second = bench.line(line).ok();
    says(
        &second,
        &["\nSTEP 2/2: COPY --from=one", "--> Using cache\n", "localhost/short:latest\n"],
    );
    assert!(bench.line("docker build context").ok().stderr.contains("CACHED"));
    bench.write("context/Dockerfile", "FROM busybox\nRUN exit 3\n");
    let failed = bench.line("buildah bud context").code(3);
    says(&failed, &["building at STEP \"RUN exit 3\": exit status 3"]);
    bench.write("context/Dockerfile", "FROM busybox\nCOPY none /\n");
    let failed = bench.line("buildah bud context").code(125);
    says(&failed, &["building at STEP \"COPY none /\": no such file or directory"]);
}

#[test]
fn a_list_gets_its_images_without_a_word() {
    let bench = made();
    bench.line("buildah manifest create list").ok();
    let added = bench.line("buildah manifest add list made").ok();
    assert_eq!(added.stderr, "", "{}", added.told());
}

#[test]
fn copies_are_told_as_scripts_expect() {
    let bench = made();
    let pushed = bench.line("buildah push made oci:layout").ok();
    let words = ["Getting image source signatures", "Copying blob sha256:", "Copying config"];
    says(&pushed, &words[..1]);
    for word in &words[1..] {
        says(&pushed, &[word, "Writing manifest to image destination"]);
    }
    assert_eq!(pushed.stderr.matches("Getting").count(), 1, "{}", pushed.told());
    assert!(!bench.line("skopeo copy oci:layout oci:other").ok().stderr.contains("Getting"));
}

#[test]
fn without_layers_every_step_of_buildah_runs_again() {
    let Some(bench) = ready() else { return };
    bench.write("context/Dockerfile", "FROM busybox\nRUN echo it-runs\n");
    let runs = |flags: &str| {
        let line = format!("buildah bud --jobs 1 {flags}").trim_end().to_owned();
        bench.line(&format!("{line} context")).ok().stderr.lines().any(|line| line == "it-runs")
    };
    assert!(runs("") && runs("") && runs("--layers=false"));
    assert!(!runs("--layers") && !runs("--cache-ttl=1.5h"));
    assert!(runs("--layers --cache-ttl=0"));
}

#[test]
fn what_comes_from_files_is_named_by_its_content() {
    let bench = made();
    for to in
        ["docker-archive:d.tar:app:v1", "oci-archive:o.tar:app:v2", "dir:loose", "oci:nameless"]
    {
        bench.line(&format!("buildah push -q made {to}")).ok();
    }
    bench.line("buildah rmi -a").ok();
    let container =
        |from: &str| bench.line(&format!("buildah from -q {from}")).ok().text().to_owned();
    assert_eq!(container("docker-archive:d.tar"), "app-working-container");
    assert_eq!(container("oci-archive:o.tar"), "app-working-container-1");
    assert_eq!(container("dir:loose"), "dir-working-container");
    assert_eq!(container("oci:nameless"), "oci-working-container");
    for name in ["app:v1", "app:v2"] {
        bench.line(&format!("buildah images {name}")).ok();
    }
    bench.line("buildah rm -a").ok();
    bench.line("buildah rmi -a").ok();
    bench.line("buildah pull -q dir:loose").ok();
    let names = bench.line("buildah images --format {{.Name}}:{{.Tag}}").ok();
    assert_eq!(names.text(), "<none>:<none>");
    bench.line("rbuild pull -q dir:loose").ok();
    bench.line("buildah images localhost/loose:latest").ok();
}

#[test]
fn an_image_whose_layers_are_here_gets_the_name_it_is_fetched_by() {
    let bench = Bench::new();
    let registry = Registry::start(Options::default()).unwrap();
    let layer = Layer::new().file("a", 0o644, b"x").finish();
    layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let name = |tag: &str| format!("{}/app:{tag}", registry.address());
    for tag in ["1", "2", "3"] {
        let to = format!("docker://{}", name(tag));
        bench.rcopy(["--tls-verify=false", "copy", "-q", "oci:image:app", &to]).ok();
    }
    bench.line(&format!("buildah pull -q {}", name("1"))).ok();
    bench.line(&format!("buildah from -q {}", name("2"))).ok();
    bench.write("context/Dockerfile", format!("FROM {}\nCOPY Dockerfile /\n", name("3")));
    bench.line("buildah bud -q context").ok();
    for tag in ["2", "3"] {
        bench.line(&format!("buildah images {}", name(tag))).ok();
    }
}

#[test]
fn images_are_found_by_short_ids_and_digests_are_asked_of_no_registry() {
    let bench = made();
    let id = bench.line("buildah images -q made").ok().text().to_owned();
    let container = bench.line(&format!("buildah from -q {}", &id[..6])).ok();
    assert_eq!(container.text(), "made-working-container");
    let digest = format!("sha256:{}", "1".repeat(64));
    let absent = bench.line(&format!("buildah from {digest}")).code(125);
    absent.fails(&[&format!("{digest}: image not known")]);
}

#[test]
fn exceptions_below_an_ignored_directory_must_name_it_for_buildah() {
    let bench = Bench::new();
    for file in ["a/one", "a/two", "b/one"] {
        bench.write(&format!("context/{file}"), "x");
    }
    bench.write("context/Dockerfile", "FROM scratch\nCOPY . /\n");
    let files = |tool: &str, rules: &str| -> Vec<String> {
        bench.write("context/.dockerignore", format!("Dockerfile\n.dockerignore\n{rules}"));
        let _ = std::fs::remove_dir_all(bench.path().join("out"));
        bench.line(&format!("{tool} build -q -o out context")).ok();
        let out = bench.path().join("out");
        let all = walkdir::WalkDir::new(&out).sort_by_file_name().into_iter().map(Result::unwrap);
        all.filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(&out).unwrap().display().to_string())
            .collect()
    };
    assert_eq!(files("docker", "*\n!*/one\n"), ["a/one", "b/one"]);
    assert!(files("buildah", "*\n!*/one\n").is_empty());
    assert_eq!(files("buildah", "*\n!a/one\n"), ["a/one"]);
    assert_eq!(files("buildah", "a\n!a\n"), ["a/one", "a/two", "b/one"]);
    bench.write("context/Dockerfile", "FROM scratch\nCOPY a /\n");
    bench.write("context/.dockerignore", "a\n!*/one\n");
    bench.line("docker build -q context").ok();
    bench.line("buildah build -q context").code(125).fails(&["no such file or directory"]);
}

#[test]
fn parameters_of_containers_conf_are_for_networks_of_their_own() {
    let Some(bench) = ready() else { return };
    let conf = "[containers]\ndefault_sysctls=[\"net.ipv4.ping_group_range=0 7\"]\n";
    let conf = bench.write("containers.conf", conf);
    bench.line("buildah from -q --name c busybox").ok();
    let with = |line: &str| {
        let mut words = line.split(' ');
        let mut command = bench.tool(words.next().unwrap());
        run(command.args(words).env("CONTAINERS_CONF", &conf)).ok()
    };
    let range = "cat /proc/sys/net/ipv4/ping_group_range";
    assert_eq!(with(&format!("buildah run c {range}")).text(), "0\t7");
    with(&format!("buildah run --net=host c {range}"));
    bench.write("context/Dockerfile", "FROM busybox\nRUN --network=host true\n");
    with("buildah bud -q context");
    with("buildah bud -q --network=host context");
    bench.line("docker build -q context").code(1).fails(&["network.host"]);
}

#[test]
fn spans_of_time_and_histories_are_those_of_go() {
    let bench = made();
    bench.line("buildah from -q --format docker --name c made").ok();
    let mut command = bench.tool("buildah");
    let check = ["config", "--add-history", "--healthcheck", "/bin/check it", "c"];
    let times = ["--healthcheck-interval=90s", "--healthcheck-retries=7"];
    run(command.args([&check[..4], &times, &check[4..]].concat())).ok();
    let refused = run(bench.tool("buildah").args(["config", "--healthcheck", "a \"b", "c"]));
    refused.code(125).fails(&["--healthcheck"]);
    bench.line("buildah commit -q c checked").ok();
    bench.line("buildah commit -q --omit-history c short").ok();
    let shown = |image: &str, format: &str| {
        let arguments = ["inspect", "--type", "image", "--format", format, image];
        run(bench.tool("buildah").args(arguments)).ok().text().to_owned()
    };
    let interval = "{{.Docker.Config.Healthcheck.Interval}}";
    assert_eq!(shown("checked", interval), "1m30s");
    for form in ["{{json ", "{{printf \"%d\" "] {
        assert_eq!(shown("checked", &interval.replace("{{", form)), "90000000000", "{form}");
    }
    let steps = shown("checked", "{{range .Docker.History}}{{println .CreatedBy}}{{end}}");
    assert!(steps.contains("HEALTHCHECK --interval=1m30s --retries=7 /bin/check it"), "{steps}");
    assert_eq!(shown("short", "{{.Docker.History}}"), "[]");
    let unset = "buildah config --unsetannotation org.opencontainers.image.base.name c";
    bench.line("buildah commit -q -f oci c checked").ok();
    bench.line(unset).ok();
    bench.line("buildah commit -q -f oci c unset").ok();
    let base = "{{index .ImageAnnotations \"org.opencontainers.image.base.name\"}}";
    assert_eq!(shown("checked", base), "localhost/made:latest");
    assert_eq!(shown("unset", base), "");
}

#[test]
fn everyday_lines_of_builds_are_taken() {
    let Some(bench) = ready() else { return };
    bench.write("context/Mine", "FROM busybox AS some/stage\nFROM some/stage\nRUN true\n");
    bench.line("buildah bud -q --jobs 0 --raw-iidfile id context/Mine").ok();
    assert_eq!(std::fs::read_to_string(bench.path().join("id")).unwrap().len(), 64);
    bench.write("context/Dockerfile", "FROM busybox AS some/stage\n");
    bench.line("docker build -q context").code(1).fails(&["some/stage"]);
    bench.write("context/Dockerfile", "FROM scratch\nCOPY Mine /\n");
    for (flags, kind) in [("--jobs 1", "tar\""), ("--compression-format zstd", "tar+zstd\"")] {
        bench.line(&format!("buildah bud -q {flags} -t dir:out context")).ok();
        let manifest = std::fs::read_to_string(bench.path().join("out/manifest.json")).unwrap();
        assert!(manifest.contains(kind), "{manifest}");
        std::fs::remove_dir_all(bench.path().join("out")).unwrap();
    }
}

#[test]
fn errors_have_the_words_that_scripts_look_for() {
    let bench = made();
    bench.line("buildah push -q made docker-archive:d.tar:app:v1").ok();
    for (line, words) in [
        ("buildah from --pull=never absent", "absent: image not known"),
        ("buildah rmi absent", "absent: image not known"),
        ("buildah rm absent", "container not known"),
        ("buildah run absent true", "container not known"),
        ("buildah bud -f none.Dockerfile .", "no such file or directory"),
        ("buildah tag made Upper", "must be lowercase"),
        ("buildah pull --policy bogus made", "unsupported pull policy \"bogus\""),
        (
            "buildah pull --all-tags docker-archive:d.tar",
            "pulling all tags is not supported for docker-archive transport",
        ),
        ("buildah push --encryption-key jwe:key made dir:out", "--encryption-key"),
    ] {
        bench.line(line).code(125).fails(&[words]);
    }
}
