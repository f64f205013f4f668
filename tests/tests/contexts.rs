//! Where a build takes its files from: repositories, archives, addresses, named contexts.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::git::Repositories;
use e2e::http::Files;
use e2e::{Bench, Ran, peer, ran, root, run};

/// Builds and gives back the directory the result's files are in.
#[track_caller]
fn files<S: AsRef<std::ffi::OsStr>>(
    bench: &Bench,
    name: &str,
    arguments: impl IntoIterator<Item = S>,
) -> PathBuf {
    let to = bench.path().join(name);
    let mut command = bench.command("rbuild");
    command.args(["bud", "--progress=plain"]).arg(format!("--output={}", to.display()));
    run(command.args(arguments)).ok();
    to
}

#[track_caller]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a build with something on its standard input.
fn with_input(bench: &Bench, arguments: &[&str], input: &Path) -> Ran {
    let mut command = bench.command("rbuild");
    command.args(["bud", "--progress=plain"]).args(arguments);
    let file = std::fs::File::open(input).unwrap();
    let output = command.stdin(Stdio::from(file)).output().unwrap();
    ran(format!("{command:?}"), &output)
}

const TREE: &str = "printf 'FROM scratch\\nCOPY . /\\n' > Dockerfile; echo one > f; chmod 755 f; ln -s f l; \
    mkdir -p sub; printf 'FROM scratch\\nCOPY . /\\n' > sub/Dockerfile; echo s > sub/s; \
    echo no > no; echo no > .dockerignore";

#[test]
fn a_repository_is_a_context() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let Some(git) = Repositories::serve(&bench.path().join("git")) else { return };
    git.script("r", &format!("{TREE}; commit one; git tag v1; git tag -a -m x va"));
    git.script("r", "git checkout -q -b dev; echo two > f; commit two; git checkout -q main");
    let dev = git.script("r", "git rev-parse dev");
    let url = format!("{}/r", git.url);
    let http = Files::serve(git.path(""));
    let dumb = format!("{}/r/.git", http.url);

    let main = files(&bench, "main", [&url]);
    assert_eq!(read(&main.join("f")), "one\n");
    assert!(!main.join("no").exists() && !main.join(".git").exists());
    assert_eq!(std::fs::read_link(main.join("l")).unwrap(), Path::new("f"));
    let mode = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(main.join(path)).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.mtime())
    };
    assert_eq!(mode("f"), (0o755, 0, 1_500_000_000));
    assert_eq!(mode("sub/s"), (0o644, 0, 1_500_000_000));
    let cases = [
        (format!("{url}#dev"), "f", "two\n"),
        (format!("{url}#va"), "f", "one\n"),
        (format!("{url}?branch=dev"), "f", "two\n"),
        (format!("{url}#{dev}"), "f", "two\n"),
        (format!("{url}#{}", &dev[..8]), "f", "two\n"),
        (format!("{url}?ref=dev&checksum={dev}"), "f", "two\n"),
        (format!("{url}#v1:sub"), "s", "s\n"),
        (format!("{url}?tag=v1&subdir=sub"), "s", "s\n"),
        (format!("{dumb}#dev"), "f", "two\n"),
        (format!("{dumb}#{dev}:sub"), "s", "s\n"),
    ];
    for (at, (text, file, content)) in cases.iter().enumerate() {
        let found = files(&bench, &format!("case{at}"), [text]);
        assert_eq!(&read(&found.join(file)), content, "{text}");
    }
    let targets = bench.rbuild(["bud", "--call=outline", &format!("{url}#v1:sub")]).ok();
    assert!(!targets.text().is_empty());
    // A Dockerfile of another name, or from elsewhere, with the files of the repository.
    let named = files(&bench, "named", ["-f", "sub/Dockerfile", &url]);
    assert_eq!(read(&named.join("f")), "one\n");
    let other = bench.write("served/D", "FROM scratch\nCOPY sub/s /only\n");
    let served = Files::serve(other.parent().unwrap().to_owned());
    let elsewhere = files(&bench, "elsewhere", ["-f", &format!("{}/D", served.url), &url]);
    assert_eq!(read(&elsewhere.join("only")), "s\n");
    assert!(!elsewhere.join("f").exists());

    let fails = |context: &str, words: &[&str]| {
        bench.rbuild(["bud", "--progress=plain", context]).fails(words);
    };
    fails(&format!("{url}#nope"), &["no branch or tag \"nope\""]);
    fails(&format!("{url}#v1:nope"), &["no directory \"nope\""]);
    fails(&format!("{}/absent", git.url), &["absent"]);
    fails(&format!("{url}?ref=v1&checksum={dev}"), &["not"]);
    let marker = bench.path().join("marker");
    fails(&format!("{url}#--upload-pack=touch\u{20}{}", marker.display()), &["blanks"]);
    fails(&format!("{url}#--upload-pack={}", marker.display()), &["is not the name"]);
    fails(&format!("ext::touch {}", marker.display()), &["ext: is not used"]);
    fails(&format!("file://{}", git.path("r").display()), &["file: is not used"]);
    assert!(!marker.exists());
}

