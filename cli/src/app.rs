//! What a command works with: the store, the registry client, the executor, each made when it is
//! first needed.

use options::environment;
use std::cell::OnceCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use image::{Digest, Reference};
use options::globals::Globals;
use options::{Program, Reach};
use registry_client::{
    AuthFiles, Client, Credential, HostRule, Keychain, Proxies, Registries, ShortNames, Tls,
};
use sign::lookaside::{Lookaside, PolicyGate, Verdicts};
use store::Store;
use task::{Cause, Kind};
use transport::{Gate, Location, Machine, Places, Sink, Source};

use crate::config;
pub(crate) use crate::interrupt::{observed, observed_by, quiet_task};
use crate::render::Progress;
use options::Failure;
use options::settings::Settings;

/// A bare level applies to the crates of this program; libraries log errors only. Directives are
/// passed on unchanged.
fn log_directives(level: &str) -> String {
    const OURS: [&str; 19] = [
        "builder",
        "cli",
        "configuration",
        "containers",
        "copy",
        "dockerfile",
        "explorer",
        "image",
        "layers",
        "network",
        "progress",
        "registry_client",
        "registry_server",
        "runtime",
        "sbom",
        "sign",
        "store",
        "task",
        "transport",
    ];
    if level.contains(['=', ',']) || !matches!(level, "info" | "debug" | "trace") {
        return level.to_owned();
    }
    let ours = OURS.iter().map(|name| format!(",{name}={level}"));
    std::iter::once("warn".to_owned()).chain(ours).collect()
}

/// Uploads of this size or more resume after an interruption.
const RESUMABLE: u64 = 64 << 20;

/// The things a command works with.
pub(crate) struct App {
    /// Where configuration is.
    pub paths: configuration::Paths,
    /// The global flags.
    pub globals: Globals,
    /// The global flags that only `rcopy` has.
    pub settings: Settings,
    executor: OnceCell<tokio::runtime::Runtime>,
    /// Shared with what remembers verdicts in it, once it is open.
    store: Arc<OnceLock<Store>>,
    registries: OnceCell<Registries>,
}

impl App {
    /// Nothing is opened yet; the developers' log starts.
    pub(crate) fn new(globals: Globals, rootless: bool) -> App {
        let paths = environment::paths(rootless);
        if let Some(level) = &globals.log {
            crate::entry::log(&log_directives(level));
        }
        let (executor, store, registries) = Default::default();
        App { paths, globals, settings: Settings::default(), executor, store, registries }
    }

