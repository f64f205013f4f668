use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use task::{Event, Observer, TaskId};

/// Remembers when each task ran, and writes it down in the end in the trace event format that
/// Chrome and Perfetto show; everything is passed on.
pub struct Trace {
    shown: Arc<dyn Observer>,
    start: Instant,
    tasks: Mutex<Tasks>,
}

struct Tasks {
    file: File,
    running: HashMap<TaskId, RunningTask>,
    ended: Vec<Value>,
}

struct RunningTask {
    name: String,
    /// Microseconds since the start.
    began: u64,
    /// Tasks that run at the same time are shown below each other.
    lane: usize,
}

impl Trace {
    /// Passes everything on to `shown`; the trace goes to `file`.
    pub(crate) fn new(shown: Arc<dyn Observer>, file: File) -> Trace {
        let tasks = Tasks { file, running: HashMap::new(), ended: Vec::new() };
        Trace { shown, start: Instant::now(), tasks: Mutex::new(tasks) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Writes the trace.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn close(&self) -> io::Result<()> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let trace = json!({ "displayTimeUnit": "ms", "traceEvents": tasks.ended });
        writeln!(tasks.file, "{trace}")
    }
}

impl Tasks {
    fn note(&mut self, event: &Event, now: u64) {
        match event {
            Event::Started { id, name, .. } => {
                let taken = |lane: &usize| self.running.values().any(|task| task.lane == *lane);
                let lane = (0..).find(|lane| !taken(lane)).unwrap_or_default();
                self.running.insert(*id, RunningTask { name: name.clone(), began: now, lane });
            }
            Event::Began { id } => {
                if let Some(task) = self.running.get_mut(id) {
                    task.began = now;
                }
            }
            Event::Finished { id, outcome } => {
                let Some(RunningTask { name, began, lane }) = self.running.remove(id) else {
                    return;
                };
                self.ended.push(json!({
                    "name": name, "cat": "task", "ph": "X", "pid": 1, "tid": lane,
                    "ts": began, "dur": now.saturating_sub(began),
                    "args": { "outcome": outcome.as_str() },
                }));
            }
            Event::Output { .. } | Event::Warned { .. } | Event::Noted { .. } => {}
        }
    }
}

impl Observer for Trace {
    fn event(&self, event: Event) {
        let now = self.now();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).note(&event, now);
        self.shown.event(event);
    }
}
