//! The whole of a build, from the request to what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use dockerfile::{Diagnostic, Dockerfile, Severity};
use futures::future::try_join_all;
use image::{Image, Reference};
use serde_json::json;
use store::SnapshotId;
use task::{Cause, Task};
use transport::{Location, bridge};

use crate::assemble::{BuildDocuments, Parts, assemble};
use crate::attest;
use crate::cache::{self, CacheOnlyExecutor};
use crate::check;
use crate::context::{self, Contexts};
use crate::engine::Engine;
use crate::error::{ErrorContext, place};
use crate::image_options::{Level, Squash};
use crate::images::{self, Bases};
use crate::input::Input;
use crate::inputs::Inputs;
use crate::job::Build;
use crate::limit::Watch;
use crate::lower::{LoweringResult, lower};
use crate::plan::{ImageKey, Op, Plan, ResolvedImages};
use crate::solve::{Solution, solve};
use crate::squash;
use crate::step::shortened;
use crate::{
    BuildResult, BuiltImage, Dialect, Env, Error, Output, Request, Result, SourceFile, every,
    metadata, output,
};

/// Builds what the request asks for.
///
/// # Errors
/// The first that happened, when everything that was running has ended. [`Error::excerpts`] has
/// the place in the Dockerfile.
pub async fn build(request: Request, env: &Env, task: &Task) -> Result<BuildResult> {
    request.debug.check(&env.store)?;
    let (request, contexts) = context::opened(request, env, task).await?;
    let jobs = request.jobs;
    let file = Arc::new(request.dockerfile.clone());
    let (dockerfile, mut warnings) = parse(&file, &request)?;
    make_bases(&dockerfile, &request, &contexts, &file, env, task).await?;
    let build = planned(&dockerfile, request, contexts, Arc::clone(&file), env, task).await?;
    let found = check::lint(&dockerfile, &build.request, &|name, platform| {
        let key = ImageKey { name: name.to_owned(), platform: platform.clone() };
        Some(build.bases.get(&key)?.image.clone())
    })?;
    if dockerfile.directives.check.error && !found.is_empty() {
        return Err(check::strict(&file, found));
    }
    warnings.extend(found);
    let targets = build.plan.wanted();
    let watch = Watch::start(&build.env.store, task);
    let solved = match build.request.cache.must_hit {
        true => {
            solve(&build.plan, &targets, &CacheOnlyExecutor(Arc::clone(&build)), jobs, task).await
        }
        false => solve(&build.plan, &targets, &Engine(Arc::clone(&build)), jobs, task).await,
    };
    build.contexts.remember();
    if solved.is_ok() {
        build.request.debug.settle(task);
        build.settle();
    }
    let finished = match solved {
        Ok(solved) => finish(&build, &solved, warnings, task).await,
        Err(error) => Err(error),
    };
    build.ledger.layers.join().await;
    let built = watch.end(finished)?;
    cache::give(&build, task).await?;
    Ok(built)
}

/// A build about to be solved.
pub(crate) async fn prepare(request: Request, env: &Env, task: &Task) -> Result<Arc<Build>> {
    let (request, contexts) = context::opened(request, env, task).await?;
    let file = Arc::new(request.dockerfile.clone());
    let (dockerfile, _) = parse(&file, &request)?;
    planned(&dockerfile, request, contexts, file, env, task).await
}

/// What a build takes from elsewhere, found and pinned by content, without building: images are
/// resolved, files downloaded into the store, nothing is executed.
///
/// # Errors
/// As [`crate::build()`].
pub async fn resolve_inputs(request: Request, env: &Env, task: &Task) -> Result<Vec<Input>> {
    let build = prepare(request, env, task).await?;
    let child = Arc::new(task.child("finding the inputs"));
    build.resolve(&child).await?;
    if let Ok(child) = Arc::try_unwrap(child) {
        child.done();
    }
    Ok(build.used())
}

