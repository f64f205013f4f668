use std::fs;

use image::ChainId;
use task::{Fault, Kind};

use super::{digest, fresh, listing, problems};
use crate::{Error, MAX_DEPTH, SnapshotId, Store};

fn id(label: &str) -> SnapshotId {
    SnapshotId(digest(label))
}

fn commit(store: &Store, label: &str, parent: Option<SnapshotId>) -> SnapshotId {
    let active = store.begin().unwrap();
    fs::write(active.dir().join("fs/file"), label).unwrap();
    active.commit(id(label), parent).unwrap();
    id(label)
}

/// The content of the one file in each directory of the stack, topmost first.
fn contents(store: &Store, id: SnapshotId) -> Vec<String> {
    let lower = store.stack(id).unwrap().lower;
    lower.iter().map(|path| fs::read_to_string(path.join("file")).unwrap()).collect()
}

#[test]
fn snapshots_stack_topmost_first() {
    let (_directory, store) = fresh();
    let a = commit(&store, "a", None);
    let b = commit(&store, "b", Some(a));
    let c = commit(&store, "c", Some(b));
    assert_eq!(contents(&store, c), ["c", "b", "a"]);
    assert_eq!(contents(&store, a), ["a"]);
    let active = store.begin().unwrap();
    let stack = active.stack(Some(b)).unwrap();
    assert_eq!(stack.lower.len(), 2);
    assert_eq!(stack.top.unwrap().upper, active.dir().join("fs"));
    assert!(active.stack(None).unwrap().lower.is_empty());
    drop(active);
    assert!(listing(&store, "active").is_empty());
    assert!(problems(&store).is_empty());
}

#[test]
fn the_second_of_two_equal_results_is_forgotten() {
    let (_directory, store) = fresh();
    let (first, second) = (store.begin().unwrap(), store.begin().unwrap());
    fs::write(first.dir().join("fs/file"), "first").unwrap();
    fs::write(second.dir().join("fs/file"), "second").unwrap();
    first.commit(id("x"), None).unwrap();
    second.commit(id("x"), None).unwrap();
    assert_eq!(contents(&store, id("x")), ["first"]);
    assert!(listing(&store, "active").is_empty());
}

#[test]
fn a_parent_must_be_there_and_the_stack_must_end() {
    let (_directory, store) = fresh();
    let active = store.begin().unwrap();
    let error = active.commit(id("x"), Some(id("nothing"))).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(!store.has_snapshot(id("x")).unwrap());
    assert!(store.stack(id("x")).is_err());
    let mut parent = None;
    for depth in 0..MAX_DEPTH {
        let next = id(&depth.to_string());
        store.begin().unwrap().commit(next, parent).unwrap();
        parent = Some(next);
    }
    assert_eq!(store.stack(parent.unwrap()).unwrap().lower.len(), MAX_DEPTH as usize);
    let error = store.begin().unwrap().commit(id("deep"), parent).unwrap_err();
    assert!(matches!(error, Error::TooDeep { depth: 501, limit: 500, .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(listing(&store, "active").is_empty());
}

#[test]
fn a_step_is_found_under_its_chain_id() {
    let (_directory, store) = fresh();
    let step = commit(&store, "step", None);
    let chain = ChainId(digest("chain"));
    assert!(!store.has_snapshot(chain.into()).unwrap());
    store.alias(step, chain).unwrap();
    assert!(store.has_snapshot(chain.into()).unwrap());
    assert_eq!(contents(&store, chain.into()), ["step"]);
    let above = commit(&store, "above", Some(chain.into()));
    assert_eq!(contents(&store, above), ["above", "step"]);
    // What is there under the chain id already stays, as a result or as a name.
    let other = commit(&store, "other", None);
    store.alias(other, chain).unwrap();
    assert_eq!(contents(&store, chain.into()), ["step"]);
    store.begin().unwrap().commit(chain.into(), None).unwrap();
    assert_eq!(contents(&store, chain.into()), ["step"]);
    assert!(store.alias(id("nothing"), chain).is_err());
    assert!(problems(&store).is_empty());
}

#[test]
fn an_active_directory_outlives_its_store_handle() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let active = store.begin().unwrap();
    drop(store);
    let other = super::open(&path);
    assert!(active.dir().exists());
    active.commit(id("late"), None).unwrap();
    assert!(other.has_snapshot(id("late")).unwrap());
    assert!(crate::file::list(&path.join("leases")).unwrap().len() == 1);
}
