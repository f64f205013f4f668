//! Options of builds that other tests do not need, with the real commands.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use e2e::git::Repositories;
use e2e::registry::DockerRegistry;
use e2e::user::User;
use e2e::{Bench, peer, root, run};
use serde_json::Value;

fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn annotations_reach_the_entry_of_a_layout() {
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let build = |more: &[&str]| {
        let line = ["bud", "--progress=plain"].into_iter().chain(more.iter().copied());
        bench.rbuild(line.chain(["context"]))
    };
    let entry = |layout: &str| {
        let index = json(bench.path().join(layout).join("index.json"));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{index}");
        index["manifests"][0].clone()
    };
    // Several images: the entry is the index's, and its images' entries are in it.
    let both = "--annotation=index-descriptor,manifest-descriptor:org.example.by=ci";
    let several = "--platform=linux/amd64,linux/arm64";
    build(&[several, both, "-o=type=oci,tar=false,dest=several"]).ok();
    let found = entry("several");
    assert_eq!(found["annotations"]["org.example.by"], "ci", "{found}");
    let digest = found["digest"].as_str().unwrap().replace(':', "/");
    let index = json(bench.path().join("several/blobs").join(digest));
    assert_eq!(index["annotations"], Value::Null);
    assert_eq!(index["manifests"][1]["annotations"]["org.example.by"], "ci", "{index}");
    // One image: the entry is its own manifest's. The same image with other annotations is listed
    // again, under its name.
    let layout = "-o=type=oci,tar=false,dest=one,name=app:1";
    build(&["--annotation=manifest-descriptor:a=1", layout]).ok();
    let first = entry("one");
    assert_eq!(first["annotations"]["a"], "1", "{first}");
    build(&["--annotation=index-descriptor:a=2", layout]).ok();
    let second = entry("one");
    assert_eq!(second["annotations"]["a"], "2", "{second}");
    assert_eq!(
        second["annotations"]["org.opencontainers.image.ref.name"],
        first["annotations"]["org.opencontainers.image.ref.name"]
    );
    assert_eq!(second["digest"], first["digest"]);
    // In an archive as well, also by the key of an output.
    build(&["-o=type=oci,dest=one.tar,annotation-index-descriptor.b=3"]).ok();
    std::fs::create_dir(bench.path().join("unpacked")).unwrap();
    let tar = ["xf", "one.tar", "-C", "unpacked"];
    run(std::process::Command::new("tar").args(tar).current_dir(bench.path())).ok();
    assert_eq!(entry("unpacked")["annotations"]["b"], "3");
    // Where nothing has such an entry it is not passed over.
    build(&["-t=app", both]).code(125).fails(&["index-descriptor", "--output type=oci"]);
    build(&["--annotation=index-descriptor[linux/arm64]:a=b", layout]).code(125).fails(&["no one"]);
}

#[test]
fn logs_are_split_by_platform() {
    let bench = Bench::new();
    let dockerfile = "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY Dockerfile /tool\n\
                      FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n";
    bench.write("context/Dockerfile", dockerfile);
    let line = ["bud", "--logfile=log", "--logsplit", "-t=app", "context"];
    let platforms = "--platform=linux/arm64,linux/arm/v7";
    let built = bench.rbuild(line.into_iter().chain([platforms])).ok();
    assert_eq!(built.stderr, "");
    assert!(!bench.path().join("log").exists());
    let read = |name: &str| std::fs::read_to_string(bench.path().join(name)).unwrap();
    let (arm64, arm) = (read("log_linux_arm64"), read("log_linux_arm_v7"));
    for (own, other, log) in [("arm64", "of-arm ", &arm64), ("arm/v7", "linux/arm64", &arm)] {
        assert!(log.contains(&format!("[linux/{own} ")) && !log.contains(other), "{log}");
        assert!(log.contains("built localhost/app:latest"), "{log}");
    }
    // Failures are reported to the terminal.
    bench.write("context/Dockerfile", "FROM scratch\nCOPY absent /\n");
    bench.rbuild(line.into_iter().chain([platforms])).fails(&["absent"]);
    assert!(!read("log_linux_arm64").contains("built"));
    bench.rbuild(["bud", "--logsplit", "context"]).code(125).fails(&["--logfile"]);
    for more in ["--all-platforms", "--progress=rawjson"] {
        bench.rbuild(line.into_iter().chain([more])).code(125).fails(&["--logsplit"]);
    }
    let Some(buildah) = peer("buildah").filter(|_| root()) else { return };
    bench.write("context/Dockerfile", dockerfile);
    let storage = bench.path().join("storage");
    let theirs = ["build", "--logfile=theirs", "--logsplit", "--platform=linux/arm64", "context"];
    let mut command = std::process::Command::new(buildah);
    command.args(["--storage-driver=vfs", "--root"]).arg(&storage).arg("--runroot").arg(&storage);
    run(command.args(theirs).current_dir(bench.path())).ok();
    assert!(bench.path().join("theirs_linux_arm64").exists(), "buildah's names are ours");
}

