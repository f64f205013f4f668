//! Golden plans: a Dockerfile and its plan in one file, cut by a line of dashes. `UPDATE=1`
//! rewrites what is below the line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use builder::lower::{LoweringResult, lower};
use builder::plan::key::{Key, definition};
use builder::plan::{ImageKey, ResolvedImages};
use builder::{Context, Request, SourceFile};
use image::{Config, Descriptor, Digest, Document, Image, Manifest, MediaType, Platform, RootFs};

const LINE: &str = "----------\n";

/// An image for any name: what it says depends on the name alone.
fn image(key: &ImageKey) -> Image {
    let diff_id = Digest::of(key.name.as_bytes());
    let mut config = Config {
        created: Some("2020-01-01T00:00:00Z".to_owned()),
        architecture: key.platform.architecture.clone(),
        os: key.platform.os.clone(),
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        ..Config::default()
    };
    config.config.env = vec!["PATH=/usr/bin:/bin".to_owned(), format!("FROM={}", key.name)];
    config.config.cmd = Some(vec!["sh".to_owned()]);
    if key.name == "trigger" {
        config.config.on_build =
            vec!["COPY --from=tools /t /t".to_owned(), "RUN make $FROM".to_owned()];
    }
    let config = Document::write(MediaType::OCI_CONFIG, config);
    let layer = Descriptor::new(MediaType::OCI_LAYER_GZIP, diff_id, 1);
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), vec![layer]);
    Image::new(Document::write(MediaType::OCI_MANIFEST, manifest), config).unwrap()
}

/// A request from the comment lines `#= key value` of a case.
fn request(text: &str) -> Request {
    let file = SourceFile { name: "Dockerfile".to_owned(), text: text.to_owned() };
    let mut request = Request::new(file, Context::Directory("/nowhere".into()));
    request.platforms = vec![Platform::new("linux", "amd64", None)];
    request.build_platform = Platform::new("linux", "arm64", None);
    for line in text.lines().filter_map(|line| line.strip_prefix("#= ")) {
        let (key, value) = line.split_once(' ').unwrap();
        match key {
            "target" => request.target = Some(value.to_owned()),
            "arg" => {
                let (name, value) = value.split_once('=').unwrap();
                request.build_args.insert(name.to_owned(), value.to_owned());
            }
            "context" => {
                let context = Context::Directory("/named".into());
                request.contexts.insert(value.to_owned(), context);
            }
            "no-cache-filter" => request.no_cache_filter.push(value.to_owned()),
            other => panic!("unknown setting {other}"),
        }
    }
    request
}

/// The key of the target, as far as the plan decides it.
fn key(text: &str, change: impl FnOnce(&mut Request)) -> Key {
    let (file, diagnostics) = dockerfile::parse(text);
    assert!(diagnostics.iter().all(|d| d.severity == dockerfile::Severity::Warning), "{text}");
    let mut request = request(text);
    change(&mut request);
    let mut resolved = ResolvedImages::default();
    let plan = loop {
        match lower(&file, &request, &request.platforms[0], &resolved) {
            Ok(LoweringResult::Plan(plan)) => break plan,
            Ok(LoweringResult::Needs(needs)) => {
                resolved.images.extend(needs.into_iter().map(|key| (key.clone(), image(&key))));
            }
            Err(diagnostics) => panic!("{text}: {diagnostics:?}"),
        }
    };
    let mut keys: Vec<Key> = Vec::new();
    for step in &plan.steps {
        let inputs: Vec<Key> = step.inputs().map(|input| keys[input.0]).collect();
        keys.push(definition(step, &inputs).finish());
    }
    keys[plan.targets[0].step.unwrap().0]
}

