//! What can be asked of a Dockerfile without building it: its targets, and what a target takes.

use std::collections::BTreeMap;

use crate::instruction::{Dockerfile, InstructionKind, Run};
use crate::mount::{Mount, MountKind};
use crate::span::Span;
use crate::variables::{BuildVariables, Variables, Walk, stage_bases};

/// A stage that `--target` can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The stage's index, from 0; `--target` takes it too.
    pub stage: usize,
    /// The stage's name.
    pub name: Option<String>,
    /// The comment that describes it.
    pub description: Option<String>,
    /// The base as written.
    pub base: String,
    /// Built when no target is given: the last stage.
    pub default: bool,
}

/// The inputs of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Variables for `--build-arg`, in the order of the file.
    pub args: Vec<OutlineArg>,
    /// Secrets for `--secret`, by name.
    pub secrets: Vec<OutlineNeed>,
    /// Agents for `--ssh`, by name.
    pub ssh: Vec<OutlineNeed>,
    /// Ids of the cache mounts, by name.
    pub caches: Vec<String>,
}

/// A variable a target takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment that describes it.
    pub description: Option<String>,
    /// Its value: the default, or the one given.
    pub value: Option<String>,
    /// Where it is declared first.
    pub span: Span,
}

/// A secret or an ssh agent a target takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineNeed {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
}

impl Dockerfile {
    /// The stages, as `--target` sees them.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let target = |(stage, found): (usize, &crate::instruction::Stage)| Target {
            stage,
            name: found.name.clone(),
            description: found.description.clone(),
            base: found.base.text.clone(),
            default: stage + 1 == self.stages.len(),
        };
        self.stages.iter().enumerate().map(target).collect()
    }

    /// The stages that building stage `target` needs, itself included, in the order of the file.
    #[must_use]
    pub fn needed_stages(&self, target: usize, build_args: &[(String, String)]) -> Vec<usize> {
        let globals =
            Variables::global(self, BuildVariables { build_args, ..BuildVariables::default() });
        let bases = stage_bases(self, &globals);
        let mut needed = vec![false; self.stages.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            let Some(stage) = self.stages.get(index) else { continue };
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            open.extend(bases[index]);
            open.extend(stage.after.iter().filter_map(|word| self.stage(&word.text)));
            for instruction in &stage.instructions {
                match &instruction.kind {
                    InstructionKind::Copy(copy) => {
                        open.extend(copy.from.as_ref().and_then(|from| self.stage(&from.text)));
                    }
                    InstructionKind::Run(run) => {
                        let from = run.mounts.iter().filter_map(Mount::from_stage);
                        open.extend(from.filter_map(|from| self.stage(&from)));
                    }
                    _ => {}
                }
            }
        }
        (0..needed.len()).filter(|index| needed[*index]).collect()
    }

    /// What building stage `target` takes from outside, with the given `--build-arg`s.
    #[must_use]
    pub fn outline(&self, target: usize, build_args: &[(String, String)]) -> Outline {
        let given = BuildVariables { build_args, ..BuildVariables::default() };
        let globals = Variables::global(self, given);
        let needed = self.needed_stages(target, build_args);
        let mut args = Args::default();
        for instruction in &self.global_args {
            args.add(&instruction.kind, &globals);
        }
        // A global ARG counts only when a FROM line that is needed uses it, or another such ARG.
        let words = needed.iter().flat_map(|index| {
            let stage = &self.stages[*index];
            std::iter::once(&stage.base).chain(&stage.platform)
        });
        let used = words.filter_map(|word| Some(globals.evaluate(word)?.asked));
        args.keep(used.flatten().collect(), self, &globals);
        let mut needs = Needs::default();
        Walk::new(self, given).each(|stage, instruction, variables| {
            if needed.binary_search(&stage).is_err() {
                return;
            }
            match &instruction.kind {
                InstructionKind::Run(run) => needs.add(run, variables),
                kind => args.add_in_stage(kind, variables, &globals, given, self),
            }
        });
        args.found.sort_by_key(|arg| arg.span.start);
        let list = |needs: BTreeMap<String, bool>| {
            needs.into_iter().map(|(name, required)| OutlineNeed { name, required }).collect()
        };
        Outline {
            args: args.found,
            secrets: list(needs.secrets),
            ssh: list(needs.ssh),
            caches: needs.caches.into_keys().collect(),
        }
    }
}

fn mounts<'a>(run: &'a Run, variables: &'a Variables) -> impl Iterator<Item = Mount> + 'a {
    let scope = |name: &str| variables.value(name).map(str::to_owned);
    run.mounts.iter().filter_map(move |word| Mount::parse(word, &scope).ok())
}

#[derive(Default)]
struct Needs {
    secrets: BTreeMap<String, bool>,
    ssh: BTreeMap<String, bool>,
    caches: BTreeMap<String, ()>,
}

impl Needs {
    fn add(&mut self, run: &Run, variables: &Variables) {
        for mount in mounts(run, variables) {
            match mount.kind {
                MountKind::Secret { id, required, .. } => {
                    *self.secrets.entry(id).or_default() |= required;
                }
                MountKind::Ssh { id, required, .. } => *self.ssh.entry(id).or_default() |= required,
                MountKind::Cache { id, .. } => {
                    self.caches.insert(id.or(mount.target).unwrap_or_default(), ());
                }
                MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
            }
        }
    }
}

