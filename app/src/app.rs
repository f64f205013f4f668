//! What a command works with: the store, the registry client, the executor, each made when it is
//! first needed.

use std::cell::OnceCell;
use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use image::{Digest, Reference};
use options::globals::Globals;
use options::progress::Progress;
use options::settings::Settings;
use options::{EffectiveConfig, Failure, Program, Reach, Servers, environment};
use registry_client::{Client, ShortNames};
use sign::lookaside::{PolicyGate, Verdicts};
use store::Store;
use task::{Cause, Kind, Task};
use transport::{Gate, Location, Machine, Places, Sink, Source};

use crate::interrupt::{observed, stopped_task};
use crate::short_names;

/// The things a command works with.
pub struct App {
    /// What the options of every command and the files of configuration say.
    pub conf: EffectiveConfig,
    executor: OnceCell<tokio::runtime::Runtime>,
    /// Shared with what remembers verdicts in it, once it is open.
    store: Arc<OnceLock<Store>>,
}

impl App {
    /// Nothing is opened yet; the developers' log starts.
    pub fn new(globals: Globals, rootless: bool) -> App {
        if let Some(directives) = globals.log_directives() {
            log(&directives);
        }
        let conf = EffectiveConfig::new(globals, rootless, <App as Program>::tell);
        let (executor, store) = Default::default();
        App { conf, executor, store }
    }

    /// With another place for the choices of short names.
    pub fn naming(mut self, chosen: Option<PathBuf>) -> App {
        self.conf.paths.chosen_names = chosen;
        self
    }

    /// With the settings of `rcopy`.
    pub fn with(mut self, settings: Settings) -> App {
        self.conf.settings = settings;
        self
    }

    /// The image store.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn store(&self) -> Result<&Store, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let root = self.conf.store_root()?;
        let store = Store::open(&root, containers::store_options(&stopped_task("store")))?;
        store.set_limit(environment::store_limit()?);
        Ok(self.store.get_or_init(|| store))
    }

    /// The images on registries that a name may mean, best first and at least one; the first that
    /// there is counts.
    ///
    /// # Errors
    /// The name is invalid or ambiguous.
    pub fn meanings(&self, text: &str) -> Result<Vec<Reference>, Failure> {
        let names = &self.conf.registries()?.short_names;
        short_names::meanings(names, &self.conf.paths.short_names(), text).map_err(Failure::of)
    }

    /// Runs a future to its end, or until a signal or `--command-timeout` ends it.
    ///
    /// # Errors
    /// No threads can be had, the time is over, a signal came.
    pub fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        let left = self.conf.settings.left()?;
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
                () = late => Err(self.conf.settings.too_late()),
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

    /// A registry client that reaches registries as asked.
    ///
    /// # Errors
    /// Certificates cannot be read.
    pub fn client(&self, reach: &Reach) -> Result<Client, Failure> {
        Ok(Client::new(self.conf.client_options(reach)?)?)
    }

    /// Opens locations for a build: the store, and registries once one is needed.
    ///
    /// # Errors
    /// Certificates cannot be read; the store cannot be opened.
    pub fn places_for(&self, reach: &Reach) -> Result<Arc<dyn builder::Places>, Failure> {
        let (store, options) = (self.store()?.clone(), self.conf.client_options(reach)?);
        let (names, chosen) =
            (self.conf.registries()?.short_names.clone(), self.conf.paths.short_names());
        let (client, machine) = (OnceLock::new(), self.conf.machine(reach)?);
        Ok(Arc::new(BuildPlaces { store, options, client, names, chosen, machine }))
    }

    /// What the builder works with.
    ///
    /// # Errors
    /// The store cannot be opened; the policy cannot be read.
    pub fn env(&self, reach: &Reach) -> Result<builder::Env, Failure> {
        Ok(builder::Env {
            store: self.store()?.clone(),
            places: self.places_for(reach)?,
            gate: self.gate()?,
            clock: std::time::SystemTime::now,
            user_namespace: runtime::in_user_namespace(),
            guard: Arc::new(transport::Open),
            single_id: runtime::single_id(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            threads: std::thread::available_parallelism().map_or(2, usize::from),
        })
    }

    /// What decides whether an image may be used: `policy.json`, or everything may.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub fn gate(&self) -> Result<Arc<dyn Gate>, Failure> {
        Ok(match self.policy_gate()? {
            None => Arc::new(transport::Open),
            Some(gate) => Arc::new(gate),
        })
    }

    /// The gate of `policy.json`, if there is one.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub fn policy_gate(&self) -> Result<Option<PolicyGate>, Failure> {
        self.conf.signature_policy()?.map(|policy| self.gate_of(policy)).transpose()
    }

    fn gate_of(&self, policy: sign::Policy) -> Result<PolicyGate, Failure> {
        let lookaside = self.conf.lookaside()?;
        let options = self.conf.client_options(&Reach::default())?;
        let servers = Arc::new(Servers::new(move || Ok(Client::new(options.clone())?)));
        let verdicts = Arc::new(VerdictCache(Arc::clone(&self.store)));
        let policy = Arc::new(policy);
        Ok(PolicyGate {
            policy,
            lookaside,
            servers,
            verdicts,
            strict: self.conf.settings.require_signed,
        })
    }

    /// Asks the policy about an image of the store that came from a registry. A policy that accepts
    /// everything from there is asked nothing: that would start threads.
    ///
    /// # Errors
    /// It refuses the image.
    pub fn permit_stored(&self, image: Digest, reach: &Reach) -> Result<(), Failure> {
        let Some(policy) = self.conf.signature_policy()? else { return Ok(()) };
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
struct VerdictCache(Arc<OnceLock<Store>>);

/// Where the store remembers them.
const VERDICTS: &str = "verdict-1";

impl Verdicts for VerdictCache {
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
        short_names::meanings(&self.names, &self.chosen, name)
    }
}

impl Program for App {
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        App::wait(self, future)
    }

    fn observed<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Task) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        observed(name, Progress::Auto, work)
    }

    fn ask_secret(&self, question: &str) -> Result<String, Failure> {
        ask(question)
    }

    fn tell(line: &str) {
        eprintln!("{line}");
    }

    fn trust(&self) -> PathBuf {
        self.conf.paths.trust()
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

/// Asks for a secret on the terminal, without echo.
///
/// # Errors
/// There is no terminal.
pub fn ask(question: &str) -> Result<String, Failure> {
    rpassword::prompt_password(question).map_err(|error| {
        Failure::io("asking for a secret on the terminal", &error)
            .hint("give it on standard input or in the environment instead")
    })
}

/// Starts the developers' log, on standard error.
pub fn log(directives: &str) {
    let filter = tracing_subscriber::EnvFilter::new(directives);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
}
