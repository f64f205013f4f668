//! Keys: what names the result of a step.

use image::{Algorithm, Digest, Digester};

use super::encode::Fields;
use super::{Op, Step};
use crate::why::{FileFact, MOST_FILES};

/// Names the result of a step: everything that decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Digest);

/// The version of the format of keys: of what is in them, in which order, and of what the same
/// step gives. Version 3 is described in `docs/cache.md`; a golden test holds it still.
const VERSION: &str = "rbuild-step-3";

/// Collects what decides a step's result. Every part is written with its length, so that no two
/// different lists of parts look the same.
#[derive(Debug)]
pub struct KeyBuilder {
    digester: Digester,
    files: Option<Vec<FileFact>>,
}

impl KeyBuilder {
    /// A key of this kind.
    pub fn new(kind: &str) -> KeyBuilder {
        let digester = Digester::new(Algorithm::Sha256);
        let mut builder = KeyBuilder { digester, files: None };
        builder.part(VERSION.as_bytes());
        builder.part(kind.as_bytes());
        builder
    }

    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.digester.update(&(bytes.len() as u64).to_le_bytes());
        self.digester.update(bytes);
        self
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(self.digester.finish())
    }

    /// From now on also remembers each file that becomes part of the key.
    pub(crate) fn recording(mut self) -> Self {
        self.files = Some(Vec::new());
        self
    }

    /// Records a file, if files are recorded; at most one above [`MOST_FILES`].
    pub(crate) fn record(&mut self, file: impl FnOnce() -> FileFact) {
        if let Some(files) = self.files.as_mut().filter(|files| files.len() <= MOST_FILES) {
            files.push(file());
        }
    }

    /// The key, and the files that became part of it.
    pub(crate) fn finish_recording(mut self) -> (Key, Vec<FileFact>) {
        let files = self.files.take().unwrap_or_default();
        (self.finish(), files)
    }
}

/// The part of a step's key that the plan and its inputs decide. The reader of content adds that
/// content.
pub fn definition(step: &Step, inputs: &[Key]) -> KeyBuilder {
    let kind = match &step.op {
        Op::Image(_) => "image",
        Op::Run(_) => "run",
        Op::Copy(_) => "copy",
        Op::Workdir(_) => "workdir",
        Op::Graft => "graft",
    };
    let mut builder = KeyBuilder::new(kind);
    Fields::of(&mut builder).op(&step.op);
    builder.part(if step.parent.is_some() { b"on" } else { b"empty" });
    for input in inputs {
        builder.part(input.0.as_bytes());
    }
    builder
}
