//! What a build says while it runs, and what it is given by way of pipes.

use std::io::Write;
use std::process::Stdio;

use e2e::{Bench, Ran, ran, run};

fn bud(bench: &Bench, more: &[&str]) -> Ran {
    let mut line = vec!["bud", "-t", "app"];
    line.extend(more);
    line.push("context");
    bench.rbuild(line)
}

fn bench(dockerfile: &str) -> Bench {
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/Dockerfile", dockerfile);
    bench
}

#[test]
fn lines_of_commands_are_whole_in_plain_progress_and_in_logs() {
    let bench = bench(
        "FROM localhost/busybox\nRUN head -c 9000 /dev/zero | tr '\\0' x; echo; printf 'a\\tb\\n'\n",
    );
    let long = "x".repeat(9000);
    let plain = bud(&bench, &["--progress=plain"]).ok().stderr;
    assert!(plain.contains(&long) && plain.contains("| a\tb\n"), "{plain}");
    bud(&bench, &["--no-cache", "--logfile=log"]).ok();
    let log = std::fs::read_to_string(bench.path().join("log")).unwrap();
    assert!(log.contains(&long) && log.contains("| a\tb\n"), "{log}");
}

#[test]
fn every_progress_works_through_a_pipe() {
    let bench = bench("FROM localhost/busybox\nRUN echo said\n");
    let through = |more: &[&str]| bud(&bench, &[more, &["--no-cache"]].concat()).ok();
    for progress in ["tty", "plain", "auto"] {
        let said = through(&[&format!("--progress={progress}")]).stderr;
        assert!(said.contains("RUN echo said") && said.contains("| said"), "{progress}: {said}");
    }
    for progress in ["quiet", "none"] {
        let ran = through(&[&format!("--progress={progress}")]);
        assert_eq!((ran.stderr.as_str(), ran.stdout.trim().len()), ("", 64), "{progress}");
    }
    let mut command = bench.command("rbuild");
    command.args(["bud", "--no-cache", "context"]).env("BUILDKIT_PROGRESS", "rawjson");
    let said = run(&mut command).ok().stderr;
    assert!(said.contains("\"event\":\"began\""), "{said}");
    let mut command = bench.command("rbuild");
    run(command.args(["bud", "context"]).env("BUILDKIT_PROGRESS", "loud"))
        .code(125)
        .fails(&["BUILDKIT_PROGRESS", "loud"]);
}

#[test]
fn the_debug_log_tells_the_story_of_a_build_and_nothing_of_libraries() {
    let bench = bench("FROM localhost/busybox\nRUN echo said\n");
    let said = bud(&bench, &["--log=debug", "--progress=quiet"]).ok().stderr;
    for word in ["started", "finished", "RUN echo said", "outcome=\"done\"", "exporting"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("hyper"), "{said}");
}

#[test]
fn the_time_of_a_step_is_without_waiting_for_others() {
    let bench = bench(
        "FROM localhost/busybox AS slow\nRUN sleep 2\nFROM localhost/busybox\nCOPY --from=slow /bin/sh /sh\n",
    );
    let said = bud(&bench, &["--progress=rawjson"]).ok().stderr;
    let events: Vec<serde_json::Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let time = |name: &str, event: &str| {
        let named = |one: &&serde_json::Value| {
            one["event"] == "started" && one["name"].as_str().is_some_and(|n| n.contains(name))
        };
        let id = &events.iter().find(named).unwrap()["id"];
        let found = events.iter().find(|one| one["event"] == event && one["id"] == *id);
        found.unwrap()["t"].as_f64().unwrap()
    };
    // Where the copy begins, the step that it waits for has ended.
    let copy = "COPY --from=slow";
    assert!(time(copy, "started") < time("RUN sleep", "finished"), "{said}");
    assert!(time(copy, "began") >= time("RUN sleep", "finished"), "{said}");
}

