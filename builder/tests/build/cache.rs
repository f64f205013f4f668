//! What the cache answers, and what it must not.

use image::Digest;
use serde_json::{Value, json};
use task::Outcome;

use crate::Case;
use crate::support::{BASE, OneImage, Only, Place, ready};

pub(crate) const CASES: &[Case] = &[
    ("a_second_build_does_nothing_and_gives_the_same_image", warm),
    ("what_must_and_must_not_change_a_copys_key", keys),
    ("the_same_files_from_a_changed_stage_are_a_hit", content),
    ("no_cache_runs_again_and_keeps_working", no_cache),
    ("two_stores_give_the_same_digest", reproducible),
    ("a_miss_has_a_reason", reasons),
    ("a_forecast_runs_nothing_and_is_right", forecasts),
    ("outputs", outputs),
    ("a_gate_lets_an_index_or_what_is_chosen_from_it_through", gates),
    ("docker_format", docker),
    ("a_given_time_never_gives_the_layer_of_another", times),
    ("later_stages_get_what_a_stage_that_was_run_again_gave", again),
    ("given_times_hold_in_the_store_and_in_outputs", bounded),
];

fn warm() {
    let place = Place::new();
    place.write("a", "1").write("b", "2");
    let text = "FROM base\nCOPY a /a\nENV X=1\nCOPY b /b\nCMD [\"x\"]\n";
    let first = place.build_text(text);
    assert_eq!(first.built.cached, 1, "only the base is known");
    let second = place.build_text(text);
    assert_eq!(second.built.cached, second.built.steps);
    assert_eq!(first.image.id(), second.image.id());
    let done = place.ear.ended(Outcome::Done);
    assert!(!done.iter().any(|name| name.contains("COPY") || name.contains("layer")), "{done:?}");
    place.write("b", "3");
    let third = place.build_text(text);
    assert_eq!(third.built.steps - third.built.cached, 1);
    assert_eq!(third.text("/b"), "3");
}

/// Sets an attribute that copies take along; the content where the file system has none.
fn attribute(place: &Place) {
    let (file, none) = (place.context.join("d/f"), rustix::fs::XattrFlags::empty());
    if rustix::fs::setxattr(&file, c"user.mark", b"1", none).is_err() {
        place.write("d/f", "no attributes here");
    }
}

