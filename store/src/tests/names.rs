use image::{Descriptor, Document, Index, Manifest, MediaType, Platform};
use task::{Fault, Kind};

use super::{NOW, Sample, broken, digest, fresh, problems};
use crate::{Error, Store};

const APP: &str = "localhost/app:latest";

#[test]
fn a_name_is_given_only_to_what_is_whole() {
    let sample = Sample::text("a");
    let blobs = sample.blobs();
    for absent in 0..blobs.len() {
        let (_directory, store) = fresh();
        for (at, (_, bytes)) in blobs.iter().enumerate() {
            if at != absent {
                store.insert(bytes).unwrap();
            }
        }
        let error = store.publish(APP, sample.root()).unwrap_err();
        match error {
            Error::MissingChild { root, child, .. } => {
                assert_eq!((root, child), (sample.root().digest, blobs[absent].0.digest));
            }
            other => panic!("{other}"),
        }
        assert_eq!(store.resolve(APP).unwrap(), None);
        store.insert(&blobs[absent].1).unwrap();
        store.publish(APP, sample.root()).unwrap();
        assert_eq!(store.resolve(APP).unwrap().as_ref(), Some(sample.root()));
        assert!(problems(&store).is_empty());
    }
}

#[test]
fn a_part_of_another_size_than_declared_is_refused() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.put(&store);
    let mut manifest = sample.manifest.clone().into_value();
    manifest.layers[0].size += 1;
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    store.insert(manifest.bytes()).unwrap();
    let error = store.publish(APP, manifest.descriptor()).unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error}");
}

#[test]
fn names_move_and_go_and_leave_the_image() {
    let (_directory, store) = fresh();
    let (a, b) = (Sample::text("a"), Sample::text("b"));
    a.publish(&store, APP);
    NOW.set(2_000_000);
    b.publish(&store, APP);
    b.publish(&store, "localhost/b:1");
    let names = store.names().unwrap();
    let summary: Vec<_> = names.iter().map(|n| (n.name.as_str(), n.descriptor.digest)).collect();
    assert_eq!(summary, [(APP, b.root().digest), ("localhost/b:1", b.root().digest)]);
    assert_eq!(names[0].updated, 2_000_000);

    assert!(store.unname(APP).unwrap());
    assert!(!store.unname(APP).unwrap());
    assert_eq!(store.resolve(APP).unwrap(), None);
    let published = store.published().unwrap();
    let summary: Vec<_> = published
        .iter()
        .map(|p| (p.descriptor.digest, p.names.clone(), p.images.clone()))
        .collect();
    let b_names = vec!["localhost/b:1".to_owned()];
    assert_eq!(
        summary,
        [
            (b.root().digest, b_names, vec![b.config.digest()]),
            (a.root().digest, vec![], vec![a.config.digest()])
        ]
    );
    assert!(store.unpublish(b.root().digest).unwrap());
    assert!(!store.unpublish(b.root().digest).unwrap());
    assert_eq!(store.published().unwrap().len(), 1);
    assert!(store.names().unwrap().is_empty());
}

#[test]
fn not_everything_is_a_name() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.put(&store);
    for name in ["", "a b", "a\n", "\u{7f}", &"x".repeat(5000)] {
        assert!(matches!(store.publish(name, sample.root()), Err(Error::BadName { .. })));
    }
    let odd = "r.example:5000/ä/b@sha256:00";
    store.publish(odd, sample.root()).unwrap();
    assert_eq!(store.names().unwrap()[0].name, odd);
}

#[test]
fn images_are_found_by_the_start_of_their_digests() {
    let (_directory, store) = fresh();
    let samples: Vec<Sample> = (0..40).map(|n| Sample::text(&n.to_string())).collect();
    for sample in &samples {
        sample.put(&store);
        store.publish_untagged(sample.root()).unwrap();
    }
    let one = &samples[7];
    for text in [
        one.root().digest.hex(),
        one.root().digest.to_string(),
        one.root().digest.short(),
        one.config.digest().short(),
    ] {
        assert_eq!(store.find(&text).unwrap().unwrap().digest, one.root().digest, "{text}");
    }
    let first = &one.root().digest.hex()[..1];
    assert!(matches!(store.find(first), Err(Error::Ambiguous { .. })));
    for text in ["", "xyz", &digest("nothing").hex(), "sha256:"] {
        assert_eq!(store.find(text).unwrap(), None, "{text}");
    }
}

#[test]
fn an_id_that_an_image_shares_with_a_list_is_the_images() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.put(&store);
    let list = index(&store, &[(sample.root(), None)]);
    store.publish("localhost/list:1", &list).unwrap();
    let id = sample.config.digest();
    assert_eq!(store.find(&id.hex()).unwrap().as_ref(), Some(&list));
    store.publish_untagged(sample.root()).unwrap();
    assert_eq!(store.find(&id.hex()).unwrap().as_ref(), Some(sample.root()));
    assert_eq!(store.find(&list.digest.hex()).unwrap().as_ref(), Some(&list));
}