#[derive(Default)]
struct Args {
    found: Vec<OutlineArg>,
}

impl Args {
    fn add(&mut self, kind: &InstructionKind, variables: &Variables) {
        let InstructionKind::Arg(arg) = kind else { return };
        for declaration in &arg.declarations {
            let name = &declaration.name.text;
            self.insert(OutlineArg {
                name: name.clone(),
                description: declaration.description.clone(),
                value: variables.value(name).map(str::to_owned),
                span: declaration.name.span,
            });
        }
    }

    /// Keeps the global `ARG`s in `wanted`, and those their defaults use.
    fn keep(&mut self, mut wanted: Vec<String>, file: &Dockerfile, globals: &Variables) {
        // A default uses only what stands before it, so one walk from the end finds all.
        for instruction in file.global_args.iter().rev() {
            let InstructionKind::Arg(arg) = &instruction.kind else { continue };
            for declaration in arg.declarations.iter().rev() {
                if wanted.contains(&declaration.name.text) {
                    let value = declaration.value.as_ref().and_then(|word| globals.evaluate(word));
                    wanted.extend(value.map(|value| value.asked).unwrap_or_default());
                }
            }
        }
        self.found.retain(|arg| wanted.contains(&arg.name));
    }

    fn add_in_stage(
        &mut self,
        kind: &InstructionKind,
        variables: &Variables,
        globals: &Variables,
        given: BuildVariables<'_>,
        file: &Dockerfile,
    ) {
        let InstructionKind::Arg(arg) = kind else { return };
        for declaration in &arg.declarations {
            let name = &declaration.name.text;
            let default = declaration.value.as_ref();
            let value = given
                .build_arg(name)
                .map(str::to_owned)
                .or_else(|| default.and_then(|word| variables.evaluate(word)?.text))
                .or_else(|| globals.value(name).map(str::to_owned));
            let description =
                declaration.description.clone().or_else(|| global_description(file, name));
            let span = declaration.name.span;
            self.insert(OutlineArg { name: name.clone(), description, value, span });
        }
    }

    fn insert(&mut self, arg: OutlineArg) {
        match self.found.iter_mut().find(|known| known.name == arg.name) {
            None => self.found.push(arg),
            Some(known) => {
                known.description = known.description.take().or(arg.description);
                known.value = known.value.take().or(arg.value);
            }
        }
    }
}

/// What the comment above the global declaration says.
fn global_description(file: &Dockerfile, name: &str) -> Option<String> {
    let args = file.global_args.iter().filter_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => Some(&arg.declarations),
        _ => None,
    });
    args.flatten().find(|declaration| declaration.name.text == name)?.description.clone()
}

#[cfg(test)]
mod tests {
    use crate::parse;

    const SOURCE: &str = "\
ARG REGISTRY=docker.io
# TAG of the base
ARG TAG=1
ARG IMAGE=${REGISTRY}/base:${TAG}
ARG UNUSED=x
# build compiles
FROM $IMAGE AS build
# MODE is fast or small
ARG MODE=fast TAG
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c,id=c-$MODE make
FROM scratch AS docs
ARG DOCS
RUN --mount=type=ssh,id=github true
FROM alpine AS other
RUN --mount=type=bind,from=docs,target=/d true
FROM scratch
COPY --from=build /x /x
RUN --mount=type=secret,id=key --mount=type=cache,target=/plain true
";

    #[test]
    fn targets_of_a_file() {
        let (file, _) = parse(SOURCE);
        let targets: Vec<_> = file
            .targets()
            .into_iter()
            .map(|t| (t.name.unwrap_or_default(), t.description.unwrap_or_default(), t.default))
            .collect();
        let expected = [
            ("build", "compiles", false),
            ("docs", "", false),
            ("other", "", false),
            ("", "", true),
        ];
        let expected = expected.map(|(name, text, last)| (name.to_owned(), text.to_owned(), last));
        assert_eq!(targets, expected);
    }

    #[test]
    fn stages_a_target_needs() {
        let (file, _) = parse(SOURCE);
        for (target, needed) in [(0, &[0][..]), (1, &[1]), (2, &[1, 2]), (3, &[0, 3]), (9, &[])] {
            assert_eq!(file.needed_stages(target, &[]), needed, "{target}");
        }
    }

    #[test]
    fn what_a_target_takes() {
        let (file, _) = parse(SOURCE);
        let given = [("TAG".to_owned(), "2".to_owned())];
        let outline = file.outline(3, &given);
        let args: Vec<_> = outline
            .args
            .iter()
            .map(|a| {
                format!("{}={} {:?}", a.name, a.value.as_deref().unwrap_or("-"), a.description)
            })
            .collect();
        assert_eq!(
            args,
            [
                "REGISTRY=docker.io None",
                "TAG=2 Some(\"of the base\")",
                "IMAGE=docker.io/base:2 None",
                "MODE=fast Some(\"is fast or small\")",
            ]
        );
        let secrets: Vec<_> =
            outline.secrets.iter().map(|s| (s.name.as_str(), s.required)).collect();
        assert_eq!(secrets, [("key", true)]);
        assert_eq!(outline.caches, ["/plain", "c-fast"]);
        assert!(outline.ssh.is_empty());
        let outline = file.outline(2, &[]);
        assert_eq!(outline.args[0].name, "DOCS");
        assert_eq!(outline.ssh[0].name, "github");
    }
}
