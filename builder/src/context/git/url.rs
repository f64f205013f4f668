//! Addresses of git repositories as builds write them: `https://host/path.git#ref:subdir`, or the
//! same with a query.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The part of a repository that a build takes. Its text form shows no credentials; as a value it is
/// the address that was given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitUrl {
    /// The address, with fragment and query.
    pub(super) given: String,
    /// What git is given, without credentials.
    pub(crate) remote: String,
    /// `host/path`, which names the repository in identifiers.
    pub(crate) place: String,
    /// The host, with its port.
    pub(crate) host: String,
    /// User and password of an `http` address.
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) reference: GitRef,
    /// A directory below the top, without a leading slash; empty for the top.
    pub(crate) subdir: String,
    /// The beginning of the commit's name, or all of it.
    pub(crate) checksum: Option<String>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: bool,
    /// Whether a commit that is known is taken without asking where the reference is now.
    pub(crate) by_commit: bool,
    /// Whether files have the time of the checkout instead of the commit's.
    pub(crate) checkout_times: bool,
}

/// The requested commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GitRef {
    /// The one the repository gives without being asked.
    Head,
    /// A branch, a tag, a full name such as `refs/pull/1/head`, or a commit.
    Any(String),
    /// A tag.
    Tag(String),
    /// A branch.
    Branch(String),
}

impl GitRef {
    /// The text that was given; empty for the default.
    pub(crate) fn text(&self) -> &str {
        match self {
            GitRef::Head => "",
            GitRef::Any(text) | GitRef::Tag(text) | GitRef::Branch(text) => text,
        }
    }
}

impl TryFrom<String> for GitUrl {
    type Error = String;

    fn try_from(text: String) -> Result<GitUrl, String> {
        GitUrl::parse(&text)
    }
}

impl From<GitUrl> for String {
    fn from(url: GitUrl) -> String {
        url.given
    }
}

impl fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitUrl({self})")
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.remote)?;
        fragment(self, f)
    }
}

fn fragment(url: &GitUrl, f: &mut dyn fmt::Write) -> fmt::Result {
    let reference = url.reference.text();
    match (reference, url.subdir.as_str()) {
        ("", "") => Ok(()),
        (reference, "") => write!(f, "#{reference}"),
        (reference, subdir) => write!(f, "#{reference}:{subdir}"),
    }
}

/// The words of a query.
const KEYS: &str = "ref, tag, branch, subdir, checksum, commit, keep-git-dir, submodules, mtime and fetch-by-commit";

impl GitUrl {
    /// Whether a text is the address of a repository: `git://…`, `ssh://…`, `git@host:path`, or an
    /// `http` address whose path ends in `.git`.
    pub fn is_git(text: &str) -> bool {
        let path = text.split(['#', '?']).next().unwrap_or_default();
        text.starts_with("git://")
            || text.starts_with("ssh://")
            || text.starts_with("git@")
            || (is_http(text) && path.ends_with(".git"))
    }

