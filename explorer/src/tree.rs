//! Every file of an image with its history: which layer wrote it, changed it, took it away.

use std::collections::BTreeMap;

use layers::{EntryKind, LayerEntry};

/// No more names than this are held in memory.
pub const MAX_NAMES: usize = 3_000_000;

/// What one layer did to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Which layer, counted from the base.
    pub layer: usize,
    /// What is there since; `None` when it was taken away.
    pub file: Option<File>,
}

/// What is under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What sort of file.
    pub kind: EntryKind,
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes stored in the layer.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Where a symbolic or hard link points to.
    pub link: Vec<u8>,
}

/// A name in a directory.
#[derive(Debug)]
pub struct Node {
    /// The last part of the path; empty for the root.
    pub name: Vec<u8>,
    /// The number of the directory it is in.
    pub parent: usize,
    /// The numbers of what is in it, by name.
    pub children: BTreeMap<Vec<u8>, usize>,
    /// In the order of the layers; never empty but for the root.
    pub versions: Vec<Version>,
}

impl Node {
    /// What is under the name when the layers up to this one are in place.
    pub fn at(&self, layer: usize) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.layer <= layer)
    }

    fn last(&self) -> Option<&Version> {
        self.versions.last()
    }
}

/// How a layer changed a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is as it was, or was not there and is not.
    None,
    /// It was not there.
    Added,
    /// It was there.
    Changed,
    /// It is not there any more.
    Removed,
}

/// Bytes that a layer carries and the image does not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waste {
    /// The number of the name in the tree.
    pub node: usize,
    /// How many.
    pub bytes: u64,
    /// The layer that carries them.
    pub written: usize,
    /// The layer that hides them.
    pub hidden: usize,
    /// Whether the name is removed, not just overwritten.
    pub removed: bool,
}

/// The names of an image. The root is number 0; parents have smaller numbers than what is in them.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        let root =
            Node { name: Vec::new(), parent: 0, children: BTreeMap::new(), versions: Vec::new() };
        Tree { nodes: vec![root] }
    }
}

impl Tree {
    /// All names; the index is the number of a name.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The name of this number.
    pub fn node(&self, id: usize) -> &Node {
        &self.nodes[id]
    }

    /// `/usr/bin/env`, with invalid UTF-8 replaced.
    pub fn path(&self, id: usize) -> String {
        let mut parts = Vec::new();
        let mut at = id;
        while at != 0 {
            parts.push(String::from_utf8_lossy(&self.nodes[at].name).into_owned());
            at = self.nodes[at].parent;
        }
        parts.reverse();
        format!("/{}", parts.join("/"))
    }

