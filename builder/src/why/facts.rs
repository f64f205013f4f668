//! What decides a step's result, by name.

use std::collections::BTreeMap;

use image::{Algorithm, Digest, Digester};
use serde::{Deserialize, Serialize};

use super::FileFact;
use crate::engine::Build;
use crate::plan::copy::without_credentials;
use crate::plan::key::Key;
use crate::plan::{CopyOp, CopySource, From, Op, RunMountKind, RunOp, Step, StepId};

/// More files than this are not listed one by one.
const MOST_FILES: usize = 100_000;

/// Everything that decides the result of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The step as the user sees it: `[build 2/5] RUN make`.
    pub(crate) step: String,
    /// The stage it belongs to.
    pub(crate) place: String,
    /// The instruction as written, on one line.
    pub(crate) instruction: String,
    /// What names its result.
    pub(crate) key: String,
    /// When these facts were gathered, seconds since 1970.
    pub(crate) time: i64,
    /// Marks of the options and properties of the instruction, by what the user calls them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, u16>,
    /// Marks of the build arguments the instruction sees.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) args: BTreeMap<String, u16>,
    /// Marks of the variables the command sees that are no build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, u16>,
    /// The images it goes on with or reads: manifest digest and chain id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) images: BTreeMap<String, (String, String)>,
    /// The steps it goes on with or reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inputs: Vec<Input>,
    /// Whether the first of the inputs is what it goes on with.
    #[serde(default)]
    pub(crate) parent: bool,
    /// The files it reads from build contexts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<FileFact>,
    /// Whether there were too many of them to be listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) many_files: bool,
}

/// A step that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    /// As the user sees it.
    pub(crate) step: String,
    /// The instruction as written.
    pub(crate) instruction: String,
    /// What names its result on this machine, and what names it on every one.
    pub(crate) keys: [Digest; 2],
}

/// So many bits of a digest that a change is seen, and so few that nobody finds out the value.
pub(super) fn mark(value: &[u8]) -> u16 {
    let digest = Digest::of(value);
    u16::from_le_bytes([digest.as_bytes()[0], digest.as_bytes()[1]])
}

/// A longer mark, of the content of a file.
pub(crate) fn mark32(parts: &[&[u8]]) -> u32 {
    let mut digester = Digester::new(Algorithm::Sha256);
    for part in parts {
        digester.update(&(part.len() as u64).to_le_bytes());
        digester.update(part);
    }
    let digest = digester.finish();
    let bytes = digest.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

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
        facts.set("--add-host, --no-hosts or the host name", &names);
    }
    facts
}

impl Facts {
    fn set(&mut self, name: impl Into<String>, value: &(impl Serialize + ?Sized)) {
        let value = serde_json::to_vec(value).unwrap_or_default();
        self.settings.insert(name.into(), mark(&value));
    }
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
