//! Which stages a target needs, before any of them is lowered.

use dockerfile::{Diagnostic, InstructionKind, Mount, MountKind, Stage};
use image::Platform;

use super::Lowerer;
use crate::plan::{ImageKey, Plan};

impl Lowerer<'_> {
    /// Finds the stages that the target needs, and the images that they name.
    pub(super) fn survey(&mut self, target: usize) -> Result<(), Diagnostic> {
        let mut open = vec![target];
        while let Some(at) = open.pop() {
            if self.graph.visit(at) {
                self.mark(at)?;
                open.extend(self.graph.needs(at));
            }
        }
        Ok(())
    }

    /// The stages that the target needs, itself included, each behind those it needs itself.
    pub(super) fn order(&self, target: usize) -> Result<Vec<usize>, Diagnostic> {
        self.graph.order(target).map_err(|circle| {
            let name = |at: &usize| match &self.file.stages[*at].name {
                Some(name) => name.clone(),
                None => format!("stage {at}"),
            };
            let names: Vec<String> = circle.iter().chain(circle.first()).map(name).collect();
            let message = format!("these stages need each other: {}", names.join(" -> "));
            let span = self.file.stages[circle.first().copied().unwrap_or(target)].span;
            Diagnostic::error("stages-in-circle", message, span)
        })
    }

    /// Lowers every stage that the target needs. If a variable names a stage that is not lowered
    /// yet, lowering starts again with what is known then.
    pub(super) fn all(&mut self, target: usize) -> Result<(), Vec<Diagnostic>> {
        loop {
            let mut problems = Vec::new();
            for index in self.order(target).map_err(|d| vec![d])? {
                match self.stage(index) {
                    Ok(Some(state)) => drop(self.stages.insert(index, state)),
                    Ok(None) => {}
                    Err(diagnostic) => problems.push(diagnostic),
                }
            }
            if !problems.is_empty() {
                problems.sort_by_key(|problem| problem.span.start);
                return Err(problems);
            }
            if !std::mem::take(&mut self.late) {
                return Ok(());
            }
            self.plan = Plan::default();
            self.also.clear();
            self.stages.clear();
            self.images.clear();
            let found: Vec<usize> = self.graph.unvisited().collect();
            found.into_iter().try_for_each(|at| self.survey(at)).map_err(|d| vec![d])?;
        }
    }

    /// The stage that the base of stage `at` means: one before it.
    pub(super) fn base_stage(&self, name: &str, at: usize) -> Option<usize> {
        self.other(name, at).filter(|other| *other < at)
    }

    /// The other stage that stage `at` means by a name or an index: one before it rather than
    /// one behind it.
    pub(super) fn other(&self, name: &str, at: usize) -> Option<usize> {
        if self.request.named_context(name).is_some() {
            return None;
        }
        let stages = &self.file.stages;
        let named = |stage: &Stage| {
            stage.name.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name))
        };
        let behind = || Some(at + 1 + stages[at + 1..].iter().position(named)?);
        let by_index = || index(name).filter(|index| *index < stages.len() && *index != at);
        stages[..at].iter().rposition(named).or_else(behind).or_else(by_index)
    }

    /// Notes the stages that stage `at` needs, and asks for the images that it names.
    fn mark(&mut self, at: usize) -> Result<(), Diagnostic> {
        let stage = &self.file.stages[at];
        let base = self.global.expand(&stage.base)?;
        let base_stage = self.base_stage(&base, at);
        let mut names: Vec<String> = stage.after.iter().map(|word| word.text.clone()).collect();
        for instruction in &stage.instructions {
            sources(&instruction.kind, &mut names);
        }
        for trigger in self.triggers(at, base_stage, &base)? {
            sources(&trigger.kind, &mut names);
        }
        match base_stage {
            Some(stage) => {
                self.graph.add(at, stage);
            }
            None if self.is_image(&base, at) => self.ask(base, self.platform(at)?),
            None => {}
        }
        for name in names {
            if let Some(stage) = self.other(&name, at) {
                self.graph.add(at, stage);
            } else if self.is_image(&name, at) && index(&name).is_none() {
                self.ask(name, self.target.clone());
            }
        }
        Ok(())
    }

    /// Asks for an image at once, so that all are resolved together.
    fn ask(&mut self, name: String, platform: Platform) {
        let key = ImageKey { name, platform };
        if !self.resolved.images.contains_key(&key) {
            self.needs.push(key);
        }
    }
}

/// The number of a stage.
pub(super) fn index(name: &str) -> Option<usize> {
    name.parse().ok().filter(|_| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The stages or images an instruction reads, as it names them.
fn sources(kind: &InstructionKind, names: &mut Vec<String>) {
    match kind {
        InstructionKind::Copy(copy) => names.extend(copy.from.iter().map(|word| word.text.clone())),
        InstructionKind::Run(run) => {
            // What a variable stands for is not known yet.
            let unknown = |_: &str| Some("$".to_owned());
            for mount in &run.mounts {
                let Ok(mount) = Mount::parse(mount, &unknown) else { continue };
                if let MountKind::Bind { from, .. } | MountKind::Cache { from, .. } = mount.kind {
                    names.extend(from);
                }
            }
        }
        _ => {}
    }
}
