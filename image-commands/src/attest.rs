//! `rbuild attest` and `verify-attestation`: signed statements about images.

use std::path::{Path, PathBuf};

use app::place::Access;
use app::{App, Runnable, observed};
use clap::Args;
use image::Digest;
use options::Failure;
use options::environment::read_bounded;
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::sealer::SealerFlags;
use options::signer::SignerFlags;
use serde_json::Value;
use sign::Attestation;
use sign::beside;
use sign::predicate::{self, MAX_PREDICATE, SLSA_V1, SPDX, predicate_type};
use sign::rules::Rules;
use task::Kind;

use crate::sign::{UNVERIFIED, by, image_location, nowhere, unverified};

/// Sign a statement about an image and attach it
///
/// With --predicate it signs the statement in a file. Without it, it signs every unsigned statement
/// that `bud --sbom --provenance` attached.
#[derive(Debug, Args)]
pub struct Attest {
    /// The image: NAME on a registry, or transport:…
    image: String,
    /// The predicate: a JSON file; for the type custom any text file
    #[arg(long, value_name = "FILE", requires = "kind")]
    predicate: Option<PathBuf>,
    /// The predicate type: a URI, or slsaprovenance (version 0.2), slsaprovenance1, link, spdx, spdxjson,
    /// cyclonedx, vuln, openvex, custom
    #[arg(long = "type", value_name = "TYPE", value_parser = predicate_type)]
    kind: Option<String>,
    /// Attach the statement to every image of an index too
    #[arg(short, long, requires = "predicate")]
    recursive: bool,
    #[command(flatten)]
    sealer: SealerFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Runnable for Attest {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = image_location(&self.image)?;
        let (digest, kinds, by) = observed("attest", Progress::Auto, |task| {
            let credentials = self.sealer.credentials(app, task)?;
            let sealer = credentials.sealer();
            let access = Access::new(app, self.registry.reach()?);
            let (source, sink) = (access.source(&location)?, access.sink(&location, task)?);
            app.wait(async {
                let image = source.seal(task).await.map_err(Failure::of)?;
                let mut statements = Vec::new();
                match &self.predicate {
                    Some(file) => {
                        let about = match self.recursive {
                            true => sign::members(&image, &*source, task).await?,
                            false => vec![image.clone()],
                        };
                        let predicate = Attest::read(file)?;
                        let kind = self.kind.as_deref().unwrap_or_default();
                        for about in about {
                            let now = jiff::Timestamp::now().to_string();
                            let subject = (self.image.as_str(), about.digest);
                            let said = predicate::statement(subject, kind, &predicate, &now)
                                .map_err(|error| {
                                    let doing = format!("reading {}", file.display());
                                    Failure::from(error).context(doing)
                                })?;
                            statements.push((about, said.into()));
                        }
                    }
                    // Statements about a platform's image are attached to it, not to the index.
                    None => {
                        for member in sign::members(&image, &*source, task).await? {
                            let said =
                                beside::unsigned(&image, &member, &self.kinds(), &*source).await?;
                            statements.extend(said.into_iter().map(|said| (member.clone(), said)));
                        }
                    }
                }
                for (about, statement) in &statements {
                    let created = Some(jiff::Timestamp::now().to_string());
                    let place = (&*source, &*sink);
                    sign::attest_image(about, statement, sealer, created, place, task).await?;
                }
                Ok::<_, Failure>((image.digest, statements.len(), sealer.to_string()))
            })?
        })?;
        if kinds == 0 {
            return Err(Failure::new(
                Kind::NotFound,
                format!("no statement about {digest} is attached that could be signed"),
            )
            .hint("give one with --type and --predicate, or build with --sbom and --provenance"));
        }
        outln!("attested {} {digest}: {kinds} signed {by}", self.image);
        Ok(0)
    }
}

impl Attest {
    fn kinds(&self) -> Vec<&str> {
        match &self.kind {
            Some(kind) => vec![kind],
            None => vec![SLSA_V1, SPDX],
        }
    }

