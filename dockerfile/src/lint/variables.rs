//! Which variables are set at each instruction, as far as it can be told without building.

use std::collections::BTreeMap;

use super::Input;
use crate::expand::expand_tracked;
use crate::instruction::{Instruction, InstructionKind};
use crate::span::Word;

/// Variables that `FROM` knows without an `ARG`.
pub(super) const PLATFORM_ARGS: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// The variables at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    /// `None` is a value that only the build knows.
    values: BTreeMap<String, Option<String>>,
    /// False when the base image may set more.
    pub(super) complete: bool,
}

/// A word, as far as it can be expanded.
pub(super) struct Value {
    /// The text, unless it depends on a value that only the build knows.
    pub(super) text: Option<String>,
    /// Names that are not set and that nothing stands in for.
    pub(super) missing: Vec<String>,
}

impl Variables {
    /// What `FROM` lines see.
    pub(super) fn global(input: &Input<'_>) -> Self {
        Self::from_args(input, input.context.build_args)
    }

    /// What `FROM` lines see when no `--build-arg` is given.
    pub(super) fn defaults(input: &Input<'_>) -> Self {
        Self::from_args(input, &[])
    }

    fn from_args(input: &Input<'_>, build_args: &[(String, String)]) -> Self {
        let mut variables = Self { complete: true, ..Self::default() };
        for name in PLATFORM_ARGS {
            let known = if name == "TARGETPLATFORM" { input.context.target_platform } else { None };
            variables.values.insert(name.to_owned(), known.map(str::to_owned));
        }
        for instruction in &input.file.global_args {
            let InstructionKind::Arg(arg) = &instruction.kind else { continue };
            for declaration in &arg.declarations {
                let name = &declaration.name.text;
                let given = build_args.iter().find(|(key, _)| key == name);
                let value = match (given, &declaration.value) {
                    (Some((_, value)), _) => Some(value.clone()),
                    (None, Some(word)) => variables.evaluate(word).and_then(|value| value.text),
                    (None, None) => continue,
                };
                variables.values.insert(name.clone(), value);
            }
        }
        variables
    }

    /// Expands a word; nothing when it cannot be expanded at all.
    pub(super) fn evaluate(&self, word: &Word) -> Option<Value> {
        let scope = |name: &str| self.values.get(name).cloned().map(Option::unwrap_or_default);
        let expansion = expand_tracked(word, &scope).ok()?;
        let unknown = |name: &String| self.values.get(name) == Some(&None);
        // What is missing here may come with the base image.
        let open = !self.complete && !expansion.undefined.is_empty();
        let text = (!open && !expansion.used.iter().any(unknown)).then_some(expansion.text);
        Some(Value { text, missing: expansion.missing })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// What an instruction sets.
    fn apply(&mut self, instruction: &Instruction, globals: &Self, input: &Input<'_>) {
        match &instruction.kind {
            InstructionKind::Arg(arg) => {
                for declaration in &arg.declarations {
                    let name = &declaration.name.text;
                    let given = input.context.build_args.iter().find(|(key, _)| key == name);
                    let value = match (given, &declaration.value) {
                        (Some((_, value)), _) => Some(value.clone()),
                        (None, Some(word)) => self.evaluate(word).and_then(|value| value.text),
                        (None, None) => globals.values.get(name).cloned().flatten(),
                    };
                    self.values.insert(name.clone(), value);
                }
            }
            InstructionKind::Env(pairs) => {
                // All values are taken before any is set.
                let text = |word| self.evaluate(word).and_then(|value| value.text);
                let set: Vec<_> =
                    pairs.pairs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect();
                for (key, value) in set {
                    self.values.extend(key.map(|key| (key, value)));
                }
            }
            _ => {}
        }
    }
}

/// For each stage, the earlier stage it is built on.
pub(super) fn stage_bases(input: &Input<'_>) -> Vec<Option<usize>> {
    let globals = Variables::global(input);
    let mut names = BTreeMap::new();
    let mut bases = Vec::new();
    for (index, stage) in input.file.stages.iter().enumerate() {
        let base = globals.evaluate(&stage.base).and_then(|value| value.text);
        bases.push(base.and_then(|base| names.get(&base.to_lowercase()).copied()));
        names.extend(stage.name.clone().map(|name| (name, index)));
    }
    bases
}

/// A walk through all stages that keeps track of the variables.
pub(super) struct Walk<'a> {
    input: &'a Input<'a>,
    /// The variables at the end of each stage so far.
    ends: Vec<Variables>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(input: &'a Input<'a>) -> Self {
        Self { input, ends: Vec::new() }
    }

    /// Shows every instruction of every stage with the variables before it.
    pub(super) fn each(&mut self, mut show: impl FnMut(usize, &Instruction, &Variables)) {
        let globals = Variables::global(self.input);
        for (index, stage) in self.input.file.stages.iter().enumerate() {
            let mut variables = self.begin(index, &globals);
            for instruction in &stage.instructions {
                show(index, instruction, &variables);
                variables.apply(instruction, &globals, self.input);
            }
            self.ends.push(variables);
        }
    }

    fn begin(&self, index: usize, globals: &Variables) -> Variables {
        if let Some(base) = self.input.bases[index] {
            return self.ends.get(base).cloned().unwrap_or_default();
        }
        let base = globals.evaluate(&self.input.file.stages[index].base).and_then(|v| v.text);
        let known = match (base.as_deref(), self.input.context.base_environment) {
            (Some("scratch"), _) => Some(Vec::new()),
            (Some(image), Some(environment)) => environment(image),
            _ => None,
        };
        let mut variables = Variables { complete: known.is_some(), ..Variables::default() };
        // Every container has a PATH.
        let names = known.into_iter().flatten().chain(std::iter::once("PATH".to_owned()));
        variables.values.extend(names.map(|name| (name, None)));
        variables
    }
}