#[test]
fn a_repository_reaches_nothing_of_the_machine() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let Some(git) = Repositories::serve(&bench.path().join("git")) else { return };
    let secret = bench.write("secret/Dockerfile", "FROM scratch\nCOPY . /\n");
    let outside = secret.parent().unwrap().display().to_string();
    let hook = "mkdir hooks; echo 'touch hooked' > hooks/post-checkout; chmod +x hooks/post-checkout; \
        mkdir -p .config/git; echo '* filter=x' > .gitattributes";
    git.script(
        "r",
        &format!("{TREE}; {hook}; ln -s {outside} out; ln -s ../../../../{outside} up; commit x"),
    );
    let url = format!("{}/r", git.url);
    for subdir in ["out", "up"] {
        let line = ["bud", "--progress=plain", "-o", "leak", &format!("{url}#main:{subdir}")];
        bench.rbuild(line).fails(&[subdir]);
    }
    for subdir in ["../secret", "sub/../../secret"] {
        let line = ["bud", "--progress=plain", &format!("{url}#main:{subdir}")];
        bench.rbuild(line).fails(&["leads out of the repository"]);
    }
    let taken = files(&bench, "taken", [&url]);
    assert!(!taken.join("hooked").exists());
    // A submodule is fetched from a server, not from the machine.
    git.script("inner", "echo i > i; commit i");
    git.script("outer", &format!(
        "{TREE}; git submodule add -q {}/inner m 2>/dev/null; commit x; git checkout -q -b local; \
         git config -f .gitmodules submodule.m.url {}; commit y; git checkout -q main",
        git.url, git.path("inner").display()
    ));
    let outer = files(&bench, "outer", [&format!("{}/outer", git.url)]);
    assert_eq!(read(&outer.join("m/i")), "i\n");
    assert!(!outer.join("m/.git").exists());
    let without = files(&bench, "without", [&format!("{}/outer?submodules=false", git.url)]);
    assert!(!without.join("m/i").exists());
    bench
        .rbuild(["bud", "--progress=plain", &format!("{}/outer#local", git.url)])
        .fails(&["transport 'file' not allowed"]);
}

