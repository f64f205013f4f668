use std::fs;

use task::{Fault, Kind};

use super::{Sample, digest, fresh, problems};
use crate::{Error, SnapshotId};

#[test]
fn containers_are_found_by_name_and_by_prefix() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.publish(&store, "a");
    let snapshot = SnapshotId(digest("tree"));
    store.begin().unwrap().commit(snapshot, None).unwrap();
    let ids = ["aa11aa11aa11aa11", "aa22aa22aa22aa22", "bb11bb11bb11bb11"];
    let web = store.add_container(ids[0], "web", Some(sample.root()), Some(snapshot)).unwrap();
    store.add_container(ids[1], "db", None, None).unwrap();
    // A name may look like the prefix of another's id; the name wins.
    store.add_container(ids[2], "aa2", None, None).unwrap();

    assert!(web.directory.join("upper").is_dir());
    assert_eq!(store.container("web").unwrap(), web);
    for (text, id) in
        [(ids[0], ids[0]), ("aa1", ids[0]), ("bb", ids[2]), ("aa2", ids[2]), ("aa22", ids[1])]
    {
        assert_eq!(store.container(text).unwrap().id, id, "{text}");
    }
    assert!(
        matches!(store.container("aa"), Err(Error::Ambiguous { candidates, .. }) if candidates.len() == 2)
    );
    for nobody in ["", "cc", "we", "%", "aa1_"] {
        let error = store.container(nobody).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotFound | Kind::Invalid), "{nobody}: {error}");
    }
    let stack = store.container_stack(&web).unwrap();
    assert_eq!(stack.lower.len(), 1);
    assert_eq!(stack.top.unwrap().upper, web.directory.join("upper"));
    assert_eq!(store.containers().unwrap().len(), 3);
}

#[test]
fn names_of_containers_are_unique_and_plain() {
    let (_directory, store) = fresh();
    let id = |n: u8| format!("{n:02x}").repeat(8);
    store.add_container(&id(1), "web", None, None).unwrap();
    let error = store.add_container(&id(2), "web", None, None).unwrap_err();
    assert!(matches!(&error, Error::NameTaken { by, .. } if *by == id(1)), "{error}");
    assert!(!store.containers_dir().join(id(2)).exists());
    for (bad_id, name) in
        [("../../x", "a"), ("abc", "a"), (&*id(3), "../a"), (&*id(3), ""), (&*id(3), "-a")]
    {
        assert!(matches!(
            store.add_container(bad_id, name, None, None),
            Err(Error::BadName { .. })
        ));
    }
    let gone = SnapshotId(digest("gone"));
    assert!(store.add_container(&id(4), "x", None, Some(gone)).is_err());
    store.add_container(&id(5), "db", None, None).unwrap();
    assert!(matches!(store.rename_container(&id(5), "web"), Err(Error::NameTaken { .. })));
    assert!(matches!(store.rename_container(&id(5), "a/b"), Err(Error::BadName { .. })));
    store.rename_container(&id(5), "db").unwrap();
    store.rename_container(&id(5), "database").unwrap();
    assert_eq!(store.container("database").unwrap().id, id(5));
    assert_eq!(store.rename_container(&id(9), "y").unwrap_err().kind(), Kind::NotFound);

    fs::write(store.containers_dir().join(id(5)).join("upper/file"), "x").unwrap();
    assert!(store.remove_container(&id(5)).unwrap());
    assert!(!store.remove_container(&id(5)).unwrap());
    assert!(!store.containers_dir().join(id(5)).exists());
    assert!(problems(&store).is_empty());
}
