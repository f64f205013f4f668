//! `trust`: the default trusted root and services of keyless verification and signing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sign::TrustedRoot;
use sign::keyless::MAX_TRUSTED_ROOT;
use sign::online::{Http, Services};
use sign::tuf::{self, Kept, Mirror};
use task::Kind;

use super::copy::now;
use super::policy::PolicyCommand;
use super::sign::{GenerateKeyPair, PublicKeyOf, Sign, Verify};
use super::sign_blob::{SignBlob, VerifyBlob};
use super::signer_flags::read_root;
use super::tags::read_bounded;
use crate::app::App;
use crate::config;
use crate::report::Failure;

/// What is kept, and what a mirror calls it.
const TRUSTED_ROOT: &str = "trusted_root.json";
/// What is kept of where to sign.
const SIGNING_CONFIG: &str = "signing_config.json";
/// What a mirror calls that.
const PUBLISHED_CONFIG: &str = "signing_config.v0.2.json";

/// The trust commands of both programs.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    Sign(Sign),
    Verify(Verify),
    #[command(visible_alias = "generate-sigstore-key")]
    GenerateKeyPair(GenerateKeyPair),
    PublicKey(PublicKeyOf),
    SignBlob(SignBlob),
    VerifyBlob(VerifyBlob),
    #[command(subcommand)]
    Trust(Trust),
    #[command(subcommand)]
    Policy(PolicyCommand),
}

impl TrustCommand {
    /// Runs.
    ///
    /// # Errors
    /// Those of the command.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            TrustCommand::Sign(sign) => sign.run(app),
            TrustCommand::Verify(verify) => verify.run(app),
            TrustCommand::GenerateKeyPair(generate) => generate.run(),
            TrustCommand::PublicKey(key) => key.run(app),
            TrustCommand::SignBlob(sign) => sign.run(app),
            TrustCommand::VerifyBlob(verify) => verify.run(app),
            TrustCommand::Trust(trust) => trust.run(app),
            TrustCommand::Policy(policy) => policy.run(app),
        }
    }
}

/// Set, update and show the trusted root of keyless verification
#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// Store a trusted root and the signing services, from files or from a TUF repository
    Init(Init),
    /// Update the trusted root from its TUF repository
    Update,
    /// Show the stored trusted root and services
    Show,
}

/// What to store.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Store this trusted_root.json: trusted certificate authorities, logs and timestamp
    /// authorities
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Store this signing_config.json (version 0.2): the services of keyless signing
    #[arg(long, value_name = "FILE", requires = "trusted_root")]
    signing_config: Option<PathBuf>,
    /// Get both and their updates from this TUF repository: a URL or a directory (default: the
    /// public one of sigstore)
    #[arg(long, value_name = "URL|DIR", conflicts_with = "trusted_root", requires = "root")]
    mirror: Option<String>,
    /// Trust the TUF repository by this root.json (default: the one of sigstore's public repository)
    #[arg(long, value_name = "FILE", conflicts_with = "trusted_root")]
    root: Option<PathBuf>,
}

impl Trust {
    /// Keeps, updates or shows.
    ///
    /// # Errors
    /// A file cannot be read, or is malformed; the mirror cannot be trusted.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let keeper = Keeper { directory: app.paths.trust() };
        match self {
            Trust::Init(init) => init.run(app, &keeper),
            Trust::Update => {
                let (mirror, kept) = keeper.read()?.ok_or_else(|| {
                    let what = format!("nothing in {} comes from a mirror", keeper.tuf().display());
                    Failure::new(Kind::NotFound, what).hint("name one: `rbuild trust init`")
                })?;
                keeper.update(app, &mirror, &kept)
            }
            Trust::Show => show(app, &keeper),
        }
    }
}

impl Init {
    fn run(&self, app: &App, keeper: &Keeper) -> Result<u8, Failure> {
        let Some(file) = &self.trusted_root else {
            let root = match &self.root {
                Some(file) => read_bounded(file, MAX_TRUSTED_ROOT)?,
                None => tuf::PUBLIC_ROOT.to_vec(),
            };
            let mirror = match &self.mirror {
                Some(place) if place.contains("://") => place.clone(),
                Some(directory) => config::absolute(Path::new(directory))?.display().to_string(),
                None => tuf::PUBLIC_MIRROR.to_owned(),
            };
            return keeper.update(app, &mirror, &Kept { root, ..Kept::default() });
        };
        // Both are read before either is kept.
        let root = read_bounded(file, MAX_TRUSTED_ROOT)?;
        read_root(file)?;
        let config = match &self.signing_config {
            Some(file) => {
                read_config(file)?;
                Some(read_bounded(file, MAX_TRUSTED_ROOT)?)
            }
            None => None,
        };
        // What is given by hand is not to be replaced by an update.
        match std::fs::remove_dir_all(keeper.tuf()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::io(format!("removing {}", keeper.tuf().display()), &error));
            }
            _ => {}
        }
        keeper.keep(TRUSTED_ROOT, Some(&root))?;
        if config.is_some() {
            keeper.keep(SIGNING_CONFIG, config.as_deref())?;
        }
        outln!("kept in {}", keeper.directory.display());
        Ok(0)
    }
}

