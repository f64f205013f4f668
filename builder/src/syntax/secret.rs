//! What a build may use without keeping it: secrets and agents of ssh.

use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use task::Cause;

use super::invocation::fields;
use super::{Invocation, SyntaxError};
use crate::secret::SECRET_LIMIT;
use crate::{Agent, Error, Keys, Result, Secret};

/// An agent by its id: `ID=SOCKET` or `ID=KEY[,KEY]`; a bare id takes `$SSH_AUTH_SOCK`.
///
/// # Errors
/// There is no socket or key; keys cannot be read.
pub fn agent(text: &str, call: &Invocation<'_>) -> Result<(String, Agent)> {
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => (id, fields(paths)?.into_iter().map(PathBuf::from).collect()),
        None => match (call.variable)("SSH_AUTH_SOCK") {
            Some(socket) => (text, vec![PathBuf::from(socket)]),
            None => return Err(SyntaxError::new("$SSH_AUTH_SOCK is not set").into()),
        },
    };
    let paths: Vec<PathBuf> = paths.iter().map(|path| call.absolute(path)).collect();
    let mut sockets = Vec::new();
    for path in &paths {
        let kind = std::fs::metadata(path).map(|meta| meta.file_type());
        let kind = kind.map_err(Error::file("finding the agent or key", path))?;
        if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
            sockets.push(path);
        } else if !kind.is_file() {
            let why = format!("{} is neither a socket nor a file", path.display());
            return Err(SyntaxError::new(why).into());
        }
    }
    let agent = match (&sockets[..], &paths[..]) {
        ([], _) => {
            let keys = Keys::read(&paths).map_err(Cause::new);
            Agent::Keys(Arc::new(
                keys.map_err(Error::part(format!("using the ssh keys of {id:?}")))?,
            ))
        }
        ([socket], [_]) => Agent::Socket((*socket).clone()),
        _ => {
            let why = "the socket of an agent cannot be combined with keys";
            return Err(SyntaxError::new(why).into());
        }
    };
    Ok((id.to_owned(), agent))
}

/// The secret in a file. What comes through a pipe comes once, and is read at once.
fn secret_file(file: &str, call: &Invocation<'_>) -> Result<Secret> {
    let refuse = |why: &str| Err(SyntaxError::new(format!("{file:?} {why}")).into());
    let path = call.absolute(file);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => refuse("is not there"),
        Err(error) => Err(Error::file("reading secret", path)(error)),
        Ok(stat) if stat.is_dir() => refuse("is a directory"),
        Ok(stat) if stat.is_file() && !path.starts_with("/dev") && !path.starts_with("/proc") => {
            Ok(Secret::File(path))
        }
        Ok(_) => {
            let mut content = Vec::new();
            std::fs::File::open(&path)
                .and_then(|file| file.take(SECRET_LIMIT + 1).read_to_end(&mut content))
                .map_err(Error::file("reading secret", &path))?;
            match content.len() as u64 {
                ..=SECRET_LIMIT => Ok(Secret::Value(content)),
                _ => refuse("is larger than 1 MiB"),
            }
        }
    }
}

/// A secret by its id: `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`; with the id alone it is in the
/// variable or else the file of that name.
///
/// # Errors
/// It is malformed; there is no such file or variable.
pub fn secret(text: &str, call: &Invocation<'_>) -> Result<(String, Secret)> {
    let refuse = |why: &str| SyntaxError::new(why);
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    let fields = fields(text)?;
    for pair in &fields {
        match pair.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("src" | "source", value)) => source = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            Some((key, _)) => return Err(refuse(&format!("key {key:?} is not known")).into()),
            None => {
                return Err(refuse("expected id=NAME,src=FILE or id=NAME,env=VARIABLE").into());
            }
        }
    }
    let id = id.ok_or_else(|| refuse("it has no id="))?;
    let (source, variable) = match (source, variable, kind) {
        (Some(_), Some(_), _) => return Err(refuse("src= and env= exclude each other").into()),
        (Some(name), None, Some("env")) => (None, Some(name)),
        (None, None, Some("file")) => (Some(id), None),
        (None, None, _) if (call.variable)(id).is_some() => (None, Some(id)),
        (None, None, _) => (Some(id), None),
        (source, variable, _) => (source, variable),
    };
    let secret = match (source, variable) {
        (_, Some(variable)) => match (call.variable)(variable) {
            Some(value) => Secret::Value(value.into_vec()),
            None => {
                return Err(refuse(&format!("the variable {variable:?} is not set")).into());
            }
        },
        (Some(file), None) => secret_file(file, call)?,
        (None, None) => return Err(refuse("it has neither src= nor env=").into()),
    };
    Ok((id.to_owned(), secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let variable = |name: &str| (name == "TOKEN").then(|| "x".into());
        let call = Invocation { directory: "/".into(), variable: &variable, registry: "localhost" };
        let value = |text: &str| match secret(text, &call).unwrap().1 {
            Secret::Value(value) => Some(value),
            Secret::File(_) => None,
        };
        for text in ["id=a,env=TOKEN", "id=TOKEN", "id=a,type=env,src=TOKEN"] {
            assert_eq!(value(text), Some(b"x".to_vec()), "{text}");
        }
        for text in ["id=a,src=/nowhere", "id=a,env=NOPE", "src=/x", "id=a,src=/x,env=TOKEN", "a"] {
            assert!(secret(text, &call).is_err(), "{text}");
        }
    }
}
