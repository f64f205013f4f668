//! Wrong input is refused where it is wrong, in words that help: broken Dockerfiles with the place,
//! flags and values by name.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::path::PathBuf;

use e2e::watch::guarded;
use e2e::{Bench, Ran, repository, root};

/// A Dockerfile, what makes it wrong, and the words the refusal must have.
type Broken = (&'static str, &'static str, &'static [&'static str]);

const BROKEN: &[Broken] = &[
    (
        "instruction",
        "FROM scratch\nCPOY a /a\n",
        &["Dockerfile:2:1", "CPOY", "did you mean \"COPY\""],
    ),
    ("instruction-far", "FROM scratch\nINSTALL vim\n", &["Dockerfile:2:1", "INSTALL"]),
    ("no-from", "RUN true\n", &["Dockerfile:1:1", "FROM"]),
    ("form", "FORM scratch\nLABEL a=b\n", &["Dockerfile:1:1", "did you mean \"FROM\""]),
    ("from-empty", "FROM\n", &["Dockerfile:1", "FROM"]),
    ("from-as", "FROM scratch AS\n", &["Dockerfile:1", "AS"]),
    ("from-words", "FROM scratch base\n", &["Dockerfile:1", "FROM"]),
    ("from-reference", "FROM 127.0.0.1:1/UPPER\n", &["Dockerfile:1:6", "127.0.0.1:1/UPPER"]),
    (
        "from-undefined",
        "ARG BASE_IMAGE=scratch\nFROM ${BASE_IMGE}\n",
        &["Dockerfile:2", "BASE_IMGE"],
    ),
    (
        "from-platform",
        "FROM --platform=linux/amd64/v1/x/y scratch\n",
        &["Dockerfile:1", "linux/amd64/v1/x/y"],
    ),
    ("stage-name", "FROM scratch AS a/b\nLABEL a=b\n", &["Dockerfile:1", "a/b"]),
    (
        "copy-from-stage",
        "FROM scratch AS build\nADD f /f\nFROM scratch\nCOPY --from=biuld /f /f\n",
        &["Dockerfile:4", "biuld", "did you mean the stage \"build\""],
    ),
    ("copy-from-number", "FROM scratch\nCOPY --from=7 /f /f\n", &["Dockerfile:2", "7"]),
    ("stopsignal", "FROM scratch\nSTOPSIGNAL SIGNOPE\n", &["Dockerfile:2", "SIGNOPE"]),
    ("copy-from-self", "FROM scratch AS a\nCOPY --from=a /f /f\n", &["Dockerfile:2", "a"]),
    ("copy-one-word", "FROM scratch\nCOPY f\n", &["Dockerfile:2", "COPY"]),
    (
        "copy-flag",
        "FROM scratch\nCOPY --chwon=1 f /f\n",
        &["Dockerfile:2", "--chwon", "did you mean \"--chown\""],
    ),
    ("copy-chmod", "FROM scratch\nCOPY --chmod=999 f /f\n", &["Dockerfile:2", "999"]),
    (
        "copy-missing",
        "FROM scratch\nCOPY requirement.txt /f\n",
        &["Dockerfile:2", "requirement.txt", "did you mean", "requirements.txt"],
    ),
    ("copy-outside", "FROM scratch\nCOPY ../secret /f\n", &["Dockerfile:2", "secret"]),
    (
        "copy-ignored",
        "FROM scratch\nCOPY ignored.txt /f\n",
        &["Dockerfile:2", "ignored.txt", "line 1 of .dockerignore excludes it"],
    ),
    ("add-scheme", "FROM scratch\nADD ftp://example.org/x /x\n", &["Dockerfile:2", "ftp"]),
    ("env-pair", "FROM scratch\nENV A=1 B\n", &["Dockerfile:2", "B"]),
    ("env-empty", "FROM scratch\nENV =1\n", &["Dockerfile:2"]),
    ("arg-space", "FROM scratch\nARG\n", &["Dockerfile:2", "ARG"]),
    ("expand-brace", "FROM scratch\nENV A=${B\n", &["Dockerfile:2", "${B"]),
    ("expand-modifier", "FROM scratch\nENV A=${B;c}\n", &["Dockerfile:2"]),
    (
        "expand-required",
        "FROM scratch\nARG B\nENV A=\"${B:?give me B}\"\n",
        &["Dockerfile:3", "give me B"],
    ),
    ("expose", "FROM scratch\nEXPOSE 99999\n", &["Dockerfile:2", "99999"]),
    ("expose-protocol", "FROM scratch\nEXPOSE 80/tpc\n", &["Dockerfile:2", "tpc"]),
    ("healthcheck", "FROM scratch\nHEALTHCHECK CDM true\n", &["Dockerfile:2", "CDM", "CMD"]),
    (
        "healthcheck-time",
        "FROM scratch\nHEALTHCHECK --interval=5 CMD true\n",
        &["Dockerfile:2", "5"],
    ),
    ("shell-form", "FROM scratch\nSHELL /bin/sh -c\n", &["Dockerfile:2", "SHELL"]),
    ("onbuild-from", "FROM scratch\nONBUILD FROM scratch\n", &["Dockerfile:2", "ONBUILD"]),
    ("onbuild-onbuild", "FROM scratch\nONBUILD ONBUILD RUN true\n", &["Dockerfile:2", "ONBUILD"]),
    ("heredoc", "FROM scratch\nCOPY <<EOF /f\nno end\n", &["Dockerfile:2", "EOF"]),
    (
        "mount-type",
        "FROM scratch\nRUN --mount=type=cahce,target=/c true\n",
        &["Dockerfile:2", "cahce", "did you mean \"cache\""],
    ),
    (
        "mount-key",
        "FROM scratch\nRUN --mount=type=cache,taget=/c true\n",
        &["Dockerfile:2", "taget", "did you mean \"target\""],
    ),
    (
        "mount-secret",
        "FROM scratch\nRUN --mount=type=secret,id=key,required=true true\n",
        &["Dockerfile:2", "key"],
    ),
    (
        "run-flag",
        "FROM scratch\nRUN --netwrok=none true\n",
        &["Dockerfile:2", "--netwrok", "did you mean \"--network\""],
    ),
    ("run-network", "FROM scratch\nRUN --network=bridge true\n", &["Dockerfile:2", "bridge"]),
    ("empty", "", &["Dockerfile"]),
    ("comments", "# only\n# comments\n", &["Dockerfile"]),
    ("only-arg", "ARG A=1\n", &["Dockerfile", "FROM"]),
    ("workdir", "FROM scratch\nWORKDIR\n", &["Dockerfile:2", "WORKDIR"]),
    ("volume", "FROM scratch\nVOLUME [\"\"]\n", &["Dockerfile:2", "VOLUME"]),
    ("label", "FROM scratch\nLABEL a\n", &["Dockerfile:2", "a"]),
];

