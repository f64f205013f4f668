//! The request of a build: what the environment and containers.conf say of one, and what the flags of
//! `rbuild bud` put over that. `lock`, `bake` and `verify-build` make theirs from the same parts.

use app::values::invocation;
use builder::syntax::{self, Inputs, Invocation, Outputs};
use builder::{Attest, Format, ImageOptions, Inherit, Request, RunOptions, Squash, TimeOf};
use clap::ValueEnum;

use super::image_flags::{Epoch, FormatName, epoch};
use super::run_flags::{network, options, wants_proxy};
use super::{Bud, InputFlags, output, pull_flags};
use options::Dialect;
use options::Failure;
use options::container::{MapFlags, SharedFlags};
use options::environment;
use options::flags::{of_flag, wrong_use};

/// The value of a variable of the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The build context and the Dockerfile, as they were named.
///
/// # Errors
/// One of them is not there.
pub(crate) fn inputs(
    context: &str,
    files: &[String],
    cpp_flags: &[String],
    call: &Invocation<'_>,
) -> Result<Inputs, Failure> {
    syntax::inputs(context, files, cpp_flags, std::io::stdin(), call).map_err(wrong_use)
}

/// The request that no flag changes: `run` is what commands get. [`completed`] ends it.
///
/// # Errors
/// A variable has a value that its flag does not take.
pub(crate) fn usual(inputs: Inputs, dialect: Dialect, run: RunOptions) -> Result<Request, Failure> {
    let wrong = |name: &str, why: &str| Failure::usage(format!("${name}: {why}"));
    let format = match variable("BUILDAH_FORMAT") {
        Some(text) => {
            FormatName::from_str(&text, false).map_err(|why| wrong("BUILDAH_FORMAT", &why))?.into()
        }
        None => Format::Oci,
    };
    let layers = match variable("BUILDAH_LAYERS") {
        Some(text) => {
            text.parse().map_err(|_| wrong("BUILDAH_LAYERS", "expected true or false"))?
        }
        None => dialect.layers(),
    };
    let mut request = inputs.request();
    request.sources.search_path = std::env::var_os("PATH").unwrap_or_default();
    Ok(Request {
        dialect: language(dialect),
        image: ImageOptions {
            squash: if layers { Squash::None } else { Squash::New },
            inherit: Inherit {
                annotations: dialect.names_base(),
                names_base: dialect.names_base(),
                ..Inherit::default()
            },
            ..ImageOptions::default()
        },
        network: network(&run.base),
        run,
        format,
        // Until something of the build needs the manifest that will leave the store.
        defer: true,
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
        attest: Attest { version: env!("CARGO_PKG_VERSION").to_owned(), ..Attest::default() },
        ..request
    })
}

/// How Dockerfiles are read where builders differ.
fn language(dialect: Dialect) -> builder::Dialect {
    match dialect {
        Dialect::Buildah | Dialect::Podman => builder::Dialect::Buildah,
        _ => builder::Dialect::BuildKit,
    }
}

/// [`usual`] for a command without flags about what `RUN` gets.
///
/// # Errors
/// As [`usual`]; containers.conf is malformed.
pub(crate) fn plain(inputs: Inputs) -> Result<Request, Failure> {
    usual(inputs, Dialect::spoken(), options(&SharedFlags::default(), &MapFlags::default())?)
}

/// Ends a request: what build arguments ask for, and what the environment says where nothing else
/// does: the time of everything, the policies of inputs, proxies.
///
/// # Errors
/// A variable has a value that its flag does not take; a policy cannot be read.
pub(crate) fn completed(mut request: Request) -> Result<Request, Failure> {
    if request.inputs.policies.is_empty() {
        request.inputs.policies = pull_flags::policies(&pull_flags::usual_policies())?;
    }
    if request.source_date_epoch.is_none() {
        match epoch(request.build_args.get("SOURCE_DATE_EPOCH"))? {
            Epoch::Given(time) => request.source_date_epoch = Some(time),
            Epoch::Of(source) => {
                request.time_of = source;
                if source == TimeOf::Context {
                    // What the Dockerfile sees is the time itself.
                    request.build_args.remove("SOURCE_DATE_EPOCH");
                }
            }
        }
    }
    request.heed_build_args();
    if wants_proxy(&request.run.base) {
        request.proxy = environment::proxies().into_iter().collect();
    }
    if let Some(provenance) = &mut request.attest.provenance {
        provenance.version.clone_from(&request.attest.version);
        // A name for this run that no other has.
        provenance.invocation = task::random_id()[..32].to_owned();
    }
    Ok(request)
}

/// The names of an image and the places it is written to.
///
/// # Errors
/// One is malformed.
pub(crate) fn outputs(
    tags: &[String],
    outputs: &[String],
    call: &Invocation<'_>,
) -> Result<Outputs, Failure> {
    let mut read = Outputs::default();
    for text in tags {
        read.add_tag(text, call).map_err(of_flag("--tag", text))?;
    }
    for text in outputs {
        read.add(text, call).map_err(of_flag("--output", text))?;
    }
    Ok(read)
}

