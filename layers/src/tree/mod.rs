//! What a stack of layers amounts to, known without unpacking it: every name with everything
//! about it but contents, and which layer brought it.

mod merge;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read};

use image::{Algorithm, Digest, DigestReader, Digester};
use task::Task;

pub(crate) use self::merge::contents;
pub use self::merge::merge;
use crate::tar::{Header, Reader, ReaderLimits, TypeFlag, Xattrs};
use crate::unpack::EntryName;
use crate::{Error, Limits, Result, decompress};

/// Bytes of names and attributes that one tree may hold.
const REMEMBERED: u64 = 512 << 20;
/// What a name costs beside its bytes.
const PER_NAME: u64 = 200;

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

impl FileKind {
    /// The word people see.
    pub fn as_str(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::Char => "character device",
            FileKind::Block => "block device",
            FileKind::Fifo => "pipe",
        }
    }
}

/// A file without its contents; several names may share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a plain file.
    pub size: u64,
    /// Modified: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// What a symbolic link says.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a plain file's contents, where that was asked for.
    pub digest: Option<Digest>,
    /// A directory that no layer mentions but through what lies in it.
    pub implied: bool,
    /// The layer that has the contents, and its entry there.
    origin: (u32, u64),
}

impl Inode {
    /// Whether two files are the same but for when they were modified.
    pub fn same(&self, other: &Inode) -> bool {
        let key = |inode: &Inode| {
            (inode.kind, inode.mode, inode.uid, inode.gid, inode.size, inode.device, inode.digest)
        };
        let mut xattrs = [self.xattrs.clone(), other.xattrs.clone()];
        xattrs.iter_mut().for_each(|xattrs| xattrs.sort());
        key(self) == key(other) && self.link == other.link && xattrs[0] == xattrs[1]
    }
}

/// A name in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeRef {
    inode: usize,
    layer: u32,
}

/// One name and what is there.
#[derive(Debug, Clone, Copy)]
pub struct TreeEntry<'a> {
    /// Relative to the root; empty for the root itself.
    pub path: &'a [u8],
    /// Which layer brought the name, counted from 0.
    pub layer: usize,
    /// What is there.
    pub inode: &'a Inode,
}

/// What a layer does to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch<'a> {
    /// Puts something there.
    Brings(&'a [u8]),
    /// Takes away what is there, and everything below.
    Removes(&'a [u8]),
    /// Takes away what is in the directory.
    Empties(&'a [u8]),
}

impl<'a> Touch<'a> {
    /// The name.
    pub fn path(self) -> &'a [u8] {
        match self {
            Touch::Brings(path) | Touch::Removes(path) | Touch::Empties(path) => path,
        }
    }
}

/// How layers are read into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeOptions {
    /// Whether contents are digested.
    pub digests: bool,
    /// How much a layer may bring.
    pub limits: Limits,
}

/// What a layer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRead {
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Length of the uncompressed stream in bytes.
    pub uncompressed: u64,
    /// Number of entries.
    pub entries: u64,
}

/// The file system that a stack of layers makes.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    names: BTreeMap<Vec<u8>, NodeRef>,
    inodes: Vec<Inode>,
    layers: u32,
    remembered: u64,
}

impl Tree {
    /// The tree of no layers.
    pub fn new() -> Tree {
        Tree::default()
    }

    /// The number of its layers.
    pub fn layers(&self) -> usize {
        self.layers as usize
    }