/// Builds the stages that write the archive or layout that a later stage is built on:
/// `FROM --after=STAGE oci-archive:PATH`. What they make must be there before the plan is made.
async fn make_bases(
    dockerfile: &Dockerfile,
    request: &Request,
    contexts: &Arc<Contexts>,
    file: &Arc<SourceFile>,
    env: &Env,
    task: &Task,
) -> Result<()> {
    const FILES: [&str; 4] = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
    let last = dockerfile.stages.len().saturating_sub(1);
    let target = request.target.as_deref().and_then(|name| dockerfile.stage(name));
    let args: Vec<_> = request.build_args.clone().into_iter().collect();
    for at in dockerfile.needed_stages(target.unwrap_or(last), &args) {
        let stage = &dockerfile.stages[at];
        if !FILES.iter().any(|transport| stage.base.text.starts_with(transport)) {
            continue;
        }
        for name in &stage.after {
            let one = Request { target: Some(name.text.clone()), ..request.clone() };
            let file = Arc::clone(file);
            let build = planned(dockerfile, one, Arc::clone(contexts), file, env, task).await?;
            let engine = Engine(Arc::clone(&build));
            solve(&build.plan, &build.plan.wanted(), &engine, request.jobs, task).await?;
            build.ledger.layers.join().await;
        }
    }
    Ok(())
}

async fn planned(
    dockerfile: &Dockerfile,
    mut request: Request,
    contexts: Arc<Contexts>,
    file: Arc<SourceFile>,
    env: &Env,
    task: &Task,
) -> Result<Arc<Build>> {
    // What commands cannot have is refused although the cache may have their results.
    request.run.base.check().during("reading what commands may do")?;
    let inputs = Arc::new(Inputs::new(request.inputs.clone()));
    if request.all_platforms {
        request.platforms =
            every::platforms(dockerfile, &request, env, &file, &inputs, task).await?;
    }
    let (plan, bases) = plan(dockerfile, &request, env, &file, &inputs, task).await?;
    for warning in &plan.warnings {
        task.warn(warning.clone());
    }
    Ok(Arc::new(Build::new(env.clone(), request, contexts, file, plan, bases, inputs)))
}

/// The plan of a build without building: resolves base images, executes nothing.
///
/// # Errors
/// As [`build`].
pub async fn plan_only(request: &Request, env: &Env, task: &Task) -> Result<Plan> {
    let mut request = context::complete(request.clone(), env, task).await?;
    let file = Arc::new(request.dockerfile.clone());
    let (dockerfile, _) = parse(&file, &request)?;
    let inputs = Inputs::new(request.inputs.clone());
    if request.all_platforms {
        request.platforms =
            every::platforms(&dockerfile, &request, env, &file, &inputs, task).await?;
    }
    plan(&dockerfile, &request, env, &file, &inputs, task).await.map(|(plan, _)| plan)
}

fn parse(file: &Arc<SourceFile>, request: &Request) -> Result<(Dockerfile, Vec<Diagnostic>)> {
    let (mut dockerfile, mut diagnostics) = dockerfile::parse(&file.text);
    if request.dialect == Dialect::Buildah {
        // To buildah every word is a name.
        diagnostics.retain(|found| found.rule != "bad-stage-name");
    }
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(Error::Dockerfile { file: Arc::clone(file), diagnostics });
    }
    check::configure(&mut dockerfile, request)?;
    if let (Some(from), Some(first)) = (&request.from, dockerfile.stages.first_mut()) {
        from.clone_into(&mut first.base.text);
    }
    Ok((dockerfile, diagnostics))
}

/// Lowers, and resolves the images that lowering asks for, until it asks no more.
async fn plan(
    dockerfile: &Dockerfile,
    request: &Request,
    env: &Env,
    file: &Arc<SourceFile>,
    inputs: &Inputs,
    task: &Task,
) -> Result<(Plan, Bases)> {
    let mut bases = Bases::new();
    let mut resolved = ResolvedImages::default();
    loop {
        task.check()?;
        let (mut plans, mut needs) = (Vec::new(), BTreeSet::new());
        for platform in &request.platforms {
            let lowered = lower(dockerfile, request, platform, &resolved)
                .map_err(|diagnostics| Error::Dockerfile { file: Arc::clone(file), diagnostics })?;
            match lowered {
                LoweringResult::Plan(plan) => plans.push(*plan),
                LoweringResult::Needs(needed) => needs.extend(needed),
            }
        }
        if needs.is_empty() {
            let plan = Plan::merge(plans);
            for step in &plan.steps {
                if let Op::Image(key) = &step.op {
                    inputs.locate(key, &place(file, step.span.start));
                }
            }
            return Ok((plan, bases));
        }
        let found = needs.iter().map(|key| images::resolve(request, env, inputs, key, task));
        let found = try_join_all(found).await.map_err(|error| placed(error, dockerfile, file))?;
        for (key, base) in needs.iter().zip(found) {
            resolved.images.insert(key.clone(), base.image.clone());
            bases.insert(key.clone(), base);
        }
    }
}