fn keys() {
    type Change = fn(&Place);
    let cases: &[(&str, bool, Change)] = &[
        ("nothing", true, |_| {}),
        ("the time of a file", true, |place| {
            let file = std::fs::File::options().write(true).open(place.context.join("d/f"));
            file.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("content", false, |place| {
            let _ = place.write("d/f", "other");
        }),
        ("content of the same length", false, |place| {
            let _ = place.write("d/f", "2");
        }),
        ("mode", false, |place| {
            let _ = place.mode("d/f", 0o600);
        }),
        ("a name", false, |place| {
            std::fs::rename(place.context.join("d/f"), place.context.join("d/g")).unwrap();
        }),
        ("a new file", false, |place| {
            let _ = place.write("d/new", "");
        }),
        ("an empty directory", false, |place| {
            std::fs::create_dir(place.context.join("d/e")).unwrap();
        }),
        ("where a link points", false, |place| {
            std::fs::remove_file(place.context.join("d/l")).unwrap();
            place.link("d/l", "elsewhere");
        }),
        ("a file outside", true, |place| {
            let _ = place.write("other", "x");
        }),
        ("an ignored file", true, |place| {
            let _ = place.write("d/ignored", "y");
        }),
        ("an attribute of a file", false, attribute),
        ("owner of a file", true, |place| {
            std::os::unix::fs::chown(place.context.join("d/f"), Some(5), Some(5)).unwrap();
        }),
    ];
    for (what, hit, change) in cases {
        let place = Place::new();
        place.write("d/f", "1").link("d/l", "f").write(".dockerignore", "d/ignored\n");
        let text = "FROM scratch\nCOPY d /d\n";
        place.build_text(text);
        change(&place);
        let again = place.build_text(text);
        assert_eq!(again.built.cached == again.built.steps, *hit, "{what}");
    }
    let lines = [
        "COPY d /e",
        "COPY --chown=1 d /d",
        "COPY --chmod=700 d /d",
        "COPY --exclude=f d /d",
        "COPY --parents d /d",
        "COPY --link d /d",
        "ADD d /d",
        "COPY d/f /d",
    ];
    let place = Place::new();
    place.write("d/f", "1");
    place.build_text("FROM scratch\nCOPY d /d\n");
    for line in lines {
        let again = place.build_text(&format!("FROM scratch\n{line}\n"));
        assert_eq!(again.built.cached, 0, "{line}");
    }
}

fn content() {
    let place = Place::new();
    place.write("a", "same").write("b", "1");
    let text = "FROM base AS one\nCOPY b /b\nCOPY a /a\nFROM scratch\nCOPY --from=one /a /a\nCOPY a /again\n";
    let first = place.build_text(text);
    place.write("b", "2");
    let second = place.build_text(text);
    assert_eq!(first.image.id(), second.image.id());
    let reused = place.ear.ended(Outcome::Reused);
    assert!(reused.iter().any(|name| name.contains("/again")), "{reused:?}");
    place.write("a", "other");
    assert_eq!(place.build_text(text).text("/a"), "other");
}

fn no_cache() {
    let place = Place::new();
    place.write("a", "1");
    let text = "FROM base\nCOPY a /a\nCOPY a /b\n";
    place.build_text(text);
    let mut request = place.request(text);
    request.no_cache = true;
    let look = place.build(request);
    assert_eq!(look.built.cached, 1, "the base");
    let look = place.build_text(text);
    assert_eq!(look.built.cached, 3);
    let mut request =
        place.request("FROM base AS s\nCOPY a /a\nFROM base\nCOPY a /a\nCOPY --from=s /a /b\n");
    request.no_cache_filter = vec!["s".to_owned()];
    place.build(request);
    let reused = place.ear.ended(Outcome::Reused);
    assert!(reused.iter().any(|name| name.starts_with("[stage-1 2/3]")), "{reused:?}");
    assert!(!reused.iter().any(|name| name.starts_with("[s 2/2]")), "{reused:?}");
}

fn reproducible() {
    let build = |touch: bool| {
        let place = Place::new();
        place.write("d/a", "1").write("d/b", "2").write("c", "3");
        if touch {
            let file = std::fs::File::options().write(true).open(place.context.join("d/a"));
            file.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let mut request = place.request(
            "FROM base\nWORKDIR /w\nCOPY d /d/\nCOPY c /etc/c\nCOPY <<E /h\nx\nE\nENV A=1\n",
        );
        request.source_date_epoch = Some(1_500_000_000);
        let look = place.build(request);
        assert_eq!(look.image.config().created.as_deref(), Some("2017-07-14T02:40:00Z"));
        look.image.descriptor().digest
    };
    assert_eq!(build(false), build(true));
}

fn reasons() {
    let place = Place::new();
    place.write("a", "1").write("d/b", "1").write("d/c", "1");
    let text = "FROM base\nARG V=1\nCOPY a /a\nCOPY d /d$V\nWORKDIR /w\n";
    let ran = |request| -> Vec<Vec<String>> {
        let explained = place.build(request).built.explained;
        let reasons =
            |e: &builder::Explanation| e.reasons.iter().map(ToString::to_string).collect();
        explained.iter().map(reasons).collect()
    };
    let new = "it was not built before from this Dockerfile and context";
    assert_eq!(ran(place.request(text)), [[new], [new], [new]]);
    assert!(!place.ear.notes().contains(&new.to_owned()), "the first build says it nowhere");
    assert!(ran(place.request(text)).is_empty());
    place.write("a", "2");
    let parent = |step: &str| vec![format!("the step before it changed: [{step}")];
    let (second, third) = (parent("2/4] COPY a /a"), parent("3/4] COPY d /d$V"));
    let first = vec!["file a has other content".to_owned()];
    assert_eq!(ran(place.request(text)), [first, second, third.clone()]);
    assert!(place.ear.notes().contains(&"file a has other content".to_owned()));
    // Back to what was built before, and from there to something else: compared with the last
    // build, not with the last step that ran.
    place.write("a", "1");
    assert!(ran(place.request(text)).is_empty());
    place.write("d/new", "").mode("d/b", 0o600);
    std::fs::remove_file(place.context.join("d/c")).unwrap();
    let files = ["file d/b has mode 600, it was 644", "file d/new is new", "file d/c is gone"];
    assert_eq!(ran(place.request(text)), [files.map(str::to_owned).to_vec(), third.clone()]);
    let mut request = place.request(text);
    request.build_args.insert("V".to_owned(), "2".to_owned());
    let arg = vec!["build argument V changed".to_owned()];
    assert_eq!(ran(request), [arg, third.clone()]);
    let changed = text.replace("COPY a /a", "COPY a /e");
    let rewritten = vec!["the instruction changed, it was: COPY a /a".to_owned()];
    let other = vec![
        "build argument V changed".to_owned(),
        "the step before it is another one: [2/4] COPY a /e, it was [2/4] COPY a /a".to_owned(),
    ];
    assert_eq!(ran(place.request(&changed))[..2], [rewritten, other]);
    let mut request = place.request(&changed);
    request.no_cache = true;
    assert!(ran(request).iter().all(|step| *step == ["the step runs without the cache"]));
    // The clock of these tests stands still: everything is exactly as old as allowed.
    let mut request = place.request(&changed);
    request.cache.ttl = Some(std::time::Duration::ZERO);
    assert_eq!(ran(request)[0], ["its result of 2096-10-02T07:06:40Z is too old"]);
    let mut request = place.request(&changed);
    request.cache.ttl = Some(std::time::Duration::from_secs(1));
    assert!(ran(request).is_empty());
    place.base(BASE, |config| config.config.env.push("NEW=1".to_owned()));
    let same_files = ran(place.request(&changed));
    assert!(same_files.is_empty(), "COPY sees no variables: {same_files:?}");
}

fn forecasts() {
    let place = Place::new();
    place.write("a", "1").write("b", "1");
    let text =
        "FROM base AS one\nCOPY a /a\nCOPY b /b\nFROM base\nCOPY --from=one /a /a\nWORKDIR /w\n";
    let look = || {
        let steps = place.forecast(place.request(text)).unwrap();
        steps.iter().map(|step| step.outlook).collect::<Vec<_>>()
    };
    use builder::ForecastOutcome::{Cached, Depends, Run};
    assert_eq!(look(), [Run; 4]);
    let strict = || {
        let mut request = place.request(text);
        request.cache.must_hit = true;
        place.try_build(request)
    };
    let error = strict().unwrap_err();
    let told = task::chain(&error).join(": ");
    assert!(told.contains("[one 2/3] COPY a /a is not cached: it was not built"), "{told}");
    assert!(told.contains("Dockerfile:2"), "{told}");
    assert!(place.store.resolve("localhost/app:latest").unwrap().is_none());
    place.build_text(text);
    assert_eq!(look(), [Cached; 4]);
    assert_eq!(strict().unwrap().cached, 5);
    place.write("b", "2");
    assert_eq!(look(), [Cached, Run, Depends, Depends]);
    let told = task::chain(&strict().unwrap_err()).join(": ");
    assert!(told.contains("[one 3/3] COPY b /b is not cached: file b has other content"), "{told}");
    let look = place.build_text(text);
    assert_eq!(look.built.explained.len(), 1, "the copied file is the same");
}

fn outputs() {
    let place = Place::new();
    place.write("a", "1");
    let mut request = place.request("FROM scratch\nCOPY a /dir/a\n");
    request.tags.clear();
    let (files, tar) = (place.root.join("files"), place.root.join("out.tar"));
    request.outputs = vec![
        builder::Output::Files(builder::FilesOutput::to(files.clone())),
        builder::Output::Tar(builder::FilesOutput::to(tar.clone())),
    ];
    let built = place.try_build(request).unwrap();
    assert!(built.manifest.is_none());
    assert_eq!(std::fs::read_to_string(files.join("dir/a")).unwrap(), "1");
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["dir/", "dir/a"]);
    let layout = place.root.join("layout");
    let mut request = place.request("FROM base\nCOPY a /dir/a\n");
    request.tags.clear();
    request.outputs = vec![builder::Output::Image(format!("oci:{}:app", layout.display()))];
    let built = place.try_build(request).unwrap();
    let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
    assert!(index.contains(&built.manifest.unwrap().digest.to_string()), "{index}");
    assert!(place.store.resolve("localhost/app:latest").unwrap().is_none());
}

fn docker() {
    let place = Place::new();
    place.write("a", "1");
    let mut request = place.request("FROM base\nCOPY a /a\nHEALTHCHECK CMD true\n");
    request.format = builder::Format::Docker;
    let look = place.build(request);
    assert!(look.image.descriptor().media_type.is_docker());
    assert!(look.image.layers().all(|layer| layer.descriptor.media_type.is_docker()));
}

fn gates() {
    let maker = Place::new();
    let layout = maker.root.join("layout");
    let mut request = maker.request("FROM base\n");
    request.outputs = vec![builder::Output::Image(format!("oci:{}:app", layout.display()))];
    maker.build(request);
    let file = layout.join("index.json");
    let list: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let mut child = list["manifests"][0].clone();
    child.as_object_mut().unwrap().remove("annotations");
    let chosen: Digest = child["digest"].as_str().unwrap().parse().unwrap();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let mut member = child.clone();
    member["platform"] = serde_json::to_value(image::Platform::host()).unwrap();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [member] });
    let index = index.to_string();
    let named = Digest::of(index.as_bytes());
    std::fs::write(layout.join("blobs/sha256").join(named.hex()), &index).unwrap();
    let app = json!({
        "mediaType": media_type, "digest": named.to_string(), "size": index.len(),
        "annotations": { "org.opencontainers.image.ref.name": "app" },
    });
    let list = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [app, child] });
    std::fs::write(&file, list.to_string()).unwrap();
    for (accepted, good) in [(named, true), (chosen, true), (Digest::of(b"other"), false)] {
        let place = Place::empty();
        place.write("a", "1");
        let mut env = place.env();
        env.places = std::sync::Arc::new(OneImage(layout.clone()));
        env.gate = std::sync::Arc::new(Only(accepted));
        let request = place.request("FROM registry.example/app:1\nCOPY a /a\n");
        let built = place.try_build_in(request, &env);
        let told = built.as_ref().err().map(|error| task::chain(error).join(": "));
        assert_eq!(built.is_ok(), good, "{accepted}: {told:?}");
        assert!(good || told.is_some_and(|told| told.contains(&format!("{named} is gone"))));
    }
}

