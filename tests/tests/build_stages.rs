//! What becomes of the stages of a build, and what images inherit.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::{Bench, root};

#[test]
fn a_stage_may_be_built_on_the_archive_that_an_earlier_one_writes() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write("context/a", "a");
    bench.rbuild(["push", "-q", "busybox", "oci-archive:made.tar:made"]).ok();
    std::fs::create_dir(bench.path().join("out")).unwrap();
    bench.write(
        "context/Dockerfile",
        "FROM localhost/busybox AS first\nRUN --mount=type=bind,source=made.tar,target=/made.tar \\\n  \
         cp /made.tar /out/base.tar\nFROM --after=first oci-archive:out/base.tar\nCOPY a /a\n",
    );
    std::fs::copy(bench.path().join("made.tar"), bench.path().join("context/made.tar")).unwrap();
    let out = format!("{}:/out", bench.path().join("out").display());
    bench.rbuild(["bud", "-q", "-v", &out, "-t", "app", "context"]).ok();
    assert!(bench.path().join("out/base.tar").exists());
    let listed = bench.rbuild(["run", "--rm", "app", "cat", "/a"]).ok();
    assert_eq!(listed.text(), "a");
}

#[test]
fn images_inherit_of_their_base_what_is_asked_for() {
    let bench = Bench::new();
    bench.write("context/a", "a");
    bench.write("context/Dockerfile", "FROM scratch\nCOPY a /a\nLABEL of=base\n");
    bench.rbuild(["bud", "-q", "-t", "base", "--annotation", "from=base", "context"]).ok();
    bench.write("context/Dockerfile", "FROM base\nCOPY a /b\n");
    let annotations = |more: &[&str]| {
        let line = [&["bud", "-q", "-t", "app"][..], more, &["context"]].concat();
        bench.rbuild(line).ok();
        bench.rbuild(["push", "-q", "app", "dir:out"]).ok();
        let manifest = std::fs::read_to_string(bench.path().join("out/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        manifest["annotations"].clone()
    };
    let label = || {
        let template = "{{index .Config.Labels \"of\"}}";
        bench.rbuild(["inspect", "--format", template, "app"]).stdout.trim().to_owned()
    };
    assert_eq!(annotations(&[])["from"], serde_json::Value::Null);
    assert_eq!(label(), "base");
    assert_eq!(annotations(&["--inherit-annotations"])["from"], "base");
    let buildah = annotations(&["--compat", "buildah"]);
    assert_eq!(buildah["from"], "base");
    assert_eq!(buildah["org.opencontainers.image.base.name"], "localhost/base:latest");
    assert!(buildah["org.opencontainers.image.base.digest"].is_string(), "{buildah}");
    let none = annotations(&["--compat", "buildah", "--inherit-annotations=false"]);
    assert_eq!(none["from"], serde_json::Value::Null);
    let dated = annotations(&["--created-annotation", "--timestamp", "0"]);
    assert_eq!(dated["org.opencontainers.image.created"], "1970-01-01T00:00:00Z");
    annotations(&["--inherit-labels=false"]);
    assert_ne!(label(), "base");
}

#[test]
fn stages_are_kept_and_unused_ones_built_as_asked() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write(
        "context/Dockerfile",
        "FROM localhost/busybox AS one\nRUN true >/one\nFROM localhost/busybox AS unused\nRUN exit 3\n\
         FROM one\nRUN true >/two\n",
    );
    let kept = || {
        let line = ["images", "-q", "--filter", "dangling=true", "--filter", "label=a=b"];
        bench.rbuild(line).ok().stdout.lines().count()
    };
    bench.rbuild(["bud", "-q", "context"]).ok();
    bench.rbuild(["bud", "-q", "--skip-unused-stages=false", "context"]).code(3);
    assert_eq!(kept(), 0);
    let save = ["bud", "-q", "-t", "app", "--save-stages", "--stage-labels", "--layer-label=a=b"];
    bench.rbuild(save.iter().chain(&["context"])).ok();
    assert_eq!(kept(), 1);
    let named = ["images", "-q", "--filter", "label=io.rbuild.stage.name=one"];
    assert_eq!(bench.rbuild(named).ok().stdout.lines().count(), 1);
    bench.rbuild(["bud", "--stage-labels", "context"]).code(125);
    let used = bench.rbuild(["bud", "--log-rusage", "--rusage-logfile", "used", "context"]).ok();
    let line = std::fs::read_to_string(bench.path().join("used")).unwrap();
    assert!(line.starts_with("resources: elapsed") && line.contains("kB"), "{line}{}", used.told());
}

#[test]
fn containers_conf_holds_where_no_flag_says_otherwise() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write(
        "home/.config/containers/containers.conf",
        "[containers]\ndefault_ulimits = ['nofile=500:600']\nshm_size = '7m'\n\
         default_sysctls = ['kernel.msgmax=4096']\ndefault_capabilities = ['CHOWN', 'CAP_KILL']\n\
         devices = ['/dev/null:/dev/other']\n",
    );
    let script = "ulimit -n; df -k /dev/shm | awk 'END {print $2}'; cat /proc/sys/kernel/msgmax; \
                  grep CapEff /proc/self/status | awk '{print $2}'; test -c /dev/other && echo device";
    let expected = "500\n7168\n4096\n0000000000000021\ndevice";
    let ran = bench.rbuild(["run", "--rm", "busybox", "sh", "-c", script]).ok();
    assert_eq!(ran.text(), expected, "{}", ran.told());
    let line = ["run", "--rm", "--ulimit=nofile=50", "--shm-size=8m", "--cap-drop=KILL", "busybox"];
    let ran = bench.rbuild(line.iter().chain(&["sh", "-c", script])).ok();
    assert_eq!(ran.text(), "50\n8192\n4096\n0000000000000001\ndevice", "{}", ran.told());
    bench.write("context/Dockerfile", format!("FROM localhost/busybox\nRUN ({script}) >/said\n"));
    bench.rbuild(["bud", "-q", "-t", "app", "context"]).ok();
    let said = bench.rbuild(["run", "--rm", "app", "cat", "/said"]).ok();
    assert_eq!(said.text(), expected);
    // What `from` was given holds before the file, also in a later `run`.
    bench.rbuild(["from", "--name=c", "--ulimit=nofile=50", "--cap-drop=KILL", "busybox"]).ok();
    let ran = bench.rbuild(["run", "c", "sh", "-c", script]).ok();
    assert_eq!(ran.text(), "50\n7168\n4096\n0000000000000001\ndevice", "{}", ran.told());
    bench.write("odd.conf", "[containers]\nshm_size = 'odd'\n");
    let mut command = bench.command("rbuild");
    command.env("CONTAINERS_CONF", bench.path().join("odd.conf"));
    e2e::run(command.args(["run", "--rm", "busybox", "true"])).code(125).fails(&["shm_size"]);
}
