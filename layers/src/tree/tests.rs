use super::*;
use crate::tar::Writer;

/// A layer of `(kind, name, content or link)`.
fn layer(entries: &[(TypeFlag, &str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (kind, path, text) in entries {
        let mut header = Header::new(*kind);
        header.path = path.as_bytes().to_vec();
        header.mode = 0o644;
        match kind {
            TypeFlag::File => header.size = text.len() as u64,
            TypeFlag::HardLink | TypeFlag::Symlink => header.link = text.as_bytes().to_vec(),
            _ => {}
        }
        writer.entry(&header).unwrap();
        if *kind == TypeFlag::File {
            writer.contents(text.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn tree(layers: &[Vec<u8>]) -> Result<Tree> {
    let mut tree = Tree::new();
    let options = TreeOptions { digests: true, ..TreeOptions::default() };
    for layer in layers {
        let read = tree.add(&layer[..], &options, &Task::silent(), &mut |_| {})?;
        assert_eq!(read.diff_id, Digest::of(layer));
    }
    Ok(tree)
}

fn shown(tree: &Tree) -> Vec<String> {
    let one = |named: TreeEntry<'_>| {
        let path = String::from_utf8_lossy(named.path).into_owned();
        format!("{path} {} {}", named.inode.kind.as_str(), named.layer)
    };
    tree.iter().map(one).collect()
}

const DIR: TypeFlag = TypeFlag::Directory;
const FILE: TypeFlag = TypeFlag::File;

#[test]
fn layers_cover_and_remove_what_is_below() {
    let layers = [
        layer(&[
            (DIR, "a/", ""),
            (FILE, "a/x", "1"),
            (FILE, "a/y", "1"),
            (FILE, "a.b", "1"),
            (DIR, "gone/", ""),
            (FILE, "gone/deep/file", "1"),
            (DIR, "emptied/", ""),
            (FILE, "emptied/old", "1"),
            (FILE, "becomes", "1"),
            (TypeFlag::Symlink, "lib", "usr/lib"),
        ]),
        layer(&[
            (FILE, "a/.wh.x", ""),
            (FILE, ".wh.gone", ""),
            (FILE, "emptied/new", "2"),
            (FILE, "emptied/.wh..wh..opq", ""),
            (FILE, "becomes/directory", "2"),
            (FILE, "lib/through", "2"),
        ]),
    ];
    let tree = tree(&layers).unwrap();
    assert_eq!(
        shown(&tree),
        [
            "a directory 0",
            "a.b file 0",
            "a/y file 0",
            "becomes directory 1",
            "becomes/directory file 1",
            "emptied directory 0",
            "emptied/new file 1",
            "lib directory 1",
            "lib/through file 1",
        ]
    );
    assert_eq!(tree.below(b"a").count(), 1);
    assert_eq!(tree.below(b"").count(), 9);
}

#[test]
fn a_layer_never_removes_its_own_and_follows_its_own_links() {
    let layers = [
        layer(&[(FILE, "d/old", "1"), (FILE, "same", "1")]),
        layer(&[
            (DIR, "./", ""),
            (FILE, "d/new", "2"),
            (FILE, ".wh.d", ""),
            (FILE, "same", "2"),
            (FILE, ".wh.same", ""),
            (TypeFlag::Symlink, "usr/lib64", "/usr/lib"),
            (FILE, "usr/lib64/x", "2"),
        ]),
    ];
    let tree = tree(&layers).unwrap();
    assert_eq!(
        shown(&tree),
        [
            " directory 1",
            "d directory 1",
            "d/new file 1",
            "same file 1",
            "usr directory 1",
            "usr/lib directory 1",
            "usr/lib/x file 1",
            "usr/lib64 symlink 1",
        ]
    );
    let names = |path: &[u8]| names::through(&HashMap::new(), path).unwrap();
    assert_eq!(names(b"a/b"), b"a/b");
}

#[test]
fn merged_layers_are_one_with_the_same_tree() {
    let layers = [
        layer(&[
            (FILE, "owner", "contents"),
            (TypeFlag::HardLink, "b-link", "owner"),
            (TypeFlag::HardLink, "c-link", "owner"),
            (FILE, "dropped", "x"),
            (TypeFlag::Symlink, "s", "owner"),
            (TypeFlag::Fifo, "pipe", ""),
        ]),
        // The first name of the file goes, the others stay.
        layer(&[(FILE, ".wh.owner", ""), (FILE, "dropped", "yy"), (DIR, "z/", "")]),
    ];
    let before = tree(&layers).unwrap();
    let streams = || layers.iter().map(|layer| &layer[..]);
    let options = TreeOptions::default();
    let merged = merge(&before, streams(), Vec::new(), &options, &Task::silent()).unwrap();
    let again = merge(&before, streams(), Vec::new(), &options, &Task::silent()).unwrap();
    assert_eq!(merged, again);
    let after = tree(&[merged]).unwrap();
    let names =
        |tree: &Tree| tree.iter().map(|n| (n.path.to_vec(), n.inode.clone())).collect::<Vec<_>>();
    for ((path, inode), (other, merged)) in names(&before).iter().zip(names(&after)) {
        assert_eq!(path, &other);
        assert!(inode.same(&merged), "{inode:?} {merged:?}");
    }
    assert_eq!(before.iter().count(), after.iter().count());
    let inode = |name: &[u8]| after.get(name).unwrap().inode.origin;
    assert_eq!(inode(b"b-link"), inode(b"c-link"));
    assert_eq!(after.get(b"dropped").unwrap().inode.size, 2);
}

#[test]
fn what_apply_refuses_is_refused() {
    for bad in [
        layer(&[(FILE, "../x", "1")]),
        layer(&[(TypeFlag::HardLink, "x", "nowhere")]),
        layer(&[(DIR, ".wh.x/", "")]),
        layer(&[(TypeFlag::Symlink, "a", "b"), (TypeFlag::Symlink, "b", "a"), (FILE, "a/x", "1")]),
        layer(&[(DIR, "d/", ""), (TypeFlag::HardLink, "x", "d")]),
        layer(&[(FILE, "x", "1")])[..700].to_vec(),
    ] {
        assert!(tree(&[bad]).is_err());
    }
}
