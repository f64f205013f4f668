//! Golden plans: a Dockerfile and its plan in one file, cut by a line of dashes. `UPDATE=1`
//! rewrites what is below the line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use builder::plan::{ImageKey, Lowered, Resolved, lower};
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
    request.platform = Platform::new("linux", "amd64", None);
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

fn plan(text: &str) -> String {
    let (file, diagnostics) = dockerfile::parse(text);
    let bad = |d: &&dockerfile::Diagnostic| d.severity == dockerfile::Severity::Error;
    if diagnostics.iter().any(|d| bad(&d)) {
        let render = |d| dockerfile::render(text, "Dockerfile", d);
        return diagnostics.iter().filter(bad).map(render).collect();
    }
    let request = request(text);
    let mut resolved = Resolved { images: BTreeMap::new() };
    let mut rounds = 0;
    loop {
        rounds += 1;
        match lower(&file, &request, &resolved) {
            Ok(Lowered::Plan(plan)) => return format!("{plan}rounds: {rounds}\n"),
            Ok(Lowered::Needs(needs)) => {
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
