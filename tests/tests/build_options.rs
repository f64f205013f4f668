//! The options of `rbuild bud`, in journeys.

use e2e::registry::DockerRegistry;
use e2e::{Bench, peer, root, run};
use serde_json::Value;

const CHECKED: &str = "\
# app holds the greeting
FROM busybox AS app
# GREETING is what it says
ARG GREETING=hello
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c echo $GREETING > /greeting
COPY ignored.log /
CMD echo hi
";

#[test]
fn a_dockerfile_is_checked_and_asked_without_building() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.write("context/Dockerfile", CHECKED);
    bench.write("context/.dockerignore", "*.log\n");
    let ask = |more: &[&str]| {
        let line = ["bud"].iter().chain(more).chain(&["context"]).copied().collect::<Vec<_>>();
        bench.rbuild(line)
    };
    // No image is in the store, and none is asked for.
    let text = ask(&["--check"]).code(1).stdout;
    for words in
        ["warning[CopyIgnoredFile]", "warning[JSONArgsRecommended]", "Dockerfile:7:5", "2 warnings"]
    {
        assert!(text.contains(words), "{words} is missing in {text}");
    }
    let json = |more: &[&str], code: i32| -> Value {
        serde_json::from_str(&ask(more).code(code).stdout).unwrap()
    };
    let found = json(&["--call=check,format=json"], 1);
    assert_eq!(found["warnings"][0]["ruleName"], "CopyIgnoredFile");
    assert_eq!(found["warnings"][0]["location"]["ranges"][0]["start"]["line"], 6);
    assert_eq!(json(&["--call=check,format=json,ignorestatus"], 0), found);
    let sarif = json(&["--check", "--check-format=sarif"], 1);
    assert_eq!(sarif["runs"][0]["results"][1]["ruleId"], "JSONArgsRecommended");
    let skip = "BUILDKIT_DOCKERFILE_CHECK=skip=CopyIgnoredFile,JSONArgsRecommended";
    ask(&["--check", "--build-arg", skip]).ok();
    let outline = json(&["--call=outline,format=json", "--build-arg=GREETING=bye"], 0);
    assert_eq!(outline["args"][0]["value"], "bye");
    assert_eq!(outline["args"][0]["description"], "is what it says");
    assert_eq!(outline["secrets"][0]["required"], true);
    assert_eq!(outline["cache"][0]["id"], "/c");
    let targets = ask(&["--call=targets"]).ok().stdout;
    assert!(targets.contains("app (default)  busybox  holds the greeting"), "{targets}");
    ask(&["--call=outline", "--target=nowhere"]).fails(&["nowhere"]);
    ask(&["--call=test"]).code(125).fails(&["--call", "test"]);
    // A Dockerfile that cannot be read is a finding, too.
    bench.write("context/Dockerfile", "FROM busybox\nRNU x\n");
    assert!(ask(&["--check"]).code(1).stdout.contains("error["));
    // What the file says of checks holds for builds.
    bench.busybox();
    bench.write("context/Dockerfile", "FROM busybox\nCMD echo hi\n");
    assert!(ask(&["-t=lax"]).ok().stderr.contains("JSONArgsRecommended"));
    bench.write(
        "context/Dockerfile",
        "# check=error=true\nFROM busybox\nRUN touch /x\nCMD echo hi\n",
    );
    let refused = ask(&["-t=strict"]).code(125).fails(&["JSONArgsRecommended", "Dockerfile:4"]);
    assert!(!refused.stderr.contains("RUN touch"), "{}", refused.told());
}

const LOOKING: &str = r#"FROM busybox
RUN (grep CapEff: /proc/self/status; echo nnp $(sed -n 's/NoNewPrivs:.//p' /proc/self/status); \
     echo files $(ulimit -n); echo shm $(df -k /dev/shm | tail -n 1 | awk '{print $2}'); \
     cat /etc/hosts /etc/resolv.conf; echo host $(hostname); echo groups $(id -G); \
     echo pids $(cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null); cat /over/kept /plain/kept; ls -l /dev/given; \
     echo keys $(wc -c < /proc/keys); echo proxy $HTTP_PROXY) > /seen 2>&1; \
     echo new > /over/kept; echo new > /plain/kept || echo refused >> /seen