    /// Everything there is, by name.
    pub fn iter(&self) -> impl Iterator<Item = TreeEntry<'_>> {
        self.names.iter().map(|(path, place)| self.named(path, *place))
    }

    /// What is at a name.
    pub fn get(&self, path: &[u8]) -> Option<TreeEntry<'_>> {
        let (path, place) = self.names.get_key_value(path)?;
        Some(self.named(path, *place))
    }

    /// What is below a directory, by name.
    pub fn below(&self, directory: &[u8]) -> impl Iterator<Item = TreeEntry<'_>> {
        let (from, to) = names::below(directory);
        self.names.range(from..to).map(|(path, place)| self.named(path, *place))
    }

    fn named<'a>(&'a self, path: &'a [u8], place: NodeRef) -> TreeEntry<'a> {
        TreeEntry { path, layer: place.layer as usize, inode: &self.inodes[place.inode] }
    }

    /// Puts another layer on top. The stream may be compressed and is read to its end; `touched`
    /// hears what the layer does to which names. An error leaves the tree good for nothing.
    ///
    /// # Errors
    /// Anything malformed; more than the limits allow.
    pub fn add(
        &mut self,
        layer: impl Read,
        options: &TreeOptions,
        task: &Task,
        touched: &mut dyn FnMut(Touch<'_>),
    ) -> Result<LayerRead> {
        let plain = decompress(task.reading(layer))?;
        let limits = options.limits;
        let digesting = DigestReader::new(plain, Algorithm::Sha256);
        let mut input = BufReader::with_capacity(256 * 1024, digesting);
        let known =
            ReaderLimits { entries: limits.entries, path: limits.path, xattrs: limits.xattrs };
        let mut reader = Reader::new(&mut input, known);
        let mut adding = LayerMerge {
            tree: self,
            digests: options.digests,
            limits,
            links: HashMap::new(),
            entry: 0,
            touched,
        };
        while let Some(header) = reader.next()? {
            task.check()?;
            adding.entry(&header, &mut reader)?;
            adding.entry += 1;
        }
        let entries = adding.entry;
        self.layers += 1;
        io::copy(&mut input, &mut io::sink()).map_err(Error::read)?;
        let digesting = input.into_inner();
        let length = digesting.length();
        if let Some(limit) = limits.total.filter(|limit| length > *limit) {
            return Err(Error::Limit { what: "uncompressed bytes", limit });
        }
        Ok(LayerRead { diff_id: digesting.finish().1, uncompressed: length, entries })
    }

    fn remember(&mut self, bytes: usize) -> Result<()> {
        self.remembered += bytes as u64 + PER_NAME;
        if self.remembered > REMEMBERED {
            return Err(Error::Limit { what: "bytes of names and attributes", limit: REMEMBERED });
        }
        Ok(())
    }

    /// Takes away what other layers have put at a name and below it.
    fn remove_lower(&mut self, path: &[u8], itself: bool, layer: u32) {
        let (from, to) = names::below(path);
        let lower = self.names.range(from..to).filter(|(_, place)| place.layer < layer);
        let mut gone: Vec<Vec<u8>> = lower.map(|(path, _)| path.clone()).collect();
        if itself && self.names.get(path).is_some_and(|place| place.layer < layer) {
            gone.push(path.to_vec());
        }
        for path in &gone {
            self.names.remove(path);
        }
        // What this layer has put below stays, and so do the directories it lies in.
        let (from, to) = names::below(path);
        let kept: Vec<Vec<u8>> = self.names.range(from..to).map(|(path, _)| path.clone()).collect();
        for path in kept {
            self.imply(names::parent(&path), layer);
        }
    }

    /// Takes away everything at a name and below it.
    fn remove(&mut self, path: &[u8]) {
        let (from, to) = names::below(path);
        let gone: Vec<Vec<u8>> = self.names.range(from..to).map(|(path, _)| path.clone()).collect();
        for path in &gone {
            self.names.remove(path);
        }
        self.names.remove(path);
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        let place = self.names.get(path);
        place.is_some_and(|place| self.inodes[place.inode].kind == FileKind::Directory)
    }

    /// Makes a directory, and those above it, unless there is one.
    fn imply(&mut self, path: &[u8], layer: u32) {
        if path.is_empty() || self.is_directory(path) {
            return;
        }
        self.imply(names::parent(path), layer);
        let inode = Inode {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            digest: None,
            implied: true,
            origin: (layer, u64::MAX),
        };
        self.inodes.push(inode);
        let inode = self.inodes.len() - 1;
        self.names.insert(path.to_vec(), NodeRef { inode, layer });
    }
}

/// Merges one layer into a tree.
struct LayerMerge<'a> {
    tree: &'a mut Tree,
    digests: bool,
    limits: Limits,
    /// Symbolic links that this layer brought: names lead through them.
    links: HashMap<Vec<u8>, Vec<u8>>,
    entry: u64,
    touched: &'a mut dyn FnMut(Touch<'_>),
}