    /// Takes in an entry of a layer; layers come base first, entries in their order.
    ///
    /// # Errors
    /// More names than any honest image has.
    pub(crate) fn take(&mut self, layer: usize, entry: LayerEntry) -> Result<(), TooMany> {
        match entry.kind {
            EntryKind::Whiteout => {
                if let Some(id) = self.find(&entry.path) {
                    self.remove(id, layer);
                }
                return Ok(());
            }
            EntryKind::Opaque => {
                if let Some(id) = self.find(&entry.path) {
                    for child in self.nodes[id].children.values().copied().collect::<Vec<_>>() {
                        self.remove(child, layer);
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        let id = self.make(&entry.path, layer)?;
        if entry.kind != EntryKind::Directory {
            for child in self.nodes[id].children.values().copied().collect::<Vec<_>>() {
                self.remove(child, layer);
            }
        }
        let file = File {
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: if entry.kind == EntryKind::File { entry.size } else { 0 },
            mtime: entry.mtime.0,
            link: entry.link,
        };
        self.write(id, layer, file);
        Ok(())
    }

    fn write(&mut self, id: usize, layer: usize, file: File) {
        let versions = &mut self.nodes[id].versions;
        let version = Version { layer, file: Some(file) };
        match versions.last_mut() {
            Some(last) if last.layer == layer => *last = version,
            _ => versions.push(version),
        }
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        let mut at = 0;
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            at = *self.nodes[at].children.get(part)?;
        }
        (at != 0).then_some(at)
    }

    /// The node of a path, and of the directories on the way that no layer names.
    fn make(&mut self, path: &[u8], layer: usize) -> Result<usize, TooMany> {
        let parts: Vec<&[u8]> =
            path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
        let mut at = 0;
        for (position, part) in parts.iter().enumerate() {
            at = match self.nodes[at].children.get(*part) {
                Some(child) => *child,
                None => {
                    if self.nodes.len() >= MAX_NAMES {
                        return Err(TooMany);
                    }
                    let (id, name) = (self.nodes.len(), part.to_vec());
                    self.nodes[at].children.insert(name.clone(), id);
                    let (children, versions) = (BTreeMap::new(), Vec::new());
                    self.nodes.push(Node { name, parent: at, children, versions });
                    id
                }
            };
            let there = self.nodes[at].last().is_some_and(|version| version.file.is_some());
            if position + 1 < parts.len() && !there {
                self.write(at, layer, File::implied());
            }
        }
        Ok(at)
    }

    /// Takes away a name and all below it, but for what this layer itself has put there.
    fn remove(&mut self, id: usize, layer: usize) {
        let mut below = vec![id];
        while let Some(id) = below.pop() {
            let node = &mut self.nodes[id];
            below.extend(node.children.values());
            let older = node.last().is_some_and(|v| v.layer < layer && v.file.is_some());
            if older {
                node.versions.push(Version { layer, file: None });
            }
        }
    }

    /// How a layer changed a name.
    pub fn change(&self, id: usize, layer: usize) -> Change {
        let node = &self.nodes[id];
        let Some(version) = node.at(layer).filter(|version| version.layer == layer) else {
            return Change::None;
        };
        let before = layer.checked_sub(1).and_then(|below| node.at(below));
        let was = before.is_some_and(|version| version.file.is_some());
        match (was, version.file.is_some()) {
            (true, true) => Change::Changed,
            (false, true) => Change::Added,
            (true, false) => Change::Removed,
            (false, false) => Change::None,
        }
    }

    /// The bytes under each name, everything below it included, when the layers up to this one are
    /// in place.
    pub fn sizes(&self, layer: usize) -> Vec<u64> {
        let mut sizes: Vec<u64> = self
            .nodes
            .iter()
            .map(|node| node.at(layer).and_then(|v| v.file.as_ref()).map_or(0, |file| file.size))
            .collect();
        for id in (1..self.nodes.len()).rev() {
            sizes[self.nodes[id].parent] += sizes[id];
        }
        sizes
    }

    /// Whether a layer changed each name or something below it.
    pub fn touched(&self, layer: usize) -> Vec<bool> {
        let mut touched: Vec<bool> =
            (0..self.nodes.len()).map(|id| self.change(id, layer) != Change::None).collect();
        for id in (1..self.nodes.len()).rev() {
            touched[self.nodes[id].parent] |= touched[id];
        }
        touched
    }

    /// What layers carry and the image does not show, most bytes first.
    pub fn waste(&self) -> Vec<Waste> {
        let mut all = Vec::new();
        for (node, names) in self.nodes.iter().enumerate() {
            for pair in names.versions.windows(2) {
                let bytes = pair[0].file.as_ref().map_or(0, |file| file.size);
                if bytes > 0 {
                    let (written, hidden) = (pair[0].layer, pair[1].layer);
                    let removed = pair[1].file.is_none();
                    all.push(Waste { node, bytes, written, hidden, removed });
                }
            }
        }
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.node.cmp(&b.node)));
        all
    }
}

impl File {
    fn implied() -> File {
        let (size, mtime, link) = (0, 0, Vec::new());
        File { kind: EntryKind::Directory, mode: 0o755, uid: 0, gid: 0, size, mtime, link }
    }