    /// Fails if `--authfile` names a missing file. `login` creates it.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn check_authfile(&self) -> Result<(), Failure> {
        let Some(file) = &self.globals.authfile else { return Ok(()) };
        let there = file.metadata().map(drop);
        there.map_err(|error| Failure::io(format!("reading authfile {}", file.display()), &error))
    }

    /// With another place for the choices of short names.
    pub(crate) fn naming(mut self, chosen: Option<PathBuf>) -> App {
        self.paths.chosen_names = chosen;
        self
    }

    /// With the settings of `rcopy`.
    pub(crate) fn with(mut self, settings: Settings) -> App {
        self.settings = settings;
        self
    }

    /// The image store.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn store(&self) -> Result<&Store, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let root = self.store_root()?;
        let options = store::Options {
            user_xattr: runtime::in_user_namespace(),
            boot_id: boot_id(),
            clock: SystemTime::now,
        };
        let store = Store::open(&root, options)?;
        store.set_limit(environment::store_limit()?);
        Ok(self.store.get_or_init(|| store))
    }

    /// Where the store is.
    ///
    /// # Errors
    /// There is no current directory.
    pub(crate) fn store_root(&self) -> Result<PathBuf, Failure> {
        environment::absolute(&self.globals.root.clone().unwrap_or_else(|| self.paths.store()))
    }

    /// What registries.conf says.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn registries(&self) -> Result<&Registries, Failure> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries);
        }
        let registries = self.globals.registries.registries(&self.paths)?;
        for warning in &registries.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(self.registries.get_or_init(|| registries))
    }

    /// The images on registries that a name may mean, best first and at least one; the first that
    /// there is counts.
    ///
    /// # Errors
    /// The name is invalid or ambiguous.
    pub(crate) fn meanings(&self, text: &str) -> Result<Vec<Reference>, Failure> {
        let names = &self.registries()?.short_names;
        config::meanings(names, &self.paths.short_names(), text).map_err(Failure::of)
    }

    /// Runs a future to its end, or until a signal or `--command-timeout` ends it.
    ///
    /// # Errors
    /// No threads can be had, the time is over, a signal came.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        let left = self.settings.left()?;
        self.executor()?.block_on(async {
            let late = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = future => Ok(ended),
                () = late => Err(self.settings.too_late()),
                () = crate::interrupt::passed() => {
                    Err(Failure::new(Kind::Cancelled, "cancelled"))
                }
            }
        })
    }

    fn executor(&self) -> Result<&tokio::runtime::Runtime, Failure> {
        if self.executor.get().is_none() {
            let executor = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|error| Failure::io("starting threads", &error))?;
            let _ = self.executor.set(executor);
        }
        self.executor.get().ok_or_else(|| Failure::new(Kind::System, "starting threads"))
    }

    /// The keychain over the user's credential files.
    ///
    /// # Errors
    /// registries.conf, which may name helpers, is malformed.
    pub(crate) fn keychain(&self, authfile: Option<&Path>) -> Result<AuthFiles, Failure> {
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

    /// A registry client that reaches registries as asked.
    ///
    /// # Errors
    /// Certificates cannot be read.
    pub(crate) fn client(&self, reach: &Reach) -> Result<Client, Failure> {
        Ok(Client::new(self.client_options(reach)?)?)
    }

    /// Opens locations for a build: the store, and registries once one is needed.
    ///
    /// # Errors
    /// Certificates cannot be read; the store cannot be opened.
    pub(crate) fn places_for(&self, reach: &Reach) -> Result<Arc<dyn builder::Places>, Failure> {
        let (store, options) = (self.store()?.clone(), self.client_options(reach)?);
        let (names, chosen) = (self.registries()?.short_names.clone(), self.paths.short_names());
        let (client, machine) = (OnceLock::new(), self.machine(reach)?);
        Ok(Arc::new(BuildPlaces { store, options, client, names, chosen, machine }))
    }

    /// Where others keep images on this machine.
    ///
    /// # Errors
    /// storage.conf is malformed; the current directory is not known.
    pub(crate) fn machine(&self, reach: &Reach) -> Result<Machine, Failure> {
        Ok(Machine {
            daemon: reach.daemon_host.clone().unwrap_or_else(|| self.paths.docker_host()),
            daemon_tls: config::daemon_tls(&self.paths, reach)?,
            containers: self.paths.containers_storage()?,
            scratch: self.paths.scratch(),
            shared_blobs: reach
                .shared_blob_dir
                .as_deref()
                .map(environment::absolute)
                .transpose()?,
        })
    }

    fn client_options(&self, reach: &Reach) -> Result<registry_client::Options, Failure> {
        let there = |flag: &str, path: &Path| match path.metadata() {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::io(format!("{flag} {}", path.display()), &error)),
        };
        reach.authfile.as_deref().map_or(Ok(()), |file| there("authfile", file))?;
        reach.cert_dir.as_deref().map_or(Ok(()), |dir| there("certificate directory", dir))?;
        let keychain: Arc<dyn Keychain> = match &reach.credential {
            Some(Credential::Anonymous) => Arc::new(Credential::Anonymous),
            Some(credential) => Arc::new(registry_client::Named {
                credential: credential.clone(),
                others: self.keychain(reach.authfile.as_deref())?,
            }),
            None => Arc::new(self.keychain(reach.authfile.as_deref())?),
        };
        let mut hosts = self.certificates(reach)?;
        let tls_verify = reach.tls_verify.or(self.settings.tls_verify);
        if tls_verify.is_some() || reach.cert_dir.is_some() {
            hosts.push(HostRule { prefix: "*".to_owned(), ..HostRule::default() });
        }
        for rule in &mut hosts {
            rule.tls = tls_verify.map(|verify| if verify { Tls::Verify } else { Tls::Optional });
            if let Some(directory) = &reach.cert_dir {
                *rule = std::mem::take(rule).certificates(&environment::absolute(directory)?)?;
            }
        }
        let resume = Some(registry_client::Resume {
            directory: self.paths.cache().join("rbuild/uploads"),
            from: RESUMABLE,
        });
        let routes = self.registries()?.routes.clone();
        let usual = registry_client::Options::default();
        let engine = self.paths.containers_conf()?.engine;
        let delay = engine.retry_delay.as_deref().map(options::flags::duration).transpose();
        let delay = delay.map_err(|why| {
            Failure::new(Kind::Invalid, format!("containers.conf: retry_delay: {why}"))
        })?;
        Ok(registry_client::Options {
            keychain,
            hosts,
            routes,
            resume,
            warn: Some(Arc::new(|text| eprintln!("warning: {text}"))),
            user_agent: self.settings.user_agent(usual.user_agent),
            retries: reach.retries.or(engine.retry).unwrap_or(usual.retries),
            backoff: reach.retry_delay.or(delay).unwrap_or(usual.backoff),
            patience: self.settings.patience(),
            proxies: Proxies::from_variables(environment::proxies()),
            ..usual
        })
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

    /// What decides whether an image may be used: `policy.json`, or everything may.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub(crate) fn gate(&self) -> Result<Arc<dyn Gate>, Failure> {
        Ok(match self.policy_gate()? {
            None => Arc::new(transport::Open),
            Some(gate) => Arc::new(gate),
        })
    }

    /// What `policy.json` says, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    fn signature_policy(&self) -> Result<Option<sign::Policy>, Failure> {
        if self.settings.insecure_policy {
            return Ok(None);
        }
        let strict = self.settings.require_signed;
        let Some(file) = self.paths.policy(self.globals.policy.as_deref()) else {
            let none = "--require-signed: there is no signature policy";
            let hint = "write /etc/containers/policy.json, or name a file with --policy";
            return if strict { Err(Failure::usage(none).hint(hint)) } else { Ok(None) };
        };
        let policy = sign::Policy::open(&environment::absolute(&file)?).map_err(|error| {
            Failure::from(error).context(format!("reading policy {}", file.display()))
        })?;
        Ok(Some(policy.at(SystemTime::now())))
    }

    /// The gate of `policy.json`, if there is one.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub(crate) fn policy_gate(&self) -> Result<Option<PolicyGate>, Failure> {
        self.signature_policy()?.map(|policy| self.gate_of(policy)).transpose()
    }

    fn gate_of(&self, policy: sign::Policy) -> Result<PolicyGate, Failure> {
        let lookaside = self.lookaside()?;
        let options = self.client_options(&Reach::default())?;
        let servers = Arc::new(config::Servers::new(move || Ok(Client::new(options.clone())?)));
        let verdicts = Arc::new(Remembered(Arc::clone(&self.store)));
        let policy = Arc::new(policy);
        Ok(PolicyGate {
            policy,
            lookaside,
            servers,
            verdicts,
            strict: self.settings.require_signed,
        })
    }

    /// What registries.d says.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn lookaside(&self) -> Result<Lookaside, Failure> {
        self.globals.registries.lookaside(&self.paths)
    }

    /// Asks the policy about an image of the store that came from a registry. A policy that accepts
    /// everything from there is asked nothing: that would start threads.
    ///
    /// # Errors
    /// It refuses the image.
    pub(crate) fn permit_stored(&self, image: Digest, reach: &Reach) -> Result<(), Failure> {
        let Some(policy) = self.signature_policy()? else { return Ok(()) };
        let store = self.store()?;
        let origin = builder::origin(store, image).map_err(Failure::of)?;
        if origin.is_none_or(|origin| policy.accepts(&origin)) {
            return Ok(());
        }
        let (gate, places) = (self.gate_of(policy)?, self.places_for(reach)?);
        observed("policy", Progress::Quiet, |task| {
            let asked = self.wait(builder::permit_stored(store, &*places, &gate, image, task))?;
            asked.map_err(Failure::of)
        })
    }
}