"#;

#[test]
fn commands_get_what_was_asked_for_and_the_cache_does_not_mind() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/Dockerfile", LOOKING);
    let kept = bench.write("kept/kept", "kept\n");
    let kept = kept.parent().unwrap().display().to_string();
    let seen = || std::fs::read_to_string(bench.path().join("out/seen")).unwrap();
    let (over, plain) = (format!("-v={kept}:/over:O"), format!("-v={kept}:/plain:ro"));
    let build = |more: &[&str]| {
        let line = ["bud", "--progress=plain", "-o=out", &over, &plain];
        let line: Vec<&str> = line.iter().chain(more).chain(&["context"]).copied().collect();
        run(bench.command("rbuild").env("HTTP_PROXY", "http://proxy.example").args(line))
    };
    let device = "--device=/dev/zero:/dev/given";
    build(&[
        device,
        "--cap-drop=ALL",
        "--cap-add=KILL",
        "--security-opt=no-new-privileges",
        "--security-opt=unmask=/proc/keys",
        "--ulimit=nofile=123:456",
        "--shm-size=2m",
        "--add-host=db:10.0.0.9",
        "--add-host=me:host-gateway",
        "--dns=9.9.9.9",
        "--dns-search=a.example",
        "--dns-option=ndots:2",
        "--group-add=2000",
        "--pids-limit=77",
        "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=here",
    ])
    .ok();
    let text = seen();
    for words in [
        "CapEff:\t0000000000000020",
        "nnp 1",
        "files 123",
        "shm 2048",
        "10.0.0.9\tdb",
        "192.0.0.1\tme",
        "nameserver 9.9.9.9",
        "search a.example",
        "options ndots:2",
        "host here",
        "2000",
        "pids 77",
        "kept\nkept",
        "/dev/given",
        "proxy http://proxy.example",
        "refused",
    ] {
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
    assert!(!text.contains("keys 0\n"), "{text}");
    assert_eq!(std::fs::read_to_string(format!("{kept}/kept")).unwrap(), "kept\n");
    // Privileges and limits are not part of the key; names are.
    let names = [
        "--add-host=db:10.0.0.9",
        "--add-host=me:host-gateway",
        "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=here",
    ];
    let again = build(&names).ok();
    assert!(again.stderr.contains("0 steps run"), "{}", again.told());
    build(&[device, "--dns=none", "--no-hosts", "--no-hostname", "--http-proxy=false"]).ok();
    let text = seen();
    assert!(text.contains("can't open '/etc/hosts'") || !text.contains("localhost"), "{text}");
    assert!(text.contains("proxy \n") || text.contains("proxy\n"), "{text}");
    assert!(text.contains("CapEff:\t00000000a80425fb"), "{text}");
    for (flag, words) in [
        ("--isolation=moon", "moon"),
        ("--network=container:x", "container:NAME"),
        ("--userns=nomap", "nomap"),
        ("--volume=/etc:/x:U", "U"),
        ("--security-opt=label=type:x", "label=type:x"),
    ] {
        build(&[flag]).code(125).fails(&[words]);
    }
}