/// Says where the Dockerfile names the image that cannot be had, if it does so literally.
fn placed(error: Error, dockerfile: &Dockerfile, file: &Arc<SourceFile>) -> Error {
    let name = match &error {
        Error::Image { name, .. } | Error::NotPulled { name } | Error::Platform { name, .. } => {
            name.clone()
        }
        Error::Denied { identifier, .. } => {
            let name = identifier.strip_prefix("docker-image://").unwrap_or(identifier);
            let written = |word: &&str| {
                Reference::from_str(word).is_ok_and(|r| r.or_latest().to_string() == name)
            };
            let mut words = file.text.split([' ', '=', ',', '\n']);
            words.find(written).unwrap_or(name).to_owned()
        }
        _ => return error,
    };
    let mut start = 0;
    for line in file.text.split_inclusive('\n') {
        let words = line.split_whitespace().filter(|_| !line.trim_start().starts_with('#'));
        let is_name = |word: &&str| {
            *word == name
                || word
                    .split_once("from=")
                    .is_some_and(|(_, value)| value.split(',').next() == Some(&name))
        };
        if let Some(word) = words.into_iter().skip(1).find(is_name) {
            let at = start + line.find(word).unwrap_or(0);
            let span = dockerfile::Span::new(at, at + word.len());
            let stages = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
            let near = dockerfile::closest(&name, stages.filter(|stage| *stage != name));
            let help = near.map(|near| format!("did you mean the stage {near:?}?"));
            let diagnostic = Diagnostic::error("no-image", error.to_string(), span);
            return Error::Step {
                place: place(file, at),
                instruction: shortened(line.trim()),
                file: Arc::clone(file),
                diagnostic: Box::new(diagnostic.with_help(help)),
                source: Cause::new(error),
            };
        }
        start += line.len();
    }
    error
}

async fn finish(
    build: &Arc<Build>,
    solved: &Solution,
    warnings: Vec<Diagnostic>,
    task: &Task,
) -> Result<BuildResult> {
    let request = &build.request;
    let mut built = BuildResult {
        manifest: None,
        settled: !request.leaves_layers(),
        id: None,
        images: Vec::new(),
        names: Vec::new(),
        pushed: Vec::new(),
        explained: build.explained(),
        steps: solved.keys.len(),
        cached: solved.recalled,
        warnings,
        dockerfile: Arc::clone(&build.file),
        inputs: build.used(),
        exchanges: build.exchanges(),
        time: request.source_date_epoch,
        metadata: json!({}),
    };
    let child = Arc::new(task.child("exporting"));
    if request.makes_image() {
        // The image is not named before everything is on the disk: where its layers are still read
        // and digested, and nothing more is written, the disk starts meanwhile.
        let store = build.env.store.clone();
        let idle = request.leaves_layers() && build.ledger.layers.is_busy();
        let syncing = idle.then(|| bridge::blocking(move || store.sync()));
        let (made, snapshots) = match syncing {
            None => images(build, &child).await?,
            Some(syncing) => {
                let (made, synced) = futures::join!(images(build, &child), syncing);
                synced.during("syncing the store")?;
                made?
            }
        };
        let made = attest::attest(build, made, &child).await?;
        let keep = output::is_kept(build).await?;
        built.names = output::store(build, &made, keep, &child).await?;
        for (image, own) in made.images.iter().zip(&snapshots) {
            output::alias(build, image, own)?;
        }
        for (image, target) in made.images.iter().zip(&build.plan.targets) {
            built.images.push(BuiltImage {
                platform: target.platform.clone(),
                manifest: image.descriptor().clone(),
                id: image.id(),
            });
        }
        for place in &places(request, &made)? {
            output::send(build, &made, place, keep, &child).await?;
            built.pushed.push(place.to_string());
        }
        built.metadata = metadata::of(&made, &built, request.canonical);
        built.manifest = Some(made.root().clone());
        built.id = Some(made.id());
        child.note(made.id().to_string());
    }
    for output in &request.outputs {
        if matches!(output, Output::Files(_) | Output::Tar(_)) {
            output::files(build, output, &child).await?;
        }
    }
    if let Ok(child) = Arc::try_unwrap(child) {
        child.done();
    }
    Ok(built)
}

