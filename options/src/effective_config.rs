//! What the options of every command and the files of configuration say together.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use configuration::Paths;
use registry_client::{
    AuthFiles, Client, Credential, HostRule, Keychain, Proxies, Registries, Tls,
};
use sign::lookaside::{FileFuture, Lookaside};
use task::{Cause, Kind};
use transport::Machine;
use transport::at::DaemonTls;

use crate::environment::{self, absolute, proxies};
use crate::flags::duration;
use crate::globals::Globals;
use crate::settings::Settings;
use crate::{Dialect, Failure, Reach};

/// Uploads of this size or more resume after an interruption.
const RESUMABLE: u64 = 64 << 20;
/// The variable by which OpenShift tells buildah which registries a build may use.
const SOURCES: &str = "BUILD_REGISTRY_SOURCES";

/// What the options of every command and the files of configuration say together.
pub struct EffectiveConfig {
    /// Where configuration is.
    pub paths: Paths,
    /// The options of both programs.
    pub globals: Globals,
    /// The options that only `rcopy` has.
    pub settings: Settings,
    /// Shows a line to the user.
    tell: fn(&str),
    registries: OnceCell<Registries>,
}

impl EffectiveConfig {
    /// Nothing is read yet. Warnings go to `tell`.
    pub fn new(globals: Globals, rootless: bool, tell: fn(&str)) -> EffectiveConfig {
        let (paths, settings) = (environment::paths(rootless), Settings::default());
        EffectiveConfig { paths, globals, settings, tell, registries: OnceCell::new() }
    }

    /// Fails if `--authfile` names a missing file. `login` creates it.
    ///
    /// # Errors
    /// It is not there.
    pub fn check_authfile(&self) -> Result<(), Failure> {
        let Some(file) = &self.globals.authfile else { return Ok(()) };
        let there = file.metadata().map(drop);
        there.map_err(|error| Failure::io(format!("reading authfile {}", file.display()), &error))
    }

    /// Where the store is.
    ///
    /// # Errors
    /// There is no current directory.
    pub fn store_root(&self) -> Result<PathBuf, Failure> {
        absolute(&self.globals.root.clone().unwrap_or_else(|| self.paths.store()))
    }