fn index(store: &Store, entries: &[(&Descriptor, Option<&str>)]) -> Descriptor {
    let manifests = entries.iter().map(|(descriptor, platform)| {
        let platform = platform.map(|text| text.parse::<Platform>().unwrap());
        Descriptor { platform, ..(*descriptor).clone() }
    });
    let index = Document::write(MediaType::OCI_INDEX, Index::new(manifests.collect()));
    store.insert(index.bytes()).unwrap();
    index.descriptor().clone()
}

#[test]
fn of_an_index_the_image_that_serves_best_is_taken() {
    let (_directory, store) = fresh();
    let samples: Vec<Sample> = ["a", "b", "c", "d"].iter().map(|l| Sample::text(l)).collect();
    for sample in &samples {
        sample.put(&store);
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| samples[at].root());
    let inner = index(&store, &[(a, Some("linux/amd64")), (b, Some("linux/arm/v6"))]);
    let outer = index(
        &store,
        &[
            (c, Some("linux/arm/v7")),
            (d, Some("windows/amd64")),
            (&inner, None),
            (d, Some("unknown/unknown")),
        ],
    );
    store.publish("localhost/multi:1", &outer).unwrap();
    let image = |root: &Descriptor, platform: &str| {
        store.image(root, &platform.parse().unwrap()).map(|image| image.descriptor().digest)
    };
    assert_eq!(image(&outer, "linux/arm/v7").unwrap(), c.digest);
    assert_eq!(image(&outer, "linux/amd64").unwrap(), a.digest);
    assert_eq!(image(&inner, "linux/arm/v7").unwrap(), b.digest);
    assert_eq!(image(&outer, "windows/amd64").unwrap(), d.digest);
    // A lone manifest is what it is.
    assert_eq!(image(a, "linux/s390x").unwrap(), a.digest);
    match image(&outer, "linux/s390x").unwrap_err() {
        Error::NoPlatform { offered, wanted, .. } => {
            assert_eq!(wanted, "linux/s390x");
            assert_eq!(offered.len(), 3);
        }
        other => panic!("{other}"),
    }
    // Entries without a platform are opened: the config tells.
    let bare = index(&store, &[(a, None)]);
    assert_eq!(image(&bare, "linux/amd64").unwrap(), a.digest);
    assert_eq!(image(&bare, "linux/arm64").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.published().unwrap()[0].images.len(), 4);
    assert!(broken(&store).is_empty());
}

#[test]
fn indexes_cannot_nest_for_ever() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.put(&store);
    let mut root = sample.root().clone();
    for _ in 0..20 {
        root = index(&store, &[(&root, None)]);
    }
    let platform = "linux/amd64".parse().unwrap();
    assert!(matches!(store.image(&root, &platform), Err(Error::NoPlatform { .. })));
}

#[test]
fn referrers_are_listed_with_their_type_and_are_no_images() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.publish(&store, APP);
    let empty = store.insert(b"{}").unwrap();
    let empty = Descriptor::new(MediaType::OCI_EMPTY, empty, 2);
    let mut artifact = Manifest::new(MediaType::OCI_MANIFEST, empty.clone(), vec![empty]);
    artifact.artifact_type = Some("application/x-signature".to_owned());
    artifact.subject = Some(sample.root().bare());
    artifact.annotations.insert("key".to_owned(), "value".to_owned());
    let artifact = Document::write(MediaType::OCI_MANIFEST, artifact);
    store.insert(artifact.bytes()).unwrap();
    assert!(store.referrers(sample.root().digest).unwrap().is_empty());
    store.publish_untagged(artifact.descriptor()).unwrap();
    let found = store.referrers(sample.root().digest).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest, artifact.digest());
    assert_eq!(found[0].artifact_type.as_deref(), Some("application/x-signature"));
    assert_eq!(found[0].annotations["key"], "value");
    assert_eq!(store.published().unwrap().len(), 1);
}

#[test]
fn a_layer_and_a_snapshot_of_one_digest_are_two_things() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.publish(&store, APP);
    // The chain id of a lowest layer that is plain tar is the digest of its blob.
    assert_eq!(sample.chain().0, sample.layers[0].0.digest);
    store.begin().unwrap().commit(sample.chain().into(), None).unwrap();
    assert!(problems(&store).is_empty());
    store.publish("localhost/again:1", sample.root()).unwrap();
}

#[test]
fn a_name_is_only_moved_from_where_it_was_seen() {
    let (_directory, store) = fresh();
    let (a, b) = (Sample::text("a"), Sample::text("b"));
    a.put(&store);
    b.put(&store);
    let (a, b) = (a.root(), b.root());
    assert!(!store.publish_over(APP, Some(a.digest), a).unwrap(), "there is no such name");
    assert!(store.publish_over(APP, None, a).unwrap());
    assert!(!store.publish_over(APP, None, b).unwrap(), "it is taken");
    assert!(!store.publish_over(APP, Some(b.digest), b).unwrap(), "it points elsewhere");
    assert_eq!(store.resolve(APP).unwrap().unwrap().digest, a.digest);
    assert!(store.publish_over(APP, Some(a.digest), b).unwrap());
    assert_eq!(store.resolve(APP).unwrap().unwrap().digest, b.digest);
    assert!(problems(&store).is_empty());
}
