use futures::FutureExt;
use image::{Descriptor, Tag};
use task::{Kind, Task};
use tokio::sync::Semaphore;

use crate::execution::Execution;
use crate::resolved_source::{ResolvedSource, relabelled};
use crate::select::{self, Choice};
use crate::stop::Stop;
use crate::{
    Blob, CopyOptions, Error, Gate, Open, Plan, Result, Side, Sink, Source, attached, gzip_index,
    left, recompress,
};

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
                let source = ResolvedSource::new(source, named);
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
    let ends = CopyEndpoints { source, sink, options, task };
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

/// The source and the sink of a copy, and how it goes.
pub(crate) struct CopyEndpoints<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) options: &'a CopyOptions,
    pub(crate) task: &'a Task,
}

impl CopyEndpoints<'_> {
    /// Brings what was chosen, with what is attached to it.
    async fn bring(
        &self,
        named: Descriptor,
        current: Option<Descriptor>,
        choice: Choice,
        stop: Stop,
    ) -> Result<Descriptor> {
        let CopyEndpoints { source, sink, options, task } = self;
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
                true => match rename((*source, *sink), other, &stop, task).await? {
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
        let CopyEndpoints { source, sink, options, task } = self;
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
    (source, sink): (&dyn Source, &dyn Sink),
    choice: Choice,
    stop: &Stop,
    task: &Task,
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
        match stop.guard(sink.publish(root, node.bytes().clone(), task)).await {
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