const APP: &str = "\
FROM base AS one
RUN rm /gone && touch /one
RUN mkdir -p /d && touch /d/a /d/b
FROM one
RUN rm /d/a && touch /two
ENV Y=2
";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_image_looks_as_asked_for_and_squashed_layers_are_cached() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let base = "FROM busybox\nLABEL a=base keep=base\nENV X=1\nRUN touch /base /gone\n";
    bench.build("base", base, &[]).ok();
    bench.write("context/Dockerfile", APP);
    let build = |more: &[&str]| {
        let line = ["bud", "--progress=plain"].iter().chain(more).chain(&["context"]);
        bench.rbuild(line.copied().collect::<Vec<_>>())
    };
    let manifest =
        |name: &str| json(&bench.rcopy(["inspect", "--raw", &format!("store:{name}")]).ok().stdout);
    let config = |name: &str| {
        json(&bench.rcopy(["inspect", "--config", &format!("store:{name}")]).ok().stdout)
    };
    for (squash, layers) in
        [("--squash=false", 5), ("--squash=new", 3), ("--squash=stage", 4), ("--squash", 1)]
    {
        build(&["-t=app", squash]).ok();
        let made = manifest("app")["layers"].as_array().unwrap().len();
        assert_eq!(made, layers, "{squash}");
        let history = config("app")["history"].clone();
        let lines = history.as_array().unwrap().iter();
        let filled = lines.filter(|line| line["empty_layer"] != true).count();
        assert_eq!(filled, layers, "{squash}: {history}");
        let there = bench.rbuild(["run", "--rm", "app", "find", "/base", "/one", "/two", "/d"]);
        assert_eq!(there.ok().text(), "/base\n/one\n/two\n/d\n/d/b", "{squash}");
        bench.rbuild(["run", "--rm", "app", "ls", "/gone"]).code(1);
        // The same again, without squashing again.
        let again = build(&["-t=again", squash]).ok();
        assert_eq!(manifest("again"), manifest("app"), "{squash}");
        assert!(!again.stderr.contains("squashing"), "{}", again.told());
    }
    build(&[
        "-t=app",
        "--layers=false",
        "--label=b=2",
        "--unsetlabel=a",
        "--env=Z=3",
        "--unsetenv=X",
        "--unsetenv=Y",
        "--annotation=k=v",
        "--annotation=manifest[linux/s390x]:other=v",
        "--omit-history",
        "--os-version=10.0",
        "--os-feature=f",
        "--timestamp=1000",
        "--identity-label",
        "--format=docker",
    ])
    .ok();
    let (manifest, config) = (manifest("app"), config("app"));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["annotations"], serde_json::json!({ "k": "v" }));
    assert_eq!(config["created"], "1970-01-01T00:16:40Z");
    assert!(config["history"].as_array().is_none_or(Vec::is_empty), "{config}");
    assert_eq!(config["os.version"], "10.0");
    assert_eq!(config["os.features"][0], "f");
    let labels = &config["config"]["Labels"];
    assert_eq!(
        (&labels["b"], &labels["keep"], &labels["a"]),
        (&"2".into(), &"base".into(), &Value::Null)
    );
    assert!(labels["io.rbuild.version"].is_string());
    let env = config["config"]["Env"].to_string();
    assert!(env.contains("Z=3") && !env.contains("X=1") && !env.contains("Y=2"), "{env}");
    // A time bounds those of files unless they are to stay.
    let times = |more: &[&str]| {
        build(&[&["-t=timed", "--timestamp=1000", "--squash"], more].concat()).ok();
        bench.rbuild(["run", "--rm", "timed", "stat", "-c", "%Y", "/two"]).ok().stdout
    };
    assert_eq!(times(&[]), "1000\n");
    assert_ne!(times(&["--rewrite-timestamp=false"]), "1000\n");
}

