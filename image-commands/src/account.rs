//! `login` and `logout`, the same in `rbuild` and `rcopy`.

use std::io::IsTerminal;
use std::path::PathBuf;

use app::{App, Runnable};
use clap::Args;
use options::registry::{RegistryFlags, registry_key};
use options::{Dialect, Failure, environment};
use registry_client::Credential;
use task::Kind;

/// Check credentials with a registry and store them
#[derive(Debug, Args)]
pub struct Login {
    /// The registry, or a repository on it: registry.example[/team]
    registry: String,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; prefer --password-stdin, which other processes cannot see
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// Print the stored user name and exit
    #[arg(long)]
    get_login: bool,
    /// Print which files are read and written
    #[arg(short, long)]
    verbose: bool,
    /// Write credentials to this file, in the format of docker's config.json
    #[arg(long, value_name = "FILE")]
    compat_auth_file: Option<PathBuf>,
    #[command(flatten)]
    reach: RegistryFlags,
}

impl Runnable for Login {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let key = registry_key(&self.registry);
        let registry = key.split('/').next().unwrap_or(&key).to_owned();
        let mut files = app.conf.keychain(None)?;
        if self.get_login {
            let stored = files.list()?;
            let user = stored.iter().find(|(stored, _)| *stored == key).map(|(_, user)| user);
            outln!("{}", user.ok_or_else(|| not_logged_in(&key))?);
            if self.verbose {
                files.paths.iter().for_each(|path| eprintln!("read {}", path.display()));
            }
            return Ok(0);
        }
        let reach = self.reach.reach()?;
        let credential = match reach.credential.clone() {
            Some(credential) => self.only(credential)?,
            None => self.asked()?,
        };
        let client = app.client(&reach)?;
        app.wait(client.check(&registry, &credential))?
            .map_err(|error| Failure::from(error).context(format!("logging in to {registry}")))?;
        let file = match &self.compat_auth_file {
            Some(file) => environment::absolute(file)?,
            None => app.conf.paths.login_file(app.conf.globals.authfile.as_deref()),
        };
        files.paths = vec![file.clone()];
        files.store(&key, &credential)?;
        outln!("Login Succeeded!");
        if self.verbose {
            eprintln!("wrote {}", file.display());
        }
        Ok(0)
    }
}

impl Login {
    /// The credentials of `--creds`, which leave nothing to be said otherwise.
    fn only(&self, credential: Credential) -> Result<Credential, Failure> {
        let others = [
            ("--username", self.username.is_some()),
            ("--password", self.password.is_some()),
            ("--password-stdin", self.password_stdin),
        ];
        match others.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::usage(format!("--creds and {flag} contradict"))),
            None => Ok(credential),
        }
    }

    /// The credentials of the other flags, or of who sits at the terminal.
    fn asked(&self) -> Result<Credential, Failure> {
        let username = match &self.username {
            Some(username) => username.clone(),
            None => prompt("Username: ")?,
        };
        let password = match (&self.password, self.password_stdin) {
            (Some(password), _) => password.clone(),
            (None, true) => environment::password_line()?,
            (None, false) => app::ask("Password: ")?,
        };
        Ok(Credential::Basic { username, password })
    }
}

/// Print the stored user name for a registry
#[derive(Debug, Args)]
pub struct Whoami {
    /// The registry, or a repository on it
    #[arg(default_value = "docker.io")]
    registry: String,
}

impl Runnable for Whoami {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let key = registry_key(&self.registry);
        let stored = app.conf.keychain(None)?.list()?;
        let user = stored.iter().find(|(stored, _)| *stored == key).map(|(_, user)| user);
        outln!("{}", user.ok_or_else(|| not_logged_in(&key))?);
        Ok(0)
    }
}

/// Delete the credentials for a registry
#[derive(Debug, Args)]
pub struct Logout {
    /// The registry, or a repository on it
    #[arg(required_unless_present = "all")]
    registry: Option<String>,
    /// Delete all credentials
    #[arg(short, long)]
    all: bool,
    /// Accepted for scripts: logout does not contact the registry
    #[arg(id = "tls-verify", long = "tls-verify", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    _tls_verify: Option<bool>,
}

impl Runnable for Logout {
    fn run(self, app: &App) -> Result<u8, Failure> {
        // buildah and podman have nothing to remove there; skopeo fails, and so does rcopy.
        if Dialect::spoken().copies() {
            app.conf.check_authfile()?;
        }
        let files = app.conf.keychain(None)?;
        let keys: Vec<String> = match self.registry {
            Some(registry) => vec![registry_key(&registry)],
            None => files.list()?.into_iter().map(|(key, _)| key).collect(),
        };
        for key in keys {
            if !files.erase(&key)? {
                return Err(not_logged_in(&key));
            }
            outln!("Removed login credentials for {key}");
        }
        Ok(0)
    }
}

fn not_logged_in(key: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("not logged in to {key}"))
}

fn prompt(question: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for the user name")
            .hint("use --username and --password-stdin"));
    }
    eprint!("{question}");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Failure::io("reading the user name", &error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
