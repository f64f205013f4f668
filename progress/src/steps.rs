use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use task::{Event, Observer, Outcome, TaskId};

use super::text::{Lines, clean, on_one_line, whole};

/// Progress as lines in the form of buildah, which scripts read. A build prints `STEP 2/3: RUN make`,
/// the unchanged output of commands and `--> Using cache`. A copy prints `Getting image source
/// signatures`, `Copying blob`, `Copying config` and `Writing manifest`. Lines of parallel steps do
/// not mix: those of a later step wait until the earlier step has ended.
pub struct Steps(Mutex<StepLog>);

struct StepLog {
    out: Box<dyn Write + Send>,
    tasks: BTreeMap<TaskId, TrackedTask>,
    /// The steps that have printed a line and still run, oldest first, with the lines that wait.
    open: VecDeque<(TaskId, Vec<String>)>,
    /// Whether the running copy has printed its first line.
    copying: bool,
}

struct TrackedTask {
    class: TaskClass,
    name: String,
    lines: Lines,
    /// Whether the heading of the step was printed.
    headed: bool,
}

/// What buildah would call a task.
enum TaskClass {
    Step,
    Pull,
    Blob,
    Config,
    Manifest,
    List,
    /// A task that buildah does not report.
    Other,
}

impl TaskClass {
    /// Tells the class by the name of a task.
    fn of(name: &str) -> TaskClass {
        if let Some((_, instruction)) =
            name.strip_prefix('[').and_then(|name| name.split_once("] "))
        {
            let part = matches!(instruction, "layer" | "linked");
            return if part { TaskClass::Other } else { TaskClass::Step };
        }
        let object =
            |word: &str| name.strip_prefix(word).is_some_and(|rest| rest.starts_with(" sha"));
        match () {
            () if name.starts_with("pulling docker://") => TaskClass::Pull,
            () if object("layer") || object("blob") => TaskClass::Blob,
            () if object("config") => TaskClass::Config,
            () if object("manifest") => TaskClass::Manifest,
            () if object("index") => TaskClass::List,
            () => TaskClass::Other,
        }
    }
}

impl Steps {
    /// An observer that writes to `out`. Errors of `out` are ignored: no work depends on it.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Steps(Mutex::new(StepLog {
            out: Box::new(out),
            tasks: BTreeMap::new(),
            open: VecDeque::new(),
            copying: false,
        }))
    }
}

/// `[builder 2/3] RUN make` as `[builder] STEP 2/3: RUN make`; the number of a stage without a name is left out.
fn heading(name: &str) -> String {
    let inside = name.strip_prefix('[').and_then(|name| name.split_once("] "));
    let Some((place, instruction)) = inside else { return name.to_owned() };
    let number = place.rsplit(' ').next().unwrap_or(place);
    let numbered =
        |word: &str| word.strip_prefix("stage-").is_some_and(|n| n.parse::<u32>().is_ok());
    let stage = place.split(' ').filter(|word| *word != number && !numbered(word));
    match stage.collect::<Vec<_>>().join(" ").as_str() {
        "" => format!("STEP {number}: {instruction}"),
        stage => format!("[{stage}] STEP {number}: {instruction}"),
    }
}

impl StepLog {
    fn write(&mut self, line: &str) {
        // In one piece, so that lines of several writers do not mix.
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
    }

