//! What a build may use without keeping it: secrets, agents of ssh, names of hosts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder::{Agent, Keys, Secret};

use crate::config;
use crate::flags;
use crate::report::Failure;

/// `default`, `ID=SOCKET` or `ID=KEY[,KEY]`; a bare id takes `$SSH_AUTH_SOCK`.
pub(crate) fn agent(text: &str) -> Result<(String, Agent), Failure> {
    let refuse = |why: String| Failure::usage(format!("--ssh {text:?}: {why}"));
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => {
            let paths = flags::fields(paths).map_err(refuse)?;
            (id, paths.into_iter().map(PathBuf::from).collect())
        }
        None => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(socket) => (text, vec![PathBuf::from(socket)]),
            None => return Err(refuse("$SSH_AUTH_SOCK is not set".to_owned())),
        },
    };
    let paths = paths.iter().map(|path| config::absolute(path)).collect::<Result<Vec<_>, _>>()?;
    let mut sockets = Vec::new();
    for path in &paths {
        let kind = std::fs::metadata(path).map(|meta| meta.file_type()).map_err(|error| {
            Failure::io(format!("finding the agent or key {}", path.display()), &error)
        })?;
        if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
            sockets.push(path);
        } else if !kind.is_file() {
            return Err(refuse(format!("{} is neither a socket nor a file", path.display())));
        }
    }
    let agent = match (&sockets[..], &paths[..]) {
        ([], _) => Agent::Keys(Arc::new(Keys::read(&paths)?)),
        ([socket], [_]) => Agent::Socket((*socket).clone()),
        _ => return Err(refuse("the socket of an agent cannot be combined with keys".to_owned())),
    };
    Ok((id.to_owned(), agent))
}

/// No secret larger than this is read.
const LIMIT: u64 = 1 << 20;

/// The secret in a file. What comes through a pipe comes once, and is read at once.
fn secret_file(file: &str) -> Result<Secret, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--secret: {file:?} {why}"));
    let path = config::absolute(Path::new(file))?;
    let action = || format!("reading the secret {file:?}");
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(refuse("is not there")),
        Err(error) => Err(Failure::io(action(), &error)),
        Ok(stat) if stat.is_dir() => Err(refuse("is a directory")),
        Ok(stat) if stat.is_file() && !path.starts_with("/dev") && !path.starts_with("/proc") => {
            Ok(Secret::File(path))
        }
        Ok(_) => {
            let mut content = Vec::new();
            std::fs::File::open(&path)
                .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut content))
                .map_err(|error| Failure::io(action(), &error))?;
            match content.len() as u64 {
                ..=LIMIT => Ok(Secret::Value(content)),
                _ => Err(refuse("is larger than 1 MiB")),
            }
        }
    }
}

pub(crate) fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let refuse = |why: &str| Failure::usage(format!("--secret: {why}"));
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    let fields = flags::fields(text).map_err(|why| refuse(&why))?;
    for pair in &fields {
        match pair.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("src" | "source", value)) => source = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            Some((key, _)) => return Err(refuse(&format!("key {key:?} is not known"))),
            None => return Err(refuse("expected id=NAME,src=FILE or id=NAME,env=VARIABLE")),
        }
    }
    let id = id.ok_or_else(|| refuse("it has no id="))?;
    let (source, variable) = match (source, variable, kind) {
        (Some(_), Some(_), _) => return Err(refuse("src= and env= exclude each other")),
        (Some(name), None, Some("env")) => (None, Some(name)),
        (None, None, Some("file")) => (Some(id), None),
        (None, None, _) if std::env::var_os(id).is_some() => (None, Some(id)),
        (None, None, _) => (Some(id), None),
        (source, variable, _) => (source, variable),
    };
    let secret = match (source, variable) {
        (_, Some(variable)) => match std::env::var_os(variable) {
            Some(value) => Secret::Value(std::os::unix::ffi::OsStringExt::into_vec(value)),
            None => return Err(refuse(&format!("the variable {variable:?} is not set"))),
        },
        (Some(file), None) => secret_file(file)?,
        (None, None) => return Err(refuse("it has neither src= nor env=")),
    };
    Ok((id.to_owned(), secret))
}
