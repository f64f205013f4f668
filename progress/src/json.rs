use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;
use task::{Event, Meter, Observer, TaskId};

/// Progress as one JSON object per line for programs: the stable interface for CI.
///
/// Every object has `t` (seconds since the start), `id` and `event`; see `docs/progress.md`.
pub struct Json {
    start: Instant,
    out: Mutex<Box<dyn Write + Send>>,
    meters: Mutex<HashMap<TaskId, Arc<Meter>>>,
}

impl Json {
    /// An observer whose clock starts now and that writes to `out`, which may be full or gone.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Json { start: Instant::now(), out: Mutex::new(Box::new(out)), meters: Mutex::default() }
    }
}

impl Observer for Json {
    fn event(&self, event: Event) {
        let t = (self.start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let line = match event {
            Event::Started { id, parent, name, meter } => {
                let total = meter.total();
                meters.insert(id, meter);
                let parent = parent.map(|parent| parent.0);
                json!({"t": t, "id": id.0, "parent": parent, "event": "started", "name": name, "total": total})
            }
            Event::Began { id } => json!({"t": t, "id": id.0, "event": "began"}),
            Event::Output { id, bytes } => {
                let text = String::from_utf8_lossy(&bytes);
                json!({"t": t, "id": id.0, "event": "output", "text": text})
            }
            Event::Warned { id, message } => {
                json!({"t": t, "id": id.0, "event": "warned", "message": message})
            }
            Event::Noted { id, message } => {
                json!({"t": t, "id": id.0, "event": "noted", "message": message})
            }
            Event::Finished { id, outcome } => {
                let position = meters.remove(&id).map_or(0, |meter| meter.position());
                json!({"t": t, "id": id.0, "event": "finished", "outcome": outcome.as_str(), "position": position})
            }
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(format!("{line}\n").as_bytes());
    }
}