#[test]
fn archives_and_addresses_are_contexts() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let tree = bench.path().join("served/tree");
    std::fs::create_dir_all(&tree).unwrap();
    run(Command::new("bash").args(["-c", TREE]).current_dir(&tree)).ok();
    let served = bench.path().join("served");
    for (name, flag) in [
        ("plain.tar", "-c"),
        ("gz.tar", "-cz"),
        ("xz.tar", "-cJ"),
        ("bz2.tar", "-cj"),
        ("zst.tar", "-c"),
    ] {
        let mut tar = Command::new("tar");
        tar.arg(flag).arg("-f").arg(served.join(name));
        if name == "zst.tar" {
            tar.arg("--zstd");
        }
        run(tar.arg("-C").arg(&tree).arg(".")).ok();
        let to = bench.path().join(format!("stdin-{name}"));
        let output = format!("--output={}", to.display());
        with_input(&bench, &[&output, "-"], &served.join(name)).ok();
        assert_eq!(read(&to.join("f")), "one\n", "{name}");
        assert!(!to.join("no").exists(), "{name}");
    }
    let http = Files::serve(served.clone());
    let gz = format!("{}/gz.tar", http.url);
    assert_eq!(read(&files(&bench, "http", [&gz]).join("sub/s")), "s\n");
    let inner = files(&bench, "inner", ["-f", "sub/Dockerfile", &gz]);
    assert_eq!(read(&inner.join("f")), "one\n");
    // One Dockerfile alone has no files.
    bench.write("served/Alone", "FROM scratch\nCOPY <<x /x\nhere\nx\n");
    assert_eq!(read(&files(&bench, "alone", [&format!("{}/Alone", http.url)]).join("x")), "here\n");
    // The Dockerfile on standard input, or behind an address, with a directory or an archive.
    let dockerfile = bench.write("stdin-dockerfile", "FROM scratch\nCOPY sub/s /s\n");
    for (name, context) in [("dir", tree.display().to_string()), ("tar", gz.clone())] {
        let to = bench.path().join(format!("from-stdin-{name}"));
        let output = format!("--output={}", to.display());
        with_input(&bench, &[&output, "-f", "-", &context], &dockerfile).ok();
        assert_eq!(read(&to.join("s")), "s\n", "{name}");
    }
    let by_url = ["-f", &format!("{}/tree/sub/Dockerfile", http.url), tree.to_str().unwrap()];
    assert_eq!(read(&files(&bench, "by-url", by_url).join("f")), "one\n");
    with_input(&bench, &["-f", "sub/Dockerfile", "-"], &served.join("gz.tar")).ok();

    with_input(&bench, &["-f", "-", "-"], &dockerfile).fails(&["cannot both come from stdin"]);
    with_input(&bench, &["-f", "x", "-"], &dockerfile).fails(&["not a tar archive"]);
    with_input(&bench, &["-"], Path::new("/dev/null")).fails(&["is empty"]);
    let cut = bench.path().join("cut.tar");
    std::fs::write(&cut, &std::fs::read(served.join("gz.tar")).unwrap()[..80]).unwrap();
    with_input(&bench, &["-"], &cut).fails(&["unpacking the build context"]);
    bench.rbuild(["bud", &format!("{}/absent.tar", http.url)]).fails(&["404"]);
}

#[test]
fn named_contexts_stand_for_images_and_files() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let Some(git) = Repositories::serve(&bench.path().join("git")) else { return };
    git.script("r", "mkdir d; echo g > d/g; commit g");
    bench.write("dir/f", "dir\n");
    let served = bench.write("served/h", "http\n").parent().unwrap().to_owned();
    run(Command::new("tar").args(["-czf", "h.tgz", "h"]).current_dir(&served)).ok();
    let http = Files::serve(served);
    let layout = bench.path().join("layout");
    bench.build("made", "FROM localhost/busybox\nRUN echo layer > /layer\n", &[]).ok();
    let to = format!("oci:{}:v1", layout.display());
    bench.rcopy(["copy", "store:localhost/made", &to]).ok();
    bench.write(
        "context/Dockerfile",
        "FROM alpine:3 AS a\nCOPY --from=dir f /1\nCOPY --from=git g /2\nCOPY --from=http h /3\n\
         RUN --mount=from=dir,target=/m --mount=from=git,target=/n cat /m/f /n/g /layer > /4\n\
         COPY --from=busy /bin/sh /5\nFROM base\nCOPY --from=a /1 /2 /3 /4 /5 /\n",
    );
    let line = [
        format!("alpine:3=oci-layout://{}:v1", layout.display()),
        "dir=dir".to_owned(),
        format!("git={}/r#main:d", git.url),
        format!("http={}/h.tgz", http.url),
        "busy=docker-image://localhost/busybox".to_owned(),
        "base=dir".to_owned(),
    ];
    let line: Vec<String> = line.iter().map(|value| format!("--build-context={value}")).collect();
    let found = files(&bench, "out", line.iter().map(String::as_str).chain(["context"]));
    assert_eq!(read(&found.join("4")), "dir\ng\nlayer\n");
    assert_eq!(read(&found.join("3")), "http\n");
    assert_eq!(read(&found.join("f")), "dir\n");
    // A context stands for the image however its name is written.
    bench.write(
        "short/Dockerfile",
        "FROM docker.io/library/alpine\nCOPY --from=alpine /layer /copied\n",
    );
    let alpine = format!("--build-context=alpine=oci-layout://{}", layout.display());
    assert_eq!(read(&files(&bench, "short-out", [&alpine, "short"]).join("copied")), "layer\n");
    for (value, words) in [
        ("x=target:base", "bake"),
        ("x=/nowhere", "is not there"),
        ("x=file:///x", "file: is not used"),
        ("x=git://h/p#-x", "is not the name"),
    ] {
        bench.rbuild(["bud", &format!("--build-context={value}"), "context"]).fails(&[words]);
    }
}