/// Verdicts of the policy, where a command uses the store.
struct Remembered(Arc<OnceLock<Store>>);

/// Where the store remembers them.
const VERDICTS: &str = "verdict-1";

impl Verdicts for Remembered {
    fn recall(&self, verdict: &Digest) -> Option<String> {
        let found = self.0.get()?.memo(VERDICTS, verdict.to_string().as_bytes());
        String::from_utf8(found.ok()??).ok()
    }

    fn remember(&self, verdict: &Digest, signers: &str) {
        if let Some(store) = self.0.get() {
            let key = verdict.to_string();
            if let Err(error) = store.set_memo(VERDICTS, key.as_bytes(), signers.as_bytes()) {
                tracing::info!(%error, "a verdict is not remembered");
            }
        }
    }
}

/// Reading the system's certificates takes longer than a cached build: the client waits for its
/// first use.
struct BuildPlaces {
    store: Store,
    options: registry_client::Options,
    client: OnceLock<Client>,
    names: ShortNames,
    chosen: PathBuf,
    machine: Machine,
}

impl BuildPlaces {
    fn client(&self) -> Result<Client, Cause> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = Client::new(self.options.clone())?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

impl builder::Places for BuildPlaces {
    fn source(&self, location: &Location) -> Result<Box<dyn Source>, Cause> {
        let store = || Ok(self.store.clone());
        let places = Places { client: &|| self.client(), store: &store, machine: &self.machine };
        Ok(places.source(location)?)
    }

    fn sink(&self, location: &Location) -> Result<Box<dyn Sink>, Cause> {
        let store = || Ok(self.store.clone());
        let places = Places { client: &|| self.client(), store: &store, machine: &self.machine };
        Ok(places.sink(location)?)
    }

    fn meanings(&self, name: &str) -> Result<Vec<Reference>, Cause> {
        config::meanings(&self.names, &self.chosen, name)
    }
}

impl Program for App {
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        App::wait(self, future)
    }

    fn ask_secret(&self, question: &str) -> Result<String, Failure> {
        crate::commands::account::secret(question)
    }

    fn tell(line: &str) {
        eprintln!("{line}");
    }

    fn trust(&self) -> PathBuf {
        self.paths.trust()
    }
}

impl Drop for App {
    /// What still waits on a thread (a pipe without a writer, `gpg`) does not hold up the end.
    fn drop(&mut self) {
        if let Some(executor) = self.executor.take() {
            executor.shutdown_background();
        }
    }
}

/// Names this boot of the machine, so that the store knows what a power loss may have taken.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