#[test]
fn secrets_come_through_pipes_and_from_files_with_commas() {
    let bench = bench(
        "FROM localhost/busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo\n\
         RUN --mount=type=secret,id=s cat /run/secrets/s >/dev/null\n",
    );
    let mut command = bench.command("rbuild");
    command.args(["bud", "--progress=plain", "--secret=id=s,src=/dev/stdin", "context"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"piped").unwrap();
    let piped = ran("bud".to_owned(), &child.wait_with_output().unwrap()).ok();
    assert!(piped.stderr.contains("| piped"), "{}", piped.told());

    let fifo = bench.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let writer = {
        let fifo = fifo.clone();
        std::thread::spawn(move || std::fs::write(fifo, "named").unwrap())
    };
    let named = bud(&bench, &["--progress=plain", "--no-cache", "--secret=id=s,src=fifo"]).ok();
    writer.join().unwrap();
    assert!(named.stderr.contains("| named"), "{}", named.told());

    bench.write("a,b", "comma");
    let secret = "--secret=id=s,\"src=a,b\"";
    let comma = bud(&bench, &["--progress=plain", "--no-cache", secret]).ok();
    assert!(comma.stderr.contains("| comma"), "{}", comma.told());
    bud(&bench, &["--output=type=local,\"dest=out,put\""]).ok();
    assert!(bench.path().join("out,put/bin/sh").exists());
    bud(&bench, &["--cache-to=type=local,\"dest=ca,che\""]).ok();
    assert!(bench.path().join("ca,che/index.json").exists());
    bud(&bench, &["--secret=id=s,src=context"]).code(125).fails(&["is a directory"]);
}

#[test]
fn switches_that_ask_for_what_is_not_done_are_refused_by_name() {
    let bench = bench("FROM localhost/busybox\n");
    for flag in ["--rm=false", "--load=false", "--disable-content-trust=false"] {
        bud(&bench, &[flag]).code(125).fails(&[flag]);
    }
    for flag in ["--rm", "--force-rm=false", "--load", "--disable-content-trust"] {
        bud(&bench, &[flag]).ok();
    }
    let said = bud(&bench, &["--compress"]).ok().stderr;
    assert!(said.contains("--compress has no effect"), "{said}");
}

#[test]
fn buildkit_arguments_of_caches_and_indexes_work() {
    let bench = bench(
        "FROM localhost/busybox\nRUN --mount=type=cache,id=c,target=/c ls /c; touch /c/seen\n",
    );
    bud(&bench, &["--progress=plain", "--build-arg=BUILDKIT_CACHE_MOUNT_NS=one"]).ok();
    let other = ["--progress=plain", "--no-cache", "--build-arg=BUILDKIT_CACHE_MOUNT_NS=two"];
    assert!(!bud(&bench, &other).ok().stderr.contains("| seen"));
    assert!(bud(&bench, &other).ok().stderr.contains("| seen"));
    bud(&bench, &["--build-arg=BUILDKIT_MULTI_PLATFORM=1", "-o", "type=oci,dest=i,tar=false"]).ok();
    let index = std::fs::read_to_string(bench.path().join("i/index.json")).unwrap();
    assert!(index.contains("image.index"), "{index}");
    bud(&bench, &["--build-arg=BUILDKIT_INLINE_CACHE=1"]).ok();
    let raw = bench.rcopy(["inspect", "--raw", "--config", "store:localhost/app"]).ok().stdout;
    assert!(raw.contains("rbuild.cache.v1"), "{raw}");
}

#[test]
fn archives_of_images_go_through_a_pipe() {
    let bench = bench("FROM localhost/busybox\nCOPY Dockerfile /f\n");
    for (kind, member) in [("oci", "index.json"), ("docker", "manifest.json")] {
        let mut command = bench.command("rbuild");
        command.args(["bud", &format!("--output=type={kind},dest=-,name=piped"), "context"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut archive = tar::Archive::new(&output.stdout[..]);
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert!(names.iter().any(|name| name == member), "{kind}: {names:?}");
    }
}

#[test]
fn several_dockerfiles_are_one() {
    let bench = bench("FROM localhost/busybox AS base\nRUN echo one >/one\n");
    bench.write("context/more", "FROM base\nRUN cat /one >/two\nCMD [\"cat\", \"/two\"]\n");
    bud(&bench, &["-f", "context/Dockerfile", "-f", "more"]).ok();
    assert_eq!(bench.rbuild(["run", "--rm", "app"]).ok().stdout, "one\n");
    bud(&bench, &["-f", "-", "-f", "more"]).code(125).fails(&["\"-\""]);
}

#[test]
fn a_trace_has_every_step_with_its_time() {
    let bench = bench("FROM localhost/busybox\nRUN sleep 0.2\n");
    bud(&bench, &["--trace=trace.json"]).ok();
    let text = std::fs::read_to_string(bench.path().join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let step = events.iter().find(|one| one["name"] == "[2/2] RUN sleep 0.2").unwrap();
    assert!(step["dur"].is_u64() && step["ts"].is_u64(), "{step}");
    assert_eq!((&step["ph"], &step["args"]["outcome"]), (&"X".into(), &"done".into()));
}

#[test]
fn ci_services_fold_the_lines_of_a_step() {
    let bench = bench("FROM localhost/busybox\nRUN echo said && echo more\n");
    let run_as = |service: &str| {
        let mut command = bench.command("rbuild");
        command.args(["bud", "--no-cache", "context"]).env_remove("GITHUB_ACTIONS");
        run(command.env_remove("GITLAB_CI").env(service, "true")).ok().stderr
    };
    let said = run_as("GITHUB_ACTIONS");
    let folded = said.split("::group::").nth(1).unwrap().split("::endgroup::").next().unwrap();
    assert!(folded.contains("RUN echo said"), "{said}");
    assert!(folded.contains("| said\n") && folded.contains("| more\n"), "{said}");
    let said = run_as("GITLAB_CI");
    let section = said.split("section_start:").nth(1).unwrap();
    let (time, rest) = section.split_once(':').unwrap();
    assert!(time.parse::<u64>().is_ok_and(|seconds| seconds > 1_700_000_000), "{said}");
    let name = rest.split('\r').next().unwrap();
    assert!(rest.contains("| said\n"), "{said}");
    assert!(rest.split("section_end:").nth(1).unwrap().contains(name), "{said}");
}

#[test]
fn builds_are_recorded() {
    let bench = bench("FROM localhost/busybox\nRUN true\n");
    bud(&bench, &["--target", "0"]).ok();
    bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN exit 7\n");
    bud(&bench, &[]).code(7);
    let builds = |format: &str| {
        let shown = bench.rbuild(["history", "builds", "--format", format]).ok();
        shown.text().to_owned()
    };
    assert_eq!(
        builds("{{.Status}} {{.Name}} {{.Target}}"),
        "error  \ncompleted localhost/app:latest 0"
    );
    let ids = bench.rbuild(["buildx", "history", "ls", "-q"]).ok();
    let ids: Vec<&str> = ids.text().lines().collect();
    let last = bench.rbuild(["buildx", "history", "inspect", "--format", "{{.ID}}"]).ok();
    assert_eq!(last.text(), ids[0]);
    let error = bench.rbuild(["buildx", "history", "inspect", "--format", "{{.Error}}", ids[0]]);
    assert!(error.ok().stdout.contains('7'));
    let digest = bench.rbuild(["buildx", "history", "inspect", "--format", "{{.Image}}", ids[1]]);
    assert!(digest.ok().stdout.starts_with("sha256:"));
    bench.rbuild(["buildx", "history", "rm", ids[0]]).ok();
    assert_eq!(builds("{{.ID}}"), ids[1]);
    bench.rbuild(["buildx", "history", "rm", ids[0]]).code(125).fails(&["no build"]);
    assert!(bench.rbuild(["history", "builds"]).ok().stdout.contains("BUILD ID"));
    bench.rbuild(["check"]).ok();
}