impl LayerMerge<'_> {
    fn entry(&mut self, header: &Header, reader: &mut Reader<impl BufRead>) -> Result<()> {
        let layer = self.tree.layers;
        let refuse = |reason: &str| names::refuse(&header.path, reason);
        let name = EntryName::new(&header.path).map_err(refuse)?;
        if header.xattrs.iter().any(|(name, _)| crate::xattr::is_overlay(name)) {
            return Err(refuse("it sets an attribute that belongs to the overlay"));
        }
        if name.leads_through_whiteout() {
            return Err(refuse("it lies in a directory that has a whiteout's name"));
        }
        let parent = names::through(&self.links, name.parent()).map_err(refuse)?;
        let path = names::join(&parent, name.last());
        self.tree.remember(path.len() + header.link.len() + weight(&header.xattrs))?;
        if let Some(hidden) = name.last().strip_prefix(b".wh.") {
            if !matches!(header.kind, TypeFlag::File | TypeFlag::HardLink) {
                return Err(refuse("it has a whiteout's name but is not a plain file"));
            }
            match hidden {
                b"" | b"." | b".." => return Err(refuse("a whiteout of nothing")),
                b".wh..opq" => {
                    (self.touched)(Touch::Empties(&parent));
                    self.tree.remove_lower(&parent, false, layer);
                }
                hidden if hidden.starts_with(b".wh.") => {}
                hidden => {
                    let path = names::join(&parent, hidden);
                    (self.touched)(Touch::Removes(&path));
                    self.tree.remove_lower(&path, true, layer);
                }
            }
            return Ok(());
        }
        (self.touched)(Touch::Brings(&path));
        self.tree.imply(names::parent(&path), layer);
        let inode = match header.kind {
            TypeFlag::HardLink => self.target(header)?,
            _ => {
                let inode = self.inode(header, reader)?;
                self.tree.inodes.push(inode);
                self.tree.inodes.len() - 1
            }
        };
        let directory = self.tree.inodes[inode].kind == FileKind::Directory;
        if path.is_empty() && !directory {
            return Err(refuse("the root is not a directory"));
        }
        let stays = path.is_empty() || directory && self.tree.is_directory(&path);
        if !stays {
            self.tree.remove(&path);
        }
        match header.kind {
            TypeFlag::Symlink => drop(self.links.insert(path.clone(), header.link.clone())),
            _ => drop(self.links.remove(&path)),
        }
        self.tree.names.insert(path, NodeRef { inode, layer });
        Ok(())
    }

    fn target(&self, header: &Header) -> Result<usize> {
        let refuse = |reason: &str| names::refuse(&header.path, reason);
        let name = EntryName::new(&header.link).map_err(refuse)?;
        let parent = names::through(&self.links, name.parent()).map_err(refuse)?;
        let target = names::join(&parent, name.last());
        match self.tree.names.get(&target) {
            Some(place) if self.tree.inodes[place.inode].kind != FileKind::Directory => {
                Ok(place.inode)
            }
            Some(_) => Err(refuse("it is a hard link to a directory")),
            None => Err(Error::LinkTarget {
                path: names::shown(&header.path),
                target: names::shown(&header.link),
            }),
        }
    }

    fn inode(&self, header: &Header, reader: &mut Reader<impl BufRead>) -> Result<Inode> {
        let kind = match header.kind {
            TypeFlag::File | TypeFlag::HardLink => FileKind::File,
            TypeFlag::Symlink => FileKind::Symlink,
            TypeFlag::Char => FileKind::Char,
            TypeFlag::Block => FileKind::Block,
            TypeFlag::Directory => FileKind::Directory,
            TypeFlag::Fifo => FileKind::Fifo,
        };
        let size = header.sparse.as_ref().map_or(header.size, |sparse| sparse.size);
        if size > self.limits.file {
            return Err(Error::Limit { what: "bytes in one file", limit: self.limits.file });
        }
        let mut digest = None;
        if self.digests && kind == FileKind::File {
            let mut digester = Digester::default();
            merge::contents(header, reader, &mut |bytes| {
                digester.update(bytes);
                Ok(())
            })?;
            digest = Some(digester.finish());
        }
        Ok(Inode {
            kind,
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            size: if kind == FileKind::File { size } else { 0 },
            mtime: header.mtime,
            link: header.link.clone(),
            device: header.device,
            xattrs: header.xattrs.clone(),
            digest,
            implied: false,
            origin: (self.tree.layers, self.entry),
        })
    }
}

fn weight(xattrs: &Xattrs) -> usize {
    xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}