fn times() {
    let Some(place) = ready() else { return };
    place.write("a", "1");
    let file = std::fs::File::options().write(true).open(place.context.join("a")).unwrap();
    let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    file.set_modified(at(5000)).unwrap();
    let build = |epoch: Option<i64>| {
        let mut request = place.request(
            "FROM base\nARG SOURCE_DATE_EPOCH\nCOPY a /a\nRUN echo $SOURCE_DATE_EPOCH > /b\n",
        );
        request.source_date_epoch = epoch;
        request.compression.encoding = image::Encoding::Plain;
        let look = place.build(request);
        let layers: Vec<_> = look.image.layers().collect();
        let copied = layers[layers.len() - 2].descriptor.clone();
        let mut time = None;
        let bytes = place.store.read(&copied).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            if entry.path().unwrap().ends_with("a") {
                time = Some(entry.header().mtime().unwrap());
            }
        }
        (time.unwrap(), look.text("/b"))
    };
    // Each has the layer that a build from nothing would give, whatever was built before.
    assert_eq!(build(None), (5000, "\n".to_owned()));
    assert_eq!(build(Some(100)), (100, "100\n".to_owned()));
    assert_eq!(build(Some(4000)), (4000, "4000\n".to_owned()));
    assert_eq!(build(Some(9000)), (9000, "9000\n".to_owned()));
    assert_eq!(build(Some(100)), (100, "100\n".to_owned()));
    assert_eq!(build(None), (5000, "\n".to_owned()));
}