#[test]
fn caches_are_listed_in_each_form_and_read_again() {
    let maker = Bench::new();
    let dockerfile =
        "FROM scratch AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /a /b\nCOPY c /c\n";
    let registry = DockerRegistry::start();
    for (keys, media_type, layer) in [
        (
            "image-manifest=false",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (
            "oci-mediatypes=false",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    ] {
        let mut places = vec![(
            "type=local,dest=DIR".replace("DIR", keys),
            format!("type=local,src={}/{keys}", maker.path().display()),
        )];
        if let Some(registry) = &registry {
            let name = registry.name(&keys.to_lowercase().replace('=', "/"));
            places.push((format!("type=registry,ref={name}"), format!("type=registry,ref={name}")));
        }
        for (to, from) in places {
            let files = |bench: &Bench| {
                bench.write("context/Dockerfile", dockerfile);
                bench.write("context/a", "a");
                bench.write("context/c", "c");
            };
            files(&maker);
            let to = format!("--cache-to={to},{keys}");
            maker.rbuild(["bud", "-t=app", &to, "context"]).ok();
            let reader = Bench::new();
            files(&reader);
            let from = format!("--cache-from={from}");
            let line =
                ["bud", "--progress=plain", "-t=app", "--fail-if-not-cached", &from, "context"];
            let built = reader.rbuild(line).ok();
            assert!(built.stderr.contains("0 steps run"), "{to}: {}", built.told());
        }
        let layout = maker.path().join(keys);
        let entry = json(layout.join("index.json"))["manifests"][0].clone();
        assert_eq!(entry["mediaType"], media_type);
        let digest = entry["digest"].as_str().unwrap().replace(':', "/");
        let list = json(layout.join("blobs").join(digest));
        assert_eq!(list["mediaType"], media_type);
        let listed = list["manifests"].as_array().unwrap();
        assert!(listed.iter().any(|one| one["mediaType"] == layer), "{list}");
    }
    let both = "--cache-to=type=local,dest=x,image-manifest=true,oci-mediatypes=false";
    maker.rbuild(["bud", both, "context"]).code(125).fails(&["OCI media types"]);
}

#[test]
fn the_time_of_the_context_is_that_of_the_image() {
    let bench = Bench::new();
    let at = |name: &str, time: u64| {
        let file = File::open(bench.path().join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(time)).unwrap();
    };
    let dockerfile = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY . /\nLABEL at=$SOURCE_DATE_EPOCH\n";
    bench.write("context/Dockerfile", dockerfile);
    bench.write("context/sub/newest", "x");
    bench.write("context/ignored", "x");
    bench.write("context/.dockerignore", "ignored\n");
    for (name, time) in [("Dockerfile", 1), ("sub/newest", 1_600_000_000), (".dockerignore", 2)] {
        at(&format!("context/{name}"), time);
    }
    let seen = || {
        let ran = bench.rbuild(["inspect", "--type=image", "app"]).ok();
        let text = ran.stdout;
        (text.contains("2020-09-13T12:26:40Z"), text.contains("1600000000"))
    };
    let argument = "--build-arg=SOURCE_DATE_EPOCH=context";
    let first = bench.rbuild(["bud", "-q", "-t=app", argument, "context"]).ok();
    assert_eq!(seen(), (true, true));
    // The same from the environment, and in a directory whose other times differ.
    at("context/Dockerfile", 3);
    at("context/ignored", 1_700_000_000);
    let mut command = bench.command("rbuild");
    command.env("SOURCE_DATE_EPOCH", "context").args(["bud", "-q", "-t=app", "context"]);
    assert_eq!(run(&mut command).ok().text(), first.text());
    // A commit has a time of its own.
    if let Some(repositories) = Repositories::serve(&bench.path().join("repositories")) {
        let file = bench.path().join("context/Dockerfile");
        repositories.script("app", &format!("cp {} . && commit one", file.display()));
        let url = format!("{}/app", repositories.url);
        bench.rbuild(["bud", "-q", "-t=app", argument, &url]).ok();
        let ran = bench.rbuild(["inspect", "--type=image", "app"]).ok();
        assert!(ran.stdout.contains("2017-07-14T02:40:00Z"), "{}", ran.told());
        // It is the default, and an empty value means the clock.
        let built = |more: &[&str]| bench.rbuild([&["bud", "-q", &url][..], more].concat()).ok();
        let first = built(&[]);
        assert_eq!(built(&["--no-cache"]).text(), first.text());
        built(&["-t=app", "--build-arg=SOURCE_DATE_EPOCH="]);
        let ran = bench.rbuild(["inspect", "--type=image", "app"]).ok();
        assert!(!ran.stdout.contains("2017-07-14T02:40:00Z"), "{}", ran.told());
    }
    bench
        .rbuild(["bud", "--build-arg=SOURCE_DATE_EPOCH=soon", "context"])
        .code(125)
        .fails(&["soon"]);
}

/// A tree with a link out of it.
fn volume(bench: &Bench) {
    bench.write("outside", "");
    bench.write("volume/sub/file", "");
    symlink("../outside", bench.path().join("volume/link")).unwrap();
}

fn owners(bench: &Bench) -> Vec<(u32, u32)> {
    let of = |name: &str| {
        let about = std::fs::symlink_metadata(bench.path().join(name)).unwrap();
        (about.uid(), about.gid())
    };
    ["outside", "volume", "volume/link", "volume/sub", "volume/sub/file"].map(of).to_vec()
}

#[test]
fn volumes_are_given_to_whom_the_command_runs_as() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    volume(&bench);
    let all = |owner: (u32, u32)| [vec![(0, 0)], vec![owner; 4]].concat();
    let place = format!("{}:/v:U", bench.path().join("volume").display());
    let dockerfile = "FROM localhost/busybox\nUSER 7:8\nRUN --network=none touch /v/made\n";
    bench.write("context/Dockerfile", dockerfile);
    bench.rbuild(["bud", "-t=app", "-v", &place, "context"]).ok();
    assert_eq!(owners(&bench), all((7, 8)));
    let run = ["run", "--rm", "--user=21", "--network=none", "-v", &place];
    bench.rbuild(run.into_iter().chain(["localhost/busybox", "touch", "/v/sub/made"])).ok();
    assert_eq!(owners(&bench), all((21, 0)));
    let name = bench.rbuild(["from", "localhost/busybox"]).ok();
    let line = ["run", "--user=9:9", "-v", &place, name.text(), "--", "touch", "/v/third"];
    bench.rbuild(line).ok();
    assert_eq!(owners(&bench), all((9, 9)));
    // Read only or not, as podman has it.
    let line = ["run", "--rm", "-v", &format!("{place},ro"), "localhost/busybox", "ls", "/v"];
    let listed = bench.rbuild(line).ok();
    assert!(listed.stdout.contains("made\n"), "{}", listed.told());
    assert_eq!(owners(&bench), all((0, 0)));
    for (volume, word) in [
        ("/etc:/v:U".to_owned(), "the machine's own files"),
        (format!("{}:/v:U", bench.path().join("volume/link").display()), "changing the owner"),
        (format!("{place},O"), "O"),
    ] {
        bench.rbuild(["bud", "-v", &volume, "--no-cache", "context"]).fails(&[word]);
    }
    assert_eq!(owners(&bench), all((0, 0)));
}

#[test]
fn volumes_of_an_ordinary_user_are_given_within_his_ids() {
    let Some(user) = User::get() else { return };
    let bench = Bench::of(user.uid, user.gid);
    bench.busybox();
    volume(&bench);
    let own = |name: &str| {
        let owner = (Some(user.uid), Some(user.gid));
        std::os::unix::fs::lchown(bench.path().join(name), owner.0, owner.1).unwrap();
    };
    for name in ["outside", "volume", "volume/link", "volume/sub", "volume/sub/file"] {
        own(name);
    }
    let place = format!("{}:/v:U", bench.path().join("volume").display());
    let line = ["run", "--rm", "--user=7:8", "--network=none", "-v", &place, "localhost/busybox"];
    bench.rbuild(line.into_iter().chain(["touch", "/v/sub/made"])).ok();
    let found = owners(&bench);
    // Id 7 of the container is the sixth of his subordinate ones.
    assert_eq!(found[0], (user.uid, user.gid));
    assert_eq!(found[1..], [(found[1].0, found[1].1); 4]);
    assert!(found[1].0 >= 100_000 && found[1].1 == found[1].0 + 1, "{found:?}");
    // Given back to root of the container, who is the user himself.
    let line = ["run", "--rm", "--network=none", "-v", &place, "localhost/busybox", "true"];
    bench.rbuild(line).ok();
    assert_eq!(owners(&bench), [(user.uid, user.gid); 5]);
}

#[test]
fn commands_read_what_the_build_is_fed_and_its_warnings_are_kept() {
    let bench = Bench::new();
    bench.busybox();
    let dockerfile = "from localhost/busybox as Base\nRUN --network=none read line && echo got $line > /first\n\
                      RUN --network=none cat > /rest\nCMD echo hi\n";
    bench.write("context/Dockerfile", dockerfile);
    let line = ["bud", "--metadata-file=metadata", "-t=fed", "--jobs=4"];
    let fed = bench.write("fed", "one\ntwo\nthree\n");
    let mut command = bench.command("rbuild");
    command.args(line).args(["--stdin", "context"]).stdin(File::open(&fed).unwrap());
    let output = command.output().unwrap();
    let built = e2e::ran(format!("{command:?}"), &output).ok();
    let show = ["run", "--rm", "--network=none", "fed", "cat", "/first", "/rest"];
    let shown = bench.rbuild(show).ok();
    // busybox reads a line byte by byte, and leaves the rest.
    assert_eq!(shown.stdout, "got one\ntwo\nthree\n", "{}", built.told());
    // What comes in is in no key.
    let again = bench.rbuild(line.into_iter().chain(["context"])).ok();
    assert!(again.stderr.contains("0 steps run"), "{}", again.told());
    bench.rbuild(["bud", "--stdin", "-f", "-", "context"]).code(125).fails(&["--stdin", "--file"]);
    // The warnings as buildx keeps them.
    let metadata = json(bench.path().join("metadata"));
    let warnings = metadata["buildx.build.warnings"].as_array().unwrap();
    let decoded = |value: &Value| {
        use base64::Engine;
        let bytes = base64::prelude::BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let found = |rule: &str| {
        let named = |one: &&Value| decoded(&one["short"]).starts_with(&format!("{rule}: "));
        warnings.iter().find(named).unwrap_or_else(|| panic!("{rule}: {metadata:#}"))
    };
    assert_eq!(found("StageNameCasing")["range"][0]["start"]["line"], 1);
    let form = found("JSONArgsRecommended");
    assert_eq!((&form["level"], &form["range"][0]["start"]["line"]), (&1.into(), &4.into()));
    assert_eq!(form["sourceInfo"]["filename"], "Dockerfile");
    assert_eq!(decoded(&form["sourceInfo"]["data"]), dockerfile);
}
