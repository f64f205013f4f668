//! Keeping account of why the steps of a build run.

use task::Task;

use super::{Explanation, Facts, FileFact, Reason, ReasonKind, Trace};
use crate::assemble::rfc3339;
use crate::error::place;
use crate::job::{Build, lock};
use crate::plan::key::Key;
use crate::plan::{Op, StepId};
use crate::{Error, Result, why};

/// The most reasons of a step that are shown while it runs.
const NOTED: usize = 5;

impl Build {
    /// Why each step that ran had to, in their order.
    pub(crate) fn explained(&self) -> Vec<Explanation> {
        lock(&self.ledger.explained).values().cloned().collect()
    }

    /// Says why a step has to run, to the user and for later.
    pub(crate) fn explain(
        &self,
        id: StepId,
        inputs: &[Key],
        files: Vec<FileFact>,
        task: &Task,
    ) -> Result<(Facts, Explanation)> {
        let step = self.step(id);
        let origin = self.origin_of(id).ok_or(Error::internal("a step that runs has an origin"))?;
        let facts = why::gather(self, id, inputs, origin, files);
        let expired = lock(&self.ledger.expired).get(&id).copied();
        let reasons = match (step.fresh, expired) {
            (true, _) => {
                let text = "the step runs without the cache";
                vec![Reason::new(ReasonKind::NoCache, None, "refused", text)]
            }
            (false, Some(made)) => {
                let text = format!("its result of {} is too old", rfc3339(made));
                vec![Reason::new(ReasonKind::Expired, None, "expired", text)]
            }
            _ => {
                let elsewhere =
                    self.ledger.remote_facts.get().map(Vec::as_slice).unwrap_or_default();
                let before = why::before(&self.env.store, &self.request, step);
                let before = before.as_ref().or_else(|| Trace::of(step).find(elsewhere));
                why::compare(before, &facts)
            }
        };
        let place = place(&self.file, step.span.start);
        let explanation = Explanation { step: step.name.clone(), place, reasons };
        // In the first build of a Dockerfile every step is new: that needs no line for each.
        let first = |reason: &Reason| {
            reason.kind == ReasonKind::New && !why::knows(&self.env.store, &self.request)
        };
        let noted = explanation.reasons.iter().filter(|reason| !first(reason));
        for reason in noted.take(NOTED) {
            task.note(reason.to_string());
        }
        if explanation.reasons.len() > NOTED {
            task.note(format!("{} more reasons", explanation.reasons.len() - NOTED));
        }
        Ok((facts, explanation))
    }

    /// [`Build::explain`] of a step that runs.
    pub(crate) fn account(
        &self,
        id: StepId,
        inputs: &[Key],
        files: Vec<FileFact>,
        task: &Task,
    ) -> Result<Facts> {
        let (facts, explanation) = self.explain(id, inputs, files, task)?;
        lock(&self.ledger.explained).insert(id, explanation);
        Ok(facts)
    }

    /// Remembers which steps these were, for the next build to compare itself with.
    pub(crate) fn settle(&self) {
        let origins = lock(&self.ledger.origins).clone();
        let own = origins
            .iter()
            .filter(|(id, _)| !matches!(self.step(**id).op, Op::Image(_) | Op::Graft));
        let steps = own.map(|(id, origin)| (self.step(*id), *origin));
        why::settle(&self.env.store, &self.request, steps);
    }
}
