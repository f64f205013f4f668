use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use task::{Event, Observer, TaskId};

/// Tells the developers' log what happens to tasks, and passes it on.
pub(crate) struct TaskLogger {
    shown: Arc<dyn Observer>,
    tasks: Mutex<HashMap<TaskId, (String, Instant)>>,
}

impl TaskLogger {
    /// Passes everything on to `shown`.
    pub(crate) fn new(shown: Arc<dyn Observer>) -> TaskLogger {
        TaskLogger { shown, tasks: Mutex::default() }
    }

    fn tell(&self, event: &Event) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |id: &TaskId, tasks: &HashMap<TaskId, (String, Instant)>| {
            tasks.get(id).map(|(name, _)| name.clone()).unwrap_or_default()
        };
        match event {
            Event::Started { id, parent, name, .. } => {
                let within = parent.map(|parent| known(&parent, &tasks)).unwrap_or_default();
                tracing::debug!(task = name, within, "started");
                tasks.insert(*id, (name.clone(), Instant::now()));
            }
            Event::Began { id } => {
                if let Some((name, start)) = tasks.get_mut(id) {
                    tracing::debug!(task = name, waited = ?start.elapsed(), "began");
                    *start = Instant::now();
                }
            }
            Event::Output { id, bytes } => {
                let text = String::from_utf8_lossy(bytes);
                tracing::trace!(task = known(id, &tasks), ?text, "output");
            }
            Event::Warned { id, message } => {
                tracing::debug!(task = known(id, &tasks), message, "warned");
            }
            Event::Noted { id, message } => {
                tracing::debug!(task = known(id, &tasks), note = message, "noted");
            }
            Event::Finished { id, outcome } => {
                if let Some((name, start)) = tasks.remove(id) {
                    let outcome = outcome.as_str();
                    tracing::debug!(task = name, outcome, took = ?start.elapsed(), "finished");
                }
            }
        }
    }
}

impl Observer for TaskLogger {
    fn event(&self, event: Event) {
        self.tell(&event);
        self.shown.event(event);
    }
}
