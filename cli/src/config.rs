//! The configuration of this process: what its environment and its flags say to the libraries that
//! find and read files, and asking for a choice of short names.

use std::env;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use configuration::{Environment, Paths};
use image::Reference;
use registry_client::{Client, Meaning, Registries, ShortNames, remember_short_name};
use sign::lookaside::{Lookaside, Reading};
use task::{Cause, Fault, Kind};
use transport::at::DaemonTls;

use crate::app::Reach;
use crate::report::Failure;

/// Where the configuration of registries is, for all commands.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistriesFlags {
    /// File with aliases, mirrors and blocked registries (default:
    /// ~/.config/containers/registries.conf, /etc/containers/registries.conf)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CONTAINERS_REGISTRIES_CONF",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub registries_conf: Option<PathBuf>,
    /// Directory of files that extend it (default: registries.conf.d beside both)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub registries_conf_dir: Option<PathBuf>,
    /// Directory that configures the lookasides of registries (default:
    /// ~/.config/containers/registries.d, /etc/containers/registries.d)
    #[arg(
        long = "registries.d",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub registries_d: Option<PathBuf>,
}

/// The paths of this process's user.
pub(crate) fn paths(rootless: bool) -> Paths {
    // Without a current directory relative paths are not found.
    let directory = env::current_dir().unwrap_or_default();
    Paths::new(Environment::new(env::vars_os(), directory), rootless)
}

impl RegistriesFlags {
    /// The merged configuration of registries.
    ///
    /// # Errors
    /// A file is malformed, or one that a flag names is not there.
    pub(crate) fn registries(&self, paths: &Paths) -> Result<Registries, Failure> {
        let file = self.registries_conf.as_deref();
        let files = paths.registries_conf(file, self.registries_conf_dir.as_deref())?;
        let mut all = Registries::read(&files)?;
        all.short_names = all.short_names.with_chosen(&paths.short_names())?;
        Ok(all)
    }

    /// What registries.d says.
    ///
    /// # Errors
    /// A file is malformed, or speaks of something that another one speaks of.
    pub(crate) fn lookaside(&self, paths: &Paths) -> Result<Lookaside, Failure> {
        let files = paths.registries_d(self.registries_d.as_deref())?;
        Ok(Lookaside::read(paths.signatures(), &files)?)
    }
}

/// Reads lookasides on servers with a client that is made when it is first needed.
pub(crate) struct Servers(Box<dyn Fn() -> Result<Client, Cause> + Send + Sync>);

impl Servers {
    /// Those that this client reaches.
    pub(crate) fn new(
        client: impl Fn() -> Result<Client, Cause> + Send + Sync + 'static,
    ) -> Servers {
        Servers(Box::new(client))
    }
}

impl sign::lookaside::Servers for Servers {
    fn read<'a>(&'a self, url: &'a str, limit: u64) -> Reading<'a> {
        Box::pin(async move { Ok((self.0)()?.read_file(url, limit).await?) })
    }
}

/// How TLS is spoken with the Docker daemon: as Docker's client does, or with the certificates that
/// a flag names. What the daemon shows is always verified, but where a flag says otherwise.
///
/// # Errors
/// The current directory is not known.
pub(crate) fn daemon_tls(paths: &Paths, reach: &Reach) -> Result<DaemonTls, Failure> {
    let given =
        reach.cert_dir.as_deref().filter(|_| reach.daemon_certs).map(absolute).transpose()?;
    let (asked, usual) = paths.docker_tls();
    let unverified = reach.daemon_certs && reach.tls_verify == Some(false);
    Ok(DaemonTls { tcp: asked || given.is_some(), certificates: given.or(usual), unverified })
}

/// The images on registries that a name may mean, best first; asks where a choice is wanted and
/// there is a terminal, and remembers the answer.
///
/// # Errors
/// The name is invalid, or ambiguous without a terminal.
pub(crate) fn meanings(
    names: &ShortNames,
    chosen: &Path,
    text: &str,
) -> Result<Vec<Reference>, Cause> {
    let (images, enforced) = match names.meaning(text)? {
        Meaning::One(image) => return Ok(vec![image]),
        Meaning::First(images) => return Ok(images),
        Meaning::Choice { images, enforced } => (images, enforced),
    };
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        let image = ask(text, &images).map_err(Cause::new)?;
        // Not being able to remember is no reason not to go on.
        if let Err(error) = remember_short_name(chosen, text, &image) {
            tracing::warn!(%error, "the choice is not remembered");
        }
        return Ok(vec![image]);
    }
    if enforced { Err(names.unclear(text, &images).into()) } else { Ok(images) }
}

#[derive(Debug, thiserror::Error)]
#[error("choosing a registry for {0:?}: {1}")]
struct NotChosen(String, String);

impl Fault for NotChosen {
    fn kind(&self) -> Kind {
        Kind::Cancelled
    }
}

fn ask(text: &str, images: &[Reference]) -> Result<Reference, NotChosen> {
    let failed = |reason: String| NotChosen(text.to_owned(), reason);
    let mut err = std::io::stderr().lock();
    let mut shown = format!("Which image is {text}?\n");
    for (index, image) in images.iter().enumerate() {
        shown.push_str(&format!("  {}) {image}\n", index + 1));
    }
    loop {
        let asked = write!(err, "{shown}1-{}: ", images.len()).and_then(|()| err.flush());
        asked.map_err(|error| failed(error.to_string()))?;
        let mut line = String::new();
        match std::io::stdin().read_line(&mut line) {
            Ok(0) => return Err(failed("nothing was chosen".into())),
            Ok(_) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
        let index = line.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        if let Some(image) = index.and_then(|index| images.get(index)) {
            return Ok(image.clone());
        }
    }
}

/// A path made absolute against the current directory.
///
/// # Errors
/// The current directory is gone.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::io(format!("making {} absolute", path.display()), &error))
}

/// The current directory.
///
/// # Errors
/// It is gone.
pub(crate) fn here() -> Result<PathBuf, Failure> {
    absolute(Path::new("."))
}

/// Where large files are put for a while.
pub(crate) fn scratch() -> PathBuf {
    paths(false).scratch()
}

/// The socket of the service manager that waits for what this process starts.
pub(crate) fn notify_socket() -> Option<String> {
    env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())
}

/// All variables of this process, as `NAME=value` lines.
pub(crate) fn environment() -> Vec<String> {
    let texts = env::vars_os()
        .map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.flatten().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The proxy variables that reach RUN steps and downloads, as the environment has them.
pub(crate) fn proxies() -> Vec<(String, String)> {
    const NAMES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let spelled = NAMES.iter().flat_map(|name| [name.to_uppercase(), (*name).to_owned()]);
    spelled.filter_map(|name| env::var(&name).ok().map(|value| (name, value))).collect()
}

/// How much the store may take, from `RBUILD_STORE_LIMIT`.
///
/// # Errors
/// It is not a size.
pub(crate) fn store_limit() -> Result<Option<u64>, Failure> {
    match env::var("RBUILD_STORE_LIMIT") {
        Ok(text) if !text.is_empty() => crate::flags::size(&text)
            .map(Some)
            .map_err(|why| Failure::usage(format!("RBUILD_STORE_LIMIT: {why}"))),
        _ => Ok(None),
    }
}
