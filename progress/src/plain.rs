use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use task::{Event, Meter, Observer, Outcome, TaskId};

use super::text::{Lines, bytes, clean, duration, on_one_line, whole};

/// Progress as lines for logs: each task says when it starts (if it lasts), what it prints and how
/// it ended, every line with the task's label in front.
pub struct Plain {
    live: Mutex<Live>,
    out: Out,
}

/// Where the lines go.
struct Out(Mutex<Box<dyn Write + Send>>);

#[derive(Default)]
struct Live {
    tasks: HashMap<TaskId, Item>,
    closed: bool,
}

struct Item {
    label: String,
    name: String,
    depth: usize,
    start: Instant,
    meter: Arc<Meter>,
    announced: bool,
    lines: Lines,
    notes: Vec<String>,
}

/// A task that is still running after this long is announced before it ends.
const PATIENCE: Duration = Duration::from_millis(250);

impl Plain {
    /// An observer that writes to `out`, which may be full or gone: nothing depends on it.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Plain { live: Mutex::default(), out: Out(Mutex::new(Box::new(out))) }
    }

    /// Prints nothing after this.
    pub fn close(&self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

impl Out {
    fn say(&self, line: &str) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In one piece, so that lines of several writers do not mix.
        let _ = out.write_all(format!("{line}\n").as_bytes());
    }
}

/// `[2/5]` of `[2/5] RUN make`, or of a name without brackets its first word.
fn label(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &name[..end + 2],
        None => name.split_whitespace().next().unwrap_or("-"),
    }
}

impl Item {
    fn announce(&mut self, out: &Out) {
        if !self.announced {
            self.announced = true;
            out.say(&clean(&self.name, 400));
            for note in self.notes.drain(..) {
                out.say(&format!("{} · {}", self.label, clean(&note, 400)));
            }
        }
    }

    fn finish(mut self, outcome: Outcome, out: &Out) {
        // Work that broke off before anybody heard of it: the error says what there is to say.
        // Work that found nothing to do is not worth a line either, unless it is a step or content.
        let quiet = !self.announced && self.notes.is_empty();
        let idle = self.meter.total().is_none() && !self.label.starts_with('[');
        if quiet && (outcome == Outcome::Failed || (outcome == Outcome::Reused && idle)) {
            return;
        }
        if let Some(rest) = self.lines.rest() {
            self.announce(out);
            out.say(&format!("{} | {}", self.label, whole(&rest)));
        }
        let took = duration(self.start.elapsed());
        let size = match self.meter.position() {
            0 => String::new(),
            position => format!(" {}", bytes(position)),
        };
        let verdict = match outcome {
            Outcome::Done => format!("done{size} in {took}"),
            Outcome::Reused => "already there".to_owned(),
            Outcome::Failed => format!("FAILED after {took}"),
            Outcome::Cancelled => "cancelled".to_owned(),
        };
        let verdict = match (outcome, self.label.starts_with('[')) {
            (Outcome::Reused, true) => "CACHED".to_owned(),
            _ => verdict,
        };
        if self.announced {
            out.say(&format!("{} {verdict}", self.label));
        } else {
            let notes = self.notes.iter().map(|note| format!(" · {}", clean(note, 400)));
            out.say(&format!(
                "{} · {verdict}{}",
                clean(&self.name, 400),
                notes.collect::<String>()
            ));
        }
    }
}

impl Live {
    fn announce_slow(&mut self, out: &Out) {
        for item in self.tasks.values_mut().filter(|item| item.depth == 1) {
            if item.start.elapsed() > PATIENCE {
                item.announce(out);
            }
        }
    }
}

impl Observer for Plain {
    fn event(&self, event: Event) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.closed {
            return;
        }
        let out = &self.out;
        live.announce_slow(out);
        match event {
            Event::Started { id, parent, name, meter } => {
                let depth = parent
                    .map_or(0, |parent| live.tasks.get(&parent).map_or(1, |item| item.depth + 1));
                let item = Item {
                    label: label(&name).to_owned(),
                    name: on_one_line(&name),
                    depth,
                    start: Instant::now(),
                    meter,
                    announced: depth == 0,
                    lines: Lines::default(),
                    notes: Vec::new(),
                };
                live.tasks.insert(id, item);
            }
            Event::Began { id } => {
                if let Some(item) = live.tasks.get_mut(&id) {
                    item.start = Instant::now();
                }
            }
            Event::Output { id, bytes } => {
                if let Some(item) = live.tasks.get_mut(&id) {
                    for line in item.lines.feed(&bytes) {
                        item.announce(out);
                        out.say(&format!("{} | {}", item.label, whole(&line)));
                    }
                }
            }
            Event::Warned { id, message } => {
                let label = live.tasks.get(&id).filter(|item| item.depth > 0);
                let label = label.map(|item| format!("{} ", item.label)).unwrap_or_default();
                out.say(&format!("{label}warning: {}", whole(&message)));
            }
            Event::Noted { id, message } => {
                if let Some(item) = live.tasks.get_mut(&id) {
                    if item.announced && item.depth > 0 {
                        out.say(&format!("{} · {}", item.label, clean(&message, 400)));
                    } else {
                        item.notes.push(message);
                    }
                }
            }
            Event::Finished { id, outcome } => {
                if let Some(item) = live.tasks.remove(&id).filter(|item| item.depth > 0) {
                    item.finish(outcome, out);
                }
            }
        }
    }
}
