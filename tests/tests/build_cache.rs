//! The build cache from the outside: what it says, and how it travels.

use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran, peer, run};
use serde_json::Value;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.told()))
}

/// `rbuild bud -t app` of `context` with more arguments.
#[track_caller]
fn bud(bench: &Bench, more: &[&str]) -> Ran {
    let mut line = vec!["bud", "--progress=plain", "-t", "app"];
    line.extend(more);
    line.push("context");
    bench.rbuild(line)
}

#[test]
fn a_build_says_beforehand_and_afterwards_what_runs_and_why() {
    let bench = Bench::new();
    bench.busybox();
    let dockerfile = "FROM localhost/busybox\nARG SECRET_VERSION=1\nENV GREETING=hello\n\
        RUN --mount=type=bind,source=a.txt,target=/a cat /a >/out\nCOPY b /b\nRUN --network=none true\n";
    bench.write("context/Dockerfile", dockerfile);
    bench.write("context/a.txt", "one");
    bench.write("context/b/c.txt", "two");
    bench.write("context/.dockerignore", "Dockerfile\n");
    let plan = |more: &[&str]| bench.rbuild([&["plan"][..], more, &["context"]].concat());
    let ran = plan(&[]).code(3);
    assert_eq!(ran.stdout.matches("run      [").count(), 3, "{}", ran.told());
    assert!(bench.rbuild(["inspect", "app"]).code != 0);
    bud(&bench, &["--fail-if-not-cached"]).fails(&[
        "Dockerfile:4",
        "is not cached: it was not built before",
        "--fail-if-not-cached",
    ]);
    assert!(bench.rbuild(["inspect", "app"]).code != 0, "nothing was built");
    let first = bud(&bench, &["--explain"]).ok();
    assert!(first.stderr.contains("[2/4] RUN --mount"), "{}", first.told());
    let id = first.text().to_owned();
    assert_eq!(plan(&[]).ok().stdout.matches("cached   [").count(), 3);
    assert_eq!(bud(&bench, &["--fail-if-not-cached", "--explain"]).ok().text(), id);

    // Each kind of input by itself, told the same by both commands.
    let check = |more: &[&str], step: usize, kind: &str, name: Option<&str>, text: &str| {
        let planned = json(&plan(&[more, &["--json"]].concat()).code(3));
        let ran = bud(&bench, &[more, &["--explain=json"]].concat()).ok();
        let told = json(&ran);
        assert!(!ran.stdout.contains("s3cr3t"), "{}", ran.told());
        let mut steps = planned["steps"].as_array().unwrap().iter();
        let planned = steps.find(|step| step["outlook"] != "cached").unwrap();
        for found in [planned, &told["ran"][0]] {
            assert_eq!(found["place"], format!("Dockerfile:{step}"), "{}", ran.told());
            assert_eq!(found["reasons"][0]["kind"], kind, "{}", ran.told());
            assert_eq!(found["reasons"][0]["name"].as_str(), name, "{}", ran.told());
            assert_eq!(found["reasons"][0]["text"], text, "{}", ran.told());
        }
        assert!(told["id"].as_str().unwrap().starts_with("sha256:"));
    };
    let arg = "build argument SECRET_VERSION changed";
    check(&["--build-arg=SECRET_VERSION=s3cr3t"], 4, "arg", Some("SECRET_VERSION"), arg);
    let arg = "--build-arg=SECRET_VERSION=s3cr3t";
    bench.write("context/a.txt", "other");
    check(&[arg], 4, "file", Some("a.txt"), "file a.txt has other content");
    bench.write("context/b/new", "");
    check(&[arg], 5, "file", Some("b/new"), "file b/new is new");
    let name = Some("--add-host");
    check(&[arg, "--add-host=a:1.2.3.4"], 4, "setting", name, "--add-host is new");
    let none = dockerfile.replace("network=none true", "network=host true");
    bench.write("context/Dockerfile", none.replace("GREETING=hello", "GREETING=bye"));
    bud(&bench, &[arg]).ok();
    bench.write("context/Dockerfile", dockerfile.replace("GREETING=hello", "GREETING=bye"));
    let was = "the instruction changed, it was: RUN --network=host true";
    check(&[arg], 6, "instruction", None, was);
    check(&[arg, "--cache-ttl=0s"], 4, "expired", None, &{
        let told = json(&plan(&[arg, "--cache-ttl=0s", "--json"]).code(3));
        told["steps"][0]["reasons"][0]["text"].as_str().unwrap().to_owned()
    });
    check(&[arg, "--no-cache"], 4, "no-cache", None, "the cache is not to be asked");
    // Nothing that was given is kept in the clear.
    let catalog = std::fs::read(bench.store().join("catalog.db")).unwrap();
    let log = std::fs::read(bench.store().join("catalog.db-wal")).unwrap_or_default();
    for bytes in [catalog, log] {
        assert!(!bytes.windows(6).any(|window| window == b"s3cr3t"));
    }
}

