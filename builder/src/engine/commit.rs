//! What the store remembers of steps.

use store::{SnapshotId, StepNote, StepRecord};
use task::Task;

use crate::Result;
use crate::error::ErrorContext;
use crate::job::{Build, StepResult};
use crate::plan::StepId;
use crate::plan::key::{Key, KeyBuilder};

impl Build {
    pub(super) fn record(&self, id: StepId, key: Key) -> Result<Option<(Key, StepResult)>> {
        let lookup = |key: Key| self.env.store.step(key.0).during("asking the cache");
        let Some(mut record) = lookup(key)? else { return Ok(None) };
        let mut key = key;
        if let Some(same) = record.note.same {
            key = Key(same);
            match lookup(key)? {
                Some(other) => record = other,
                None => return Ok(None),
            }
        }
        let made = record.snapshot.map(|snapshot| StepResult {
            snapshot: Some(snapshot),
            remote: None,
            created: record.note.created.unwrap_or(0),
            new: false,
        });
        let made = made.filter(|made| self.is_young(id, made.created));
        Ok(made.map(|made| (key, made)))
    }

    pub(super) fn alias(&self, key: Key, same: Key) -> Result<()> {
        if key == same {
            return Ok(());
        }
        let note = StepNote { same: Some(same.0), ..StepNote::default() };
        let record = StepRecord { snapshot: None, layer: None, note };
        self.env.store.record_step(key.0, &record).during("recording a step")
    }

    pub(super) fn commit(
        &self,
        id: StepId,
        key: Key,
        name: Key,
        active: store::Active,
        parent: Option<SnapshotId>,
        task: &Task,
    ) -> Result<()> {
        // A snapshot that is there already would win over what was made just now, so that a
        // step run again on purpose gets a name of its own.
        let mut unique = KeyBuilder::new("snapshot");
        unique.part(name.0.as_bytes());
        unique.part(active.dir().as_os_str().as_encoded_bytes());
        let snapshot = SnapshotId(unique.finish().0);
        crate::limit::fits(&self.env.store, task)?;
        active.commit(snapshot, parent).during("storing the files of a step")?;
        let made =
            StepResult { snapshot: Some(snapshot), remote: None, created: self.now, new: true };
        let note = StepNote {
            created: Some(made.created),
            step: Some(self.step(id).name.clone()),
            same: None,
        };
        let record = StepRecord { snapshot: Some(snapshot), layer: None, note };
        self.env.store.record_step(name.0, &record).during("recording a step")?;
        self.alias(key, name)?;
        self.keep(id, name, made);
        Ok(())
    }
}
