//! Access to key services as their own tools read it from the environment.

use super::{AwsAccess, AzureAccess, GoogleAccess, KeyServices, TokenAccess, VaultAccess};

impl KeyServices {
    /// What variables say: those of Vault, AWS, Google's and Azure's tools, and of cosign. `variable`
    /// gives the value of one that is set; `now` is the time in seconds since 1970.
    pub fn of_variables(variable: &dyn Fn(&str) -> Option<String>, now: u64) -> KeyServices {
        let or = |name: &str, usual: &str| variable(name).unwrap_or_else(|| usual.to_owned());
        let vault = || {
            Some(VaultAccess {
                address: variable("VAULT_ADDR")?,
                token: variable("VAULT_TOKEN")?,
                engine: or("TRANSIT_SECRET_ENGINE_PATH", "transit"),
            })
        };
        let aws = || {
            Some(AwsAccess {
                id: variable("AWS_ACCESS_KEY_ID")?,
                secret: variable("AWS_SECRET_ACCESS_KEY")?,
                session: variable("AWS_SESSION_TOKEN"),
                region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"))?,
                endpoint: variable("AWS_ENDPOINT_URL_KMS").or_else(|| variable("AWS_ENDPOINT_URL")),
            })
        };
        let google = || {
            let endpoint = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS";
            Some(GoogleAccess {
                token: variable("GOOGLE_OAUTH_ACCESS_TOKEN")?,
                endpoint: or(endpoint, "https://cloudkms.googleapis.com"),
            })
        };
        let azure = || {
            Some(AzureAccess {
                tenant: variable("AZURE_TENANT_ID")?,
                client: variable("AZURE_CLIENT_ID")?,
                secret: variable("AZURE_CLIENT_SECRET")?,
                authority: or("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com"),
            })
        };
        let token = TokenAccess {
            module: variable("COSIGN_PKCS11_MODULE_PATH"),
            pin: variable("COSIGN_PKCS11_PIN"),
        };
        KeyServices { vault: vault(), aws: aws(), google: google(), azure: azure(), token, now }
    }
}
