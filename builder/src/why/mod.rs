//! Why a step has to run: what decided its result last time, and what is different now.
//!
//! The *facts* of a step are everything in its key, by name, with a mark of each value: some bits
//! of a digest, enough to see that a value changed and too few to recover it. They are stored under
//! the step's key after it ran, and are part of an exported cache.

mod account;
mod facts;
mod files;
mod gather;
mod mark;
mod reason;

use std::collections::BTreeSet;

use image::Digest;
use serde::{Deserialize, Serialize};
use store::Store;
use task::Task;

pub(crate) use facts::Facts;
pub(crate) use files::{FileFact, MOST_FILES};
pub(crate) use gather::gather;
pub(crate) use mark::mark32;
pub(crate) use reason::compare;
pub use reason::{Explanation, Reason, ReasonKind};

use crate::Request;
use crate::plan::Step;
use crate::plan::key::Key;

/// Where the store keeps the facts of each step by its key.
const FACTS: &str = "facts-1";
/// Where the store keeps which key a step of a Dockerfile had last.
const LAST: &str = "facts-last-1";
/// So many steps of stages that were not built this time are remembered.
const MOST_OTHERS: usize = 1000;

/// How a step is found again when it has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// Its stage.
    pub(crate) place: String,
    /// Its instruction as written.
    pub(crate) instruction: String,
    /// Its number in the stage: `[build 2/5`.
    pub(crate) label: String,
}

impl Trace {
    pub(crate) fn of(step: &Step) -> Trace {
        Trace {
            place: step.place.clone(),
            instruction: step.instruction.clone(),
            label: step.name.split("] ").next().unwrap_or_default().to_owned(),
        }
    }

    /// The one among `others` that was this step before: with its instruction, or else at its
    /// place.
    pub(crate) fn find<'a, T>(&self, others: &'a [(Trace, T)]) -> Option<&'a T> {
        let near = || others.iter().filter(|(other, _)| other.place == self.place);
        let same = near().filter(|(other, _)| other.instruction == self.instruction);
        let here = same.clone().find(|(other, _)| other.label == self.label);
        let found = here.or_else(|| same.clone().next());
        let found = found.or_else(|| near().find(|(other, _)| other.label == self.label));
        found.map(|(_, value)| value)
    }
}

/// What the store calls the last build of this Dockerfile and context.
fn last_name(request: &Request) -> Digest {
    let file = &request.dockerfile.name;
    Digest::of(format!("{file}\0{:?}", request.context).as_bytes())
}

/// The steps of the last build of this Dockerfile and context, and their keys.
fn last(store: &Store, request: &Request) -> Vec<(Trace, Digest)> {
    let bytes = store.memo(LAST, last_name(request).as_bytes()).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Whether this Dockerfile was built from this context before.
pub(crate) fn knows(store: &Store, request: &Request) -> bool {
    !last(store, request).is_empty()
}

/// What the store remembers of a step of this Dockerfile and context: its facts the last time.
pub(crate) fn before(store: &Store, request: &Request, step: &Step) -> Option<Facts> {
    let last = last(store, request);
    let key = Trace::of(step).find(&last)?;
    serde_json::from_slice(&facts_of(store, Key(*key))?).ok()
}

/// The facts of the step with this key, if it ran on this machine.
pub(crate) fn facts_of(store: &Store, key: Key) -> Option<Vec<u8>> {
    store.memo(FACTS, key.0.as_bytes()).ok().flatten()
}

/// Remembers what decided a step that has run. A failure only costs an explanation.
pub(crate) fn remember(store: &Store, key: Key, facts: &Facts, task: &Task) {
    let bytes = serde_json::to_vec(facts).unwrap_or_default();
    if let Err(error) = store.set_memo(FACTS, key.0.as_bytes(), &bytes) {
        task.note(format!("the reasons are not recorded: {error}"));
    }
}

/// Remembers which keys the steps of this Dockerfile have now. Stages that were not built this
/// time stay as they were.
pub(crate) fn settle<'a>(
    store: &Store,
    request: &Request,
    steps: impl Iterator<Item = (&'a Step, Key)>,
) {
    let before = last(store, request);
    let mut now: Vec<(Trace, Digest)> = steps.map(|(step, key)| (Trace::of(step), key.0)).collect();
    let places: BTreeSet<String> = now.iter().map(|(trace, _)| trace.place.clone()).collect();
    let others = before.iter().filter(|(trace, _)| !places.contains(&trace.place));
    now.extend(others.take(MOST_OTHERS).cloned());
    if now == before {
        return;
    }
    let bytes = serde_json::to_vec(&now).unwrap_or_default();
    if let Err(error) = store.set_memo(LAST, last_name(request).as_bytes(), &bytes) {
        tracing::debug!(%error, "the built steps are not recorded");
    }
}