/// Where the image goes besides the store.
fn places(request: &Request, made: &BuildDocuments) -> Result<Vec<Location>> {
    let mut places: Vec<Location> = Vec::new();
    for output in &request.outputs {
        match output {
            Output::Image(text) => {
                let place = text.parse::<Location>();
                places.push(place.during(format!("reading the output {text:?}"))?);
            }
            Output::ByDigest(name) => places.push(Location::Registry(Reference {
                digest: Some(made.root().digest),
                ..name.clone()
            })),
            Output::Files(_) | Output::Tar(_) | Output::Nothing => {}
        }
    }
    if request.push {
        places.extend(request.tags.iter().cloned().map(Location::Registry));
    }
    Ok(places)
}

/// A base's name, whole where it is one of a registry or the store.
fn base_name(text: &str, store: &store::Store) -> String {
    let read = |default| Reference::parse_with(text, default).map(Reference::or_latest);
    let here = |name: &Reference| matches!(store.resolve(&name.to_string()), Ok(Some(_)));
    let local = read("localhost").ok().filter(here);
    let name = local.or_else(|| read("docker.io").ok());
    name.map_or_else(|| text.to_owned(), |name| name.to_string())
}

/// The annotations that an image has of its base.
fn inherited(request: &Request, base: Option<(String, &Image)>) -> BTreeMap<String, String> {
    let wish = request.image.inherit;
    let Some((name, base)) = base else { return BTreeMap::new() };
    let mut all = match wish.annotations {
        true => base.manifest().annotations.clone(),
        false => BTreeMap::new(),
    };
    if wish.names_base {
        let key = |end: &str| format!("org.opencontainers.image.base.{end}");
        all.insert(key("name"), name);
        all.insert(key("digest"), base.descriptor().digest.to_string());
    }
    all
}

/// Puts together the image of each platform, and their index if there are several. Beside it are
/// the file systems of each image's own layers.
async fn images(
    build: &Arc<Build>,
    task: &Arc<Task>,
) -> Result<(BuildDocuments, Vec<Vec<Option<SnapshotId>>>)> {
    let layers = build.ledger.layers.collect(build, task).await?;
    let times: BTreeMap<_, _> = layers
        .keys()
        .filter_map(|step| build.made(*step).map(|made| (*step, made.created)))
        .collect();
    let request = &build.request;
    let (mut images, mut snapshots) = (Vec::new(), Vec::new());
    for target in &build.plan.targets {
        let layered = squash::layered(build, target, &layers, task).await?;
        let key = target.image.base.as_ref();
        let base = key.map(|key| &build.bases[key].image);
        let named = key.and_then(|key| Some((base_name(&key.name, &build.env.store), base?)));
        let annotations = inherited(request, named);
        let annotations =
            request.image.annotations_over(annotations, Level::Manifest, Some(&target.platform));
        images.push(assemble(&Parts {
            config: &target.image.config,
            base,
            layered: &layered,
            times: &times,
            epoch: request.source_date_epoch,
            now: build.now,
            format: request.format,
            annotations,
            tells_created: request.image.inherit.created,
            omit_history: request.image.omit_history,
            // Layers that became one do not tell their steps.
            cache: cache::inline(build, target).filter(|_| request.image.squash == Squash::None),
        })?);
        let own = layered.history.iter().filter_map(|item| item.layer);
        snapshots.push(own.map(|step| layered.snapshots.get(&step).copied()).collect());
    }
    Ok((BuildDocuments::new(images, request.format, &request.image), snapshots))
}
