use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use task::{Event, Meter, Observer, Outcome, TaskId};

use super::text::{Lines, bytes, clean, duration, on_one_line, pace};

/// Nothing is drawn for work that ends within this time.
const PATIENCE: Duration = Duration::from_millis(250);
/// How many lines of a command's output stay visible below it, and are shown again if it fails.
const VISIBLE: usize = 6;
const KEPT: usize = 40;
/// The least room of a name, in characters.
const NAME: usize = 16;

/// The live view: running tasks at the bottom with their meters and the tail of their output,
/// finished ones above as lines that stay.
pub struct Terminal {
    live: Arc<Mutex<Live>>,
    stop: Arc<AtomicBool>,
}

struct Live {
    screen: MultiProgress,
    items: BTreeMap<TaskId, Item>,
    closed: bool,
}

struct Item {
    name: String,
    depth: usize,
    start: Instant,
    meter: Arc<Meter>,
    bar: Option<ProgressBar>,
    tail: VecDeque<String>,
    lines: Lines,
    notes: Vec<String>,
}

impl Terminal {
    /// Draws on standard error and samples meters ten times a second.
    pub fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        let live = Arc::new(Mutex::new(Live { screen, items: BTreeMap::new(), closed: false }));
        let stop = Arc::new(AtomicBool::new(false));
        let (sampled, stopped) = (Arc::clone(&live), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                sampled.lock().unwrap_or_else(PoisonError::into_inner).sample();
            }
        });
        Terminal { live, stop }
    }

    /// Clears the live part; what was printed stays.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.closed = true;
        live.items.clear();
        let _ = live.screen.clear();
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Terminal::new()
    }
}

fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| size.ws_col);
    usize::from(columns).max(20)
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates are constants");
    style
        .progress_chars("━━╌")
        .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "])
}

impl Live {
    fn sample(&mut self) {
        if self.closed {
            return;
        }
        for item in self.items.values_mut().filter(|item| item.depth > 0) {
            if item.bar.is_none() && item.start.elapsed() > PATIENCE {
                item.bar = Some(self.screen.add(ProgressBar::new_spinner()));
            }
            item.draw();
        }
    }

    fn say(&self, line: &str) {
        let _ = self.screen.println(line);
    }

    fn finish(&mut self, id: TaskId, outcome: Outcome) {
        let Some(mut item) = self.items.remove(&id) else { return };
        // Work that broke off before anybody saw it: the error says what there is to say.
        let unseen = item.bar.is_none() && item.tail.is_empty() && item.notes.is_empty();
        if let Some(bar) = item.bar.take() {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
        let idle = item.meter.total().is_none() && !item.name.starts_with('[');
        let silent = outcome == Outcome::Failed || (outcome == Outcome::Reused && idle);
        if item.depth == 0 || (unseen && silent) {
            return;
        }
        if outcome == Outcome::Failed {
            item.tail.extend(item.lines.rest());
            for line in &item.tail {
                self.say(&format!("  \x1b[2m│\x1b[0m {}", clean(line, width() - 4)));
            }
        }
        if item.depth <= 2 {
            self.say(&item.verdict(outcome));
        }
    }
}

impl Item {
    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        let indent = "  ".repeat(self.depth.saturating_sub(1));
        let took = duration(self.start.elapsed());
        match self.meter.total() {
            Some(total) => {
                let position = self.meter.position();
                let mut sizes = format!("{}/{}", bytes(position), bytes(total));
                let pace = pace(position, total, self.start.elapsed());
                // A name, a bar of 16 and 4 blanks have to be on the line, too.
                let room = width().saturating_sub(indent.len() + sizes.len() + 22);
                if !pace.is_empty() && pace.len() + 2 + NAME <= room {
                    sizes = format!("{sizes}  {pace}");
                }
                let room = width().saturating_sub(indent.len() + sizes.len() + 22);
                let name = clean(&self.name, room.max(NAME));
                let text = "{spinner:.cyan} {msg} {bar:16.cyan/dim} {prefix:.dim}";
                bar.set_style(style(&format!("{indent}{text}")));
                bar.set_length(total);
                bar.set_position(position);
                bar.set_prefix(sizes);
                bar.set_message(name);
            }
            None => {
                let room = width().saturating_sub(indent.len() + 30);
                let name = clean(&self.name, room.max(NAME));
                let size = match self.meter.position() {
                    0 => String::new(),
                    position => format!(" {}", bytes(position)),
                };
                let skip = self.tail.len().saturating_sub(VISIBLE);
                let tail = self.tail.iter().skip(skip).map(|line| {
                    let line = clean(line, width().saturating_sub(indent.len() + 6));
                    format!("\n{indent}  \x1b[2m│ {line}\x1b[0m")
                });
                bar.set_style(style(&format!("{indent}{{spinner:.cyan}} {{msg}}")));
                bar.set_message(format!(
                    "{name} \x1b[2m{took}{size}\x1b[0m{}",
                    tail.collect::<String>()
                ));
            }
        }
        bar.tick();
    }

