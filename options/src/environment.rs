//! The process around the command line: its directory, its variables, its clock, and files that
//! options name.

use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};

use configuration::{Environment, Paths};
use task::Kind;

use crate::Failure;

/// The paths of this process's user.
pub fn paths(rootless: bool) -> Paths {
    // Without a current directory relative paths are not found.
    let directory = env::current_dir().unwrap_or_default();
    Paths::new(Environment::new(env::vars_os(), directory), rootless)
}

/// A path made absolute against the current directory.
///
/// # Errors
/// The current directory is gone.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::io(format!("making {} absolute", path.display()), &error))
}

/// The current directory.
///
/// # Errors
/// It is gone.
pub fn here() -> Result<PathBuf, Failure> {
    absolute(Path::new("."))
}

/// Where large files are put for a while.
pub fn scratch() -> PathBuf {
    paths(false).scratch()
}

/// The socket of the service manager that waits for what this process starts.
pub fn notify_socket() -> Option<String> {
    env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())
}

/// How many sockets a service manager has opened for this process, from descriptor 3 on, and the variables
/// that say so to the program that gets them as process `pid`.
pub fn opened_sockets(pid: u32) -> (u32, Vec<String>) {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id()));
    let Some(count) = count.filter(|count| *count > 0) else { return Default::default() };
    let mut lines = vec![format!("LISTEN_FDS={count}"), format!("LISTEN_PID={pid}")];
    lines.extend(env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    (count, lines)
}

/// All variables of this process, as `NAME=value` lines.
pub fn environment() -> Vec<String> {
    let texts = env::vars_os()
        .map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.flatten().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The proxy variables that reach RUN steps and downloads, as the environment has them.
pub fn proxies() -> Vec<(String, String)> {
    const NAMES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let spelled = NAMES.iter().flat_map(|name| [name.to_uppercase(), (*name).to_owned()]);
    spelled.filter_map(|name| env::var(&name).ok().map(|value| (name, value))).collect()
}

/// How much the store may take, from `RBUILD_STORE_LIMIT`.
///
/// # Errors
/// It is not a size.
pub fn store_limit() -> Result<Option<u64>, Failure> {
    match env::var("RBUILD_STORE_LIMIT") {
        Ok(text) if !text.is_empty() => crate::flags::size(&text)
            .map(Some)
            .map_err(|why| Failure::usage(format!("RBUILD_STORE_LIMIT: {why}"))),
        _ => Ok(None),
    }
}

/// A small file, or standard input for `-`, of at most `limit` bytes.
///
/// # Errors
/// It cannot be read; it is longer.
pub fn read_bounded(file: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("reading {}", file.display()), &error);
    let mut input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    input.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let what = format!("reading {}: it has more than {limit} bytes", file.display());
        return Err(Failure::new(Kind::Invalid, what));
    }
    Ok(bytes)
}

/// Now, in seconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A password on standard input, without the end of its line.
///
/// # Errors
/// It cannot be read, or is empty: what should have written it failed.
pub fn password_line() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(1 << 20).read_to_string(&mut text);
    read.map_err(|error| Failure::io("reading the password from stdin", &error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage("the password on standard input is empty")),
        password => Ok(password.to_owned()),
    }
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().ok_or_else(|| {
        Failure::new(Kind::Invalid, format!("writing {}: it names no file", path.display()))
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(hidden);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        Failure::io(format!("writing {}", path.display()), &error)
    })
}
