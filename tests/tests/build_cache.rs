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
    let name = "the names of hosts";
    check(&[arg, "--add-host=a:1.2.3.4"], 4, "setting", Some(name), &format!("{name} is new"));
    let none = dockerfile.replace("network=none true", "network=host true");
    bench.write("context/Dockerfile", none.replace("GREETING=hello", "GREETING=bye"));
    bud(&bench, &[arg, "--allow=network.host"]).ok();
    bench.write("context/Dockerfile", dockerfile.replace("GREETING=hello", "GREETING=bye"));
    let was = "the instruction changed, it was: RUN --network=host true";
    check(&[arg], 6, "instruction", None, was);
    check(&[arg, "--cache-ttl=0s"], 4, "expired", None, &{
        let told = json(&plan(&[arg, "--cache-ttl=0s", "--json"]).code(3));
        told["steps"][0]["reasons"][0]["text"].as_str().unwrap().to_owned()
    });
    check(&[arg, "--no-cache"], 4, "no-cache", None, "the step runs without the cache");
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
    bud(&last, &["--cache-to=type=ftp"]).code(125).fails(&["ftp", "registry, local, inline"]);
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

#[test]
fn builds_at_the_same_time_do_the_same_step_once() {
    let bench = Bench::new();
    bench.busybox();
    let dockerfile = "FROM localhost/busybox\nCOPY Dockerfile /\n\
        RUN --mount=type=cache,id=count,target=/count echo x >>/count/runs && sleep 0.2\nRUN true\n";
    bench.write("context/Dockerfile", dockerfile);
    let mut builds: Vec<_> = (0..8)
        .map(|number| {
            let mut command = bench.command("rbuild");
            command.args(["bud", "--quiet", "-t", &format!("app{number}"), "context"]);
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for build in builds.drain(..) {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success());
        ids.insert(output.stdout);
    }
    assert_eq!(ids.len(), 1, "all of them are the same image");
    let look = "FROM localhost/busybox\n\
        RUN --mount=type=cache,id=count,target=/count cp /count/runs /runs\nCMD [\"cat\", \"/runs\"]\n";
    bench.write("context/Dockerfile", look);
    bud(&bench, &[]).ok();
    assert_eq!(bench.rbuild(["run", "--rm", "app"]).ok().stdout, "x\n");
    bench.rbuild(["check"]).ok();
}

#[test]
fn cache_mounts_travel_and_only_changes_are_sent_again() {
    let Some(registry) = DockerRegistry::start() else { return };
    let cache = registry.name("team/mounts");
    let dockerfile = "FROM localhost/busybox\nARG ROUND\n\
        RUN --mount=type=cache,id=wheels,target=/cache,uid=1000,mode=0750 \
        if [ ! -e /cache/big ]; then dd if=/dev/urandom of=/cache/big bs=1M count=32; mkdir /cache/d; \
        echo x >/cache/d/f; chmod 640 /cache/d/f; chown 7:8 /cache/d/f; ln -s big /cache/link; fi; \
        echo $ROUND >>/cache/log; cat /cache/log >/log; stat -c '%a %u:%g' /cache /cache/d/f >>/log; \
        sha256sum /cache/link | cut -c1-64 >>/log\nCMD [\"cat\", \"/log\"]\n";
    let bench = || {
        let bench = Bench::new();
        bench.busybox();
        bench.write("context/Dockerfile", dockerfile);
        bench
    };
    let from = format!("--cache-from={cache}");
    let to = format!("--cache-to=type=registry,ref={cache}:buildcache,mounts=true");
    let log = |bench: &Bench| bench.rbuild(["run", "--rm", "app"]).ok().stdout;
    let maker = bench();
    bud(&maker, &["--build-arg=ROUND=1", &to]).ok();
    let first = log(&maker);
    let whole = registry.size();
    assert!(whole > 32 << 20, "{whole}");

    let fresh = bench();
    let ran = bud(&fresh, &["--build-arg=ROUND=2", &from, &to]).ok();
    assert!(ran.stderr.contains("cache mount wheels from the cache"), "{}", ran.told());
    assert_eq!(log(&fresh), first.replacen("1\n", "1\n2\n", 1), "{}", ran.told());
    assert!(first.contains("750 1000:0\n640 7:8\n"), "{first}");
    let sent = registry.size() - whole;
    assert!(sent < whole / 10, "{sent} bytes were sent the second time, {whole} the first");

    // Neither fetched where nothing runs, nor lost: it is passed on from where it is.
    let idle = bench();
    let ran = bud(&idle, &["--build-arg=ROUND=2", &from, &to]).ok();
    assert!(!ran.stderr.contains("cache mount wheels from the cache"), "{}", ran.told());
    let last = bench();
    let ran = bud(&last, &["--build-arg=ROUND=3", &from]).ok();
    assert_eq!(log(&last), first.replacen("1\n", "1\n2\n3\n", 1), "{}", ran.told());
    // What is newer here stays.
    bud(&last, &["--build-arg=ROUND=4", &from]).ok();
    assert!(log(&last).starts_with("1\n2\n3\n4\n"));

    let alone = bench();
    bud(&alone, &["--build-arg=ROUND=1", "--cache-to=type=local,dest=dir"]).ok();
    let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let blobs = std::fs::read_dir(alone.path().join("dir/blobs/sha256")).unwrap();
    assert!(blobs.flatten().all(|blob| size(&blob.path()) < 1 << 20));
}

#[test]
fn a_foreign_cache_leaves_the_mounts_of_this_machine_alone() {
    let dockerfile = |base: &str| {
        format!(
            "FROM {base}\nARG ROUND\nRUN --mount=type=cache,id=pip,target=/c echo $ROUND >/dev/null; \
             for f in /c/*; do stat -c '%n %a' $f || true; done\n"
        )
    };
    // What the command printed of it, and not what the log says of the step that made it.
    let shown = |text: &str| text.contains("/c/evil 755") || text.contains("/c/evil 4755");
    let maker = Bench::new();
    maker.busybox();
    let evil = "FROM localhost/busybox\nRUN --mount=type=cache,id=pip,target=/c \
        cp /bin/busybox /c/evil && chmod 4755 /c/evil\n";
    maker.write("context/Dockerfile", evil);
    let cache = maker.path().join("cache").display().to_string();
    bud(&maker, &[&format!("--cache-to=type=local,dest={cache},mounts=true")]).ok();
    let from = format!("--cache-from=type=local,src={cache}");

    // Made of something that the cache has: its mount is seen, disarmed, and only through it.
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/Dockerfile", dockerfile("localhost/busybox"));
    let seen = bud(&bench, &["--build-arg=ROUND=1", &from]).ok().stderr;
    assert!(shown(&seen), "{seen}");
    assert!(!seen.contains("/c/evil 4755"), "{seen}");
    let seen = bud(&bench, &["--build-arg=ROUND=2"]).ok().stderr;
    assert!(!shown(&seen), "{seen}");
    // Now this machine has a mount of that name: nothing takes its place.
    let seen = bud(&bench, &["--build-arg=ROUND=3", &from]).ok().stderr;
    assert!(!shown(&seen), "{seen}");

    // A build that has nothing in common with the cache sees nothing of it.
    let other = Bench::new();
    other.busybox();
    other.build("other", "FROM localhost/busybox\nRUN echo other >/other\n", &[]).ok();
    other.write("context/Dockerfile", dockerfile("localhost/other"));
    let seen = bud(&other, &["--build-arg=ROUND=1", &from]).ok().stderr;
    assert!(!shown(&seen), "{seen}");
}

#[test]
fn a_cache_mount_of_another_owner_or_mode_is_another_one() {
    let bench = Bench::new();
    bench.busybox();
    let mount = |more: &str| {
        let text = format!(
            "FROM localhost/busybox\nRUN --mount=type=cache,id=c,target=/c{more} ls /c; touch /c/f\n"
        );
        bench.write("context/Dockerfile", text);
        bud(&bench, &["--no-cache"]).ok().stderr.contains("| f\n")
    };
    assert_eq!([mount(""), mount(",uid=5"), mount(",mode=0700")], [false; 3]);
    assert_eq!([mount(",uid=0"), mount(",uid=5"), mount(",mode=0755")], [true; 3]);
}

#[test]
fn what_prune_says_it_would_remove_is_what_it_removes() {
    let bench = Bench::new();
    bench.busybox();
    let dockerfile = |number: usize| {
        format!(
            "FROM localhost/busybox\nRUN --mount=type=cache,id=m{number},target=/m echo {number} >/m/f\n\
             RUN dd if=/dev/urandom of=/blob bs=1M count=4 && echo {number}\n"
        )
    };
    for number in 0..3 {
        bench.write("context/Dockerfile", dockerfile(number));
        bud(&bench, &[]).ok();
    }
    let du = |more: &[&str]| {
        let format = "{{.Type}} {{.Description}}";
        bench.rbuild([&["du", "--format", format][..], more].concat()).ok().stdout
    };
    let all = du(&[]);
    assert_eq!(all.matches("mount m").count(), 3, "{all}");
    assert!(all.contains("step [3/3] RUN dd"), "{all}");
    assert_eq!(du(&["--filter", "type=mount"]).lines().count(), 3);
    assert!(bench.rbuild(["du", "-v"]).ok().stdout.contains("total: "));
    bench.rbuild(["prune", "--filter", "label=x"]).code(125).fails(&["label=x", "rbuild rmi"]);
    bench.rbuild(["prune", "--filter", "colour=x"]).code(125).fails(&["colour=x"]);
    // Every way to say what goes, each first as a question.
    let prune = |flags: &[&str], expected: &dyn Fn(&str) -> bool| {
        let would = bench.rbuild([&["prune", "--dry-run"][..], flags].concat()).ok().stdout;
        let did = bench.rbuild([&["prune", "--list"][..], flags].concat()).ok().stdout;
        assert_eq!(would.replace("would remove", "removed"), did, "{flags:?}");
        assert!(expected(&did), "{flags:?}: {did}");
    };
    let id = du(&["--filter", "type=mount"]);
    assert!(id.contains("m1"), "{id}");
    let none = |text: &str| text.starts_with("removed 0 blobs, 0 snapshots, 0 cached steps, 0 ");
    prune(&["--filter", "inuse=true"], &none);
    prune(&["--older-than", "1h", "--filter", "type=mount"], &none);
    let digest = image_digest("m1");
    prune(&["--filter", &format!("id={}", &digest[..12])], &|text| {
        text.contains("1 cache mounts")
            && text.contains(" 0 cached steps")
            && text.contains("asked for")
    });
    assert_eq!(du(&["--filter", "type=mount"]).lines().count(), 2);
    prune(&["--keep-storage", "5m"], &|text| text.contains("over the limit"));
    let rest = du(&["--filter", "type=step"]);
    assert!(rest.contains("RUN dd"), "{rest}");
    prune(&["--all", "--reserved-space", "1g"], &none);
    prune(&["--all"], &|text| text.contains("2 cache mounts") || text.contains("1 cache mounts"));
    assert_eq!(du(&[]), "");
    bench.rbuild(["run", "--rm", "app", "true"]).ok();
    bench.rbuild(["check"]).ok();
}

/// The name of a cache mount's directory.
fn image_digest(id: &str) -> String {
    ::image::Digest::of(id.as_bytes()).hex()
}

/// Bytes of everything in a directory.
fn size(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = walkdir::WalkDir::new(path).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

#[test]
fn a_store_stays_within_its_bound() {
    let bench = Bench::new();
    bench.busybox();
    let limit = 48 << 20;
    let dockerfile = |megabytes: usize, number: usize| {
        format!(
            "FROM localhost/busybox\nRUN dd if=/dev/urandom of=/blob bs=1M count={megabytes} && echo {number}\n"
        )
    };
    for number in 0..4 {
        bench.write("context/Dockerfile", dockerfile(8, number));
        bench.rbuild(["bud", "--disk-limit=48m", "-o", "out", "context"]).ok();
        let taken = size(&bench.store());
        assert!(taken <= limit, "{taken} bytes after build {number}");
    }
    bench.write("context/Dockerfile", dockerfile(100, 9));
    let mut command = bench.command("rbuild");
    command.env("RBUILD_STORE_LIMIT", "48m").args(["bud", "-t", "large", "context"]);
    run(&mut command).fails(&["limit of 48 MiB", "--disk-limit"]);
    assert!(size(&bench.store()) <= limit);
    bench.rbuild(["inspect", "large"]).fails(&["large"]);
    bench.rbuild(["check"]).ok();
    let mut command = bench.command("rbuild");
    run(command.env("RBUILD_STORE_LIMIT", "much").arg("images")).code(125).fails(&["much"]);
}
