use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use task::{Event, Meter, Observer, Outcome, TaskId};

use super::text::{Lines, bytes, clean, duration, on_one_line, whole};

/// Progress as lines for logs: each task says when it starts (if it lasts), what it prints and how
/// it ended, every line with the task's label in front.
///
/// A log that has had no line for ten seconds gets one that says what is running, and for how long.
pub struct Plain {
    log: Arc<PlainLog>,
    /// After how long without a line a log gets one.
    silence: Duration,
    watched: Once,
}

struct PlainLog {
    live: Mutex<Live>,
    out: Out,
    folding: Option<LogFolding>,
}

/// How the log of a CI service folds the lines of a step.
#[derive(Debug, Clone, Copy)]
pub enum LogFolding {
    /// `::group::` and `::endgroup::` of GitHub Actions.
    GitHub,
    /// `section_start` and `section_end` of GitLab CI, which have the time: this function gives it
    /// in seconds since 1970.
    GitLab(fn() -> u64),
}

impl LogFolding {
    /// The line above the lines of a step, and the line below them. `number` is another one for
    /// each step.
    fn around(self, number: usize, title: &str) -> (String, String) {
        match self {
            LogFolding::GitHub => (format!("::group::{title}"), "::endgroup::".to_owned()),
            LogFolding::GitLab(now) => {
                let section = |what: &str| {
                    format!("\u{1b}[0Ksection_{what}:{}:rbuild_step_{number}\r\u{1b}[0K", now())
                };
                (format!("{}{title}", section("start")), section("end"))
            }
        }
    }
}

/// Where the lines go.
struct Out(Mutex<(Box<dyn Write + Send>, Instant)>);

#[derive(Default)]
struct Live {
    tasks: HashMap<TaskId, Item>,
    started: usize,
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
    /// The lines of a step that is folded, and its number.
    held: Option<(usize, Vec<String>)>,
}

/// A task that is still running after this long is announced before it ends.
const PATIENCE: Duration = Duration::from_millis(250);
/// A log says something at least this often.
const SILENCE: Duration = Duration::from_secs(10);
/// Of so many tasks a log says that they are running.
const SHOWN: usize = 3;

