//! What signs: flags of everything that signs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use sign::kms::KeyServices;
use sign::online::token::{CiEnvironment, ambient, device};
use sign::online::{Http, IdentitySigner, IdentityToken, RekorVersion, Services, browser};
use sign::{PrivateKey, RemoteKey, Sealer};
use task::Task;

use crate::environment::{now, read_bounded};
use crate::key_file::private_key;
use crate::{Failure, Program};

/// Where jobs that run in a cluster find a token.
const TOKEN_FILE: &str = "/var/run/sigstore/cosign/oidc-token";
/// No larger signing configuration is read.
const MAX_CONFIG: u64 = 1 << 20;

/// What signs: a key or an identity. The flags have cosign's names.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What signs")]
pub struct SealerFlags {
    /// Sign with this private key in cosign's format; the passphrase comes from $COSIGN_PASSWORD or
    /// a prompt
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Read the key's passphrase from a file
    #[arg(long, value_name = "FILE", visible_alias = "sign-passphrase-file", requires = "key")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityFlags,
}

/// Keyless signing.
#[derive(Debug, Clone, Default, Args)]
pub struct IdentityFlags {
    /// Sign keyless with this OpenID token or token file (default: the token of the CI environment,
    /// else a login on another device)
    #[arg(long, value_name = "TOKEN|FILE")]
    identity_token: Option<String>,
    /// Use the keyless signing services in this signing_config.json (default: as set by `trust
    /// init`)
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
    /// URL of the certificate authority (Fulcio)
    #[arg(long, value_name = "URL", conflicts_with = "signing_config")]
    fulcio_url: Option<String>,
    /// URL of the signature log (Rekor)
    #[arg(long, value_name = "URL", requires = "fulcio_url")]
    rekor_url: Option<String>,
    /// API version of the signature log
    #[arg(long, value_name = "1|2", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=2))]
    rekor_version: u8,
    /// Full URL of the timestamp authority
    #[arg(long, value_name = "URL", requires = "fulcio_url")]
    timestamp_server_url: Option<String>,
    /// Log in with this OpenID provider
    #[arg(long, value_name = "URL")]
    oidc_issuer: Option<String>,
    /// Sign in on another device, or with a browser on this machine
    #[arg(long, value_name = "FLOW", value_enum, default_value = "device")]
    oidc_flow: Flow,
}

/// How somebody signs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Flow {
    /// A code for another device
    #[default]
    Device,
    /// A URL for a browser
    Browser,
}

/// What signs, ready.
pub enum Credentials {
    /// A key.
    Key(Box<PrivateKey>),
    /// A key in a key service.
    Remote(Box<RemoteKey>),
    /// An identity.
    Identity(Box<IdentitySigner>),
}

impl Credentials {
    /// A key in a file, or in a key service.
    ///
    /// # Errors
    /// It cannot be read; the service refuses.
    pub fn of_key(
        program: &impl Program,
        key: &Path,
        passphrase: Option<&Path>,
    ) -> Result<Credentials, Failure> {
        Ok(match remote_key(program, key)? {
            Some(key) => Credentials::Remote(Box::new(key)),
            None => Credentials::Key(Box::new(private_key(program, key, passphrase)?)),
        })
    }

    /// What signs.
    pub fn sealer(&self) -> Sealer<'_> {
        match self {
            Credentials::Key(key) => Sealer::Key(key),
            Credentials::Remote(key) => Sealer::Remote(key),
            Credentials::Identity(signer) => Sealer::Identity(signer),
        }
    }
}

impl SealerFlags {
    /// Reads the key, or gets a certificate.
    ///
    /// # Errors
    /// The key cannot be read; there is no identity; a service refuses.
    pub fn credentials(&self, program: &impl Program, task: &Task) -> Result<Credentials, Failure> {
        match &self.key {
            Some(key) => Credentials::of_key(program, key, self.passphrase_file.as_deref()),
            None => self.identity.credentials(program, task),
        }
    }
}

