//! Variables: `ARG`, `ENV`, and those every build has.

use std::collections::BTreeMap;

use dockerfile::{Arg, Diagnostic, Instruction, InstructionKind, Scope, Word, expand};
use image::Platform;

use crate::Request;
use crate::plan::environment::PROXY;

/// Variables in the order they were set; the last setting of a name counts.
#[derive(Debug, Clone, Default)]
pub struct Variables(Vec<(String, Option<String>)>);

impl Variables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref())
    }

    /// Sets a variable, which keeps its place if it has one.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Name and value of each variable, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

/// The variables that describe the platforms.
fn platforms(request: &Request, target: &Platform) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut describe = |prefix: &str, platform: &Platform| {
        let variant = platform.variant.clone().unwrap_or_default();
        all.insert(format!("{prefix}PLATFORM"), platform.to_string());
        all.insert(format!("{prefix}OS"), platform.os.clone());
        all.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        all.insert(format!("{prefix}VARIANT"), variant);
    };
    describe("BUILD", &request.build_platform);
    describe("TARGET", target);
    all.insert("TARGETSTAGE".to_owned(), request.target.clone().unwrap_or("default".to_owned()));
    all
}

/// The variables `FROM` lines see, and `ARG` lines without a default take over.
#[derive(Debug, Clone)]
pub struct Global {
    values: BTreeMap<String, String>,
    given: BTreeMap<String, String>,
}

impl Global {
    /// Evaluates the `ARG`s before the first `FROM` of a build for a platform.
    pub fn new(
        args: &[Instruction],
        request: &Request,
        target: &Platform,
    ) -> Result<Global, Diagnostic> {
        let mut given = request.build_args.clone();
        if let Some(epoch) = request.source_date_epoch {
            given.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_string());
        }
        let mut global = Global { values: platforms(request, target), given };
        for instruction in args {
            let InstructionKind::Arg(arg) = &instruction.kind else { continue };
            for declaration in &arg.declarations {
                let name = declaration.name.text.clone();
                let value = match (global.given.get(&name), &declaration.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => Some(global.expand(default)?),
                    (None, None) => None,
                };
                match value {
                    Some(value) => drop(global.values.insert(name, value)),
                    None => drop(global.values.entry(name).or_default()),
                }
            }
        }
        Ok(global)
    }

    /// The value of a variable that `FROM` lines see.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// Replaces the variables in a word of a `FROM` line.
    pub fn expand(&self, word: &Word) -> Result<String, Diagnostic> {
        expand(word, &|name| self.get(name))
    }

    /// Evaluates an `ARG` inside a stage, whose variables so far are `scope`.
    pub fn declare(
        &self,
        arg: &Arg,
        scope: Scope<'_>,
    ) -> Result<Vec<(String, Option<String>)>, Diagnostic> {
        let mut declared: Vec<(String, Option<String>)> = Vec::new();
        for declaration in &arg.declarations {
            let local = |name: &str| {
                let earlier = declared.iter().rev().find(|(n, _)| n == name);
                earlier.and_then(|(_, value)| value.clone()).or_else(|| scope(name))
            };
            let name = expand(&declaration.name, &local)?;
            let value = match (self.given.get(&name), &declaration.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(expand(default, &local)?),
                (None, None) => self.values.get(&name).cloned(),
            };
            declared.push((name, value));
        }
        Ok(declared)
    }
}

/// Build arguments that mean something to this program itself.
const OWN: [&str; 8] = [
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
];

/// Warnings about build arguments without effect: one sentence each.
pub fn unused(request: &Request, file: &dockerfile::Dockerfile) -> Vec<String> {
    let mut declared: Vec<&str> = PROXY.to_vec();
    declared.extend(OWN);
    for instruction in file.instructions() {
        if let InstructionKind::Arg(arg) = &instruction.kind {
            declared.extend(arg.declarations.iter().map(|d| d.name.text.as_str()));
        }
    }
    let stray = request.build_args.keys().filter(|name| !declared.contains(&name.as_str()));
    let mut said: Vec<String> = stray
        .map(|name| match name.starts_with("BUILDKIT_") {
            true => format!("build argument {name:?} has no effect here"),
            false => format!("build argument {name:?} is declared by no ARG instruction"),
        })
        .collect();
    let syntax = request.build_args.get("BUILDKIT_SYNTAX");
    said.extend(syntax.filter(|name| !name.contains("docker/dockerfile")).map(|name| {
        format!("the frontend {name:?} of BUILDKIT_SYNTAX is not used: the Dockerfile is read here")
    }));
    said
}