    fn verdict(&self, outcome: Outcome) -> String {
        let indent = "  ".repeat(self.depth.saturating_sub(1));
        let name = clean(&self.name, width().saturating_sub(indent.len() + 24).max(16));
        let took = duration(self.start.elapsed());
        let size = match self.meter.position() {
            0 => String::new(),
            position => format!("{} ", bytes(position)),
        };
        let notes: String =
            self.notes.iter().map(|note| format!(" · {}", clean(note, 60))).collect();
        match outcome {
            Outcome::Done => {
                format!("{indent}\x1b[32m✓\x1b[0m {name} \x1b[2m{size}{took}{notes}\x1b[0m")
            }
            Outcome::Reused if self.name.starts_with('[') => {
                format!("{indent}\x1b[36m●\x1b[0m {name} \x1b[2mcached{notes}\x1b[0m")
            }
            Outcome::Reused => {
                format!("{indent}\x1b[36m●\x1b[0m {name} \x1b[2malready there{notes}\x1b[0m")
            }
            Outcome::Failed => format!("{indent}\x1b[31m✗\x1b[0m {name} \x1b[2m{took}\x1b[0m"),
            Outcome::Cancelled => {
                format!("{indent}\x1b[33m■\x1b[0m {name} \x1b[2mcancelled\x1b[0m")
            }
        }
    }
}

impl Observer for Terminal {
    fn event(&self, event: Event) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.closed {
            return;
        }
        match event {
            Event::Started { id, parent, name, meter } => {
                let parent = parent.and_then(|parent| live.items.get(&parent));
                let depth = parent.map_or(0, |item| item.depth + 1);
                let item = Item {
                    name: on_one_line(&name),
                    depth,
                    start: Instant::now(),
                    meter,
                    bar: None,
                    tail: VecDeque::new(),
                    lines: Lines::default(),
                    notes: Vec::new(),
                };
                live.items.insert(id, item);
            }
            Event::Began { id } => {
                if let Some(item) = live.items.get_mut(&id) {
                    item.start = Instant::now();
                }
            }
            Event::Output { id, bytes } => {
                if let Some(item) = live.items.get_mut(&id) {
                    for line in item.lines.feed(&bytes) {
                        item.tail.push_back(line);
                    }
                    let surplus = item.tail.len().saturating_sub(KEPT);
                    item.tail.drain(..surplus);
                }
            }
            Event::Warned { message, .. } => {
                live.say(&format!("\x1b[33mwarning:\x1b[0m {}", clean(&message, 4000)));
            }
            Event::Noted { id, message } => {
                if let Some(item) = live.items.get_mut(&id) {
                    item.notes.push(message);
                }
            }
            Event::Finished { id, outcome } => live.finish(id, outcome),
        }
    }
}