    /// What registries.conf says.
    ///
    /// # Errors
    /// It is malformed.
    pub fn registries(&self) -> Result<&Registries, Failure> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries);
        }
        let registries = self.globals.registries.registries(&self.paths)?;
        for warning in &registries.warnings {
            (self.tell)(&format!("warning: {warning}"));
        }
        Ok(self.registries.get_or_init(|| registries))
    }

    /// The keychain over the user's credential files.
    ///
    /// # Errors
    /// registries.conf, which may name helpers, is malformed.
    pub fn keychain(&self, authfile: Option<&Path>) -> Result<AuthFiles, Failure> {
        let authfile = authfile.or(self.globals.authfile.as_deref());
        let mut files = AuthFiles::new(self.paths.auth_files(authfile));
        files.helper_dirs = self.paths.helper_directories();
        files.helper_env = std::env::vars().filter(|(name, _)| !name.starts_with("LD_")).collect();
        let helpers = &self.registries()?.credential_helpers;
        if !helpers.is_empty() {
            files.order = helpers.clone();
        }
        Ok(files)
    }

    /// Where others keep images on this machine.
    ///
    /// # Errors
    /// storage.conf is malformed; the current directory is not known.
    pub fn machine(&self, reach: &Reach) -> Result<Machine, Failure> {
        let theirs = self.paths.containers_storage()?;
        Ok(Machine {
            daemon: reach.daemon_host.clone().unwrap_or_else(|| self.paths.docker_host()),
            daemon_tls: DaemonTls {
                parameters: self.tls_parameters()?.unwrap_or_default(),
                ..daemon_tls(&self.paths, reach)?
            },
            containers: theirs.places,
            containers_driver: theirs.driver,
            scratch: self.paths.scratch(),
            shared_blobs: reach.shared_blob_dir.as_deref().map(absolute).transpose()?,
            unsynced: reach.unsynced,
        })
    }

    /// How a client reaches registries as asked.
    ///
    /// # Errors
    /// Certificates or a file of configuration cannot be read.
    pub fn client_options(&self, reach: &Reach) -> Result<registry_client::Options, Failure> {
        self.check_files(reach)?;
        let keychain: Arc<dyn Keychain> = match &reach.credential {
            Some(Credential::Anonymous) => Arc::new(Credential::Anonymous),
            Some(credential) => Arc::new(registry_client::CredentialOverride {
                credential: credential.clone(),
                others: self.keychain(reach.authfile.as_deref())?,
            }),
            None => Arc::new(self.keychain(reach.authfile.as_deref())?),
        };
        let mut hosts = self.certificates(reach)?;
        let tls_verify = reach.tls_verify.or(self.settings.tls_verify);
        let parameters = self.tls_parameters()?;
        let strict_loopback = Dialect::spoken().trusts_no_loopback();
        let everywhere = tls_verify.is_some() || reach.cert_dir.is_some() || strict_loopback;
        if everywhere || parameters.is_some() {
            hosts.push(HostRule { prefix: "*".to_owned(), ..HostRule::default() });
        }
        for rule in &mut hosts {
            rule.parameters = parameters.clone().unwrap_or_default();
            rule.strict_loopback = strict_loopback;
            rule.tls = tls_verify.map(|verify| if verify { Tls::Verify } else { Tls::Optional });
            if let Some(directory) = &reach.cert_dir {
                *rule = std::mem::take(rule).certificates(&absolute(directory)?)?;
            }
        }
        let tell = self.tell;
        let resume = Some(registry_client::Resume {
            directory: self.paths.cache().join("rbuild/uploads"),
            from: RESUMABLE,
        });
        let routes = self.registries()?.routes.clone();
        let usual = registry_client::Options::default();
        let engine = self.paths.containers_conf()?.engine;
        let delay = engine.retry_delay.as_deref().map(duration).transpose();
        let delay = delay.map_err(|why| {
            Failure::new(Kind::Invalid, format!("containers.conf: retry_delay: {why}"))
        })?;
        Ok(registry_client::Options {
            keychain,
            hosts,
            routes,
            resume,
            warn: Some(Arc::new(move |text| tell(&format!("warning: {text}")))),
            user_agent: self.settings.user_agent(usual.user_agent),
            retries: reach.retries.or(engine.retry).unwrap_or(usual.retries),
            backoff: reach.retry_delay.or(delay).unwrap_or(usual.backoff),
            patience: self.settings.patience(),
            proxies: Proxies::from_variables(proxies()),
            ..usual
        })
    }

    /// Refuses files that were named and are not there.
    fn check_files(&self, reach: &Reach) -> Result<(), Failure> {
        if let Some(file) = &reach.authfile {
            let there = file.metadata();
            there.map_err(|error| Failure::io(format!("authfile {}", file.display()), &error))?;
        }
        let Some(directory) = &reach.cert_dir else { return Ok(()) };
        match directory.metadata() {
            Err(error) if Dialect::spoken().takes_missing_certificates() => {
                (self.tell)(&format!("warning: --cert-dir {}: {error}", directory.display()));
                Ok(())
            }
            Err(error) => {
                let what = format!("certificate directory {}", directory.display());
                Err(Failure::io(what, &error))
            }
            Ok(_) => Ok(()),
        }
    }

    /// What TLS may use by `--tls-details`.
    fn tls_parameters(&self) -> Result<Option<registry_client::TlsParameters>, Failure> {
        let Some(file) = &self.settings.tls_details else { return Ok(None) };
        let what = || format!("--tls-details {}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| Failure::io(what(), &error))?;
        let parameters = transport::tls_details(&text);
        parameters.map(Some).map_err(|why| Failure::usage(format!("{}: {why}", what())))
    }

    /// One rule per `certs.d/<host>` directory there is.
    fn certificates(&self, reach: &Reach) -> Result<Vec<HostRule>, Failure> {
        let mut rules: Vec<HostRule> = Vec::new();
        if reach.cert_dir.is_some() {
            return Ok(rules);
        }
        for directory in self.paths.certificate_directories() {
            let Ok(hosts) = std::fs::read_dir(&directory) else { continue };
            for host in hosts.flatten().filter(|entry| entry.path().is_dir()) {
                let prefix = host.file_name().to_string_lossy().into_owned();
                if rules.iter().any(|rule| rule.prefix == prefix) {
                    continue;
                }
                let rule = HostRule { prefix, ..HostRule::default() };
                rules.push(rule.certificates(&host.path())?);
            }
        }
        Ok(rules)
    }

    /// What `policy.json` says, if there is one.
    ///
    /// # Errors
    /// It cannot be read; another policy is asked for, which would be ignored.
    pub fn signature_policy(&self) -> Result<Option<sign::Policy>, Failure> {
        if std::env::var_os(SOURCES).is_some_and(|text| !text.is_empty()) {
            return Err(Failure::usage(format!("{SOURCES} is not supported"))
                .hint("block registries in registries.conf, or reject them in policy.json"));
        }
        if self.settings.insecure_policy {
            return Ok(None);
        }
        let strict = self.settings.require_signed;
        let Some(file) = self.paths.policy(self.globals.policy.as_deref()) else {
            let none = "--require-signed: there is no signature policy";
            let hint = "write /etc/containers/policy.json, or name a file with --policy";
            return if strict { Err(Failure::usage(none).hint(hint)) } else { Ok(None) };
        };
        let policy = sign::Policy::open(&absolute(&file)?).map_err(|error| {
            Failure::from(error).context(format!("reading policy {}", file.display()))
        })?;
        Ok(Some(policy.at(SystemTime::now())))
    }

    /// What registries.d says.
    ///
    /// # Errors
    /// It is malformed.
    pub fn lookaside(&self) -> Result<Lookaside, Failure> {
        self.globals.registries.lookaside(&self.paths)
    }
}

/// Reads lookasides on servers with a client that is made when it is first needed.
pub struct Servers(Box<dyn Fn() -> Result<Client, Cause> + Send + Sync>);

impl Servers {
    /// Those that this client reaches.
    pub fn new(client: impl Fn() -> Result<Client, Cause> + Send + Sync + 'static) -> Servers {
        Servers(Box::new(client))
    }
}

impl sign::lookaside::Servers for Servers {
    fn read<'a>(&'a self, url: &'a str, limit: u64) -> FileFuture<'a> {
        Box::pin(async move { Ok((self.0)()?.read_file(url, limit).await?) })
    }
}

/// How TLS is spoken with the Docker daemon: as Docker's client does, or with the certificates that
/// a flag names. What the daemon shows is always verified, but where a flag says otherwise.
///
/// # Errors
/// The current directory is not known.
fn daemon_tls(paths: &Paths, reach: &Reach) -> Result<DaemonTls, Failure> {
    let given =
        reach.cert_dir.as_deref().filter(|_| reach.daemon_certs).map(absolute).transpose()?;
    let (asked, usual) = paths.docker_tls();
    let unverified = reach.daemon_certs && reach.tls_verify == Some(false);
    let (tcp, certificates) = (asked || given.is_some(), given.or(usual));
    Ok(DaemonTls { tcp, certificates, unverified, ..DaemonTls::default() })
}
