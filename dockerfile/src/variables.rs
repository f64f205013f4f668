//! Which variables are set at each instruction, as far as that is known without a build.

use std::collections::BTreeMap;

use crate::expand::expand_tracked;
use crate::instruction::{Dockerfile, Instruction, InstructionKind};
use crate::lint::BaseQuery;
use crate::span::Word;

/// Variables that `FROM` knows without an `ARG`.
pub(crate) const PLATFORM_ARGS: [&str; 11] = [
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

/// What is known before the build.
#[derive(Clone, Copy, Default)]
pub(crate) struct BuildVariables<'a> {
    pub(crate) build_args: &'a [(String, String)],
    pub(crate) target_platform: Option<&'a str>,
    pub(crate) base_environment: Option<BaseQuery<'a, Vec<String>>>,
}

impl BuildVariables<'_> {
    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The variables at one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    /// `None` is a value that only the build knows.
    values: BTreeMap<String, Option<String>>,
    /// False when the base image may set more.
    pub(crate) complete: bool,
}

/// A word, as far as it can be expanded.
pub(crate) struct Value {
    /// The text, unless it depends on a value that only the build knows.
    pub(crate) text: Option<String>,
    /// Names that are not set and that nothing stands in for.
    pub(crate) missing: Vec<String>,
    /// Every name that was asked for.
    pub(crate) asked: Vec<String>,
}

impl Variables {
    /// What `FROM` lines see.
    pub(crate) fn global(file: &Dockerfile, given: BuildVariables<'_>) -> Self {
        let mut variables = Self { complete: true, ..Self::default() };
        for name in PLATFORM_ARGS {
            let known = if name == "TARGETPLATFORM" { given.target_platform } else { None };
            variables.values.insert(name.to_owned(), known.map(str::to_owned));
        }
        for instruction in &file.global_args {
            let InstructionKind::Arg(arg) = &instruction.kind else { continue };
            for declaration in &arg.declarations {
                let name = &declaration.name.text;
                let value = match (given.build_arg(name), &declaration.value) {
                    (Some(value), _) => Some(value.to_owned()),
                    (None, Some(word)) => variables.evaluate(word).and_then(|value| value.text),
                    (None, None) => continue,
                };
                variables.values.insert(name.clone(), value);
            }
        }
        variables
    }

    /// The value of a variable, if it has one that is known.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_deref()
    }

    /// Expands a word; nothing when it cannot be expanded at all.
    pub(crate) fn evaluate(&self, word: &Word) -> Option<Value> {
        let scope = |name: &str| self.values.get(name).cloned().map(Option::unwrap_or_default);
        let expansion = expand_tracked(word, &scope).ok()?;
        let unknown = |name: &String| self.values.get(name) == Some(&None);
        // What is missing here may come with the base image.
        let open = !self.complete && !expansion.undefined.is_empty();
        let text = (!open && !expansion.used.iter().any(unknown)).then_some(expansion.text);
        let mut asked = expansion.used;
        asked.extend(expansion.undefined);
        Some(Value { text, missing: expansion.missing, asked })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// What an instruction sets.
    fn apply(&mut self, instruction: &Instruction, globals: &Self, given: BuildVariables<'_>) {
        match &instruction.kind {
            InstructionKind::Arg(arg) => {
                for declaration in &arg.declarations {
                    let name = &declaration.name.text;
                    let value = match (given.build_arg(name), &declaration.value) {
                        (Some(value), _) => Some(value.to_owned()),
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
pub(crate) fn stage_bases(file: &Dockerfile, globals: &Variables) -> Vec<Option<usize>> {
    let mut names = BTreeMap::new();
    let mut bases = Vec::new();
    for (index, stage) in file.stages.iter().enumerate() {
        let base = globals.evaluate(&stage.base).and_then(|value| value.text);
        bases.push(base.and_then(|base| names.get(&base.to_lowercase()).copied()));
        names.extend(stage.name.clone().map(|name| (name, index)));
    }
    bases
}

/// A walk through all stages that keeps track of the variables.
pub(crate) struct Walk<'a> {
    file: &'a Dockerfile,
    given: BuildVariables<'a>,
    globals: Variables,
    bases: Vec<Option<usize>>,
    /// The variables at the end of each stage so far.
    ends: Vec<Variables>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(file: &'a Dockerfile, given: BuildVariables<'a>) -> Self {
        let globals = Variables::global(file, given);
        let bases = stage_bases(file, &globals);
        Self { file, given, globals, bases, ends: Vec::new() }
    }

    /// Shows every instruction of every stage with the variables before it.
    pub(crate) fn each(mut self, mut show: impl FnMut(usize, &'a Instruction, &Variables)) {
        for (index, stage) in self.file.stages.iter().enumerate() {
            let mut variables = self.begin(index);
            for instruction in &stage.instructions {
                show(index, instruction, &variables);
                variables.apply(instruction, &self.globals, self.given);
            }
            self.ends.push(variables);
        }
    }

    fn begin(&self, index: usize) -> Variables {
        if let Some(base) = self.bases[index] {
            return self.ends.get(base).cloned().unwrap_or_default();
        }
        let base = self.globals.evaluate(&self.file.stages[index].base).and_then(|v| v.text);
        let known = match (base.as_deref(), self.given.base_environment) {
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
