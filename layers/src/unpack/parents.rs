//! Held descriptors of the directories that entries are put into.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// As many directories are held at once.
const HELD: usize = 64;

/// A directory that entries are put into.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    /// Its group, which new files may get.
    pub(super) gid: u32,
    /// Whether new files get its group, and directories the bit as well.
    pub(super) setgid: bool,
}

/// Directories by their name in the archive. Must be forgotten when a directory or a link, which
/// the name may lead through, is taken away.
#[derive(Debug, Default)]
pub(super) struct Parents {
    held: HashMap<Vec<u8>, Rc<Dir>>,
    last: Option<(Vec<u8>, Rc<Dir>)>,
}

impl Parents {
    pub(super) fn get(&mut self, path: &[u8]) -> Option<Rc<Dir>> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Some(Rc::clone(dir));
        }
        let dir = Rc::clone(self.held.get(path)?);
        self.last = Some((path.to_vec(), Rc::clone(&dir)));
        Some(dir)
    }

    pub(super) fn put(&mut self, path: &[u8], dir: Dir) -> Rc<Dir> {
        if self.held.len() >= HELD {
            self.forget();
        }
        let dir = Rc::new(dir);
        self.held.insert(path.to_vec(), Rc::clone(&dir));
        self.last = Some((path.to_vec(), Rc::clone(&dir)));
        dir
    }

    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.last = None;
    }
}
