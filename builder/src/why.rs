//! Why a step has to run although it ran before.

use image::Digest;
use serde::{Deserialize, Serialize};
use task::Task;

use crate::engine::Build;
use crate::plan::key::Key;
use crate::plan::{Step, StepId};

/// Where the store keeps what decided each step's key last time.
const SPACE: &str = "why-1";

/// What decided a step's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    definition: Digest,
    inputs: Digest,
    key: Digest,
}

/// Tells the user what has changed since this step ran last, and remembers what is now.
pub(crate) fn explain(build: &Build, id: StepId, inputs: &[Key], key: Key, task: &Task) {
    let step = &build.plan.steps[id.0];
    let all: Vec<u8> = inputs.iter().flat_map(|input| input.0.as_bytes().to_vec()).collect();
    let now = Parts {
        definition: Digest::of(&serde_json::to_vec(&step.op).unwrap_or_default()),
        inputs: Digest::of(&all),
        key: key.0,
    };
    let name = name(build, step);
    let store = &build.env.store;
    let before = store.memo(SPACE, name.as_bytes()).ok().flatten();
    let before: Option<Parts> = before.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(before) = &before {
        task.note(reason(before, &now, step.fresh));
    }
    if before.as_ref() != Some(&now) {
        let bytes = serde_json::to_vec(&now).unwrap_or_default();
        if let Err(error) = store.set_memo(SPACE, name.as_bytes(), &bytes) {
            tracing::debug!(%error, "why a step ran is not remembered");
        }
    }
}

fn reason(before: &Parts, now: &Parts, fresh: bool) -> &'static str {
    if fresh {
        "the cache is not to be asked"
    } else if before.definition != now.definition {
        "the instruction or its variables have changed"
    } else if before.inputs != now.inputs {
        "a step before it has changed"
    } else if before.key != now.key {
        "the files it reads have changed"
    } else {
        "its result is no longer in the store"
    }
}

/// What stays the same when a step changes: its place in its file and context.
fn name(build: &Build, step: &Step) -> String {
    let label = step.name.split("] ").next().unwrap_or_default();
    let request = &build.request;
    format!("{}\0{:?}\0{}\0{label}", request.dockerfile.name, request.context, step.place)
}