/// The files of one user's trust.
struct Keeper {
    directory: PathBuf,
}

impl Keeper {
    fn tuf(&self) -> PathBuf {
        self.directory.join("tuf")
    }

    /// Where updates come from, and what the last one left; `None` where there is no mirror.
    fn read(&self) -> Result<Option<(String, Kept)>, Failure> {
        let file = |name: &str| {
            let path = self.tuf().join(name);
            if path.exists() { read_bounded(&path, MAX_TRUSTED_ROOT).map(Some) } else { Ok(None) }
        };
        let (Some(mirror), Some(root)) = (file("mirror")?, file("root.json")?) else {
            return Ok(None);
        };
        let kept = Kept {
            root,
            timestamp: file("timestamp.json")?,
            snapshot: file("snapshot.json")?,
            targets: file("targets.json")?,
        };
        Ok(Some((String::from_utf8_lossy(&mirror).trim().to_owned(), kept)))
    }

    fn update(&self, app: &App, mirror: &str, kept: &Kept) -> Result<u8, Failure> {
        let seconds = u64::try_from(now()).unwrap_or_default();
        let from: Box<dyn Mirror> = match mirror.contains("://") {
            true => Box::new(tuf::Remote { http: Http::new()?, url: mirror.to_owned() }),
            false => Box::new(tuf::Directory(PathBuf::from(mirror))),
        };
        let wanted = [TRUSTED_ROOT, PUBLISHED_CONFIG];
        let (kept, files) = app.wait(tuf::update(kept, &*from, &wanted, seconds))??;
        let malformed = |name: &str, why: String| {
            Failure::new(Kind::Invalid, format!("reading {name} of {mirror}: {why}"))
        };
        let root = files.get(TRUSTED_ROOT);
        let root = root.ok_or_else(|| malformed(TRUSTED_ROOT, "it is not there".to_owned()))?;
        TrustedRoot::read(root).map_err(|why| malformed(TRUSTED_ROOT, why))?;
        let config = files.get(PUBLISHED_CONFIG);
        if let Some(config) = config {
            Services::read(config, seconds).map_err(|why| malformed(PUBLISHED_CONFIG, why))?;
        }
        self.keep(TRUSTED_ROOT, Some(root))?;
        self.keep(SIGNING_CONFIG, config.map(Vec::as_slice))?;
        // The root last: without it nothing of the rest is read.
        self.keep("tuf/mirror", Some(mirror.as_bytes()))?;
        self.keep("tuf/targets.json", kept.targets.as_deref())?;
        self.keep("tuf/snapshot.json", kept.snapshot.as_deref())?;
        self.keep("tuf/timestamp.json", kept.timestamp.as_deref())?;
        self.keep("tuf/root.json", Some(&kept.root))?;
        outln!("kept in {}, from {mirror}", self.directory.display());
        tuf::summary(&kept, seconds)?.iter().for_each(|line| outln!("{line}"));
        Ok(0)
    }

    /// Writes a file whole, or removes it.
    fn keep(&self, name: &str, content: Option<&[u8]>) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let failed = |error| Failure::io(format!("writing {}", path.display()), &error);
        let Some(content) = content else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        };
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let directory = path.parent().unwrap_or(&self.directory);
        std::fs::create_dir_all(directory).map_err(failed)?;
        std::fs::write(&part, content).map_err(failed)?;
        std::fs::rename(&part, &path).map_err(failed)
    }
}

fn read_config(file: &Path) -> Result<Services, Failure> {
    let json = read_bounded(file, MAX_TRUSTED_ROOT)?;
    Services::read(&json, u64::try_from(now()).unwrap_or_default()).map_err(|why| {
        let what = format!("reading signing configuration {}: {why}", file.display());
        Failure::new(Kind::Invalid, what)
    })
}

fn show(app: &App, keeper: &Keeper) -> Result<u8, Failure> {
    for line in app.trusted_root()?.summary() {
        outln!("{line}");
    }
    if let Some((mirror, kept)) = keeper.read()? {
        outln!("updates: from {mirror}");
        let seconds = u64::try_from(now()).unwrap_or_default();
        tuf::summary(&kept, seconds)?.iter().for_each(|line| outln!("updates: {line}"));
    }
    let file = keeper.directory.join(SIGNING_CONFIG);
    if file.exists() {
        let services = read_config(&file)?;
        outln!("signing: certificates from {}", services.fulcio);
        if let Some((url, _)) = &services.rekor {
            outln!("signing: log {url}");
        }
        if let Some(url) = &services.timestamps {
            outln!("signing: timestamps from {url}");
        }
    }
    Ok(0)
}
