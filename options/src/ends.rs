//! How the two ends of a copy, or the one end of another command, are reached.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use registry_client::Credential;
use transport::Location;

use crate::Failure;
use crate::Reach;
use crate::flags;
use crate::registry::{RegistryFlags, credential};

/// Flags of one end, each with the end's name in front.
macro_rules! end_flags {
    ($name:ident, $prefix:literal, $letter:literal, $end:literal) => {
        #[doc = concat!("How the ", $end, " is reached.")]
        #[derive(Debug, Clone, Default, Args)]
        #[command(next_help_heading = concat!("Registry at the ", $end))]
        pub struct $name {
            #[arg(id = concat!($prefix, "tls-verify"), long = concat!($prefix, "tls-verify"), value_name = "BOOL",
                num_args = 0..=1, require_equals = true, default_missing_value = "true",
                help = concat!("Require valid certificates at the ", $end, "; false also allows plain HTTP"))]
            tls_verify: Option<bool>,
            #[arg(id = concat!($prefix, "creds"), long = concat!($prefix, "creds"), alias = concat!($letter, "creds"), value_name = "USER[:PASSWORD]",
                help = concat!("Use this user and password for the ", $end))]
            creds: Option<String>,
            #[arg(id = concat!($prefix, "username"), long = concat!($prefix, "username"), value_name = "USER",
                requires = concat!($prefix, "password"), conflicts_with = concat!($prefix, "creds"),
                help = concat!("Use this user for the ", $end))]
            username: Option<String>,
            #[arg(id = concat!($prefix, "password"), long = concat!($prefix, "password"), value_name = "PASSWORD",
                requires = concat!($prefix, "username"),
                help = concat!("Use this password for the ", $end))]
            password: Option<String>,
            #[arg(id = concat!($prefix, "registry-token"), long = concat!($prefix, "registry-token"), value_name = "TOKEN",
                conflicts_with_all = [concat!($prefix, "creds"), concat!($prefix, "username")],
                help = concat!("Use this bearer token for the ", $end))]
            registry_token: Option<String>,
            #[arg(id = concat!($prefix, "no-creds"), long = concat!($prefix, "no-creds"),
                conflicts_with_all = [concat!($prefix, "creds"), concat!($prefix, "username"), concat!($prefix, "registry-token")],
                help = concat!("Do not log in at the ", $end))]
            no_creds: bool,
            #[arg(id = concat!($prefix, "authfile"), long = concat!($prefix, "authfile"), value_name = "FILE",
                help = concat!("Use this credentials file for the ", $end))]
            authfile: Option<PathBuf>,
            #[arg(id = concat!($prefix, "cert-dir"), long = concat!($prefix, "cert-dir"), value_name = "DIR",
                help = concat!("Use the certificates in this directory for the ", $end))]
            cert_dir: Option<PathBuf>,
        }

        impl $name {
            /// What the flags ask for.
            ///
            /// # Errors
            /// Credentials without a user name.
            pub fn reach(&self, retry: &RetryFlags) -> Result<Reach, Failure> {
                let login = Login {
                    creds: self.creds.as_deref(),
                    user: self.username.as_deref().zip(self.password.as_deref()),
                    token: self.registry_token.as_deref(),
                    none: self.no_creds,
                };
                Ok(retry.reach(Reach {
                    tls_verify: self.tls_verify,
                    credential: login.credential()?,
                    authfile: self.authfile.clone(),
                    cert_dir: self.cert_dir.clone(),
                    ..Reach::default()
                }))
            }
        }
    };
}

end_flags!(SourceFlags, "src-", "s", "source");
end_flags!(DestinationFlags, "dest-", "d", "destination");

struct Login<'a> {
    creds: Option<&'a str>,
    user: Option<(&'a str, &'a str)>,
    token: Option<&'a str>,
    none: bool,
}

impl Login<'_> {
    fn credential(&self) -> Result<Option<Credential>, Failure> {
        if let Some((username, password)) = self.user {
            let (username, password) = (username.to_owned(), password.to_owned());
            return Ok(Some(Credential::Basic { username, password }));
        }
        match (self.creds, self.token, self.none) {
            (Some(creds), ..) => credential(creds).map(Some),
            (_, Some(token), _) => Ok(Some(Credential::Bearer(token.to_owned()))),
            (_, _, true) => Ok(Some(Credential::Anonymous)),
            _ => Ok(None),
        }
    }
}

