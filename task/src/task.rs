use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Event, Fault, Kind, Meter, Metered, Outcome, TaskId};

/// Hears what happens to tasks. Called on the thread where it happens: be quick, never block.
pub trait Observer: Send + Sync {
    /// One transition.
    fn event(&self, event: Event);
}

/// The observer that hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}

/// The user stopped the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Cancelled {
    /// Whether this I/O error is the one a [`Metered`] stream gives after cancellation.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.downcast_ref::<Cancelled>().is_some())
    }
}

impl Fault for Cancelled {
    fn kind(&self) -> Kind {
        Kind::Cancelled
    }
}

type HookFn = Box<dyn FnOnce() + Send>;

struct TaskTree {
    observer: Arc<dyn Observer>,
    cancelled: AtomicBool,
    next: AtomicU64,
    hooks: Mutex<BTreeMap<u64, HookFn>>,
}

impl TaskTree {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let hooks = std::mem::take(&mut *self.hooks.lock().unwrap_or_else(PoisonError::into_inner));
        for hook in hooks.into_values() {
            hook();
        }
    }
}

/// Stops a whole tree of tasks; cheap to clone, safe to call from any thread and repeatedly.
#[derive(Clone)]
pub struct Canceller(Arc<TaskTree>);

impl Canceller {
    /// From now on every check, metered read and metered write in the tree fails; the hooks run
    /// on this thread, once.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceller")
    }
}

/// Keeps a cancellation hook registered; dropping it takes the hook back.
#[must_use = "the hook is taken back when this is dropped"]
pub struct Hook {
    tree: Arc<TaskTree>,
    id: u64,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.tree.hooks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// One piece of work. Dropped without [`Task::done`] or [`Task::reused`] it counts as failed, or
/// as cancelled when the tree was.
pub struct Task {
    tree: Arc<TaskTree>,
    id: TaskId,
    meter: Arc<Meter>,
    ended: bool,
    /// Whether nothing of it is reported.
    hidden: bool,
    /// What says that it started, if it has not begun.
    waiting: Mutex<Option<Event>>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.id.0)
    }
}

impl Task {
    /// Starts a tree of tasks that reports to `observer`.
    pub fn root(name: impl Into<String>, observer: Arc<dyn Observer>) -> Task {
        let tree = Arc::new(TaskTree {
            observer,
            cancelled: AtomicBool::new(false),
            next: AtomicU64::new(1),
            hooks: Mutex::default(),
        });
        Task::start(tree, None, name.into(), None)
    }

    /// A tree without an observer, for tests and for callers without a user.
    pub fn silent() -> Task {
        Task::root("", Arc::new(Silent))
    }

    /// A part of this task that is not reported: it stops when the task is cancelled. It is for work
    /// inside a part that is reported already. Its own parts are hidden, too.
    pub fn hidden(&self) -> Task {
        let id = TaskId(self.tree.next.fetch_add(1, Ordering::Relaxed));
        let tree = Arc::clone(&self.tree);
        let (meter, waiting) = (Meter::with_total(None), Mutex::default());
        Task { tree, id, meter, ended: false, hidden: true, waiting }
    }

    /// Starts a part of this task.
    pub fn child(&self, name: impl Into<String>) -> Task {
        self.part(name.into(), None)
    }

    /// A part of this task that may have nothing to do: it is reported from [`Task::begin`] on, or from
    /// the first other event. If it fails or is dropped before, it never was.
    pub fn later(&self, name: impl Into<String>) -> Task {
        let (mut task, meter) = (self.hidden(), Meter::with_total(None));
        if !self.hidden {
            self.report();
            let (id, parent, name) = (task.id, Some(self.id), name.into());
            let started = Event::Started { id, parent, name, meter: Arc::clone(&meter) };
            (task.meter, task.hidden, task.waiting) = (meter, false, Mutex::new(Some(started)));
        }
        task
    }

    /// Starts a part of this task whose size is known, in the unit it will be metered in.
    pub fn sized(&self, name: impl Into<String>, total: u64) -> Task {
        self.part(name.into(), Some(total))
    }

    fn part(&self, name: String, total: Option<u64>) -> Task {
        self.report();
        match self.hidden {
            true => self.hidden(),
            false => Task::start(Arc::clone(&self.tree), Some(self.id), name, total),
        }
    }

    fn event(&self, event: Event) {
        if !self.hidden {
            self.report();
            self.tree.observer.event(event);
        }
    }

    /// Reports that it started, if that was put off.
    fn report(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = waiting.take() {
            self.tree.observer.event(started);
        }
    }

    fn start(
        tree: Arc<TaskTree>,
        parent: Option<TaskId>,
        name: String,
        total: Option<u64>,
    ) -> Task {
        let id = TaskId(tree.next.fetch_add(1, Ordering::Relaxed));
        let meter = Meter::with_total(total);
        tree.observer.event(Event::Started { id, parent, name, meter: Arc::clone(&meter) });
        Task { tree, id, meter, ended: false, hidden: false, waiting: Mutex::default() }
    }