#[test]
fn what_must_and_must_not_change_the_key_of_a_command() {
    let base = "FROM base\nARG A=1\nENV E=1\nUSER u\nWORKDIR /w\nRUN --mount=type=cache,target=/c --mount=type=secret,id=s x\n";
    let unchanged = key(base, |_| {});
    let texts = [
        ("a comment", "FROM base", "# comment\nFROM base", true),
        ("blanks", "ENV E=1", "  env   E=1", true),
        ("a label", "USER u", "LABEL l=1\nUSER u", true),
        ("a command of the image", "USER u", "CMD x\nUSER u", true),
        ("how a cache is shared", "target=/c", "target=/c,sharing=locked", true),
        ("the base", "FROM base", "FROM other", false),
        ("a variable", "E=1", "E=2", false),
        ("an argument", "A=1", "A=2", false),
        ("another argument", "ARG A=1", "ARG A=1\nARG B=2", false),
        ("the user", "USER u", "USER v", false),
        ("the directory", "/w", "/v", false),
        ("the command", " x", " y", false),
        ("the form", " x", " [\"x\"]", false),
        ("the shell", "USER u", "SHELL [\"/bin/bash\"]\nUSER u", false),
        ("the network", "RUN", "RUN --network=none", false),
        ("where a cache is", "target=/c", "target=/d", false),
        ("which cache", "target=/c", "target=/c,id=i", false),
        ("a secret's name", "id=s", "id=t", false),
        ("a secret's place", "id=s", "id=s,target=/s", false),
        ("a mount", " x", " --mount=type=tmpfs,target=/t x", false),
        ("a step before", "USER u", "COPY a b\nUSER u", false),
        ("the platform", "FROM base", "FROM --platform=linux/arm64 base", false),
    ];
    for (what, from, to, same) in texts {
        assert!(base.contains(from), "{what}");
        assert_eq!(key(&base.replacen(from, to, 1), |_| {}) == unchanged, same, "{what}");
    }
    type Change = fn(&mut Request);
    let requests: [(&str, Change, bool); 6] = [
        (
            "a secret's value",
            |r| {
                let secret = builder::Secret::Value(b"x".to_vec());
                r.secrets.insert("s".to_owned(), secret);
            },
            true,
        ),
        ("a proxy", |r| drop(r.proxy.insert("http_proxy".to_owned(), "x".to_owned())), true),
        (
            "a proxy argument",
            |r| drop(r.build_args.insert("HTTP_PROXY".to_owned(), "x".to_owned())),
            true,
        ),
        ("a label", |r| drop(r.labels.insert("l".to_owned(), "x".to_owned())), true),
        ("an argument", |r| drop(r.build_args.insert("A".to_owned(), "x".to_owned())), false),
        ("the network", |r| r.network = builder::Network::None, false),
    ];
    for (what, change, same) in requests {
        assert_eq!(key(base, change) == unchanged, same, "{what}");
    }
}

/// Keys name results on every machine and in every cache: what is written here may only change
/// together with the version of the format.
#[test]
fn keys_are_a_format_that_stands_still() {
    let text = "FROM base AS b\nENV E=1\nUSER u:g\nWORKDIR /w\n\
        COPY --chown=1:2 --chmod=u=rwX,go=o,a-s --exclude=x --parents a b* /c/\n\
        ADD --link --checksum=sha256:1111111111111111111111111111111111111111111111111111111111111111 \
        --unpack=false https://h.example/f /d\n\
        ADD --keep-git-dir https://h.example/r.git#v1 /e\nCOPY <<E /h\nx\nE\n\
        RUN --network=none --mount=type=bind,from=tools,source=/s,target=/t,rw \
        --mount=type=cache,id=i,target=/m,mode=0700,uid=1,gid=2,ro --mount=type=tmpfs,target=/n,size=1m \
        --mount=type=secret,id=s,env=S,required --mount=type=ssh,mode=0600 make\n\
        RUN <<E\necho x\nE\nFROM scratch\nCOPY --from=b / /\n";
    let linked = "FROM scratch\nCOPY --link a /a\n";
    let found = [text, linked].map(|text| key(text, |_| {}).0.to_string());
    assert_eq!(
        found,
        [
            "sha256:08c3b3c7d3e9bf885be506f6aaa297b948884440156e5db5c5b4aad079f437ab",
            "sha256:440a6bfbbf7d7d5fe0107374cd2d0409f1ba5d0f7eaabaceab3315f4ea29b323",
        ]
    );
}

fn plan(text: &str) -> String {
    let (file, diagnostics) = dockerfile::parse(text);
    let bad = |d: &&dockerfile::Diagnostic| d.severity == dockerfile::Severity::Error;
    if diagnostics.iter().any(|d| bad(&d)) {
        let render = |d| dockerfile::render(text, "Dockerfile", d);
        return diagnostics.iter().filter(bad).map(render).collect();
    }
    let request = request(text);
    let mut resolved = ResolvedImages { images: BTreeMap::new() };
    let mut rounds = 0;
    loop {
        rounds += 1;
        match lower(&file, &request, &request.platforms[0], &resolved) {
            Ok(LoweringResult::Plan(plan)) => return format!("{plan}rounds: {rounds}\n"),
            Ok(LoweringResult::Needs(needs)) => {
                resolved.images.extend(needs.into_iter().map(|key| (key.clone(), image(&key))));
            }
            Err(diagnostics) => {
                let render = |d| dockerfile::render(text, "Dockerfile", d);
                return diagnostics.iter().map(render).collect();
            }
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods)]
fn plans_are_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (dockerfile, expected) = text.split_once(LINE).unwrap_or((&text, ""));
        let found = plan(dockerfile);
        if update {
            std::fs::write(&path, format!("{dockerfile}{LINE}{found}")).unwrap();
        } else {
            assert_eq!(found, expected, "{}", path.display());
        }
        assert_eq!(found, plan(dockerfile), "the same plan every time");
    }
}
