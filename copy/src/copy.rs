use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use image::{Descriptor, Tag};
use task::{Cause, Fault, Kind, Task};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::blob::{FaultCell, Metering, Watch};
use crate::plan::{Leaf, Part};
use crate::resolved::{Resolved, relabelled};
use crate::select::{self, Choice};
use crate::stop::Stop;
use crate::{
    Blob, CopyOptions, Error, Gate, Open, Origin, Plan, Result, Side, Sink, Source, attached,
    gzip_index, left, recompress,
};

/// How long what is in flight may take to notice that it should stop.
const GRACE: Duration = Duration::from_secs(3);
/// Bytes, or a part of a blob, after which a broken transfer counts as the first.
const PROGRESS: u64 = 1 << 20;
const PART: u64 = 20;
/// Existence checks in flight at a time, at least; they carry no content.
const CHECKS: usize = 16;

/// Copies an image, an index or an artifact from one place to another and gives back the
/// descriptor it has there. What the destination has already is not sent again; a copy that has
/// nothing to do takes one question to each end.
///
/// # Errors
/// As [`Plan::new`] and [`Plan::execute`].
pub async fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    gate: &dyn Gate,
    options: &CopyOptions,
    task: &Task,
) -> Result<Descriptor> {
    match copy_named(source, sink, gate, options, task).await {
        Err(error) => match relabelled(&error) {
            Some(named) => {
                let source = Resolved::new(source, named);
                Box::pin(copy_named(&source, sink, gate, options, task)).await
            }
            None => Err(error),
        },
        copied => copied,
    }
}

async fn copy_named(
    source: &dyn Source,
    sink: &dyn Sink,
    gate: &dyn Gate,
    options: &CopyOptions,
    task: &Task,
) -> Result<Descriptor> {
    let stop = Stop::new(task);
    let ends = async {
        let named = source.seal(task);
        let named = named.map(|n| n.map_err(Error::resolve));
        let current = sink.current();
        let current = current.map(|c| c.map_err(Error::resolve));
        futures::try_join!(named, current)
    };
    let opening = async {
        let (named, current) = ends.await?;
        let choice = select::choose(source, &named, &options.select).await?;
        Ok::<_, Error>((named, current, choice))
    };
    let (named, current, mut choice) = tokio::select! {
        biased;
        () = stop.wait() => return Err(Error::Cancelled),
        opened = opening => opened?,
    };
    keeps_digest(source, &named, options).await?;
    if named.digest == choice.root.digest {
        select::check_platform(source, &choice, &options.only_for).await?;
    }
    choice.root.annotations.extend(options.entry.clone());
    accepts(sink, &choice.root)?;
    check_gate(source, gate, &named, &choice, task).await?;
    keep_index(source, sink, &named, &choice).await?;
    if let Some(how) = &options.recompress {
        let (source, options) = recompress::for_copy(source, options, how, task).await?;
        return Box::pin(copy(&source, sink, &Open, &options, task)).await;
    }
    if options.gzip_index {
        return with_indexes(source, sink, options, task).await;
    }
    let chosen = choice.root.digest;
    let ends = Ends { source, sink, options, task };
    let root = ends.bring(named.clone(), current, choice, stop).await?;
    left::tell(&ends, &named, chosen).await;
    Ok(root)
}

/// Copies an image whose gzip layers get indexes.
async fn with_indexes(
    source: &dyn Source,
    sink: &dyn Sink,
    options: &CopyOptions,
    task: &Task,
) -> Result<Descriptor> {
    let indexed = gzip_index::for_copy(source, sink, options, task).await?;
    let copying = copy(&indexed.image.overlay, sink, &Open, &indexed.options, task);
    let root = Box::pin(copying).await?;
    indexed.attach(sink, task).await?;
    Ok(root)
}

/// What a copy is between.
pub(crate) struct Ends<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) options: &'a CopyOptions,
    pub(crate) task: &'a Task,
}

