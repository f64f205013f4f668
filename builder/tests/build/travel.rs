//! A cache that another machine made: what it spares, and that it cannot do harm.

use std::path::{Path, PathBuf};

use builder::{CacheFrom, CachePlace, CacheTo, Mode, Output, Request};
use serde_json::Value;
use task::Outcome;
use transport::{ImageSelector, Location};

use crate::Case;
use crate::support::Place;

pub(crate) const CASES: &[Case] = &[
    ("a_cache_from_elsewhere_answers_every_step", answers),
    ("only_what_is_needed_comes_from_a_cache", lazily),
    ("a_cache_that_lies_or_lacks_costs_time_and_nothing_else", hostile),
    ("an_image_can_be_its_own_cache", inline),
    ("a_cache_that_cannot_be_written_leaves_the_image", unwritable),
];

const TEXT: &str = "FROM base AS one\nCOPY a /a\nCOPY big /big\nFROM base\nCOPY --from=one /a /b\nCOPY c /c\nWORKDIR /w\n";

fn layout(path: &Path) -> CachePlace {
    Location::Layout(path.to_owned(), ImageSelector::Name("latest".to_owned())).into()
}

fn to(path: &Path, mode: Mode) -> CacheTo {
    CacheTo {
        form: builder::CacheForm::default(),
        name: "elsewhere".to_owned(),
        place: layout(path),
        mode,
        compression: None,
        force: false,
        mounts: false,
        ignore_error: false,
    }
}

fn from(path: &Path) -> CacheFrom {
    CacheFrom { name: "elsewhere".to_owned(), places: vec![layout(path)] }
}

/// A place with the context of [`TEXT`].
fn place() -> Place {
    let place = Place::new();
    place.write("a", "1").write("big", "2").write("c", "3");
    place
}

/// Builds [`TEXT`] somewhere else and exports its cache; also the id of the image.
fn exported(mode: Mode) -> (Place, PathBuf, image::Digest) {
    let maker = place();
    let path = maker.root.join("cache");
    let mut request = timeless(&maker);
    request.cache.to = vec![to(&path, mode)];
    let id = maker.build(request).image.id();
    (maker, path, id)
}

/// The times of files are not those of the machine.
fn timeless(place: &Place) -> Request {
    let mut request = place.request(TEXT);
    request.source_date_epoch = Some(1_600_000_000);
    request
}

fn asking(place: &Place, path: &Path) -> Request {
    let mut request = timeless(place);
    request.cache.from = vec![from(path)];
    request
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
}

/// The manifest of the cache in a layout, and its list of steps.
fn listing(layout: &Path) -> (Value, Value) {
    let index = json(&layout.join("index.json"));
    let manifest = json(&blob(layout, &index["manifests"][0]["digest"]));
    let list = json(&blob(layout, &manifest["config"]["digest"]));
    (manifest, list)
}