impl Plain {
    /// An observer that writes to `out`, which may be full or gone: nothing depends on it.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Plain::with(out, None, SILENCE)
    }

    fn with(
        out: impl Write + Send + 'static,
        folding: Option<LogFolding>,
        silence: Duration,
    ) -> Self {
        let out = Out(Mutex::new((Box::new(out), Instant::now())));
        let log = Arc::new(PlainLog { live: Mutex::default(), out, folding });
        Plain { log, silence, watched: Once::new() }
    }

    /// The same, with the lines of each step of a build folded once it has ended.
    pub fn folded(out: impl Write + Send + 'static, folding: LogFolding) -> Self {
        Plain::with(out, Some(folding), SILENCE)
    }

    /// Looks from time to time whether the log is silent, as long as it is there.
    fn watch(&self) {
        let (log, silence) = (Arc::downgrade(&self.log), self.silence);
        let watch = move || {
            while let Some(log) = log.upgrade() {
                let mut live = log.live.lock().unwrap_or_else(PoisonError::into_inner);
                let over = live.closed;
                if !over && log.out.silent_for() >= silence {
                    live.say_running(&log.out);
                }
                drop(live);
                if over {
                    return;
                }
                drop(log);
                std::thread::sleep(silence / 10);
            }
        };
        // Without a thread the log is silent, and the work goes on.
        let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(watch);
    }

    /// Prints nothing after this.
    pub fn close(&self) {
        self.log.live.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

impl Out {
    fn say(&self, line: &str) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In one piece, so that lines of several writers do not mix.
        let _ = out.0.write_all(format!("{line}\n").as_bytes());
        out.1 = Instant::now();
    }

    /// For how long there has been no line.
    fn silent_for(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.elapsed()
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
    fn say(&mut self, line: String, out: &Out) {
        match &mut self.held {
            Some((_, held)) => held.push(line),
            None => out.say(&line),
        }
    }

    /// The lines of a step that has ended, folded under its name.
    fn unfold(&mut self, folding: Option<LogFolding>, out: &Out) {
        let (Some(folding), Some((number, held))) = (folding, self.held.take()) else { return };
        // What is one line already needs no fold.
        if let [only] = &held[..] {
            return out.say(only);
        }
        let (above, below) = folding.around(number, &clean(&self.name, 400));
        out.say(&format!("{above}\n{}\n{below}", held.join("\n")));
    }

    /// That it is running, for how long, and how far it is.
    fn running(&self) -> String {
        let (position, took) = (self.meter.position(), duration(self.start.elapsed()));
        let far = match (position, self.meter.total()) {
            (position, Some(total)) => format!(", {} of {}", bytes(position), bytes(total)),
            (0, None) => String::new(),
            (position, None) => format!(", {}", bytes(position)),
        };
        format!("{} running for {took}{far}", self.label)
    }

    fn announce(&mut self, out: &Out) {
        if !self.announced {
            self.announced = true;
            self.say(clean(&self.name, 400), out);
            for note in std::mem::take(&mut self.notes) {
                self.say(format!("{} · {}", self.label, clean(&note, 400)), out);
            }
        }
    }

    fn finish(mut self, outcome: Outcome, folding: Option<LogFolding>, out: &Out) {
        // Work that broke off before anybody heard of it: the error says what there is to say.
        // Work that found nothing to do is not worth a line either, unless it is a step or content.
        let quiet = !self.announced && self.notes.is_empty();
        let idle = self.meter.total().is_none() && !self.label.starts_with('[');
        if quiet && (outcome == Outcome::Failed || (outcome == Outcome::Reused && idle)) {
            return;
        }
        if let Some(rest) = self.lines.rest() {
            self.announce(out);
            self.say(format!("{} | {}", self.label, whole(&rest)), out);
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
            self.say(format!("{} {verdict}", self.label), out);
        } else {
            let notes = self.notes.iter().map(|note| format!(" · {}", clean(note, 400)));
            let notes = notes.collect::<String>();
            self.say(format!("{} · {verdict}{notes}", clean(&self.name, 400)), out);
        }
        self.unfold(folding, out);
    }
}

impl Live {
    /// Says what has been running longest: steps, or the whole where it has none.
    fn say_running(&mut self, out: &Out) {
        let depth = usize::from(self.tasks.values().any(|item| item.depth == 1));
        let mut running: Vec<&Item> =
            self.tasks.values().filter(|item| item.depth == depth).collect();
        running.sort_by_key(|item| item.start);
        for item in running.iter().take(SHOWN) {
            out.say(&item.running());
        }
    }

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
        self.watched.call_once(|| self.watch());
        let mut live = self.log.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.closed {
            return;
        }
        let (out, folding) = (&self.log.out, self.log.folding);
        live.announce_slow(out);
        match event {
            Event::Started { id, parent, name, meter } => {
                let depth = parent
                    .map_or(0, |parent| live.tasks.get(&parent).map_or(1, |item| item.depth + 1));
                live.started += 1;
                let folds = folding.is_some() && depth > 0 && name.starts_with('[');
                let item = Item {
                    held: folds.then(|| (live.started, Vec::new())),
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
                        item.say(format!("{} | {}", item.label, whole(&line)), out);
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
                        item.say(format!("{} · {}", item.label, clean(&message, 400)), out);
                    } else {
                        item.notes.push(message);
                    }
                }
            }
            Event::Finished { id, outcome } => {
                if let Some(item) = live.tasks.remove(&id).filter(|item| item.depth > 0) {
                    item.finish(outcome, folding, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use task::Task;

    use super::*;

    /// Sends each line that is written to it.
    struct LineSender(Sender<String>);

    impl Write for LineSender {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).trim_end().to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The first line that begins so; others are passed over.
    fn line(lines: &Receiver<String>, begin: &str) -> String {
        let found = lines.iter().find(|line| line.starts_with(begin));
        found.expect("a log that is open")
    }

    #[test]
    fn a_silent_log_says_what_is_running() {
        let (sender, lines) = channel();
        let plain = Arc::new(Plain::with(LineSender(sender), None, Duration::from_millis(20)));
        let task = Task::root("copy a b", Arc::clone(&plain) as Arc<dyn Observer>);
        assert!(line(&lines, "copy running for ").ends_with('s'));
        let step = task.child("[1/2] RUN sleep");
        line(&lines, "[1/2] running for ");
        let blob = task.sized("layer 12", 1_000_000);
        blob.advance(400_000);
        assert!(line(&lines, "layer running for ").ends_with(", 400kB of 1.00MB"));
        blob.done();
        step.done();
        task.done();
        plain.close();
        drop(plain);
        // The last sender is the log's, which nobody keeps.
        assert!(lines.iter().all(|line| !line.is_empty()));
    }
}