impl Ends<'_> {
    /// Brings what was chosen, with what is attached to it.
    async fn bring(
        &self,
        named: Descriptor,
        current: Option<Descriptor>,
        choice: Choice,
        stop: Stop,
    ) -> Result<Descriptor> {
        let Ends { source, sink, options, task } = self;
        let whole = options.format.is_none_or(|format| is_already(&choice.root, format));
        let entry =
            |at: &Descriptor| options.entry.iter().all(|(k, v)| at.annotations.get(k) == Some(v));
        let there =
            whole && current.is_some_and(|at| at.digest == choice.root.digest && entry(&at));
        let choice = match options.digest_tags || (there && options.referrers) {
            true => attached::open(*source, choice, &stop).await?,
            false => choice,
        };
        if there {
            return self.bring_attached(named, choice, stop).await;
        }
        let other = choice.clone();
        let plan = async {
            match whole && !options.referrers {
                false => walk(*source, named, other, options, &stop).await.map(Ok),
                true => match rename(*source, *sink, other, &stop).await? {
                    Ok(root) => Ok(Err(root)),
                    Err(choice) => walk(*source, named, choice, options, &stop).await.map(Ok),
                },
            }
        };
        let (tags, plan) = futures::try_join!(self.tags(&choice, &stop), plan)?;
        let tags = match &plan {
            Ok(plan) => attached::that_hold(tags, plan, task),
            Err(_) => tags,
        };
        attached::copy_tags(*source, *sink, &tags, options, task).await?;
        match plan {
            Ok(plan) => plan.run(*source, *sink, options, task, stop, false).await,
            Err(root) => Ok(root),
        }
    }

    /// The same where the destination has the image under its name already.
    async fn bring_attached(
        &self,
        named: Descriptor,
        choice: Choice,
        stop: Stop,
    ) -> Result<Descriptor> {
        let Ends { source, sink, options, task } = self;
        let referred = async {
            match options.referrers {
                true => attached::any_missing(*source, *sink, &choice, options, &stop).await,
                false => Ok(false),
            }
        };
        let (tags, referred) = futures::try_join!(self.tags(&choice, &stop), referred)?;
        attached::copy_tags(*source, *sink, &tags, options, task).await?;
        if !referred {
            task.note(format!("{} is there already", choice.root.digest));
            return Ok(choice.root);
        }
        let plan = walk(*source, named, choice, options, &stop).await?;
        plan.run(*source, *sink, options, task, stop, true).await
    }

    /// The derived tags that the copy includes.
    async fn tags(&self, choice: &Choice, stop: &Stop) -> Result<Vec<Tag>> {
        match self.options.digest_tags {
            true => attached::tags(self.source, choice, self.options.signatures, stop).await,
            false => Ok(Vec::new()),
        }
    }
}

async fn walk(
    source: &dyn Source,
    named: Descriptor,
    choice: Choice,
    options: &CopyOptions,
    stop: &Stop,
) -> Result<Plan> {
    tokio::select! {
        biased;
        () = stop.wait() => Err(Error::Cancelled),
        plan = Plan::walk(source, named, choice, options) => plan,
    }
}

/// Refuses a source that has the image only taken apart, where digests must stay.
async fn keeps_digest(
    source: &dyn Source,
    named: &Descriptor,
    options: &CopyOptions,
) -> Result<()> {
    if !options.preserve_digests {
        return Ok(());
    }
    let original = source.original().await;
    let original = original.map_err(Error::at("finding the digest it had", Side::Source))?;
    match original.filter(|original| *original != named.digest) {
        Some(original) => Err(Error::WouldChange {
            reason: format!("the source keeps {original} unpacked, without its compressed layers"),
        }),
        None => Ok(()),
    }
}

/// Gives a place that keeps it the index that the image was chosen from.
async fn keep_index(
    source: &dyn Source,
    sink: &dyn Sink,
    named: &Descriptor,
    choice: &Choice,
) -> Result<()> {
    let chosen = named.media_type.is_index() && choice.root.digest != named.digest;
    if !chosen || !sink.keeps_index() {
        return Ok(());
    }
    let index = select::node(source, named).await?;
    let put = sink.put(named, Blob::of_node(&index)).await;
    put.map_err(Error::at(format!("writing {}", named.digest), Side::Destination))
}

fn accepts(sink: &dyn Sink, root: &Descriptor) -> Result<()> {
    if sink.capabilities().indexes || !root.media_type.is_index() {
        return Ok(());
    }
    let (digest, place) = (root.digest, "a place of single images".to_owned());
    let action = "writing an index of several platforms".to_owned();
    let at = Error::at(format!("writing {digest}"), Side::Destination);
    Err(at(Error::Unsupported { action, place }.into()))
}

/// Whether a root is certainly of this family without looking at what is below it.
fn is_already(root: &Descriptor, format: crate::Format) -> bool {
    root.media_type.is_manifest()
        && root.media_type.is_docker() == (format == crate::Format::Docker)
}

/// Passes when the gate accepts what the name points at, or else what was chosen from it.
///
/// # Errors
/// [`Error::Gate`] when it accepts neither.
pub async fn permit(
    source: &dyn Source,
    gate: &dyn Gate,
    named: &Descriptor,
    chosen: &Descriptor,
    task: &Task,
) -> Result<()> {
    let choice = Choice { root: chosen.clone(), node: None, made: false };
    check_gate(source, gate, named, &choice, task).await
}