    /// `drwxr-xr-x`.
    pub fn permissions(&self) -> String {
        let letter = match self.kind {
            EntryKind::Directory => 'd',
            EntryKind::Symlink => 'l',
            EntryKind::HardLink => 'h',
            EntryKind::CharDevice => 'c',
            EntryKind::BlockDevice => 'b',
            EntryKind::Fifo => 'p',
            _ => '-',
        };
        let mut text = String::from(letter);
        for (at, (special, set, unset)) in
            [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')].into_iter().enumerate()
        {
            let bits = self.mode >> (6 - 3 * at);
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            text.push(match (self.mode & special != 0, bits & 1 != 0) {
                (true, true) => set,
                (true, false) => unset,
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        text
    }
}

/// More names than are held.
#[derive(Debug)]
pub(crate) struct TooMany;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind, size: u64) -> LayerEntry {
        LayerEntry {
            path: path.as_bytes().to_vec(),
            kind,
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            sparse: false,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn tree(layers: &[&[(&str, EntryKind, u64)]]) -> Tree {
        let mut tree = Tree::default();
        for (layer, entries) in layers.iter().enumerate() {
            for (path, kind, size) in *entries {
                tree.take(layer, entry(path, *kind, *size)).unwrap();
            }
        }
        tree
    }

    #[test]
    fn layers_add_change_and_take_away() {
        use EntryKind::{Directory, File, Opaque, Whiteout};
        let tree = tree(&[
            &[
                ("etc", Directory, 0),
                ("etc/a", File, 10),
                ("etc/b", File, 20),
                ("var/x/y", File, 5),
            ],
            &[
                ("etc/a", File, 11),
                ("etc/b", Whiteout, 0),
                ("var", Opaque, 0),
                ("var/new", File, 1),
            ],
            &[("var", File, 3)],
        ]);
        let id = |path: &str| tree.find(path.as_bytes()).unwrap();
        assert_eq!(tree.change(id("etc/a"), 0), Change::Added);
        assert_eq!(tree.change(id("etc/a"), 1), Change::Changed);
        assert_eq!(tree.change(id("etc/b"), 1), Change::Removed);
        assert_eq!(tree.change(id("var/x/y"), 1), Change::Removed);
        assert_eq!(tree.change(id("var/new"), 1), Change::Added);
        assert_eq!(tree.change(id("var/new"), 2), Change::Removed);
        assert_eq!(tree.change(id("etc/a"), 2), Change::None);
        let sizes: Vec<u64> = (0..3).map(|layer| tree.sizes(layer)[0]).collect();
        assert_eq!(sizes, [35, 12, 14]);
        let waste: Vec<(String, u64, usize, bool)> = tree
            .waste()
            .iter()
            .map(|w| (tree.path(w.node), w.bytes, w.hidden, w.removed))
            .collect();
        let expected =
            [("/etc/b", 20, 1, true), ("/etc/a", 10, 1, false), ("/var/x/y", 5, 1, true)];
        let expected = expected.map(|(p, b, h, r)| (p.to_owned(), b, h, r));
        assert_eq!(waste[..3], expected);
        assert_eq!(waste[3], ("/var/new".to_owned(), 1, 2, true));
        // All that layers carry is either shown or wasted.
        let carried = 10 + 20 + 5 + 11 + 1 + 3;
        assert_eq!(waste.iter().map(|w| w.1).sum::<u64>() + sizes[2], carried);
    }

    #[test]
    fn a_whiteout_spares_what_its_own_layer_brings() {
        use EntryKind::{File, Opaque, Whiteout};
        let tree = tree(&[
            &[("d/old", File, 1), ("e", File, 2)],
            &[("d/new", File, 4), ("d", Opaque, 0), ("e", File, 8), ("e", Whiteout, 0)],
        ]);
        assert_eq!(tree.sizes(1)[0], 12);
    }

    #[test]
    fn permissions_read_as_ls_prints_them() {
        let file = |kind, mode| File { kind, mode, ..File::implied() }.permissions();
        assert_eq!(file(EntryKind::File, 0o644), "-rw-r--r--");
        assert_eq!(file(EntryKind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(file(EntryKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(file(EntryKind::File, 0o2640), "-rw-r-S---");
    }
}