    /// Reads an address.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<GitUrl, String> {
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err("it has blanks or control characters".to_owned());
        }
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (address, query) = match rest.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (rest, None),
        };
        let mut url = remote(address)?;
        if let Some(fragment) = fragment {
            let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
            if !reference.is_empty() {
                url.set_reference(GitRef::Any(reference.to_owned()))?;
            }
            url.set_subdir(subdir)?;
        }
        if let Some(query) = query {
            for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
                url.set(&key, &value)?;
            }
        }
        text.clone_into(&mut url.given);
        Ok(url)
    }

    /// The identifier of [`crate::inputs`].
    pub(crate) fn identifier(&self) -> String {
        let mut text = format!("git://{}", self.place);
        let _ = fragment(self, &mut text);
        text
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let flag = |value: &str| match value {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(format!("{key}={value:?} is not true or false")),
        };
        match key {
            "ref" => self.set_reference(GitRef::Any(value.to_owned())),
            "tag" => self.set_reference(GitRef::Tag(value.to_owned())),
            "branch" => self.set_reference(GitRef::Branch(value.to_owned())),
            "subdir" => self.set_subdir(value),
            "checksum" | "commit" => {
                if self.checksum.as_deref().is_some_and(|known| known != value) {
                    return Err("it names two commits".to_owned());
                }
                self.checksum = Some(commit_name(value)?);
                Ok(())
            }
            "keep-git-dir" => {
                self.keep_git_dir = Some(flag(value)?);
                Ok(())
            }
            "submodules" => {
                self.submodules = flag(value)?;
                Ok(())
            }
            "mtime" => {
                self.checkout_times = match value {
                    "commit" => false,
                    "checkout" => true,
                    _ => return Err(format!("mtime={value:?} is not commit or checkout")),
                };
                Ok(())
            }
            "fetch-by-commit" => {
                self.by_commit = flag(value)?;
                Ok(())
            }
            _ => Err(format!("{key:?} is not one of {KEYS}")),
        }
    }

    fn set_reference(&mut self, reference: GitRef) -> Result<(), String> {
        check_reference(reference.text())?;
        if self.reference != GitRef::Head && self.reference.text() != reference.text() {
            let (one, two) = (self.reference.text(), reference.text());
            return Err(format!("it names both {one:?} and {two:?}"));
        }
        self.reference = reference;
        Ok(())
    }

    fn set_subdir(&mut self, text: &str) -> Result<(), String> {
        let parts: Vec<&str> =
            text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(format!("the directory {text:?} leads out of the repository"));
        }
        let subdir = parts.join("/");
        if !self.subdir.is_empty() && self.subdir != subdir {
            return Err(format!("it names both {:?} and {subdir:?}", self.subdir));
        }
        self.subdir = subdir;
        Ok(())
    }
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The lower-case hexadecimal name of a commit, or its beginning.
pub(crate) fn commit_name(text: &str) -> Result<String, String> {
    let hex = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex || text.len() > 64 || text.len() < 7 {
        return Err(format!("{text:?} is not the name of a commit or 7 or more digits of it"));
    }
    Ok(text.to_ascii_lowercase())
}

/// Whether a text is the whole name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// As git-check-ref-format(1), so that nothing git would take for an option, a range or a
/// pattern gets through.
fn check_reference(text: &str) -> Result<(), String> {
    let refuse = || Err(format!("{text:?} is not the name of a branch, tag or commit"));
    let bad = [' ', '~', '^', ':', '?', '*', '[', '\\', '\x7f'];
    let component = |part: &str| {
        part.is_empty() || part.starts_with('.') || part.ends_with(".lock") || part.ends_with('.')
    };
    if text.is_empty()
        || text.starts_with('-')
        || text.contains("..")
        || text.contains("@{")
        || text == "@"
        || text.contains(|c: char| c.is_control() || bad.contains(&c))
        || text.split('/').any(component)
        || text.len() > 1024
    {
        return refuse();
    }
    Ok(())
}

/// The repository of an address without fragment and query.
fn remote(address: &str) -> Result<GitUrl, String> {
    let url = |remote: String, host: String, path: &str, credentials| GitUrl {
        given: String::new(),
        place: format!("{host}/{}", path.trim_start_matches('/')),
        remote,
        host,
        credentials,
        reference: GitRef::Head,
        subdir: String::new(),
        checksum: None,
        keep_git_dir: None,
        submodules: true,
        by_commit: false,
        checkout_times: false,
    };
    let Some((scheme, _)) = address.split_once("://") else {
        // As scp has it: user@host:path.
        let (login, path) = address.split_once(':').ok_or("it has no path")?;
        let (user, host) = login.split_once('@').ok_or("it has no user and host")?;
        let plain = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !plain(user) || !plain(host) || path.is_empty() || path.starts_with('-') {
            return Err("it is not user@host:path".to_owned());
        }
        return Ok(url(address.to_owned(), host.to_owned(), path, None));
    };
    if !matches!(scheme, "http" | "https" | "git" | "ssh") {
        return Err(format!("git over {scheme}: is not supported: use https, ssh, git or http"));
    }
    let mut parsed = url::Url::parse(address).map_err(|error| error.to_string())?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let path = parsed.path().to_owned();
    if host.is_empty() || host.starts_with('-') || matches!(path.as_str(), "" | "/") {
        return Err("it has no host or no path".to_owned());
    }
    let host = match parsed.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    let mut credentials = None;
    if is_http(address) {
        let decoded = |text: &str| {
            percent(text).ok_or_else(|| "its user or password is not UTF-8 text".to_owned())
        };
        let (user, password) =
            (decoded(parsed.username())?, decoded(parsed.password().unwrap_or_default())?);
        if !user.is_empty() || !password.is_empty() {
            credentials = Some((user, password));
            let _ = parsed.set_username("");
        }
    }
    let _ = parsed.set_password(None);
    if parsed.username().starts_with('-') {
        return Err("its user begins with a dash".to_owned());
    }
    Ok(url(parsed.to_string(), host, &path, credentials))
}