/// Puts another list of steps into the cache.
fn replace(layout: &Path, list: &Value) {
    let put = |value: &Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = image::Digest::of(&bytes);
        std::fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let (mut manifest, _) = listing(layout);
    let (digest, size) = put(list);
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = put(&manifest);
    let mut index = json(&layout.join("index.json"));
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

fn answers() {
    let (maker, path, id) = exported(Mode::Max);
    let (manifest, list) = listing(&path);
    assert_eq!(list["steps"].as_array().unwrap().len(), 5);
    assert_eq!(manifest["artifactType"], "application/vnd.rbuild.cache.v1");
    // A store that has never seen any of it.
    let fresh = place();
    let mut request = asking(&fresh, &path);
    request.cache.must_hit = true;
    let look = fresh.build(request);
    assert_eq!(look.built.cached, look.built.steps);
    assert_eq!(look.image.id(), id);
    assert_eq!((look.text("/b"), look.text("/c")), ("1".to_owned(), "3".to_owned()));
    let forecast = fresh.forecast(asking(&fresh, &path)).unwrap();
    assert!(forecast.iter().all(|step| step.outlook == builder::ForecastOutcome::Cached));
    // It passes the cache on without having all of it.
    let second = fresh.root.join("second");
    let mut request = asking(&fresh, &path);
    request.cache.to = vec![to(&second, Mode::Max)];
    fresh.build(request);
    assert_eq!(listing(&second).1["steps"], list["steps"]);
    let third = place();
    let look = third.build(asking(&third, &second));
    assert_eq!(look.built.cached, look.built.steps);
    // The same again is the same manifest.
    let mut request = timeless(&maker);
    request.cache.to = vec![to(&maker.root.join("again"), Mode::Max)];
    maker.build(request);
    let digest = |layout: &Path| json(&layout.join("index.json"))["manifests"][0]["digest"].clone();
    assert_eq!(digest(&path), digest(&maker.root.join("again")));
    // The least: what the image is made of.
    let (_maker, path, _) = exported(Mode::Min);
    assert_eq!(listing(&path).1["steps"].as_array().unwrap().len(), 3);
}

fn lazily() {
    let (_maker, path, _) = exported(Mode::Max);
    let fresh = place();
    fresh.write("c", "other");
    let (_, list) = listing(&path);
    let look = fresh.build(asking(&fresh, &path));
    let reasons = look.built.explained.iter().map(|e| e.reasons[0].to_string());
    // The other machine's facts say what is different here.
    let parent = "the step before it changed: [stage-1 3/4] COPY c /c";
    assert_eq!(reasons.collect::<Vec<_>>(), ["file c has other content", parent]);
    assert_eq!((look.text("/b"), look.text("/c")), ("1".to_owned(), "other".to_owned()));
    let arrived = fresh.ear.ended(Outcome::Done);
    let arrived: Vec<_> = arrived.iter().filter(|name| name.contains("from the cache")).collect();
    assert_eq!(arrived, ["[stage-1 2/4] COPY --from=one /a /b from the cache"]);
    let here = |record: &Value| {
        let digest = record["layer"].as_str().unwrap().parse().unwrap();
        fresh.store.contains(digest).unwrap()
    };
    let steps = list["steps"].as_array().unwrap();
    assert!(steps.iter().filter(|record| here(record)).count() < steps.len());
    // From now on this machine knows by itself what came here.
    std::fs::remove_dir_all(&path).unwrap();
    let look = fresh.build(asking(&fresh, &path));
    assert!(look.built.explained.iter().all(|e| e.step.starts_with("[one ")), "{:?}", look.built);
}

fn hostile() {
    type Harm = fn(&Path);
    let cases: &[(&str, Harm)] = &[
        ("diff ids that are not the layers'", |layout| {
            let (_, mut list) = listing(layout);
            for record in list["steps"].as_array_mut().unwrap() {
                record["diff_id"] = image::Digest::of(b"x").to_string().into();
            }
            replace(layout, &list);
        }),
        ("layers that are gone", |layout| {
            let (_, list) = listing(layout);
            for record in list["steps"].as_array().unwrap() {
                let _ = std::fs::remove_file(blob(layout, &record["layer"]));
            }
        }),
        ("layers of other bytes", |layout| {
            let (_, list) = listing(layout);
            for record in list["steps"].as_array().unwrap() {
                let file = blob(layout, &record["layer"]);
                let length = std::fs::metadata(&file).unwrap().len();
                std::fs::write(&file, vec![7; usize::try_from(length).unwrap()]).unwrap();
            }
        }),
        ("a list that is not a list", |layout| replace(layout, &Value::from("steps"))),
        ("layers that are not listed", |layout| {
            let (_, mut list) = listing(layout);
            for record in list["steps"].as_array_mut().unwrap() {
                record["layer"] = image::Digest::of(b"y").to_string().into();
            }
            replace(layout, &list);
        }),
        ("an index that is not an index", |layout| {
            std::fs::write(layout.join("index.json"), "{").unwrap();
        }),
    ];
    for (what, harm) in cases {
        let (_maker, path, _) = exported(Mode::Max);
        harm(&path);
        let fresh = place();
        fresh.write("c", "other");
        let look = fresh.build(asking(&fresh, &path));
        assert_eq!(
            (look.text("/b"), look.text("/c")),
            ("1".to_owned(), "other".to_owned()),
            "{what}"
        );
        assert!(!look.exists("/big"), "{what}");
        // Nothing of it stays behind.
        assert!(fresh.store.check(&task::Task::silent()).unwrap().is_empty(), "{what}");
        let clean = place();
        clean.write("c", "other");
        let honest = clean.build(timeless(&clean));
        assert_eq!(look.image.id(), honest.image.id(), "{what}");
    }
}

fn inline() {
    let maker = place();
    let path = maker.root.join("image");
    let mut request = timeless(&maker);
    request.cache.inline = true;
    request.outputs = vec![Output::Image(format!("oci:{}:latest", path.display()))];
    maker.build(request);
    let fresh = place();
    let look = fresh.build(asking(&fresh, &path));
    // The earlier stage is not in the image; its steps are only run if something needs them.
    let ran: Vec<_> = look.built.explained.iter().map(|e| e.step.clone()).collect();
    assert!(ran.iter().all(|step| step.starts_with("[one ")), "{ran:?}");
    assert_eq!(look.text("/c"), "3");
    let plain = maker.root.join("plain");
    let mut request = maker.request(TEXT);
    request.outputs = vec![Output::Image(format!("oci:{}:latest", plain.display()))];
    maker.build(request);
    let fresh = place();
    let look = fresh.build(asking(&fresh, &plain));
    assert_eq!(look.built.cached, 1, "an image that holds no cache is none");
}

fn unwritable() {
    let maker = place();
    let file = maker.root.join("file");
    std::fs::write(&file, "").unwrap();
    let mut request = maker.request(TEXT);
    request.cache.to = vec![to(&file, Mode::Max)];
    let error = maker.try_build(request.clone()).unwrap_err();
    let told = task::chain(&error).join(": ");
    assert!(told.starts_with("exporting the cache to elsewhere"), "{told}");
    let name = "localhost/app:latest";
    assert!(maker.store.resolve(name).unwrap().is_some(), "the image is there all the same");
    request.cache.to[0].ignore_error = true;
    maker.build(request);
}
