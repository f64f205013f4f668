//! Which registry a command is about: a directory, a bucket, or what a configuration file says.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use registry_server::{Bucket, Clock, Config, Files, Options};

use crate::config;
use crate::report::Failure;

/// Where a registry keeps everything, and its configuration
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The directory where images are kept
    #[arg(long, value_name = "DIR", conflicts_with = "s3_bucket")]
    directory: Option<PathBuf>,
    /// The bucket of an S3-compatible store where images are kept; servers may share it
    #[arg(long, value_name = "NAME")]
    s3_bucket: Option<String>,
    /// The URL of a store that is not AWS
    #[arg(long, value_name = "URL", requires = "s3_bucket", env = "AWS_ENDPOINT_URL")]
    s3_endpoint: Option<String>,
    /// The region of the bucket
    #[arg(long, value_name = "REGION", requires = "s3_bucket")]
    s3_region: Option<String>,
    /// What the names of all objects in the bucket begin with
    #[arg(long, value_name = "PREFIX", requires = "s3_bucket")]
    s3_prefix: Option<String>,
    /// Configuration (TOML, see docs/registry.md); flags go before it
    #[arg(long, value_name = "FILE", env = "RBUILD_REGISTRY_CONFIG")]
    config: Option<PathBuf>,
}

/// Reads files where they are.
struct Disk<'a> {
    /// Relative paths in a configuration are meant from its directory.
    home: &'a Path,
}

impl Files for Disk<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.home.join(path))
    }
}

/// What a place says.
pub(super) struct Found {
    pub(super) options: Options,
    pub(super) address: Option<String>,
    pub(super) access_log: Option<bool>,
}

/// Reads a configuration file.
pub(super) fn read(file: &Path) -> Result<Found, Failure> {
    let context = |failure: Failure| failure.context(format!("reading {}", file.display()));
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
    let file_ = config::absolute(file)?;
    let home = file_.parent().unwrap_or(Path::new("/"));
    let parsed = Config::parse(&text).map_err(|error| context(error.into()))?;
    let (address, access_log) = (parsed.address.clone(), parsed.access_log);
    let mut options = parsed.options(&Disk { home }).map_err(|error| context(error.into()))?;
    options.directory = options.directory.map(|directory| home.join(directory));
    Ok(Found { options, address, access_log })
}

impl Place {
    /// What the flags and the configuration say.
    pub(super) fn find(&self) -> Result<Found, Failure> {
        let mut found = match &self.config {
            Some(file) => read(file)?,
            None => Found {
                options: Options {
                    metrics: true,
                    tidying: Some(std::time::Duration::from_secs(3600)),
                    ..Options::default()
                },
                address: None,
                access_log: None,
            },
        };
        let options = &mut found.options;
        if let Some(directory) = &self.directory {
            options.directory = Some(config::absolute(directory)?);
            options.bucket = None;
        }
        if let Some(bucket) = &self.s3_bucket {
            options.directory = None;
            options.bucket = Some(Bucket {
                bucket: bucket.clone(),
                prefix: self.s3_prefix.clone().unwrap_or_default(),
                endpoint: self.s3_endpoint.clone(),
                region: self.s3_region.clone(),
                ..Bucket::default()
            });
        }
        if let Some(bucket) = &mut options.bucket {
            bucket.settings =
                std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect();
        }
        if options.bucket.is_none() && options.directory.is_none() {
            return Err(Failure::usage("it is not said where images are kept")
                .hint("give --directory, --s3-bucket or a --config with [storage]"));
        }
        options.clock = Clock::new(SystemTime::now);
        Ok(found)
    }
}
