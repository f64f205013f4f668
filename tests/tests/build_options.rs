//! The options of `rbuild bud`, in journeys.

use e2e::{Bench, root, run};
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
    ask(&["--call=test"]).code(2).fails(&["--call", "test"]);
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
    let refused = ask(&["-t=strict"]).code(1).fails(&["JSONArgsRecommended", "Dockerfile:4"]);
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
        "127.0.0.1\tme",
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
        ("--isolation=chroot", "chroot"),
        ("--network=bridge", "bridge"),
        ("--userns=auto", "auto"),
        ("--volume=/etc:/x:U", "U"),
        ("--security-opt=label=type:x", "label=type:x"),
    ] {
        build(&[flag]).code(2).fails(&[words]);
    }
}
