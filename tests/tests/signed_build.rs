//! One build from the lock to the signed image: repositories are locked, pushed images are signed
//! with their attestations, and the provenance is enough to build again.

use e2e::git::Repositories;
use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran, peer, root, run};

const DOCKERFILE: &str = "FROM busybox\n\
    RUN cat /given/word > /word && grep db.example /etc/hosts > /hosts && ulimit -n > /limit\n";

#[test]
fn what_is_pushed_is_signed_and_can_be_built_again_from_what_is_said_of_it() {
    let (true, Some(registry)) = (root(), DockerRegistry::start()) else { return };
    let bench = Bench::new();
    bench.busybox();
    bench.write("given/word", "given\n");
    bench.write("ctx/Dockerfile", DOCKERFILE);
    let password = bench.write("password", "secret").display().to_string();
    for prefix in ["mine", "other"] {
        let line = ["generate-key-pair", "--output", prefix, "--passphrase-file", &password];
        bench.rbuild(line).ok();
    }
    let name = registry.name("app:1");
    let common = ["--progress=plain", "--timestamp=1", "--tls-verify=false", "-t", &name];
    let sign = ["--sign-key=mine.key", "--sign-passphrase-file", &password];
    let flags = [
        "--volume=./given:/given:ro",
        "--add-host=db.example:10.1.2.3",
        "--ulimit=nofile=100:200",
        "--cap-add=NET_ADMIN",
        "--memory=512m",
        "--provenance=mode=max",
        "--sbom",
    ];
    let bud = |more: &[&str]| {
        bench.rbuild([&["bud"][..], &common, &sign, &flags, more, &["ctx"]].concat())
    };
    bud(&[]).fails(&["--sign-key", "no pushed image", "--push"]).code(125);
    bud(&["--push"]).ok();
    // Not the one in the store, which has no signatures.
    let there = format!("docker://{name}");
    let remote = |command: &str, more: &[&str]| {
        bench.rbuild([&[command, "--tls-verify=false"][..], more, &[&there]].concat())
    };
    remote("verify", &["--key=mine.pub"]).ok();
    remote("verify", &["--key=other.pub"]).code(12);
    for kind in ["slsaprovenance1", "spdxjson"] {
        let kind = format!("--type={kind}");
        let said = remote("verify-attestation", &["--key=mine.pub", &kind]).ok();
        assert_eq!(said.stdout.lines().count(), 1, "{}", said.told());
    }

    // What gives commands more of this machine is only believed when it is signed.
    let again = |more: &[&str]| {
        remote("verify-build", &[&["--context=ctx", "--progress=plain"][..], more].concat())
    };
    let whole = bench.path().join("given").display().to_string();
    let refused =
        again(&[]).fails(&[&format!("--volume={whole}:/given:ro"), "--key", "--build-flag"]);
    assert_eq!(refused.code, 125, "{}", refused.told());
    assert!(again(&["--key=mine.pub"]).ok().text().starts_with("identical: "));
    let given = format!("--build-flag=--volume={whole}:/given:ro");
    let repeated = again(&[&given, "--build-flag=--cap-add=NET_ADMIN"]).ok();
    assert!(repeated.text().starts_with("identical: "), "{}", repeated.told());

    // A failing step is looked at with the same.
    bench.write("ctx/Dockerfile", format!("{DOCKERFILE}RUN false\n"));
    bench.rbuild([&["bud", "--on-failure=keep"][..], &flags[..5], &["ctx"]].concat()).code(1);
    let id = bench.rbuild(["debug", "ls", "-q"]).ok().text().to_owned();
    let look = "cat /given/word; grep -c db.example /etc/hosts; ulimit -n; ! touch /given/x";
    let elsewhere = |line: &[&str]| {
        let mut command = bench.command("rbuild");
        run(command.args(line).current_dir("/"))
    };
    let seen = elsewhere(&["debug", "shell", &id, "sh", "-c", look]).ok();
    assert_eq!(seen.stdout, "given\n1\n100\n", "{}", seen.told());
    let du = |more: &[&str]| bench.rbuild([&["du"][..], more].concat()).ok().stdout;
    assert!(du(&[]).contains(&id) && du(&["--filter=type=failed"]).contains("RUN false"));
    bench.rbuild(["prune"]).ok();
    assert_eq!(bench.rbuild(["debug", "ls", "-q"]).ok().text(), id);
    let listed = bench.rbuild(["prune", "-n", "--filter=type=failed"]).ok();
    assert!(listed.stdout.contains(&id), "{}", listed.told());
    let gone = bench.rbuild(["prune", "--filter=type=failed"]).ok();
    assert!(gone.stdout.contains("1 failed steps"), "{}", gone.told());
    assert_eq!(bench.rbuild(["debug", "ls", "-q"]).ok().text(), "");
    bench.rbuild(["check"]).ok();
}

