//! The variables of commands, as `NAME=value` lines.

/// Build arguments every `RUN` gets without `ARG`, and which never show in image, history or key.
pub const PROXY: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The search path of an image that names none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Looks a name up in `NAME=value` lines.
pub fn in_env<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter()
        .rev()
        .find_map(|line| line.split_once('=').filter(|(n, _)| *n == name))
        .map(|(_, v)| v)
}

/// Sets a variable among `NAME=value` lines.
pub fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    let named = |line: &&mut String| line.split_once('=').is_some_and(|(n, _)| n == name);
    match env.iter_mut().find(named) {
        Some(slot) => *slot = line,
        None => env.push(line),
    }
}
