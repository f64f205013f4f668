//! Several plans as one: steps that are the same are done once.

use std::collections::BTreeMap;

use super::{Plan, Step, StepId, Target};

impl Plan {
    /// The steps that a result depends on, including every layer of the images and the steps that
    /// must succeed.
    pub fn wanted(&self) -> Vec<StepId> {
        let each = |target: &'_ Target| -> Vec<StepId> {
            let layers = target.image.history.iter().filter_map(|item| item.layer);
            target.step.iter().chain(&target.also).copied().chain(layers).collect()
        };
        self.targets.iter().flat_map(each).collect()
    }

    /// One plan for the targets of all of them, in their order. A step that does the same to the
    /// same as one of an earlier plan is that step.
    pub fn merge(plans: Vec<Plan>) -> Plan {
        let mut plans = plans.into_iter();
        let Some(mut merged) = plans.next() else { return Plan::default() };
        for plan in plans {
            merged.add(plan);
        }
        merged
    }

    fn add(&mut self, plan: Plan) {
        let mut known: BTreeMap<_, Vec<StepId>> = BTreeMap::new();
        for (id, step) in self.steps.iter().enumerate() {
            known.entry((step.parent, step.reads.clone())).or_default().push(StepId(id));
        }
        let mut moved: Vec<StepId> = Vec::new();
        for mut step in plan.steps {
            let new = |id: &mut StepId| *id = moved[id.0];
            step.parent.iter_mut().for_each(new);
            step.reads.iter_mut().for_each(new);
            let alike = known.get(&(step.parent, step.reads.clone()));
            let same = alike.into_iter().flatten().find(|id| same(&self.steps[id.0], &step));
            moved.push(match same {
                Some(id) => *id,
                None => {
                    self.steps.push(step);
                    StepId(self.steps.len() - 1)
                }
            });
        }
        let new = |id: StepId| moved[id.0];
        for mut target in plan.targets {
            target.step = target.step.map(new);
            target.also.iter_mut().for_each(|id| *id = new(*id));
            for item in &mut target.image.history {
                item.layer = item.layer.map(new);
            }
            self.targets.push(target);
        }
        for warning in plan.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

/// Whether two steps on the same inputs are one.
fn same(a: &Step, b: &Step) -> bool {
    a.op == b.op && a.fresh == b.fresh
}