#[test]
fn repositories_are_locked_by_commit_and_drift_is_shown() {
    let bench = Bench::new();
    let Some(served) = Repositories::serve(&bench.path().join("git")) else { return };
    let head = "git rev-parse HEAD";
    let tool = served.script("tool", &format!("echo one > f; commit one; {head}"));
    let tool_url = format!("{}/tool/.git", served.url);
    let dockerfile = format!("FROM scratch\\nADD {tool_url}#main /tool\\n");
    let script = format!("printf '{dockerfile}' > Dockerfile; commit first; {head}");
    let context = served.script("context", &script);
    let context_url = format!("{}/context/.git#main", served.url);

    let lock = |line: &[&str]| bench.rbuild([&["lock"][..], line].concat());
    let file = ["--lock-file", "pins"];
    lock(&[&file[..], &[&context_url]].concat()).ok();
    let pins = std::fs::read_to_string(bench.path().join("pins")).expect("the lock");
    for commit in [&tool, &context] {
        assert_eq!(pins.matches(commit.as_str()).count(), 1, "{commit}: {pins}");
    }
    lock(&[&["check"], &file[..], &[&context_url]].concat()).ok();
    let build = |more: &[&str]| -> Ran {
        let common = ["bud", "-q", "--timestamp=1"];
        bench.rbuild([&common[..], more, &[&context_url]].concat())
    };
    let first = build(&["--locked=pins"]).ok().text().to_owned();

    // The branches move; the lock does not.
    let moved = served.script("tool", &format!("echo two > f; commit two; {head}"));
    assert_eq!(build(&["--locked=pins"]).ok().text(), first);
    assert_ne!(build(&[]).ok().text(), first);
    let drift = lock(&[&["check"], &file[..], &[&context_url]].concat()).code(1);
    let line = format!("{} -> {}", &tool, &moved);
    assert_eq!(drift.stdout.lines().count(), 1, "{}", drift.told());
    assert!(drift.stdout.contains(&line), "{}", drift.told());
    lock(&[&["update"], &file[..], &["--context", &context_url, "tool/.git#main"]].concat()).ok();
    lock(&[&["check"], &file[..], &[&context_url]].concat()).ok();
    assert_ne!(build(&["--locked=pins"]).ok().text(), first);

    // A working container takes a repository, too.
    let (true, Some(_)) = (root(), peer("git")) else { return };
    bench.rbuild(["from", "--name=c", "scratch"]).ok();
    let add = |more: &[&str]| bench.rbuild([&["add", "-q"][..], more].concat());
    add(&["--checksum", &tool, "c", &format!("{tool_url}#main"), "/no"]).fails(&[&moved]);
    add(&["c", &tool_url, "/now/"]).ok();
    add(&["--keep-git-dir", "c", &format!("{tool_url}#{tool}"), "/then"]).ok();
    let place = bench.rbuild(["mount", "c"]).ok().text().to_owned();
    let read = |path: &str| std::fs::read_to_string(format!("{place}/{path}")).unwrap_or_default();
    assert_eq!((read("now/f").as_str(), read("then/f").as_str()), ("two\n", "one\n"));
    assert!(read("now/.git/HEAD").is_empty() && read("then/.git/HEAD").contains(&tool));
    bench.rbuild(["rm", "c"]).ok();
}