fn bench() -> Bench {
    let bench = Bench::new();
    for file in ["f", "g", "requirements.txt", "ignored.txt"] {
        bench.write(&format!("context/{file}"), "content\n");
    }
    bench.write("context/.dockerignore", "ignored.txt\n");
    bench
}

fn bud(bench: &Bench, more: &[&str]) -> Ran {
    let mut command = bench.command("rbuild");
    command.current_dir(bench.path()).args(["bud", "--progress=quiet"]).args(more);
    guarded(&mut command)
}

/// Compares with a file that is kept; `UPDATE=1` writes it.
fn golden(name: &str, dockerfile: &str, got: &str) -> Option<String> {
    let path: PathBuf = repository().join("tests/tests/input").join(format!("{name}.txt"));
    let got = format!("{dockerfile}========\n{got}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &got).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    (kept != got).then(|| format!("{}:\n{kept}\n--- got\n{got}", path.display()))
}

#[test]
fn broken_dockerfiles_are_shown_where_they_are_broken() {
    let bench = bench();
    let mut wrong = Vec::new();
    for (name, dockerfile, words) in BROKEN {
        bench.write("context/Dockerfile", dockerfile);
        let ran = bud(&bench, &["--pull=never", "-t", "broken", "context"]);
        let place = bench.path().display().to_string();
        let told = ran.stderr.replace(&place, "BENCH");
        let missing: Vec<_> = words.iter().filter(|word| !told.contains(**word)).collect();
        let pointed = dockerfile.contains("FROM") || dockerfile.contains("RUN");
        if ran.code != 125 || !missing.is_empty() || (pointed && !told.contains('^')) {
            wrong.push(format!("{name} lacks {missing:?}, or a caret: {}", ran.told()));
        }
        if ran.errors() != 1 {
            wrong.push(format!("{name} is not one error: {}", ran.told()));
        }
        wrong.extend(golden(name, dockerfile, &told));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(bench.rbuild(["images", "-q"]).ok().text(), "");
    bench.rbuild(["check"]).ok();
}

/// Arguments, the exit code and the words of the refusal.
type Wrong = (&'static [&'static str], i32, &'static [&'static str]);

