//! What an image holds, from the tables of its layers.

use std::collections::BTreeMap;

use layers::{EntryKind, FilePart, LayerEntry, TableEntry};

use crate::{Error, Result};

/// As many files an image may hold.
const MOST: usize = 20_000_000;

/// A file of the image; several names may lead to it.
#[derive(Debug, Clone)]
pub(crate) struct FileNode {
    /// Everything about it but its names; neither a link to a name nor a whiteout.
    pub(crate) entry: LayerEntry,
    /// How many names it has.
    pub(crate) names: u32,
    /// The layer of its content, and the content's parts.
    pub(crate) layer: usize,
    pub(crate) parts: Vec<FilePart>,
    /// Of a directory: what is in it.
    pub(crate) children: BTreeMap<Vec<u8>, usize>,
    pub(crate) parent: usize,
}

impl FileNode {
    /// A directory that no layer describes.
    pub(crate) fn directory(parent: usize) -> FileNode {
        let entry = LayerEntry {
            path: Vec::new(),
            kind: EntryKind::Directory,
            link: Vec::new(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            sparse: false,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        FileNode::of(0, entry, Vec::new(), parent)
    }

    fn of(layer: usize, entry: LayerEntry, parts: Vec<FilePart>, parent: usize) -> FileNode {
        FileNode { entry, names: 1, layer, parts, children: BTreeMap::new(), parent }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.entry.kind == EntryKind::Directory
    }

    /// Bytes that can be read of it.
    pub(crate) fn size(&self) -> u64 {
        match self.entry.kind {
            EntryKind::File => self.entry.size,
            EntryKind::Symlink => self.entry.link.len() as u64,
            _ => 0,
        }
    }
}

/// The files of an image. The root is the node 0.
#[derive(Debug)]
pub(crate) struct MergedTree {
    nodes: Vec<FileNode>,
}

impl MergedTree {
    pub(crate) fn new() -> MergedTree {
        MergedTree { nodes: vec![FileNode::directory(0)] }
    }

    pub(crate) fn node(&self, number: usize) -> Option<&FileNode> {
        self.nodes.get(number)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Lays a layer on what is there.
    pub(crate) fn add(&mut self, layer: usize, entries: Vec<TableEntry>) -> Result<()> {
        // Whiteouts are about the layers below, wherever they stand in this one.
        for TableEntry { entry, .. } in &entries {
            match entry.kind {
                EntryKind::Whiteout => self.remove(&entry.path),
                EntryKind::Opaque => {
                    if let Some(found) = self.find(&entry.path) {
                        self.nodes[found].children.clear();
                    }
                }
                _ => {}
            }
        }
        for TableEntry { entry, parts } in entries {
            if self.nodes.len() >= MOST {
                return Err(wrong(&entry, "the image has more than 20,000,000 files"));
            }
            match entry.kind {
                EntryKind::Whiteout | EntryKind::Opaque => {}
                EntryKind::HardLink => self.link(&entry)?,
                _ => self.put(layer, entry, parts)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, layer: usize, entry: LayerEntry, parts: Vec<FilePart>) -> Result<()> {
        if entry.path.is_empty() {
            if entry.kind != EntryKind::Directory {
                return Err(wrong(&entry, "the root is a directory"));
            }
            let children = std::mem::take(&mut self.nodes[0].children);
            self.nodes[0] = FileNode { children, ..FileNode::of(layer, entry, parts, 0) };
            return Ok(());
        }
        let (parent, name) = self.parent(&entry.path);
        if entry.kind == EntryKind::Directory
            && let Some(&there) = self.nodes[parent].children.get(name)
            && self.nodes[there].is_directory()
        {
            let children = std::mem::take(&mut self.nodes[there].children);
            self.nodes[there] = FileNode { children, ..FileNode::of(layer, entry, parts, parent) };
            return Ok(());
        }
        let name = name.to_vec();
        let number = self.nodes.len();
        self.nodes.push(FileNode::of(layer, entry, parts, parent));
        self.name(parent, name, number);
        Ok(())
    }

    fn link(&mut self, entry: &LayerEntry) -> Result<()> {
        let found = self.find(&entry.link);
        let Some(target) = found.filter(|n| !self.nodes[*n].is_directory()) else {
            return Err(wrong(entry, "the file that it is another name of is not there"));
        };
        let (parent, name) = self.parent(&entry.path);
        let name = name.to_vec();
        self.nodes[target].names += 1;
        self.name(parent, name, target);
        Ok(())
    }

    /// The directory that a path lies in, made where it is missing, and the path's last name.
    fn parent<'a>(&mut self, path: &'a [u8]) -> (usize, &'a [u8]) {
        let mut names = names(path);
        let last = names.pop().unwrap_or_default();
        let mut at = 0;
        for name in names {
            let there = self.nodes[at].children.get(name).copied();
            at = match there.filter(|n| self.nodes[*n].is_directory()) {
                Some(there) => there,
                None => {
                    let number = self.nodes.len();
                    self.nodes.push(FileNode::directory(at));
                    self.name(at, name.to_vec(), number);
                    number
                }
            };
        }
        (at, last)
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        names(path).into_iter().try_fold(0, |at, name| self.nodes[at].children.get(name).copied())
    }

    fn remove(&mut self, path: &[u8]) {
        let mut names = names(path);
        let Some(last) = names.pop() else { return };
        let parent = names
            .into_iter()
            .try_fold(0, |at: usize, name| self.nodes[at].children.get(name).copied());
        if let Some(parent) = parent
            && let Some(gone) = self.nodes[parent].children.remove(last)
        {
            self.unname(gone);
        }
    }

    /// Gives a file a name, which another one may have had.
    fn name(&mut self, directory: usize, name: Vec<u8>, number: usize) {
        if let Some(gone) = self.nodes[directory].children.insert(name, number) {
            self.unname(gone);
        }
    }

    fn unname(&mut self, number: usize) {
        self.nodes[number].names = self.nodes[number].names.saturating_sub(1);
    }
}

fn names(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect()
}

fn wrong(entry: &LayerEntry, reason: &str) -> Error {
    let path = String::from_utf8_lossy(&entry.path).into_owned();
    Error::Table { path, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, path: &str, link: &str) -> TableEntry {
        let entry = LayerEntry {
            path: path.into(),
            kind,
            link: link.into(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            sparse: false,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        TableEntry { entry, parts: Vec::new() }
    }

    fn paths(tree: &MergedTree) -> Vec<String> {
        let mut open = vec![(0, String::new())];
        let mut all = Vec::new();
        while let Some((number, path)) = open.pop() {
            for (name, child) in &tree.nodes[number].children {
                let path = format!("{path}/{}", String::from_utf8_lossy(name));
                open.push((*child, path.clone()));
                all.push(path);
            }
        }
        all.sort();
        all
    }

    #[test]
    fn layers_hide_what_lies_below_as_overlayfs_does() {
        use EntryKind::{Directory, File, HardLink, Opaque, Symlink, Whiteout};
        let mut tree = MergedTree::new();
        let lower = [(Directory, "d"), (File, "d/a"), (File, "d/b"), (File, "gone"), (File, "o/x")];
        tree.add(0, lower.map(|(kind, path)| entry(kind, path, "")).into()).unwrap();
        assert_eq!(paths(&tree), ["/d", "/d/a", "/d/b", "/gone", "/o", "/o/x"]);
        let upper = vec![
            entry(File, "o/new", ""),
            // It is about the layers below, although it comes later.
            entry(Opaque, "o", ""),
            entry(Whiteout, "gone", ""),
            entry(Whiteout, "not/there", ""),
            entry(HardLink, "d/same", "d/a"),
            entry(Symlink, "d/b", "a"),
        ];
        tree.add(1, upper).unwrap();
        assert_eq!(paths(&tree), ["/d", "/d/a", "/d/b", "/d/same", "/o", "/o/new"]);
        assert_eq!(tree.find(b"d/a"), tree.find(b"d/same"));
        assert_eq!(tree.node(tree.find(b"d/a").unwrap()).unwrap().names, 2);
        // A file in the place of a directory takes the tree away, and the other way round.
        tree.add(2, vec![entry(File, "d", ""), entry(File, "o/new/below", "")]).unwrap();
        assert_eq!(paths(&tree), ["/d", "/o", "/o/new", "/o/new/below"]);
        // Another description of a directory leaves what is in it.
        tree.add(3, vec![entry(Directory, "o", ""), entry(Directory, "", "")]).unwrap();
        assert_eq!(paths(&tree), ["/d", "/o", "/o/new", "/o/new/below"]);
        // A name that is taken over no longer counts.
        tree.add(4, vec![entry(HardLink, "second", "d"), entry(File, "second", "")]).unwrap();
        assert_eq!(tree.node(tree.find(b"d").unwrap()).unwrap().names, 1);
    }

    #[test]
    fn entries_that_cannot_be_are_refused() {
        let refused = |entry| MergedTree::new().add(0, vec![entry]).unwrap_err().to_string();
        let told = refused(entry(EntryKind::HardLink, "a", "b"));
        assert!(told.contains("\"a\": the file that it is another name of is not there"), "{told}");
        assert!(refused(entry(EntryKind::File, "", "")).contains("the root is a directory"));
    }

    proptest::proptest! {
        #[test]
        fn any_entries_are_a_tree_or_an_error(
            layers in proptest::collection::vec(
                proptest::collection::vec((0..9_usize, "[ab]?(/[abc]){0,3}", "[ab]?(/[abc]){0,2}"), 0..12),
                0..4),
        ) {
            use EntryKind::{
                BlockDevice, CharDevice, Directory, Fifo, File, HardLink, Opaque, Symlink, Whiteout,
            };
            let kinds =
                [File, HardLink, Symlink, Directory, CharDevice, BlockDevice, Fifo, Whiteout, Opaque];
            let mut tree = MergedTree::new();
            for (number, layer) in layers.iter().enumerate() {
                let layer = layer.iter().map(|(kind, path, link)| entry(kinds[*kind], path, link));
                if tree.add(number, layer.collect()).is_err() {
                    break;
                }
            }
            // Each file that shows has as many names as are counted; only directories hold others.
            let mut names = vec![0; tree.len()];
            names[0] = 1;
            let mut open = vec![0];
            while let Some(at) = open.pop() {
                let node = &tree.nodes[at];
                proptest::prop_assert!(node.is_directory() || node.children.is_empty());
                for child in node.children.values() {
                    names[*child] += 1;
                    proptest::prop_assert!(names[*child] == 1 || !tree.nodes[*child].is_directory());
                    if tree.nodes[*child].is_directory() {
                        proptest::prop_assert_eq!(tree.nodes[*child].parent, at);
                        open.push(*child);
                    }
                }
            }
            for (node, names) in tree.nodes.iter().zip(names) {
                proptest::prop_assert!(names == 0 || node.names >= names);
            }
        }
    }
}