/// Puts them into a request.
///
/// # Errors
/// There is no name to push to; the compression has no such level; annotations have no place.
pub(crate) fn deliver(request: &mut Request, outputs: Outputs, push: bool) -> Result<(), Failure> {
    let flag =
        if outputs.settings.level.is_some() { "compression-level" } else { "--compression-level" };
    outputs.apply(request).map_err(|error| Failure::usage(format!("{flag}: {error}")))?;
    if push && request.tags.is_empty() {
        return Err(Failure::usage("--push: there is no --tag to push to"));
    }
    request.push = push;
    output::has_entry(&request.image, &request.outputs)
}

impl Bud {
    /// What the flags ask for.
    ///
    /// # Errors
    /// They are wrong.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let found = inputs(&self.context, &self.file, &self.cpp_flag, &invocation()?)?;
        self.request_of(&self.context, found, None)
    }

    /// What the flags ask for, of these inputs; `more` is given first, so that the flags decide over
    /// it. Every flag is named here: a new one does not compile until somebody has said whether it is
    /// part of the request.
    ///
    /// # Errors
    /// They are wrong.
    pub(super) fn request_of(
        &self,
        context: &str,
        found: Inputs,
        more: Option<&InputFlags>,
    ) -> Result<Request, Failure> {
        let Bud {
            context: _,
            file,
            tag,
            inputs: own,
            target,
            no_cache,
            no_cache_filter,
            ignorefile,
            manifest,
            metadata_file,
            push,
            output,
            jobs,
            allow,
            image,
            pull,
            compat,
            run_flags,
            maps,
            runtime,
            platforms,
            cache,
            supply,
            debug,
            // Part of the inputs.
            cpp_flag: _,
            // What this process does besides: how it shows the build, what it does with the result,
            // how it reaches registries.
            iidfile: _,
            iidfile_raw: _,
            progress: _,
            quiet: _,
            log_rusage: _,
            rusage_logfile: _,
            trace: _,
            log: _,
            call: _,
            stages: _,
            signing: _,
            secrets: _,
            registry: _,
        } = self;
        compat.check()?;
        let call = invocation()?;
        let dialect = compat.dialect();
        let mut request = usual(found, dialect, options(run_flags, maps)?)?;
        if let Some(file) = ignorefile {
            request.ignore = Some(syntax::source(file)?);
        }
        for given in more.into_iter().chain([own]) {
            given.apply(&mut request, &call)?;
        }
        request.target.clone_from(target);
        request.platforms = platforms.platforms()?;
        request.all_platforms = platforms.all();
        request.drop_volumes = compat.volumes();
        request.keep = compat.load == Some(true) || manifest.is_some();
        let layers = image.layered(request.image.squash == Squash::None);
        image.apply(&mut request, dialect)?;
        image.write_plainly(&mut request, tag, dialect);
        deliver(&mut request, outputs(tag, output, &call)?, *push)?;
        image.unset(&mut request);
        // Compress now if the digest of the manifest is needed.
        request.defer &= metadata_file.is_none() && manifest.is_none();
        let again = dialect.runs_again(layers, cache.is_named());
        (request.no_cache, request.no_cache_filter) = (*no_cache || again, no_cache_filter.clone());
        pull.apply(&mut request)?;
        request.run.other = runtime.other()?;
        request.run.stdin = allow.stdin(self.reads_stdin(context, file))?;
        request.allow = allow.allow()?;
        // Buildah asks for no entitlement.
        request.allow.host_network |= dialect.grants_host_network();
        request.jobs = jobs.filter(|jobs| *jobs > 0).map_or(request.jobs, usize::from);
        request.cache = cache.request()?;
        supply.attest(&mut request.attest)?;
        request = completed(request)?;
        supply.inputs(&mut request, context)?;
        request.debug = debug.request()?;
        if debug.interactive() || request.run.stdin {
            // Nothing else writes to the terminal, or reads what comes in, meanwhile.
            request.jobs = 1;
        }
        Ok(request)
    }

    /// What reads standard input besides commands.
    fn reads_stdin(&self, context: &str, files: &[String]) -> Option<&'static str> {
        if context == "-" {
            Some("the build context")
        } else if files.iter().any(|file| file == "-") {
            Some("--file")
        } else {
            self.debug.interactive().then_some("the shell of --on-failure")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_flags_is_the_usual_request() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        let context = directory.path().display().to_string();
        let found = || inputs(&context, &[], &[], &invocation().unwrap()).unwrap();
        let (bud, _) = Bud::stated(&[]).unwrap();
        let flags = serde_json::to_value(bud.request_of(&context, found(), None).unwrap()).unwrap();
        let usual = serde_json::to_value(completed(plain(found()).unwrap()).unwrap()).unwrap();
        assert_eq!(flags, usual);
    }
}