#[test]
fn a_result_goes_to_several_places_at_once() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let Some(registry) = DockerRegistry::start() else { return };
    bench.write("context/Dockerfile", "FROM busybox\nRUN echo made > /made\n");
    bench.write("out/stale/file", "stale");
    bench.write("out/made/not-a-file", "stale");
    let build = |more: &[&str]| {
        let line = ["bud", "--progress=plain"].iter().chain(more).chain(&["context"]);
        bench.rbuild(line.copied().collect::<Vec<_>>())
    };
    let read = |name: &str| std::fs::read_to_string(bench.path().join(name)).unwrap();
    build(&[
        "-t=app",
        &format!("-t=docker://{}", registry.name("tagged:1")),
        "-t=oci-archive:app.tar:app",
        &format!(
            "-o=type=image,name={},push-by-digest=true,name-canonical=true",
            registry.name("digested")
        ),
        "-o=type=oci,tar=false,dest=layout,name=app",
        "-o=type=local,dest=out,mode=delete",
        "-o=type=tar,dest=files.tar,platform-split=true",
        "--load",
        "--manifest=list",
        "--iidfile=id",
        "--iidfile-raw=id-raw",
        "--metadata-file=metadata",
        "--logfile=log",
        "--tls-verify=false",
    ])
    .ok();
    assert_eq!(read("out/made"), "made\n");
    assert!(!bench.path().join("out/stale").exists());
    assert_eq!(read("id"), format!("sha256:{}", read("id-raw")));
    assert!(read("log").contains("RUN echo made"));
    let digest = json(&read("metadata"))["containerimage.digest"].as_str().unwrap().to_owned();
    let named = json(&read("metadata"))["image.name"].clone();
    assert_eq!(named, format!("localhost/app:latest@{digest}"));
    let listed =
        run(std::process::Command::new("tar").args(["tf"]).arg(bench.path().join("files.tar")));
    assert!(listed.ok().stdout.contains("linux_amd64/made\n"));
    for place in [
        format!("docker://{}", registry.name("tagged:1")),
        format!("docker://{}@{digest}", registry.name("digested")),
        "oci-archive:app.tar:app".to_owned(),
        "oci:layout:localhost/app:latest".to_owned(),
        "store:app".to_owned(),
    ] {
        let found = bench.rcopy(["digest", "--tls-verify=false", &place]).ok();
        assert_eq!(found.text(), digest, "{place}");
    }
    let tags = bench.rcopy(["list-tags", "--tls-verify=false", &registry.name("digested")]);
    assert!(!tags.stdout.contains("latest"), "{}", tags.told());
    let list = bench.rbuild(["manifest", "inspect", "list"]).ok().stdout;
    assert!(list.contains(&digest), "{list}");
    // Nothing but the cache.
    let cached = build(&["-t=nothing", "-o=type=cacheonly"]).ok();
    assert_eq!(cached.stdout, "");
    bench.rbuild(["run", "--rm", "--pull=never", "nothing"]).code(125);
    // Every layer in one compression, those of the base as well.
    build(&["-t=zstd", "--compression=zstd", "--force-compression", "--compression-level=1"]).ok();
    let manifest = json(&bench.rcopy(["inspect", "--raw", "store:zstd"]).ok().stdout);
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    }
    assert_eq!(bench.rbuild(["run", "--rm", "zstd", "cat", "/made"]).ok().stdout, "made\n");
    build(&["-o=type=oci,dest=a,compression=zstd", "-o=type=oci,dest=b"])
        .code(125)
        .fails(&["one image"]);
}

