//! The flags of `rbuild bud` that are about the cache.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use builder::{BuildResult, CacheFrom, CacheRequest, CacheTo, Surroundings};
use clap::{Args, ValueEnum};
use serde_json::json;

use options::Failure;
use options::environment;
use options::flags::{self, of_flag};

/// Import, export and limits of the cache.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheFlags {
    /// Import the build cache of this image or repository, or type=registry|local|s3|azblob|gha,…
    ///
    /// The forms are type=registry,ref=NAME, type=local,src=DIRECTORY, type=s3,bucket=NAME,region=NAME,
    /// type=azblob,account_url=URL and type=gha.
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Export the build cache to this repository, or type=registry|local|inline|s3|azblob|gha,…
    ///
    /// The forms are those of --cache-from, type=local,dest=DIRECTORY and type=inline. Other keys are
    /// mode=max|min, compression=, mounts= and ignore-error=.
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Run steps again whose result is older than this: 12h, 7d, 500ms
    #[arg(long, value_name = "AGE", value_parser = age)]
    cache_ttl: Option<Duration>,
    /// Limit the size of the store: delete unused build cache, and fail if a build needs more
    /// (default: $RBUILD_STORE_LIMIT)
    #[arg(long, value_name = "SIZE", value_parser = flags::size)]
    disk_limit: Option<u64>,
    /// Fail at the first step that is not cached and show the reason; run nothing
    #[arg(long)]
    fail_if_not_cached: bool,
    /// Show for each step that ran which inputs changed; =json prints JSON instead of the image id
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    explain: Option<ExplainFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExplainFormat {
    Text,
    Json,
}

/// A span of time as everywhere, or as Go has it: `1h30m`, `0.5s`, `0`.
fn age(text: &str) -> Result<Duration, String> {
    flags::age(text).or_else(|refused| dockerfile::duration::parse(text).map_err(|_| refused))
}

impl CacheFlags {
    /// The part of the request.
    pub(super) fn request(&self) -> Result<CacheRequest, Failure> {
        let request = CacheRequest {
            ttl: self.cache_ttl,
            must_hit: self.fail_if_not_cached,
            ..CacheRequest::default()
        };
        caches(request, &self.cache_from, &self.cache_to)
    }

    /// Whether a cache is named: one of elsewhere, or how old results may be.
    pub(super) fn is_named(&self) -> bool {
        let elsewhere = !self.cache_from.is_empty() || !self.cache_to.is_empty();
        elsewhere || self.cache_ttl.is_some() || self.fail_if_not_cached
    }

    /// The bound of the store, if one is given here.
    pub(super) fn limit(&self) -> Option<u64> {
        self.disk_limit
    }

    /// Tells why steps ran, if that was asked for; says whether standard output is used up.
    pub(super) fn explain(&self, built: &BuildResult) -> bool {
        match self.explain {
            None => false,
            Some(ExplainFormat::Text) => {
                if built.explained.is_empty() {
                    eprintln!("no step had to run");
                }
                built.explained.iter().for_each(|step| eprint!("{step}"));
                false
            }
            Some(ExplainFormat::Json) => {
                let id = built.id.map(|id| id.to_string());
                outln!("{}", json!({ "id": id, "cached": built.cached, "ran": built.explained }));
                true
            }
        }
    }
}

/// A request with caches to ask and to fill.
///
/// # Errors
/// One is malformed.
pub(crate) fn caches(
    mut request: CacheRequest,
    from: &[String],
    to: &[String],
) -> Result<CacheRequest, Failure> {
    let here = environment::absolute(Path::new("."))?;
    let variables = services();
    let around = Surroundings { directory: &here, variables: &variables };
    for text in from {
        let from = flags::fields(text).map_err(of_flag("--cache-from", text))?;
        request.from.push(CacheFrom::parse(&from, around).map_err(of_flag("--cache-from", text))?);
    }
    for text in to {
        let to = flags::fields(text).map_err(of_flag("--cache-to", text))?;
        match CacheTo::parse(&to, around).map_err(of_flag("--cache-to", text))? {
            None => request.inline = true,
            Some(to) => request.to.push(to),
        }
    }
    Ok(request)
}

/// What the environment says of the services that keep caches.
fn services() -> BTreeMap<String, String> {
    let known = ["AWS_", "AZURE_", "BUILDKIT_AZURE_", "ACTIONS_"];
    let ours = |(name, _): &(String, String)| known.iter().any(|prefix| name.starts_with(prefix));
    std::env::vars().filter(ours).collect()
}
