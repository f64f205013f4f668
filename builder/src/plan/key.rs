//! Keys: what names the result of a step.

use image::{Algorithm, Digest, Digester};

use super::{Op, Step};

/// Names the result of a step: everything that decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Digest);

/// Changes whenever the same step would give another result than before.
const VERSION: &str = "rbuild-step-1";

/// Collects what decides a step's result. Every part is written with its length, so that no two
/// different lists of parts look the same.
#[derive(Debug)]
pub struct KeyBuilder(Digester);

impl KeyBuilder {
    /// A key of this kind.
    pub fn new(kind: &str) -> KeyBuilder {
        let mut builder = KeyBuilder(Digester::new(Algorithm::Sha256));
        builder.part(VERSION.as_bytes());
        builder.part(kind.as_bytes());
        builder
    }

    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key(self.0.finish())
    }
}

/// The part of a step's key that the plan and its inputs decide; content that is read is added
/// by whoever reads it.
pub fn definition(step: &Step, inputs: &[Key]) -> KeyBuilder {
    let kind = match &step.op {
        Op::Image(_) => "image",
        Op::Run(_) => "run",
        Op::Copy(_) => "copy",
        Op::Workdir(_) => "workdir",
    };
    let mut builder = KeyBuilder::new(kind);
    let definition = serde_json::to_vec(&step.op).expect("an operation is plain data");
    builder.part(&definition);
    builder.part(if step.parent.is_some() { b"on" } else { b"empty" });
    for input in inputs {
        builder.part(input.0.as_bytes());
    }
    builder
}