impl IdentityFlags {
    /// Gets a certificate.
    ///
    /// # Errors
    /// There is no identity; a service refuses.
    pub fn credentials<P: Program>(
        &self,
        program: &P,
        task: &Task,
    ) -> Result<Credentials, Failure> {
        let services = self.services(program)?;
        let http = Http::new()?;
        program.wait(async {
            let token = match self.given()? {
                Some(token) => token,
                None => match ambient(&surroundings()?, &http).await? {
                    Some(token) => token,
                    None => sign_in::<P>(&services, &http, self.oidc_flow).await?,
                },
            };
            let signer = IdentitySigner::new(&token, services, http, task).await?;
            Ok(Credentials::Identity(Box::new(signer)))
        })?
    }

    fn services(&self, program: &impl Program) -> Result<Services, Failure> {
        if let Some(fulcio) = &self.fulcio_url {
            let version = if self.rekor_version == 2 { RekorVersion::V2 } else { RekorVersion::V1 };
            return Ok(Services {
                fulcio: fulcio.clone(),
                rekor: self.rekor_url.clone().map(|url| (url, version)),
                timestamps: self.timestamp_server_url.clone(),
                provider: self.oidc_issuer.clone(),
            });
        }
        let file = match &self.signing_config {
            Some(file) => file.clone(),
            None => program.trust().join("signing_config.json"),
        };
        if self.signing_config.is_none() && !file.exists() {
            return Err(Failure::usage("there is neither a key to sign with nor a service").hint(
                "give --key FILE; without a key --fulcio-url, --rekor-url and \
                 --timestamp-server-url, --signing-config FILE, or `rbuild trust init`",
            ));
        }
        let seconds = u64::try_from(now()).unwrap_or_default();
        let services = Services::read(&read_bounded(&file, MAX_CONFIG)?, seconds);
        let mut services = services.map_err(|why| {
            let what = format!("reading signing configuration {}: {why}", file.display());
            Failure::new(task::Kind::Invalid, what)
        })?;
        services.provider = self.oidc_issuer.clone().or(services.provider);
        Ok(services)
    }

    fn given(&self) -> Result<Option<IdentityToken>, Failure> {
        let Some(given) = &self.identity_token else { return Ok(None) };
        let text = match given.matches('.').count() == 2 && !Path::new(given).exists() {
            true => given.clone(),
            false => text_of(Path::new(given))?,
        };
        Ok(Some(IdentityToken::read(&text)?))
    }
}

fn text_of(file: &Path) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&read_bounded(file, 64 << 10)?).into_owned())
}

/// A variable of the environment that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The metadata server, on a machine of Google's.
fn on_google() -> Option<String> {
    let product = std::fs::read_to_string("/sys/class/dmi/id/product_name").ok()?;
    product.starts_with("Google").then(|| "metadata.google.internal".to_owned())
}

/// What surrounds this process.
fn surroundings() -> Result<CiEnvironment, Failure> {
    let ambient = CiEnvironment::of_variables(&variable);
    let file = Path::new(TOKEN_FILE);
    Ok(CiEnvironment {
        google: ambient.google.or_else(on_google),
        file: if file.exists() { Some(text_of(file)?) } else { None },
        ..ambient
    })
}

async fn sign_in<P: Program>(
    services: &Services,
    http: &Http,
    flow: Flow,
) -> Result<IdentityToken, Failure> {
    let Some(provider) = &services.provider else {
        return Err(Failure::usage("there is no identity to sign with")
            .hint("give --identity-token TOKEN, or --oidc-issuer URL to log in"));
    };
    if flow == Flow::Browser {
        let open = |url: &str| P::tell(&format!("sign in at {url}"));
        return Ok(browser(provider, http, &open).await?);
    }
    let tell = |url: &str, code: &str| {
        P::tell(&format!("sign in at {url} with the code {code}"));
    };
    Ok(device(provider, http, &tell).await?)
}

/// A key in a key service, where a text names one.
///
/// # Errors
/// The service refuses, or is not known.
pub fn remote_key(program: &impl Program, key: &Path) -> Result<Option<RemoteKey>, Failure> {
    let Some(uri) = key.to_str().filter(|text| RemoteKey::is_one(text)) else { return Ok(None) };
    let seconds = u64::try_from(now()).unwrap_or_default();
    let key_services = KeyServices::of_variables(&variable, seconds);
    let opened = program.wait(RemoteKey::open(uri, &key_services, Http::new()?))?;
    Ok(Some(opened.map_err(|error| Failure::from(error).context(format!("opening key {uri}")))?))
}
