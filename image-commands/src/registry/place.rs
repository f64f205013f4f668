//! Which registry a command is about: a directory, a bucket, or what a configuration file says.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use clap::Args;
use options::{Failure, environment};
use registry_server::{Bucket, Clock, Config, Files, Options, Renewal};

/// Storage and configuration of a registry
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Store images in this directory
    #[arg(long, value_name = "DIR", conflicts_with = "s3_bucket")]
    directory: Option<PathBuf>,
    /// Store images in this S3-compatible bucket; several servers can share it
    #[arg(long, value_name = "NAME")]
    s3_bucket: Option<String>,
    /// URL of the S3-compatible service (default: AWS)
    #[arg(long, value_name = "URL", requires = "s3_bucket", env = "AWS_ENDPOINT_URL")]
    s3_endpoint: Option<String>,
    /// Region of the bucket
    #[arg(long, value_name = "REGION", requires = "s3_bucket")]
    s3_region: Option<String>,
    /// Prefix of all object names in the bucket
    #[arg(long, value_name = "PREFIX", requires = "s3_bucket")]
    s3_prefix: Option<String>,
    /// Redirect clients to the bucket for blobs: they get a signed URL, valid for 20 minutes
    #[arg(long, requires = "s3_bucket")]
    s3_redirect: bool,
    /// Read the configuration from this file (TOML, see docs/registry.md); flags take precedence
    #[arg(long, value_name = "FILE", env = "RBUILD_REGISTRY_CONFIG")]
    config: Option<PathBuf>,
}

/// Reads files where they are.
struct Disk<'a> {
    /// Relative paths in a configuration are relative to its directory.
    home: &'a Path,
    /// What was read, and what it was like before.
    read: RefCell<Vec<(PathBuf, Stamp)>>,
}

/// Tells versions of a file apart; `None` where there is none.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

impl Files for Disk<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let path = self.home.join(path);
        self.read.borrow_mut().push((path.clone(), stamp(&path)));
        std::fs::read(path)
    }
}

/// The configuration of a registry to serve.
pub(super) struct ServeConfig {
    pub(super) options: Options,
    pub(super) address: Option<String>,
    pub(super) access_log: Option<bool>,
    /// The configuration and the files it names, as they were.
    files: Vec<(PathBuf, Stamp)>,
}

/// Files that are read again when they change.
struct Watch {
    config: PathBuf,
    known: Vec<(PathBuf, Stamp)>,
    /// The last version seen, if it is not the loaded one.
    moving: Vec<(PathBuf, Stamp)>,
}

impl Watch {
    /// The current configuration, if it changed. It may still be being written: a change is read
    /// once it is the same in two checks.
    fn look(&mut self) -> Result<Option<Options>, String> {
        let now: Vec<_> = self.known.iter().map(|(path, _)| (path.clone(), stamp(path))).collect();
        if now == self.known || now != self.moving {
            self.moving = now;
            return Ok(None);
        }
        match read(&self.config) {
            Ok(found) => {
                self.known = found.files;
                Ok(Some(found.options))
            }
            Err(failure) => {
                self.known = now;
                Err(failure.messages.join(": "))
            }
        }
    }
}

/// Reads a configuration file.
pub(super) fn read(file: &Path) -> Result<ServeConfig, Failure> {
    let context = |failure: Failure| failure.context(format!("reading {}", file.display()));
    let before = stamp(file);
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
    let file_ = environment::absolute(file)?;
    let home = file_.parent().unwrap_or(Path::new("/"));
    let parsed = Config::parse(&text).map_err(|error| context(error.into()))?;
    let (address, access_log) = (parsed.address.clone(), parsed.access_log);
    let disk = Disk { home, read: RefCell::new(vec![(file_.clone(), before)]) };
    let mut options = parsed.options(&disk).map_err(|error| context(error.into()))?;
    options.directory = options.directory.map(|directory| home.join(directory));
    options.proxies = registry_client::Proxies::from_variables(environment::proxies());
    Ok(ServeConfig { options, address, access_log, files: disk.read.into_inner() })
}

impl Place {
    /// What the flags and the configuration say.
    pub(super) fn find(&self) -> Result<ServeConfig, Failure> {
        let mut found = match &self.config {
            Some(file) => read(file)?,
            None => ServeConfig {
                options: Options {
                    metrics: true,
                    tidying: Some(std::time::Duration::from_secs(3600)),
                    ..Options::default()
                },
                address: None,
                access_log: None,
                files: Vec::new(),
            },
        };
        let options = &mut found.options;
        if let Some(directory) = &self.directory {
            options.directory = Some(environment::absolute(directory)?);
            options.bucket = None;
        }
        if let Some(bucket) = &self.s3_bucket {
            options.directory = None;
            options.bucket = Some(Bucket {
                bucket: bucket.clone(),
                prefix: self.s3_prefix.clone().unwrap_or_default(),
                endpoint: self.s3_endpoint.clone(),
                region: self.s3_region.clone(),
                redirect: self.s3_redirect,
                ..Bucket::default()
            });
        }
        if let Some(bucket) = &mut options.bucket {
            bucket.settings =
                std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect();
        }
        if options.bucket.is_none() && options.directory.is_none() {
            return Err(Failure::usage("no storage is configured")
                .hint("give --directory, --s3-bucket or a --config with [storage]"));
        }
        options.clock = Clock::new(SystemTime::now);
        if let Some(config) = &self.config {
            let config = environment::absolute(config)?;
            let watch = Watch { config, known: found.files.clone(), moving: Vec::new() };
            let watch = Mutex::new(watch);
            options.renewal = Some(Renewal::new(move || {
                watch.lock().unwrap_or_else(PoisonError::into_inner).look()
            }));
        }
        Ok(found)
    }
}