    /// Prints a line of a step, under its heading. It waits while an earlier step runs.
    fn say(&mut self, id: TaskId, line: String) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let mut lines = Vec::new();
        if !std::mem::replace(&mut task.headed, true) {
            lines.push(heading(&task.name));
            self.open.push_back((id, Vec::new()));
        }
        lines.extend((!line.is_empty()).then_some(line));
        let first = self.open.front().is_some_and(|(first, _)| *first == id);
        if first {
            lines.iter().for_each(|line| self.write(line));
        } else if let Some((_, held)) = self.open.iter_mut().find(|(other, _)| *other == id) {
            held.append(&mut lines);
        }
    }

    /// Ends a step: prints the lines that waited for it.
    fn close(&mut self, id: TaskId) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == id) else { return };
        if at > 0 {
            // It stays until its lines are shown.
            return;
        }
        self.open.pop_front();
        while let Some((next, held)) = self.open.front_mut() {
            let (next, held) = (*next, std::mem::take(held));
            held.iter().for_each(|line| self.write(line));
            if self.tasks.contains_key(&next) {
                break;
            }
            self.open.pop_front();
        }
    }

    /// Prints the first line of a copy, once.
    fn copy(&mut self) {
        if !std::mem::replace(&mut self.copying, true) {
            self.write("Getting image source signatures");
        }
    }

    fn started(&mut self, id: TaskId, name: &str) {
        let (name, class) = (clean(&on_one_line(name), 400), TaskClass::of(name));
        if matches!(class, TaskClass::Pull) {
            let image = name.trim_start_matches("pulling docker://");
            let image = image.split('@').next().unwrap_or(image);
            self.write(&format!("Trying to pull {image}..."));
            self.copying = false;
            self.copy();
        }
        self.tasks.insert(id, TrackedTask { class, name, lines: Lines::default(), headed: false });
    }

    fn output(&mut self, id: TaskId, bytes: &[u8]) {
        let lines = self.tasks.get_mut(&id).map(|task| task.lines.feed(bytes)).unwrap_or_default();
        for line in lines {
            self.say(id, whole(&line));
        }
    }

    fn finished(&mut self, id: TaskId, outcome: Outcome) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let rest = task.lines.rest();
        let digest = task.name.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let ended = matches!(outcome, Outcome::Done | Outcome::Reused);
        let begins = task.name.contains("] FROM ");
        match task.class {
            TaskClass::Step if ended || task.headed || rest.is_some() => {
                let cached = outcome == Outcome::Reused && !begins;
                let last = if cached { "--> Using cache".to_owned() } else { String::new() };
                self.say(id, rest.map_or(last, |rest| whole(&rest)));
            }
            TaskClass::Blob if ended => {
                self.copy();
                let skipped =
                    if outcome == Outcome::Reused { " skipped: already exists" } else { "" };
                self.write(&format!("Copying blob {digest}{skipped}"));
            }
            TaskClass::Config if ended => {
                self.copy();
                self.write(&format!("Copying config {digest}"));
            }
            TaskClass::Manifest if ended => {
                self.write("Writing manifest to image destination");
                self.copying = false;
            }
            TaskClass::List if ended => self.write("Writing manifest list to image destination"),
            _ => {}
        }
        self.tasks.remove(&id);
        self.close(id);
    }
}

impl Observer for Steps {
    fn event(&self, event: Event) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { id, name, .. } => log.started(id, &name),
            Event::Output { id, bytes } => log.output(id, &bytes),
            Event::Warned { message, .. } => log.write(&format!("warning: {}", whole(&message))),
            Event::Finished { id, outcome } => log.finished(id, outcome),
            Event::Began { .. } | Event::Noted { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use task::Task;

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn told(work: impl FnOnce(&Task)) -> String {
        let kept = SharedBuffer::default();
        let task = Task::root("build", Arc::new(Steps::new(kept.clone())));
        work(&task);
        task.done();
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn steps_side_by_side_do_not_mix() {
        let text = told(|task| {
            let (a, b) = (task.child("[1/2] RUN a"), task.child("[other 1/1] RUN b"));
            a.output(b"one\ntw");
            b.output(b"three\n");
            b.done();
            a.output(b"o\n");
            task.child("[2/2] layer").done();
            a.done();
            task.child("[linux/arm64 stage-1 2/2] COPY x /").reused();
        });
        let lines = "STEP 1/2: RUN a\none\ntwo\n[other] STEP 1/1: RUN b\nthree\n[linux/arm64] STEP 2/2: COPY x /\n\
                     --> Using cache\n";
        assert_eq!(text, lines);
    }

    #[test]
    fn copies_are_told_as_scripts_expect() {
        let text = told(|task| {
            let pull = task.child("pulling docker://docker.io/library/busybox:latest@sha256:1");
            pull.child("layer sha256:2").done();
            pull.child("layer sha256:3").reused();
            pull.child("config sha256:4").done();
            pull.child("manifest sha256:5").done();
            pull.done();
            task.child("layer").done();
            task.child("layer sha256:6").done();
        });
        let lines = "Trying to pull docker.io/library/busybox:latest...\nGetting image source signatures\n\
                     Copying blob sha256:2\nCopying blob sha256:3 skipped: already exists\n\
                     Copying config sha256:4\nWriting manifest to image destination\n\
                     Getting image source signatures\nCopying blob sha256:6\n";
        assert_eq!(text, lines);
    }

    #[test]
    fn a_step_that_failed_shows_what_it_printed() {
        let text = told(|task| {
            let step = task.child("[2/2] RUN false");
            step.output(b"why");
            drop(step);
            drop(task.child("[2/3] RUN never"));
        });
        assert_eq!(text, "STEP 2/2: RUN false\nwhy\n");
    }
}