fn again() {
    let Some(place) = ready() else { return };
    let text = "FROM base AS a\nRUN cat /proc/sys/kernel/random/uuid >/id\n\
        FROM a AS b\nRUN cp /id /b\nFROM base\nCOPY --from=a /id /a\nCOPY --from=b /b /b\n";
    let first = place.build_text(text).text("/a");
    let mut request = place.request(text);
    request.no_cache_filter = vec!["a".to_owned()];
    let look = place.build(request);
    let second = look.text("/a");
    assert_ne!(first, second);
    assert_eq!(look.text("/b"), second, "what goes on with the stage sees it too");
    // It is what the next build knows.
    let look = place.build_text(text);
    assert_eq!((look.text("/a"), look.text("/b")), (second.clone(), second));
    assert_eq!(look.built.cached, look.built.steps);
}

fn bounded() {
    let Some(place) = ready() else { return };
    let files = place.root.join("files");
    let mut request = place.request("FROM base\nRUN mkdir /d && echo x >/d/f && ln -s f /d/l\n");
    request.source_date_epoch = Some(1_000_000);
    request.outputs = vec![builder::Output::Files(builder::FilesOutput::to(files.clone()))];
    let look = place.build(request);
    for path in ["/d", "/d/f", "/d/l"] {
        assert_eq!(look.mtime(path), 1_000_000, "{path}");
        let out = std::fs::symlink_metadata(files.join(&path[1..])).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&out), 1_000_000, "{path}");
    }
}