#[test]
fn policies_and_pull_flags_decide_what_is_built_on() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/Dockerfile", "FROM docker.io/library/tool:1\nRUN echo built > /x\n");
    let build = |more: &[&str]| {
        let line = ["bud", "-t=app"].iter().chain(more).chain(&["context"]);
        bench.rbuild(line.copied().collect::<Vec<_>>())
    };
    build(&["--pull-never"]).fails(&["tool:1", "Dockerfile:1"]);
    build(&["--pull-never", "--from=busybox"]).ok();
    let rule = |action: &str, from: &str, to: &str| {
        let updates = match to {
            "" => String::new(),
            to => format!(",\"updates\":{{\"identifier\":\"docker-image://{to}\"}}"),
        };
        format!(
            "{{\"action\":\"{action}\",\"selector\":{{\"identifier\":\"docker-image://{from}\"}}{updates}}}"
        )
    };
    let policy = |name: &str, rules: &[String]| {
        bench.write(name, format!("{{\"rules\":[{}]}}", rules.join(",")))
    };
    let convert = rule("CONVERT", "docker.io/library/tool:*", "localhost/busybox:latest");
    let file = policy("convert.json", std::slice::from_ref(&convert));
    build(&["--pull=never", "--source-policy-file", file.to_str().unwrap()]).ok();
    let line = ["bud", "--pull=never", "-t=app", "context"];
    run(bench.command("rbuild").env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", &file).args(line)).ok();
    policy("deny.json", &[convert, rule("DENY", "localhost/*", "")]);
    build(&["--pull=never", "--source-policy-file=deny.json"]).fails(&[
        "localhost/busybox",
        "rule 2",
        "deny.json",
    ]);
    bench.write("bad.json", "{\"rules\":[{\"action\":\"ASK\"}]}");
    build(&["--source-policy-file=bad.json"]).fails(&["bad.json"]);
    build(&["--source-policy-file=missing.json"]).fails(&["missing.json"]);
}

/// Every flag of `buildah build` and `docker buildx build`, and whether it works here.
const FLAGS: &[(&str, bool)] = &[
    ("--add-host=a:10.0.0.1", true),
    ("--all-platforms", true),
    ("--annotation=a=b", true),
    ("--arch=arm64", true),
    ("--authfile=auth.json", true),
    ("--build-arg=a=b", true),
    ("--build-context=a=.", true),
    ("--cap-add=KILL", true),
    ("--cap-drop=KILL", true),
    ("--cert-dir=.", true),
    ("--cgroup-parent=/x", true),
    ("--cgroupns=host", true),
    ("--compress", true),
    ("--cpp-flag=-DX", true),
    ("--cpu-period=100000", true),
    ("--cpu-quota=50000", true),
    ("--cpu-shares=512", true),
    ("--cpuset-cpus=0", true),
    ("--cpuset-mems=0", true),
    ("--creds=a:b", true),
    ("--decryption-key=k", false),
    ("--device=/dev/null", true),
    ("--disable-compression", true),
    ("--disable-content-trust", true),
    ("--dns=9.9.9.9", true),
    ("--dns-option=a", true),
    ("--dns-search=a", true),
    ("--env=A=b", true),
    ("--file=Dockerfile", true),
    ("--force-rm", true),
    ("--format=docker", true),
    ("--from=busybox", true),
    ("--group-add=7", true),
    ("--hooks-dir=.", false),
    ("--http-proxy=false", true),
    ("--identity-label=false", true),
    ("--ignorefile=Dockerfile", true),
    ("--iidfile=i", true),
    ("--ipc=host", true),
    ("--isolation=chroot", true),
    ("--jobs=2", true),
    ("--label=a=b", true),
    ("--layers", true),
    ("--logfile=l", true),
    ("--logsplit", true),
    ("--manifest=m", true),
    ("--memory=64m", true),
    ("--memory-swap=-1", true),
    ("--network=none", true),
    ("--no-cache", true),
    ("--no-hostname", true),
    ("--no-hosts", true),
    ("--omit-history", true),
    ("--os=linux", true),
    ("--os-feature=f", true),
    ("--os-version=1", true),
    ("--output=out", true),
    ("--pid=host", true),
    ("--platform=linux/arm64", true),
    ("--pull", true),
    ("--quiet", true),
    ("--retry=1", true),
    ("--retry-delay=1s", true),
    ("--rm", true),
    ("--runtime=sh", true),
    ("--runtime-flag=x", true),
    ("--secret=id=a,src=Dockerfile", true),
    ("--security-opt=no-new-privileges", true),
    ("--shm-size=1m", true),
    ("--sign-by=k", false),
    ("--skip-unused-stages", true),
    ("--squash", true),
    ("--ssh=default=agent", true),
    ("--stdin", true),
    ("--tag=a", true),
    ("--target=0", true),
    ("--timestamp=1", true),
    ("--tls-verify=false", true),
    ("--ulimit=nofile=5", true),
    ("--unsetenv=A", true),
    ("--userns=host", true),
    ("--userns-gid-map=0:0:1", true),
    ("--userns-gid-map-group=g", false),
    ("--userns-uid-map=0:0:1", true),
    ("--userns-uid-map-user=u", false),
    ("--uts=host", true),
    ("--variant=v7", true),
    ("--volume=/tmp:/x", true),
    // docker buildx
    ("--allow=network.host,security.insecure,device=/dev/fuse", true),
    ("--allow=moon", false),
    ("--attest=type=sbom", true),
    ("--builder=default", true),
    ("--builder=other", true),
    ("--cache-from=type=local,src=c", true),
    ("--cache-to=type=local,dest=c", true),
    ("--cache-ttl=1h", true),
    ("--call=targets", true),
    ("--debug", false),
    ("--load", true),
    ("--max-download=1g", true),
    ("--metadata-file=m", true),
    ("--no-cache-filter=a", true),
    ("--print", false),
    ("--progress=plain", true),
    ("--provenance=true", true),
    ("--push", true),
    ("--sbom=true", true),
];