#[test]
fn wrong_flags_and_values_are_named() {
    let bench = bench();
    bench.write("context/Dockerfile", "FROM scratch AS base\nCOPY f /f\nFROM base AS final\n");
    bench.write("empty/f", "");
    let rbuild: &[Wrong] = &[
        (&["bud", "--no-such-flag", "context"], 125, &["--no-such-flag"]),
        (&["bud", "--no-cach", "context"], 125, &["--no-cach", "--no-cache"]),
        (&["bulid", "context"], 125, &["bulid", "build"]),
        (&["bud", "empty"], 125, &["no Containerfile or Dockerfile in", "empty", "--file"]),
        (&["bud", "no-such-directory"], 125, &["no-such-directory", "not a directory"]),
        (&["bud", "context/f"], 125, &["context/f", "not a directory"]),
        (&["bud", "-f", "no-such-file", "context"], 125, &["no-such-file", "no such file"]),
        (&["bud", "-f", "context", "context"], 125, &["context", "directory"]),
        (&["bud", "https://127.0.0.1:1/x.git"], 125, &["https://127.0.0.1:1/x.git"]),
        (&["bud", "--target=fnal", "context"], 125, &["fnal", "did you mean \"final\""]),
        (
            &["bud", "--platform=linux/amd64/v1/x/y", "context"],
            125,
            &["--platform", "linux/amd64/v1/x/y"],
        ),
        (&["bud", "--platform=a/b/c/d", "context"], 125, &["--platform", "a/b/c/d"]),
        (&["bud", "--secret=src=context/f", "context"], 125, &["--secret", "id="]),
        (&["bud", "--secret=id=a,src=no-such-file", "context"], 125, &["--secret", "no-such-file"]),
        (&["bud", "--secret=id=a,file=x", "context"], 125, &["--secret", "\"file\""]),
        (&["bud", "--secret=id=a,env=NO_SUCH_VARIABLE", "context"], 125, &["NO_SUCH_VARIABLE"]),
        (&["bud", "-o", "type=squashfs,dest=x", "context"], 125, &["squashfs", "local, tar, oci"]),
        (&["bud", "-o", "dest=x", "context"], 125, &["type="]),
        (&["bud", "-o", "type=oci", "context"], 125, &["dest="]),
        (&["bud", "-o", "type=oci,to=x", "context"], 125, &["to=x is not supported"]),
        (&["bud", "-t", "UPPER", "context"], 125, &["UPPER", "lower"]),
        (&["bud", "-t", "a:b:c", "context"], 125, &["b:c", "a tag is"]),
        (
            &[
                "bud",
                "-t",
                "app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "context",
            ],
            125,
            &["digest"],
        ),
        (&["bud", "--progress=fancy", "context"], 125, &["fancy", "plain"]),
        (&["bud", "--format=tar", "context"], 125, &["tar", "oci"]),
        (&["bud", "--network=container:x", "context"], 125, &["container:NAME", "named network"]),
        (&["bud", "--pull=sometimes", "context"], 125, &["sometimes"]),
        (&["bud", "--jobs=-1", "context"], 125, &["--jobs", "-1"]),
        (&["bud", "--add-host=nowhere", "context"], 125, &["--add-host", "nowhere"]),
        (&["bud", "--build-context=x", "context"], 125, &["--build-context"]),
        (&["bud", "--timestamp=yesterday", "context"], 125, &["--timestamp", "yesterday"]),
        (&["bud", "--compression=lzma", "context"], 125, &["lzma"]),
        (&["run", "--memory=lots", "x"], 125, &["--memory", "lots"]),
        (&["run", "--mount=type=bind", "x"], 125, &["--mount"]),
        (&["rmi", "no-such-image"], 125, &["no-such-image"]),
        (&["inspect", "no-such-image"], 125, &["no-such-image"]),
        (&["tag", "no-such-image", "x"], 125, &["no-such-image"]),
        (&["push", "no-such-image"], 125, &["no-such-image"]),
        (&["save", "-o", "x.tar", "no-such-image"], 125, &["no-such-image"]),
        (&["load", "-i", "no-such-file"], 125, &["no-such-file"]),
        (&["load", "-i", "context/f"], 125, &["context/f"]),
        (&["--root=/dev/null", "images"], 125, &["/dev/null"]),
    ];
    let rcopy: &[Wrong] = &[
        (&["copy", "--no-such-flag", "dir:a", "dir:b"], 1, &["--no-such-flag"]),
        (&["copy", "--preserve-digest", "dir:a", "dir:b"], 1, &["--preserve-digests"]),
        (&["cpoy", "dir:a", "dir:b"], 1, &["cpoy", "copy"]),
        (&["copy", "dir:a"], 1, &["DESTINATION"]),
        (&["copy", "docker:debian", "dir:b"], 1, &["docker://debian"]),
        (&["copy", "containers-storage:no-such/x", "dir:b"], 2, &["no-such/x", "storage"]),
        (&["copy", "docker-daemon:x:1", "dir:b"], 1, &["DOCKER_HOST"]),
        (&["copy", "nonsense:x", "dir:b"], 1, &["nonsense:x"]),
        (&["copy", "docker://UPPER/x", "dir:b"], 1, &["UPPER"]),
        (&["copy", "dir:no-such-directory", "dir:b"], 1, &["no-such-directory"]),
        (&["copy", "oci:no-such-layout", "dir:b"], 1, &["no-such-layout"]),
        (&["copy", "oci-archive:no-such.tar", "dir:b"], 1, &["no-such.tar"]),
        (&["copy", "docker-archive:no-such.tar", "dir:b"], 1, &["no-such.tar"]),
        (&["copy", "docker-archive:context/f", "dir:b"], 1, &["context/f"]),
        (&["copy", "store:no-such-image", "dir:b"], 2, &["no-such-image"]),
        (
            &["copy", "--all", "--platform=linux/amd64", "dir:a", "dir:b"],
            1,
            &["--all", "--platform"],
        ),
        (&["copy", "--platform=a/b/c/d", "dir:a", "dir:b"], 1, &["a/b/c/d"]),
        (&["copy", "--format=oci3", "dir:a", "dir:b"], 1, &["oci3"]),
        (&["copy", "--src-creds=nobody", "docker://localhost:1/a", "dir:b"], 1, &["USER:PASSWORD"]),
        (&["copy", "--src-tls-verify=maybe", "dir:a", "dir:b"], 1, &["maybe"]),
        (&["copy", "--retry-times=-1", "dir:a", "dir:b"], 1, &["-1"]),
        (&["inspect", "docker://127.0.0.1:1/a"], 1, &["127.0.0.1:1"]),
        (&["list-tags", "dir:context"], 1, &["dir:"]),
        (&["delete", "dir:context"], 1, &["dir:"]),
        (&["digest", "oci:no-such-layout"], 1, &["no-such-layout"]),
    ];
    let mut wrong = Vec::new();
    for (program, table) in [("rbuild", rbuild), ("rcopy", rcopy)] {
        for (arguments, code, words) in table {
            let mut command = bench.command(program);
            let ran = guarded(command.current_dir(bench.path()).args(*arguments));
            let missing: Vec<_> =
                words.iter().filter(|word| !ran.stderr.contains(**word)).collect();
            if ran.code != *code || !missing.is_empty() {
                wrong.push(format!("code {code}, missing {missing:?}: {}", ran.told()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(!bench.path().join("b").exists(), "a refused copy left something");
}

#[test]
fn a_failing_command_tells_its_exit_code_and_place() {
    if !root() {
        return;
    }
    let bench = bench();
    bench.busybox();
    let dockerfile = "FROM localhost/busybox\nRUN true\nRUN echo words; exit 7\nRUN true\n";
    bench.write("context/Dockerfile", dockerfile);
    let ran = bud(&bench, &["-t", "fails", "context"]).code(7);
    let ran = ran.fails(&["Dockerfile:3", "exited with code 7", "echo words; exit 7", "^"]);
    assert_eq!(ran.errors(), 1, "{}", ran.told());
    bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN no-such-program\n");
    bud(&bench, &["-t", "fails", "context"]).code(127).fails(&["Dockerfile:2", "127"]);
    bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN [\"/no/such\"]\n");
    bud(&bench, &["-t", "fails", "context"]).code(125).fails(&["Dockerfile:2", "/no/such"]);
    bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN sh -c 'kill -9 $$'; exit $?\n");
    bud(&bench, &["-t", "fails", "context"]).code(137).fails(&["Dockerfile:2", "137"]);
    bench.rbuild(["inspect", "fails"]).fails(&["fails"]);
    bench.rbuild(["check"]).ok();
}