/// What to retry.
#[derive(Debug, Clone, Default, Args)]
pub struct RetryFlags {
    /// Retry this often (default: 3 for a transfer that breaks off, 5 for a temporary error)
    #[arg(long, visible_alias = "retry", value_name = "TIMES", help_heading = "Registry")]
    retry_times: Option<u32>,
    /// Wait this long before the first retry: 200ms, 2s; doubles each time
    #[arg(long, value_name = "DURATION", value_parser = flags::duration, help_heading = "Registry")]
    retry_delay: Option<Duration>,
}

impl RetryFlags {
    /// How often a blob is fetched at most.
    pub fn attempts(&self) -> u32 {
        self.retry_times.unwrap_or(3).saturating_add(1)
    }

    /// A registry reached with these retries.
    pub fn reach(&self, reach: Reach) -> Reach {
        Reach { retries: self.retry_times, retry_delay: self.retry_delay, ..reach }
    }
}

/// How to reach the registry of a command with one end.
#[derive(Debug, Clone, Default, Args)]
pub struct OneEnd {
    #[command(flatten)]
    registry: RegistryFlags,
    /// Use this user for the registry
    #[arg(
        long,
        value_name = "USER",
        requires = "password",
        conflicts_with = "creds",
        help_heading = "Registry"
    )]
    username: Option<String>,
    /// Use this password for the registry
    #[arg(long, value_name = "PASSWORD", requires = "username", help_heading = "Registry")]
    password: Option<String>,
    /// Use this bearer token for the registry
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["creds", "username"], help_heading = "Registry")]
    registry_token: Option<String>,
    /// Do not log in
    #[arg(long, conflicts_with_all = ["creds", "username", "registry_token"], help_heading = "Registry")]
    no_creds: bool,
    #[command(flatten)]
    retry: RetryFlags,
    /// Use the Docker daemon at this socket, for docker-daemon: (default: $DOCKER_HOST)
    #[arg(long, value_name = "HOST", help_heading = "Registry")]
    daemon_host: Option<String>,
    /// Use this directory for the blobs of OCI layouts, for oci: (default: each layout's own)
    #[arg(long, value_name = "DIR", help_heading = "Registry")]
    shared_blob_dir: Option<PathBuf>,
}

impl OneEnd {
    /// What the flags ask for at this location.
    ///
    /// # Errors
    /// As [`OneEnd::reach`]; flags for another transport.
    pub fn reach_at(&self, location: &Location) -> Result<Reach, Failure> {
        only_for("--daemon-host", self.daemon_host.is_some(), "docker-daemon", location)?;
        only_for("--shared-blob-dir", self.shared_blob_dir.is_some(), "oci", location)?;
        let daemon_certs = location.transport() == "docker-daemon";
        Ok(Reach { daemon_certs, ..self.reach()? })
    }

    /// What the flags set for a registry without an image.
    ///
    /// # Errors
    /// As [`OneEnd::reach_at`].
    pub fn reach_registry(&self, registry: &str) -> Result<Reach, Failure> {
        self.reach_at(&format!("docker://{registry}/x").parse()?)
    }

    /// What the flags ask for.
    ///
    /// # Errors
    /// Credentials without a user name.
    pub fn reach(&self) -> Result<Reach, Failure> {
        let login = Login {
            creds: None,
            user: self.username.as_deref().zip(self.password.as_deref()),
            token: self.registry_token.as_deref(),
            none: self.no_creds,
        };
        let reach = self.registry.reach()?;
        let credential = login.credential()?.or(reach.credential);
        let (daemon_host, shared_blob_dir) =
            (self.daemon_host.clone(), self.shared_blob_dir.clone());
        Ok(self.retry.reach(Reach { credential, daemon_host, shared_blob_dir, ..reach }))
    }
}

/// Refuses a flag that means something for one transport only.
///
/// # Errors
/// The location is of another transport.
pub fn only_for(
    flag: &str,
    given: bool,
    transport: &str,
    location: &Location,
) -> Result<(), Failure> {
    if !given || location.transport() == transport {
        return Ok(());
    }
    Err(Failure::usage(format!("{flag} works for {transport}: only, not for {location}")))
}