async fn check_gate(
    source: &dyn Source,
    gate: &dyn Gate,
    named: &Descriptor,
    choice: &Choice,
    task: &Task,
) -> Result<()> {
    let Err(first) = gate.check(source, named, task).await else { return Ok(()) };
    let (chosen, made) = (&choice.root, choice.made);
    let refuse = |source| Error::Gate { digest: named.digest, source };
    if made || chosen.digest == named.digest || first.kind() == Kind::Cancelled {
        return Err(refuse(first));
    }
    gate.check(source, chosen, task).await.map_err(|_| refuse(first))
}

/// Where the destination has the root already: names it. Otherwise gives back the choice with
/// its document, which was read meanwhile.
async fn rename(
    source: &dyn Source,
    sink: &dyn Sink,
    choice: Choice,
    stop: &Stop,
) -> Result<Result<Descriptor, Choice>> {
    let root = &choice.root;
    let at = || Error::at(format!("writing {}", root.digest), Side::Destination);
    let there = async { stop.guard(sink.contains(root)).await.map_err(at()) };
    let read = async {
        match &choice.node {
            Some(node) => Ok(node.clone()),
            None => tokio::select! {
                biased;
                () = stop.wait() => Err(Error::Cancelled),
                node = select::node(source, root) => node,
            },
        }
    };
    let (there, node) = futures::try_join!(there, read)?;
    if there {
        match stop.guard(sink.publish(root, node.bytes().clone())).await {
            Ok(()) => return Ok(Ok(choice.root)),
            Err(cause) if cause.kind() == Kind::NotFound => {}
            Err(cause) => return Err(at()(cause)),
        }
    }
    Ok(Err(Choice { node: Some(node), ..choice }))
}

impl Plan {
    /// Asks the gate, then moves what the destination lacks, then publishes.
    ///
    /// # Errors
    /// [`Error::Gate`] when the image may not be used, [`Error::Place`] when an end fails,
    /// [`Error::Cancelled`].
    pub async fn execute(
        &self,
        source: &dyn Source,
        sink: &dyn Sink,
        gate: &dyn Gate,
        options: &CopyOptions,
        task: &Task,
    ) -> Result<Descriptor> {
        let stop = Stop::new(task);
        accepts(sink, self.root())?;
        permit(source, gate, &self.named, &self.chosen, task).await?;
        self.run(source, sink, options, task, stop, false).await
    }

    async fn run(
        &self,
        source: &dyn Source,
        sink: &dyn Sink,
        options: &CopyOptions,
        task: &Task,
        stop: Stop,
        there: bool,
    ) -> Result<Descriptor> {
        for (referrer, subject) in &self.gone {
            task.warn(format!("the referrer {referrer} of {subject} is listed but missing"));
        }
        for digest in &self.left {
            task.warn(format!(
                "the referrers of {digest} stay behind: the copy has another digest"
            ));
        }
        let run = Execution {
            plan: self,
            source,
            sink,
            options,
            task,
            stop,
            origin: source.origin(),
            transfers: Semaphore::new(options.concurrency.max(1)),
            there,
        };
        run.all().await?;
        Ok(self.root().clone())
    }
}

struct Execution<'a> {
    plan: &'a Plan,
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    options: &'a CopyOptions,
    task: &'a Task,
    stop: Stop,
    origin: Origin,
    transfers: Semaphore,
    /// Whether the destination's name points at the root already.
    there: bool,
}

impl Execution<'_> {
    async fn all(&self) -> Result<()> {
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
            let metering = Metering::new(self.task.sized(name, descriptor.size));
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
    async fn send(&self, leaf: &Leaf, metering: &Metering) -> Result<()> {
        let step = PROGRESS.max(leaf.descriptor.size / PART);
        let (mut attempt, mut reached) = (1, 0);
        let mut until = Instant::now() + self.options.patience;
        loop {
            let before = metering.passed();
            let error = match self.send_once(leaf, metering).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let came = metering.passed() - before;
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
            metering.note(format!("trying again ({attempt} of {}): {why}", self.options.attempts));
        }
    }

    async fn send_once(&self, leaf: &Leaf, metering: &Metering) -> Result<()> {
        let descriptor = &leaf.descriptor;
        let what = format!("{} {}", leaf.role.as_str(), descriptor.digest);
        let fetched = self.stop.guard(self.source.fetch(descriptor)).await;
        let unverified = fetched.map_err(Error::at(format!("reading {what}"), Side::Source))?;
        let fault = FaultCell::default();
        let watch = Watch {
            metering: metering.clone(),
            fault: fault.clone(),
            stop: Box::pin(self.stop.wait()),
        };
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
                    self.settle(self.sink.refer(subject, &part.descriptor, document)).await
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
        let write = || self.settle(self.sink.publish(&root.descriptor, root.bytes.clone()));
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