/// A context whose build runs commands in two stages.
fn staged(bench: &Bench) {
    bench.busybox();
    let dockerfile = "FROM localhost/busybox AS make\nWORKDIR /src\nCOPY main .\n\
        RUN cat main >made && date >/dev/null\nFROM localhost/busybox\nRUN id >/who\n\
        COPY --from=make /src/made /made\nRUN cat /made /who >/both\nCMD [\"cat\", \"/both\"]\n";
    bench.write("context/Dockerfile", dockerfile);
    bench.write("context/main", "content");
}

#[test]
fn a_fresh_machine_builds_from_the_cache_in_a_registry() {
    let Some(registry) = DockerRegistry::start() else { return };
    let cache = registry.name("team/cache");
    let maker = Bench::new();
    staged(&maker);
    let first = bud(&maker, &["--cache-to", &cache]).ok();
    let steps = 6;

    // buildah's spelling; nothing is run.
    let fresh = Bench::new();
    staged(&fresh);
    let ran = fresh.rbuild(["plan", "--cache-from", &cache, "context"]).ok();
    assert_eq!(ran.stdout.matches("cached   [").count(), steps, "{}", ran.told());
    let ran = bud(&fresh, &["--cache-from", &cache, "--fail-if-not-cached"]).ok();
    assert_eq!(ran.text(), first.text(), "the same image");
    assert!(ran.stderr.contains("0 steps run"), "{}", ran.told());
    let shown = fresh.rbuild(["run", "--rm", "app"]).ok();
    assert!(shown.stdout.starts_with("contentuid=0"), "{}", shown.told());

    // buildx' spelling; the other machine's facts explain what runs here.
    let changed = Bench::new();
    staged(&changed);
    changed.write("context/main", "changed");
    let from = format!("--cache-from=type=registry,ref={cache}:buildcache");
    let ran = bud(&changed, &[&from, "--explain"]).ok();
    assert!(ran.stderr.contains("file main has other content"), "{}", ran.told());
    assert!(ran.stderr.contains("RUN id >/who · CACHED"), "{}", ran.told());
    let shown = changed.rbuild(["run", "--rm", "app"]).ok();
    assert!(shown.stdout.starts_with("changeduid=0"), "{}", shown.told());

    // From the registry to a directory, zstd, without what was never fetched being there first.
    let fresh = Bench::new();
    staged(&fresh);
    let to = "--cache-to=type=local,dest=saved,compression=zstd,force-compression=true";
    bud(&fresh, &[&from, to]).ok();
    let index = std::fs::read_to_string(fresh.path().join("saved/index.json")).unwrap();
    assert!(index.contains("\"latest\""), "{index}");
    let again = Bench::new();
    staged(&again);
    let saved = format!("--cache-from=type=local,src={}", fresh.path().join("saved").display());
    let ran = bud(&again, &[&saved, "--fail-if-not-cached"]).ok();
    assert!(ran.stderr.contains("0 steps run"), "{}", ran.told());

    // An image that is its own cache, pushed and read by its name.
    let app = registry.name("team/app:v1");
    let line = ["bud", "--progress=plain", "-t", &app, "--push", "--cache-to=type=inline"];
    maker.rbuild([&line[..], &["context"]].concat()).ok();
    let last = Bench::new();
    staged(&last);
    let ran = bud(&last, &["--cache-from", &app, "--fail-if-not-cached"]).ok();
    assert!(ran.stderr.contains("not needed"), "the first stage: {}", ran.told());

    // What cannot be read is said and not used, what cannot be written fails beside the image.
    let absent = registry.name("team/absent");
    let ran = bud(&last, &["--cache-from", &absent, "--no-cache"]).ok();
    assert!(!ran.stderr.contains("warning"), "{}", ran.told());
    last.write("file", "");
    let ran = bud(&last, &["--cache-from=type=local,src=file", "--no-cache-filter=make"]).ok();
    assert!(ran.stderr.contains("is not used"), "{}", ran.told());
    last.rbuild(["untag", "app"]).ok();
    bud(&last, &["--cache-to=type=local,dest=file"]).fails(&["exporting the cache", "file"]);
    last.rbuild(["inspect", "app"]).ok();
    bud(&last, &["--cache-to=type=local,dest=file,ignore-error=true"]).ok();
    bud(&last, &["--cache-to=type=gha"]).code(2).fails(&["gha", "type=local"]);
    // The peers see an ordinary artifact.
    if peer("skopeo").is_some() {
        let name = format!("docker://{cache}:buildcache");
        let raw = run(std::process::Command::new("skopeo").args([
            "inspect",
            "--raw",
            "--tls-verify=false",
            &name,
        ]));
        assert!(raw.ok().stdout.contains("application/vnd.rbuild.cache.v1"));
    }
}
