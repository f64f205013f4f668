//! Keys that never leave their place: hardware, Vault's transit engine, and the services of AWS, Google
//! and Azure. What is sent is a hash; what comes back is a signature, checked before it is used.

use self::request::{SigningRequest, refuse};
use crate::error::Result;
use crate::key::PublicKey;
use crate::online::Http;

mod aws;
mod azure;
mod google;
mod request;
mod token;
mod variables;
mod vault;

pub use self::aws::AwsAccess;
pub use self::azure::AzureAccess;
pub use self::google::GoogleAccess;
pub use self::token::TokenAccess;
pub use self::vault::VaultAccess;

/// What lets this process use key services, each where it is known.
#[derive(Clone, Default)]
pub struct KeyServices {
    /// HashiCorp Vault, or OpenBao.
    pub vault: Option<VaultAccess>,
    /// AWS.
    pub aws: Option<AwsAccess>,
    /// Google.
    pub google: Option<GoogleAccess>,
    /// Azure.
    pub azure: Option<AzureAccess>,
    /// Hardware.
    pub token: TokenAccess,
    /// The time, in seconds since 1970; AWS signs requests with it.
    pub now: u64,
}

enum Service {
    Vault(vault::VaultKey),
    Aws(aws::AwsKey),
    Google(google::GoogleKey),
    Azure(azure::AzureKey),
    Token(token::TokenKey),
}

/// A key in a key service, or in hardware.
pub struct RemoteKey {
    http: Http,
    service: Service,
    public: PublicKey,
    place: String,
}

impl std::fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteKey({})", self.place)
    }
}

impl RemoteKey {
    /// Whether a text names a key of a key service.
    pub fn is_one(text: &str) -> bool {
        ["hashivault://", "awskms://", "gcpkms://", "azurekms://", "pkcs11:"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    }

    /// Finds a key: `hashivault://NAME`, `awskms:///ID` or `awskms:///alias/NAME`,
    /// `gcpkms://projects/…/cryptoKeys/NAME/versions/NUMBER`, `azurekms://VAULT/NAME[/VERSION]`,
    /// `pkcs11:token=…;object=…?module-path=…` (RFC 7512).
    ///
    /// # Errors
    /// [`crate::Error::Service`]: it is not there, or of a kind that is not supported.
    pub async fn open(uri: &str, access: &KeyServices, http: Http) -> Result<RemoteKey> {
        let place = uri.to_owned();
        if let Some(rest) = uri.strip_prefix("pkcs11:") {
            let (key, public) = token::TokenKey::open(rest, &access.token).await?;
            return Ok(RemoteKey { http, service: Service::Token(key), public, place });
        }
        let (scheme, rest) = uri.split_once("://").unwrap_or_default();
        let missing = |what: &str| refuse(format!("{uri}: {what} not set"));
        let (service, public) = match scheme {
            "hashivault" => {
                let access = access.vault.clone();
                let access = access.ok_or_else(|| missing("VAULT_ADDR and VAULT_TOKEN are"))?;
                let (key, public) = vault::VaultKey::open(rest, access, &http).await?;
                (Service::Vault(key), public)
            }
            "awskms" => {
                let given = access.aws.clone();
                let given = given.ok_or_else(|| {
                    missing("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION are")
                })?;
                let (key, public) = aws::AwsKey::open(rest, given, access.now, &http).await?;
                (Service::Aws(key), public)
            }
            "gcpkms" => {
                let access = access.google.clone();
                let access = access.ok_or_else(|| missing("GOOGLE_OAUTH_ACCESS_TOKEN is"))?;
                let (key, public) = google::GoogleKey::open(rest, access, &http).await?;
                (Service::Google(key), public)
            }
            "azurekms" => {
                let access = access.azure.clone();
                let access = access.ok_or_else(|| {
                    missing("AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are")
                })?;
                let (key, public) = azure::AzureKey::open(rest, access, &http).await?;
                (Service::Azure(key), public)
            }
            _ => return Err(refuse(format!("{uri} does not name a key of a key service"))),
        };
        Ok(RemoteKey { http, service, public, place })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Has a message signed.
    ///
    /// # Errors
    /// [`crate::Error::Service`].
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let (scheme, hash) = self.public.spki().hash(message);
        let asked = SigningRequest { message, hash, scheme };
        let signature = match &self.service {
            Service::Vault(key) => key.sign(&asked, &self.http).await?,
            Service::Aws(key) => key.sign(&asked, &self.http).await?,
            Service::Google(key) => key.sign(&asked, &self.http).await?,
            Service::Azure(key) => key.sign(&asked, &self.http).await?,
            Service::Token(key) => key.sign(&asked).await?,
        };
        match self.public.verifies(message, &signature) {
            true => Ok(signature),
            false => Err(refuse("its signature is not by the key")),
        }
    }
}
