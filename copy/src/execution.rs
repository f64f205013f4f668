//! A plan on its way: transfers, existence checks, documents, the name.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use task::{Cause, Fault, Kind, Task};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::blob::{FaultCell, StreamMeter, Watch};
use crate::plan::{Leaf, Part};
use crate::stop::Stop;
use crate::{Blob, CopyOptions, Error, Origin, Plan, Result, Side, Sink, Source};

/// How long what is in flight may take to notice that it should stop.
const GRACE: Duration = Duration::from_secs(3);
/// Bytes, or a part of a blob, after which a broken transfer counts as the first.
const PROGRESS: u64 = 1 << 20;
const PART: u64 = 20;
/// Existence checks in flight at a time, at least; they carry no content.
const CHECKS: usize = 16;

/// A plan on its way: what everything in flight shares.
pub(crate) struct Execution<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) options: &'a CopyOptions,
    pub(crate) task: &'a Task,
    pub(crate) stop: Stop,
    pub(crate) origin: Origin,
    pub(crate) transfers: Semaphore,
    /// Whether the destination's name points at the root already.
    pub(crate) there: bool,
}

impl Execution<'_> {
    /// Moves what the destination lacks, then publishes.
    pub(crate) async fn all(&self) -> Result<()> {
        let parts = &self.plan.parts;
        let present = self.present().await?;
        self.sink.expect(self.plan);
        let mut wanted = vec![false; self.plan.leaves.len()];
        for (part, _) in parts.iter().zip(&present).filter(|(_, present)| !**present) {
            part.leaves.iter().for_each(|leaf| wanted[*leaf] = true);
        }
        let leaves = self.plan.leaves.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let mut leaves: Vec<&Leaf> = leaves.map(|(leaf, _)| leaf).collect();
        leaves.sort_by_key(|leaf| std::cmp::Reverse(leaf.descriptor.size));
        self.together(leaves.into_iter().map(|leaf| self.place_leaf(leaf, false)).collect())
            .await?;
        let mut done = present;
        done[self.plan.root] = true;
        while done.iter().any(|done| !*done) {
            let ready = |part: &Part| part.parts.iter().all(|child| done[*child]);
            let next: Vec<usize> =
                (0..parts.len()).filter(|at| !done[*at] && ready(&parts[*at])).collect();
            let (referrers, children): (Vec<usize>, Vec<usize>) =
                next.iter().partition(|at| parts[**at].subject.is_some());
            let puts = children.iter().map(|at| self.place_part(&parts[*at], false).boxed());
            self.together(puts.collect()).await?;
            // One after the other: a fallback tag is read, changed and written.
            for at in &referrers {
                self.place_part(&parts[*at], false).await?;
            }
            next.into_iter().for_each(|at| done[at] = true);
        }
        match self.there {
            true => Ok(()),
            false => self.publish().await,
        }
    }

    /// Which documents the destination has; what is below those is not looked at.
    async fn present(&self) -> Result<Vec<bool>> {
        let parts = &self.plan.parts;
        let checks = parts.iter().enumerate().map(|(at, part)| async move {
            if at <= self.plan.root && self.there {
                return Ok(true);
            }
            if let Some(subject) = &part.subject {
                let what = format!("listing referrers of {}", subject.digest);
                let listed = self.stop.guard(self.sink.referring(subject)).await;
                let listed = listed.map_err(Error::at(what, Side::Destination))?;
                return Ok(listed.iter().any(|known| known.digest == part.descriptor.digest));
            }
            if at == self.plan.root {
                return Ok(false);
            }
            let at = Error::at(format!("finding {}", part.descriptor.digest), Side::Destination);
            self.stop.guard(self.sink.contains(&part.descriptor)).await.map_err(at)
        });
        let mut present = Vec::with_capacity(parts.len());
        let mut checks = stream::iter(checks).buffered(self.checks());
        while let Some(check) = checks.next().await {
            present.push(check?);
        }
        Ok(present)
    }

    fn checks(&self) -> usize {
        CHECKS.max(self.options.concurrency)
    }

    /// Does all of it, so many at a time; the first failure stops the others, which are waited
    /// for.
    async fn together(&self, work: Vec<BoxFuture<'_, Result<()>>>) -> Result<()> {
        let mut failure = None;
        let mut work = stream::iter(work).buffer_unordered(self.checks());
        while let Some(result) = work.next().await {
            if let Err(error) = result {
                self.stop.trigger();
                if failure.as_ref().is_none_or(|first: &Error| first.kind() == Kind::Cancelled) {
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn place_leaf<'s>(&'s self, leaf: &'s Leaf, force: bool) -> BoxFuture<'s, Result<()>> {
        async move {
            if self.stop.triggered() {
                return Err(Error::Cancelled);
            }
            let descriptor = &leaf.descriptor;
            let name = format!(
                "{} {}:{}",
                leaf.role.as_str(),
                descriptor.digest.algorithm().as_str(),
                descriptor.digest.short()
            );
            let metering = StreamMeter::new(self.task.sized(name, descriptor.size));
            if !force && self.has_or_links(leaf).await? {
                metering.end(Task::reused);
                return Ok(());
            }
            let permit = self.transfers.acquire().await;
            let sent = self.send(leaf, &metering).await;
            drop(permit);
            match sent {
                Ok(()) => metering.end(Task::done),
                Err(error) if may_stay_away(leaf, &error) => {
                    self.task.warn(format!(
                        "the source does not keep layer {}; it is omitted",
                        descriptor.digest
                    ));
                    metering.end(Task::reused);
                }
                Err(error) => return Err(error),
            }
            Ok(())
        }
        .boxed()
    }

    async fn has_or_links(&self, leaf: &Leaf) -> Result<bool> {
        let descriptor = &leaf.descriptor;
        let at = |verb: &str| {
            let what = format!("{verb} {} {}", leaf.role.as_str(), descriptor.digest);
            Error::at(what, Side::Destination)
        };
        let there = self.stop.guard(self.sink.contains(descriptor)).await;
        if there.map_err(at("finding"))? {
            return Ok(true);
        }
        if self.origin == Origin::Elsewhere {
            return Ok(false);
        }
        let linked = self.settle(self.sink.link(descriptor, &self.origin)).await;
        linked.map_err(at("linking"))
    }

    /// Sends a blob as often as it breaks off on the way, but not for longer than the options say
    /// without more of it having come through than before.
    async fn send(&self, leaf: &Leaf, meter: &StreamMeter) -> Result<()> {
        let step = PROGRESS.max(leaf.descriptor.size / PART);
        let (mut attempt, mut reached) = (1, 0);
        let mut until = Instant::now() + self.options.patience;
        loop {
            let before = meter.passed();
            let error = match self.send_once(leaf, meter).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let came = meter.passed() - before;
            if came >= reached + step {
                reached = came;
                attempt = 1;
                until = Instant::now() + self.options.patience;
            }
            let again = error.again()
                && attempt < self.options.attempts
                && Instant::now() < until
                && !self.stop.triggered();
            if !again {
                return Err(error);
            }
            attempt += 1;
            let why = task::chain(&error).join(": ");
            meter.note(format!("trying again ({attempt} of {}): {why}", self.options.attempts));
        }
    }

    async fn send_once(&self, leaf: &Leaf, meter: &StreamMeter) -> Result<()> {
        let descriptor = &leaf.descriptor;
        let what = format!("{} {}", leaf.role.as_str(), descriptor.digest);
        let fetched = self.stop.guard(self.source.fetch(descriptor)).await;
        let unverified = fetched.map_err(Error::at(format!("reading {what}"), Side::Source))?;
        let fault = FaultCell::default();
        let watch =
            Watch { meter: meter.clone(), fault: fault.clone(), stop: Box::pin(self.stop.wait()) };
        let blob = unverified.verify(descriptor).watched(watch);
        let put = self.settle(self.sink.put(descriptor, blob)).await;
        put.map_err(|cause| match fault.take() {
            Some(cause) if cause.kind() == Kind::Cancelled => Error::Cancelled,
            Some(cause) => Error::at(format!("reading {what}"), Side::Source)(cause),
            None => Error::at(format!("writing {what}"), Side::Destination)(cause),
        })
    }

    /// Waits for work of the destination that may be running on a thread. When everything should
    /// stop it is given a while to end by itself, because threads cannot be dropped.
    async fn settle<T>(&self, work: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            () = self.stop.wait() => {}
        }
        match tokio::time::timeout(GRACE, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Cancelled.into()),
        }
    }

    async fn place_part(&self, part: &Part, force: bool) -> Result<()> {
        if self.stop.triggered() {
            return Err(Error::Cancelled);
        }
        let task = self.task.child(part_name(part));
        let write = || async {
            let document = part.bytes.clone();
            match &part.subject {
                Some(subject) => {
                    self.settle(self.sink.refer(subject, &part.descriptor, document, &task)).await
                }
                None => {
                    let blob = Blob::trusted(part.descriptor.digest, document);
                    self.settle(self.sink.put(&part.descriptor, blob)).await
                }
            }
        };
        self.with_children_again(part, write, force).await?;
        task.done();
        Ok(())
    }

    async fn publish(&self) -> Result<()> {
        if self.stop.triggered() {
            return Err(Error::Cancelled);
        }
        let root = &self.plan.parts[self.plan.root];
        let task = self.task.child(part_name(root));
        let write = || self.settle(self.sink.publish(&root.descriptor, root.bytes.clone(), &task));
        self.with_children_again(root, write, false).await?;
        task.done();
        Ok(())
    }

    /// Writes a document. When the destination misses content that it said it had (an earlier
    /// copy was interrupted, a cache lied) the document's children are sent whatever it says,
    /// once.
    async fn with_children_again<F>(
        &self,
        part: &Part,
        write: impl Fn() -> F,
        again: bool,
    ) -> Result<()>
    where
        F: Future<Output = Result<(), Cause>>,
    {
        let what = format!("writing {} {}", kind_of(part), part.descriptor.digest);
        let rejected = match write().await {
            Ok(()) => return Ok(()),
            Err(cause) if cause.kind() == Kind::NotFound && !again => cause,
            Err(cause) => return Err(Error::at(what, Side::Destination)(cause)),
        };
        self.task.note(format!("{}: sending its content again", task::chain(&rejected).join(": ")));
        let leaves = part.leaves.iter().map(|leaf| &self.plan.leaves[*leaf]);
        let leaves = leaves.map(|leaf| self.place_leaf(leaf, true)).collect();
        self.together(leaves).await?;
        for child in &part.parts {
            let child = &self.plan.parts[*child];
            let leaves = child.leaves.iter().map(|leaf| &self.plan.leaves[*leaf]);
            self.together(leaves.map(|leaf| self.place_leaf(leaf, false)).collect()).await?;
            Box::pin(self.place_part(child, true)).await?;
        }
        write().await.map_err(Error::at(what, Side::Destination))
    }
}

/// Layers that licences keep out of registries need not be where the image is.
fn may_stay_away(leaf: &Leaf, error: &Error) -> bool {
    leaf.descriptor.media_type.is_foreign()
        && matches!(error, Error::Place { side: Side::Source, source, .. } if source.kind() == Kind::NotFound)
}

fn kind_of(part: &Part) -> &'static str {
    if part.descriptor.media_type.is_index() { "index" } else { "manifest" }
}

fn part_name(part: &Part) -> String {
    let digest = part.descriptor.digest;
    format!("{} {}:{}", kind_of(part), digest.algorithm().as_str(), digest.short())
}