#[test]
fn add_takes_commits_and_files() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let Some(git) = Repositories::serve(&bench.path().join("git")) else { return };
    git.script("r", &format!("{TREE}; commit one; git tag v1"));
    let commit = git.script("r", "git rev-parse HEAD");
    let url = format!("{}/r", git.url);
    let dockerfile = format!(
        "FROM scratch\nADD {url}#v1:sub /1/\nADD --checksum={commit} {url} /2\n\
         ADD --keep-git-dir --exclude=sub {url}?ref=v1 /3\nADD --chown=7:8 --chmod=u=rwX,go= {url} /4/\n"
    );
    bench.write("context/Dockerfile", &dockerfile);
    let found = files(&bench, "out", ["context"]);
    assert_eq!(read(&found.join("1/s")), "s\n");
    assert!(found.join("2/no").exists(), "an ignore file of a repository means nothing to ADD");
    assert!(!found.join("2/.git").exists());
    assert!(found.join("3/.git/HEAD").exists() && !found.join("3/sub").exists());
    let head = run(Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(found.join("3"))
        .args(["rev-parse", "HEAD"]));
    assert_eq!(head.ok().text(), commit);
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(found.join("4/sub/s")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (7, 8, 0o600));
    // The same commit is not fetched again; another one is another step.
    let again = bench.rbuild(["bud", "--progress=plain", "-t", "x", "context"]).ok();
    assert!(again.stderr.contains("0 steps run"), "{}", again.told());
    git.script("r", "echo two > sub/s; commit two");
    let moved = bench.rbuild(["bud", "--progress=plain", "-t", "x", "context"]);
    moved.fails(&["it is commit", &commit]);
    bench.write("bad/Dockerfile", format!("FROM scratch\nADD {url}#nope /x\n"));
    bench.rbuild(["bud", "--progress=plain", "bad"]).fails(&["Dockerfile:2", "no branch or tag"]);

    // Credentials go to their server alone, and into no message.
    let (here, there) =
        (Files::serve(bench.path().join("h")), Files::serve(bench.path().join("t")));
    bench.write("h/f", "x\n");
    bench.write("t/g", "y\n");
    here.redirect("moved", &format!("{}/g", there.url));
    let host = here.url.trim_start_matches("http://").to_owned();
    bench.write(
        "auth/Dockerfile",
        format!(
            "FROM scratch\nADD {0}/f /f\nADD {0}/moved /g\nADD http://u:hidden@{host}/f /u\n",
            here.url
        ),
    );
    let mut command = bench.command("rbuild");
    command.args(["bud", "--progress=plain", "-o", "auth-out", "auth"]).env("TOKEN", "t0ken");
    command.arg(format!("--secret=id=HTTP_AUTH_TOKEN_{host},env=TOKEN"));
    let built = run(&mut command).ok();
    assert!(
        !built.stderr.contains("hidden") && !built.stderr.contains("t0ken"),
        "{}",
        built.told()
    );
    let sent = |asked: &[e2e::http::ReceivedRequest]| {
        asked.iter().filter(|a| a.head.to_lowercase().contains("authorization: ")).count()
    };
    assert_eq!((sent(&here.asked()), sent(&there.asked())), (3, 0));
    assert_eq!(read(&bench.path().join("auth-out/g")), "y\n");
}

#[test]
fn buildah_sees_the_same_contexts() {
    if !root() || peer("buildah").is_none() {
        return;
    }
    let bench = Bench::new();
    let Some(git) = Repositories::serve(&bench.path().join("git")) else { return };
    git.script("r", &format!("{TREE}; commit one; git tag v1"));
    let context = format!("{}/r#main:sub", git.url);
    let ours = files(&bench, "ours", [&context]);
    let theirs = bench.path().join("theirs");
    let storage = |name: &str| bench.path().join(name);
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(storage("root")).arg("--runroot").arg(storage("run"));
    buildah.args(["--storage-driver", "vfs", "bud", "-q", "--output"]);
    run(buildah.arg(&theirs).arg(&context).current_dir(bench.path())).ok();
    let list = |path: &Path| {
        let find = ["-c", "cd \"$0\" && find . -mindepth 1 -printf '%p %y %m %s\\n' | sort"];
        run(Command::new("bash").args(find).arg(path)).ok().stdout
    };
    assert_eq!(list(&ours), list(&theirs));
}