    /// The predicate of a file.
    fn read(file: &Path) -> Result<Vec<u8>, Failure> {
        let doing = || format!("reading the predicate {}", file.display());
        let metadata = file.metadata().map_err(|error| Failure::io(doing(), &error))?;
        if metadata.len() > MAX_PREDICATE {
            let what = format!("{}: it is larger than 3 MiB", doing());
            return Err(Failure::new(Kind::Invalid, what));
        }
        std::fs::read(file).map_err(|error| Failure::io(doing(), &error))
    }
}

/// Verify that a statement about an image is signed, and print it
#[derive(Debug, Args)]
pub struct VerifyAttestation {
    /// The image: NAME on a registry, or transport:…
    image: String,
    /// Accept statements of this type only: a URI, or a name of `attest --type`
    #[arg(long = "type", value_name = "TYPE", value_parser = predicate_type)]
    kind: Option<String>,
    /// Accept statements only if this CEL expression is true, such as predicate.builder.id == "…";
    /// repeat for several files
    #[arg(long = "rule", value_name = "FILE")]
    rules: Vec<PathBuf>,
    #[command(flatten)]
    signers: SignerFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Runnable for VerifyAttestation {
    /// Verifies; prints the statements, one a line.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let signers = self.signers.signers(app)?;
        let location = image_location(&self.image)?;
        let rules = read_rules(&self.rules)?;
        let found = observed("verify-attestation", Progress::Auto, |task| {
            let source = Access::new(app, self.registry.reach()?).source(&location)?;
            app.wait(async {
                let image = source.resolve().await.map_err(nowhere)?;
                let kind = self.kind.as_deref();
                let (mut good, mut refused) = (Vec::new(), None);
                for member in sign::members(&image, &*source, task).await? {
                    match sign::verify_attestations(&member, kind, &signers, &*source, task).await {
                        Ok(found) => good.extend(found),
                        Err(error) => refused = refused.or(Some(error)),
                    }
                }
                match refused.filter(|_| good.is_empty()) {
                    Some(error) => Err(unverified(error)),
                    None => keeping(&rules, good, &image.digest),
                }
            })?
        })?;
        for attestation in &found {
            eprintln!(
                "verified {} signed {} ({})",
                attestation.predicate_type(),
                by(attestation.signer()),
                attestation.origin()
            );
            // As it was signed; a statement of several lines becomes one.
            let value: Value = serde_json::from_slice(attestation.statement()).unwrap_or_default();
            outln!("{value}");
        }
        Ok(0)
    }
}

/// Reads rules, which are in CEL.
fn read_rules(files: &[PathBuf]) -> Result<Rules, Failure> {
    let mut rules = Rules::default();
    for file in files {
        let extension = file.extension().and_then(|extension| extension.to_str());
        if let Some(language @ ("rego" | "cue")) = extension {
            let what = format!("rules in {language} are not supported ({})", file.display());
            return Err(
                Failure::usage(what).hint("write the rule in CEL: predicate.builder.id == \"…\"")
            );
        }
        let text = read_bounded(file, sign::rules::MAX_RULE)?;
        let text = String::from_utf8_lossy(&text);
        rules.add(&file.display().to_string(), &text).map_err(|why| {
            Failure::new(Kind::Invalid, format!("reading rule {}: {why}", file.display()))
        })?;
    }
    Ok(rules)
}

/// The statements that keep every rule, at least one.
fn keeping(
    rules: &Rules,
    found: Vec<Attestation>,
    image: &Digest,
) -> Result<Vec<Attestation>, Failure> {
    rules.keep(found).map_err(|broken| {
        let why = broken.join("; ");
        let what = format!("verifying {image}: no statement keeps the rules: {why}");
        Failure { code: Some(UNVERIFIED), ..Failure::new(Kind::Refused, what) }
    })
}
