//! `rbuild bud --sign-key`: signs pushed images and their attestations.

use std::path::PathBuf;

use app::place::Access;
use app::{App, observed};
use builder::{BuildResult, Output, Request};
use clap::Args;
use image::{Descriptor, Reference};
use options::progress::Progress;
use options::sealer::{Credentials, IdentityFlags};
use options::{Failure, Reach};
use sign::{Form, SignOptions};
use transport::Location;

/// How to sign pushed images.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SigningFlags {
    /// Sign pushed images and their attestations with this private key in cosign's format; the
    /// passphrase comes from $COSIGN_PASSWORD or a prompt
    #[arg(long, value_name = "FILE", help_heading = "Supply chain")]
    sign_key: Option<PathBuf>,
    /// Read the key's passphrase from a file
    #[arg(long, value_name = "FILE", requires = "sign_key", help_heading = "Supply chain")]
    sign_passphrase_file: Option<PathBuf>,
    /// Sign pushed images and their attestations keyless, by identity
    #[arg(long, conflicts_with = "sign_key", help_heading = "Supply chain")]
    sign: bool,
    #[command(flatten, next_help_heading = "Signing without a key")]
    identity: IdentityFlags,
}

/// A key that is ready to sign.
pub(super) struct Signer {
    credentials: Credentials,
    /// Whether there are attached statements to sign.
    statements: bool,
}

impl SigningFlags {
    /// Reads the key before anything is built.
    ///
    /// # Errors
    /// The key cannot be read; nothing is pushed that could be signed.
    pub(super) fn signer(&self, app: &App, request: &Request) -> Result<Option<Signer>, Failure> {
        if self.sign_key.is_none() && !self.sign {
            return Ok(None);
        }
        let flag = if self.sign { "--sign" } else { "--sign-key" };
        let registry = |output: &Output| match output {
            Output::Image(to) => to.starts_with("docker://"),
            Output::ByDigest(_) => true,
            _ => false,
        };
        if !request.push && !request.outputs.iter().any(registry) {
            return Err(Failure::usage(format!("{flag}: there is no pushed image to sign")).hint(
                "push with --push or -o type=registry; `rbuild sign` signs images that are there",
            ));
        }
        let credentials = match &self.sign_key {
            Some(key) => Credentials::of_key(app, key, self.sign_passphrase_file.as_deref())?,
            None => {
                observed("sign in", Progress::Auto, |task| self.identity.credentials(app, task))?
            }
        };
        let attest = &request.attest;
        let statements = attest.sbom || attest.provenance.is_some();
        Ok(Some(Signer { credentials, statements }))
    }
}

impl Signer {
    /// Signs what a build pushed: for an index every image too, and the statements about each.
    ///
    /// # Errors
    /// A registry refuses; another push has moved the name.
    pub(super) fn sign(
        &self,
        app: &App,
        built: &BuildResult,
        reach: &Reach,
        progress: Progress,
    ) -> Result<(), Failure> {
        let Some(root) = &built.manifest else { return Ok(()) };
        for place in &built.pushed {
            let Ok(Location::Registry(name)) = place.parse::<Location>() else { continue };
            let signed = observed(&format!("sign {name}"), progress, |task| {
                self.one(app, &name, root, reach.clone(), task)
            });
            signed.map_err(|failure| failure.context(format!("signing {name}")))?;
        }
        Ok(())
    }

    fn one(
        &self,
        app: &App,
        name: &Reference,
        root: &Descriptor,
        reach: Reach,
        task: &task::Task,
    ) -> Result<(), Failure> {
        let access = Access::new(app, reach);
        // By its digest: what the name points at may be another's by now.
        let exact = Reference { digest: Some(root.digest), ..name.clone() };
        let location = Location::Registry(exact);
        let (source, sink) = (access.source(&location)?, access.sink(&location, task)?);
        let options = SignOptions {
            form: Form::Bundle,
            name: Some(Reference { digest: None, ..name.clone() }),
            annotations: Default::default(),
            created: Some(jiff::Timestamp::now().to_string()),
        };
        let sealer = self.credentials.sealer();
        app.wait(async {
            let image = source.resolve().await.map_err(Failure::of)?;
            for member in sign::members(&image, &*source, task).await? {
                sign::sign_image(&member, sealer, &*source, &*sink, &options, task).await?;
                if self.statements {
                    let place = (&*source, &*sink);
                    let created = options.created.clone();
                    sign::beside::sign_unsigned((&image, &member), sealer, created, place, task)
                        .await?;
                }
            }
            Ok::<_, Failure>(())
        })?
    }
}
