//! Gathering what decides a step of a build.

use std::collections::BTreeMap;

use super::facts::{Facts, Input};
use super::files::{FileFact, MOST_FILES};
use super::mark::mark;
use crate::job::Build;
use crate::plan::key::Key;
use crate::plan::{CopyOp, CopySource, From, Op, RunMountKind, RunOp, Step, StepId};
use crate::redact::without_credentials;

/// The facts of a step of a build. `inputs` are the keys of its inputs here, `files` what was
/// read from build contexts.
pub(crate) fn gather(
    build: &Build,
    id: StepId,
    inputs: &[Key],
    key: Key,
    mut files: Vec<FileFact>,
) -> Facts {
    let step = &build.plan.steps[id.0];
    let many_files = files.len() > MOST_FILES;
    if many_files {
        files = Vec::new();
    }
    let mut facts = Facts {
        step: step.name.clone(),
        place: step.place.clone(),
        instruction: step.instruction.clone(),
        key: key.0.to_string(),
        time: build.now,
        files,
        many_files,
        ..Facts::default()
    };
    facts.args = step.args.iter().map(|(k, v)| (k.clone(), mark(v.as_bytes()))).collect();
    for (at, (input, key)) in step.inputs().zip(inputs).enumerate() {
        let other = &build.plan.steps[input.0];
        if let Op::Image(name) = &other.op {
            let image = &build.bases[name].image;
            let chain = image.chain_id().map(|chain| chain.to_string()).unwrap_or_default();
            let digest = image.descriptor().digest.to_string();
            facts.images.insert(name.name.clone(), (digest, chain));
            continue;
        }
        facts.parent |= at == 0 && step.parent.is_some();
        facts.inputs.push(Input {
            step: other.name.clone(),
            instruction: other.instruction.clone(),
            keys: [key.0, build.origin_of(input).unwrap_or(*key).0],
        });
    }
    match &step.op {
        Op::Image(_) | Op::Graft => {}
        Op::Workdir(op) => {
            facts.set("the path", &op.path);
            facts.set("the user", &op.user);
        }
        Op::Run(op) => run(&mut facts, op, step),
        Op::Copy(op) => copy(&mut facts, op),
    }
    let names = build.request.run.names();
    if !names.is_empty() && matches!(step.op, Op::Run(_)) {
        facts.set("the names of hosts", &names);
    }
    facts
}

fn run(facts: &mut Facts, op: &RunOp, step: &Step) {
    facts.set("the command", &(&op.args, &op.script));
    facts.set("the working directory", &op.working_dir);
    facts.set("the user", &op.user);
    facts.set("the network", &op.network);
    facts.set("the platform", &op.platform);
    for line in &op.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if step.args.get(name).is_none_or(|arg| arg != value) {
            facts.env.insert(name.to_owned(), mark(value.as_bytes()));
        }
    }
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for mount in &op.mounts {
        let (kind, id) = match &mount.kind {
            RunMountKind::Bind { .. } => ("bind", None),
            RunMountKind::Cache { id, .. } => ("cache", Some(id)),
            RunMountKind::Tmpfs { .. } => ("tmpfs", None),
            RunMountKind::Secret { id, .. } => ("secret", Some(id)),
            RunMountKind::Ssh { id, .. } => ("ssh", Some(id)),
        };
        let number = count.entry(kind).or_default();
        *number += 1;
        let name = match id {
            Some(id) => format!("the {kind} mount {id}"),
            None => format!("{kind} mount {number}"),
        };
        facts.set(name, mount);
    }
    facts.set("the order of the mounts", &op.mounts.len());
}

fn copy(facts: &mut Facts, op: &CopyOp) {
    let mut paths = Vec::new();
    for source in &op.sources {
        match source {
            CopySource::Inline { name, content } => facts.set(format!("the file {name}"), content),
            CopySource::Path(path) => paths.push(path.clone()),
            // Of the kinds of remote sources the definition as a whole is enough.
            other => {
                let text = match other {
                    CopySource::Http { url } => without_credentials(url),
                    _ => "a remote source".to_owned(),
                };
                facts.set(text, other);
            }
        }
    }
    facts.set("the sources", &paths);
    facts.set("the destination", &op.destination);
    let from = match &op.from {
        From::Context(name) => format!("context {name}"),
        From::Read(_) => "a step".to_owned(),
        From::Scratch => "nothing".to_owned(),
    };
    facts.set("where it copies from", &from);
    let whole = serde_json::to_value(op).unwrap_or_default();
    for (field, value) in whole.as_object().into_iter().flatten() {
        if !["sources", "destination", "from", "add"].contains(&field.as_str()) {
            facts.set(format!("--{}", field.replace('_', "-")), value);
        }
    }
}