#[test]
fn flags_of_other_tools_work_or_are_refused_by_name() {
    let bench = Bench::new();
    bench.write("Dockerfile", "FROM scratch\n");
    bench.write("Containerfile.in", "FROM scratch\n");
    bench.write("auth.json", "{}");
    let _agent = std::os::unix::net::UnixListener::bind(bench.path().join("agent")).unwrap();
    let ordinary = !rustix::process::geteuid().is_root();
    for (flag, works) in FLAGS {
        let mut line = vec!["bud", "--tag=app", flag];
        if !flag.starts_with("--call") {
            line.push("--call=targets");
        }
        if flag.starts_with("--cpp-flag") {
            line.push("--file=Containerfile.in");
        }
        if flag.starts_with("--runtime-flag") {
            line.push("--runtime=sh");
        }
        if flag.starts_with("--userns-gid-map=") {
            line.push("--userns-uid-map=0:0:1");
        }
        let ran = bench.rbuild(line);
        if flag.starts_with("--userns-") && flag.contains("-map") {
            // The users and groups of the rows have no ids; working_ids.rs has names that do.
            match (flag.contains("-map-"), ordinary) {
                (true, _) => ran.code(125).fails(&["has no ids of", "hint:"]),
                (false, true) => ran.code(125).fails(&["maps of ids need root", "hint:"]),
                (false, false) => ran.ok(),
            };
            continue;
        }
        if *works {
            ran.ok();
        } else {
            let name = flag.split('=').next().unwrap();
            let ran = ran.code(125).fails(&[name, "not supported"]);
            assert!(ran.stderr.contains("hint:"), "{}", ran.told());
        }
    }
    let Some(buildah) = peer("buildah") else { return };
    let help = run(std::process::Command::new(buildah).args(["build", "--help"])).ok().stdout;
    let words = help.lines().flat_map(|line| line.split([' ', '[', '=']).take(12));
    for flag in words.filter(|word| word.starts_with("--")) {
        let known = |(line, _): &(&str, bool)| line.split('=').next() == Some(flag);
        assert!(flag == "--help" || FLAGS.iter().any(known), "{flag} is not known");
    }
}

#[test]
fn a_directory_that_is_called_like_a_dockerfile_is_none() {
    let bench = Bench::new();
    bench.write("context/dockerfile/lib.rs", "");
    let ran = bench.rbuild(["bud", "context"]).code(125);
    ran.fails(&["there is no Containerfile or Dockerfile in", "context"]);
    let ran = bench.rbuild(["bud", "-f", "context/dockerfile", "context"]);
    ran.code(125).fails(&["reading", "context/dockerfile", "is a directory"]);
}