    /// Which task this is.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Wraps a reader: its bytes count on this task, and it stops when the task is cancelled.
    pub fn reading<R: io::Read>(&self, inner: R) -> Metered<'_, R> {
        Metered::new(self, inner)
    }

    /// Wraps a writer: its bytes count on this task, and it stops when the task is cancelled.
    pub fn writing<W: io::Write>(&self, inner: W) -> Metered<'_, W> {
        Metered::new(self, inner)
    }

    /// Counts `n` more units as done.
    pub fn advance(&self, n: u64) {
        self.meter.advance(n);
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Cancelled`] once the tree was cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.tree.cancelled.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
    }

    /// Runs `hook` when the tree is cancelled (at once if it was already), to kill a process or
    /// wake a future. The hook is taken back when the returned guard is dropped.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> Hook {
        let id = self.tree.next.fetch_add(1, Ordering::Relaxed);
        let mut hooks = self.tree.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.tree.cancelled.load(Ordering::SeqCst) {
            drop(hooks);
            hook();
        } else {
            hooks.insert(id, Box::new(hook));
        }
        Hook { tree: Arc::clone(&self.tree), id }
    }

    /// What stops this tree.
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.tree))
    }

    /// Says that the work proper begins only now, after waiting for others: how long it takes is
    /// counted from here.
    pub fn begin(&self) {
        self.event(Event::Began { id: self.id });
    }

    /// Passes on what a command wrote.
    pub fn output(&self, bytes: &[u8]) {
        self.event(Event::Output { id: self.id, bytes: bytes.to_vec() });
    }

    /// Tells the user of something that does not stop the work.
    pub fn warn(&self, message: impl Into<String>) {
        self.event(Event::Warned { id: self.id, message: message.into() });
    }

    /// Remarks on this task in one line (a reason, a digest).
    pub fn note(&self, message: impl Into<String>) {
        self.event(Event::Noted { id: self.id, message: message.into() });
    }

    /// Ends the task: the work was done.
    pub fn done(mut self) {
        self.end(Outcome::Done);
    }

    /// Ends the task: the result was there already.
    pub fn reused(mut self) {
        self.end(Outcome::Reused);
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.event(Event::Finished { id: self.id, outcome });
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let outcome = if self.check().is_err() { Outcome::Cancelled } else { Outcome::Failed };
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.ended |= waiting.is_some();
        self.end(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Record(Mutex<Vec<Event>>);

    impl Observer for Record {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    fn outcomes(record: &Record) -> Vec<(u64, Outcome)> {
        let events = record.0.lock().unwrap();
        let finished = events.iter().filter_map(|event| match event {
            Event::Finished { id, outcome } => Some((id.0, *outcome)),
            _ => None,
        });
        finished.collect()
    }

    #[test]
    fn a_dropped_task_failed_and_a_finished_one_did_not() {
        let record = Arc::new(Record::default());
        let root = Task::root("root", record.clone());
        root.child("a").done();
        root.child("b").reused();
        drop(root.child("c"));
        root.done();
        assert_eq!(
            outcomes(&record),
            [(2, Outcome::Done), (3, Outcome::Reused), (4, Outcome::Failed), (1, Outcome::Done)]
        );
    }

    #[test]
    fn a_part_that_is_put_off_is_reported_once_it_begins_and_never_if_it_does_not() {
        let record = Arc::new(Record::default());
        let root = Task::root("root", record.clone());
        drop(root.later("nothing to do"));
        root.later("there already").reused();
        let work = root.later("work");
        work.begin();
        work.child("part").done();
        drop(work);
        let outcomes = outcomes(&record);
        assert_eq!(outcomes, [(3, Outcome::Reused), (5, Outcome::Done), (4, Outcome::Failed)]);
        let started = record.0.lock().unwrap();
        let started = started.iter().filter_map(|event| match event {
            Event::Started { name, .. } => Some(name.as_str()),
            _ => None,
        });
        assert_eq!(started.collect::<Vec<_>>(), ["root", "there already", "work", "part"]);
    }

    #[test]
    fn a_cancelled_reader_stops_and_says_why() {
        let record = Arc::new(Record::default());
        let root = Task::root("root", record.clone());
        let mut reader = root.reading(io::repeat(7));
        let mut buffer = [0; 16];
        assert_eq!(reader.read(&mut buffer).unwrap(), 16);
        root.canceller().cancel();
        assert!(Cancelled::is_in(&reader.read(&mut buffer).unwrap_err()));
        drop(root);
        assert_eq!(outcomes(&record), [(1, Outcome::Cancelled)]);
    }

    #[test]
    fn hooks_run_once_late_hooks_run_at_once_dropped_hooks_never() {
        let task = Task::silent();
        let count = Arc::new(AtomicU64::new(0));
        let bump = |by: u64| {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(by, Ordering::Relaxed);
            }
        };
        let _kept = task.on_cancel(bump(1));
        drop(task.on_cancel(bump(10)));
        task.canceller().cancel();
        task.canceller().cancel();
        let _late = task.on_cancel(bump(100));
        assert_eq!(count.load(Ordering::Relaxed), 101);
    }

    #[test]
    fn a_hidden_part_is_not_reported_and_stops_with_the_task() {
        let record = Arc::new(Record::default());
        let task = Task::root("all", record.clone());
        let before = record.0.lock().unwrap().len();
        let hidden = task.hidden();
        hidden.warn("nobody hears this");
        let inner = hidden.child("inner");
        inner.done();
        assert_eq!(record.0.lock().unwrap().len(), before);
        task.canceller().cancel();
        assert!(hidden.check().is_err());
        drop(hidden);
        assert_eq!(record.0.lock().unwrap().len(), before);
    }
}