/// Replaces `%41` by the byte that it encodes.
fn percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = |range| tail.get(range).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex(0..2).filter(|_| *first == b'%').map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_files() {
        for text in [
            "git://h/p",
            "git@h:p",
            "ssh://git@h/p",
            "https://h/p.git",
            "http://h/p.git#v1:d",
            "https://h/p.git?ref=v1",
        ] {
            assert!(GitUrl::is_git(text), "{text}");
        }
        for text in ["https://h/p.tar.gz", "https://h/p?x=.git", "p.git", "/p.git", "./git@h:p"] {
            assert!(!GitUrl::is_git(text), "{text}");
        }
    }

    #[test]
    fn fragments_and_queries_say_the_same() {
        let cases = [
            ("https://h.example/a/b.git", "", "", "git://h.example/a/b.git"),
            ("https://h/b.git#v1", "v1", "", "git://h/b.git#v1"),
            ("https://h/b.git#v1:x/y/", "v1", "x/y", "git://h/b.git#v1:x/y"),
            ("https://h/b.git#:x", "", "x", "git://h/b.git#:x"),
            ("https://h:8443/b.git?ref=v1&subdir=/x", "v1", "x", "git://h:8443/b.git#v1:x"),
            ("https://h/b.git?tag=v1", "v1", "", "git://h/b.git#v1"),
            ("https://h/b.git?branch=r%2Fv1", "r/v1", "", "git://h/b.git#r/v1"),
            ("git@h.example:a/b.git#main", "main", "", "git://h.example/a/b.git#main"),
            ("ssh://git@h/a.git", "", "", "git://h/a.git"),
            ("git://h/a#refs/pull/1/head", "refs/pull/1/head", "", "git://h/a#refs/pull/1/head"),
        ];
        for (text, reference, subdir, identifier) in cases {
            let url = GitUrl::parse(text).unwrap();
            assert_eq!(url.reference.text(), reference, "{text}");
            assert_eq!(url.subdir, subdir, "{text}");
            assert_eq!(url.identifier(), identifier, "{text}");
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let text = format!(
            "https://h/b.git?checksum={commit}&keep-git-dir=true&submodules=false&mtime=checkout&fetch-by-commit=1"
        );
        let url = GitUrl::parse(&text).unwrap();
        assert_eq!(url.checksum.as_deref(), Some(commit));
        assert_eq!((url.keep_git_dir, url.submodules), (Some(true), false));
        assert!(url.checkout_times && url.by_commit);
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        for text in [
            "https://h/b.git#--upload-pack=touch /tmp/x",
            "https://h/b.git#--upload-pack=x",
            "https://h/b.git?ref=-x",
            "https://h/b.git#a..b",
            "https://h/b.git#a^{/x}",
            "https://h/b.git#v1:../../etc",
            "https://h/b.git?subdir=a/../../b",
            "https://h/b.git?ref=a&tag=b",
            "https://h/b.git#a?ref=b",
            "https://h/b.git?nonsense=1",
            "https://h/b.git?submodules=maybe",
            "https://h/b.git?checksum=xyz",
            "ext::sh -c touch% /tmp/x",
            "file:///srv/b.git",
            "ssh://-oProxyCommand=x/b.git",
            "ssh://-oProxyCommand=x@h/b.git",
            "git@-oProxyCommand=x:b.git",
            "git@h:-x",
            "git@h:",
            "https://h/b.git#a\nb",
        ] {
            assert!(GitUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_do_not_show() {
        let url = GitUrl::parse("https://us%65r:p%40ss@h/b.git#v1").unwrap();
        assert_eq!(url.credentials, Some(("user".to_owned(), "p@ss".to_owned())));
        for text in [url.to_string(), format!("{url:?}"), url.identifier(), url.remote] {
            assert!(!text.contains("ss@") && !text.contains("user"), "{text}");
        }
    }
}
