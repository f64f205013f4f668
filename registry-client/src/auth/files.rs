use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use image::Repository;
use serde_json::{Map, Value, json};

use super::helper::Helper;
use crate::{Credential, Error, Keychain, Result};

/// The largest credentials file that is read.
const LARGEST: u64 = 4 << 20;
/// What Docker stores credentials for docker.io under.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Credentials in files as Docker (`config.json`) and podman (`auth.json`) keep them, with the
/// credential helpers those files name.
///
/// Within a file the most specific key wins: `registry/team/app`, `registry/team`, `registry`.
/// For a registry the helper named for it (`credHelpers`), or else the general one
/// (`credsStore`), goes before the file's own entry; a helper that fails is an error, never a
/// reason to look elsewhere. Helpers know whole registries only.
#[derive(Debug, Clone)]
pub struct AuthFiles {
    /// The files, first hit wins; missing files are as empty ones.
    pub paths: Vec<PathBuf>,
    /// Where credentials are looked up, in order (`credential-helpers` of registries.conf):
    /// [`AuthFiles::OWN`] means the files, everything else is a helper.
    pub order: Vec<String>,
    /// The directories helper programs (`docker-credential-…`) are looked for in; absolute.
    pub helper_dirs: Vec<PathBuf>,
    /// The environment helpers run in, complete.
    pub helper_env: Vec<(String, String)>,
    /// How long a helper may take.
    pub helper_timeout: Duration,
}

/// One file's content; fields we do not know stay as they are.
struct Contents {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl AuthFiles {
    /// The entry for the files in [`AuthFiles::order`].
    pub const OWN: &str = "containers-auth.json";

    /// A keychain over these files.
    pub fn new(paths: Vec<PathBuf>) -> AuthFiles {
        AuthFiles {
            paths,
            order: vec![AuthFiles::OWN.to_owned()],
            helper_dirs: Vec::new(),
            helper_env: Vec::new(),
            helper_timeout: Duration::from_secs(30),
        }
    }

    /// Stores a credential for `key` (`registry.example`, `registry.example/team`) in the first
    /// file, or in the helper that file names for it.
    ///
    /// # Errors
    /// Of the file or the helper; [`Error::Configuration`] without a file or for
    /// [`Credential::Anonymous`] and [`Credential::Bearer`].
    pub fn store(&self, key: &str, credential: &Credential) -> Result<()> {
        let unusable = |reason: &str| Error::Configuration {
            action: format!("storing the credential for {key}"),
            reason: reason.to_owned(),
        };
        let path = self.paths.first().ok_or_else(|| unusable("there is no credentials file"))?;
        let mut contents = Contents::read(path)?;
        let stored = stored_key(key);
        let host = key.split('/').next().unwrap_or_default();
        if let Some(helper) = contents.helper(host) {
            if host != key {
                return Err(unusable(&format!(
                    "the credential helper {helper} of {} keeps those of whole registries only",
                    path.display()
                )));
            }
            return Helper::find(self, &helper)?.store(&stored, credential);
        }
        let entry = match credential {
            Credential::Basic { username, password } => {
                let pair = format!("{username}:{password}");
                json!({ "auth": base64::prelude::BASE64_STANDARD.encode(pair) })
            }
            Credential::Identity(token) => {
                let user = base64::prelude::BASE64_STANDARD.encode("<token>:");
                json!({ "auth": user, "identitytoken": token })
            }
            Credential::Anonymous | Credential::Bearer(_) => {
                return Err(unusable("only passwords and identity tokens can be stored"));
            }
        };
        contents.auths_mut()?.insert(stored, entry);
        contents.write()
    }

    /// Removes the credential of `key` from every file and helper; whether there was one.
    ///
    /// # Errors
    /// Of the file or the helper.
    pub fn erase(&self, key: &str) -> Result<bool> {
        let mut found = false;
        for path in &self.paths {
            let mut contents = Contents::read(path)?;
            if let Some(helper) = contents.helper(key).filter(|_| !key.contains('/')) {
                let helper = Helper::find(self, &helper)?;
                for name in spellings(key) {
                    if helper.get(&name)?.is_some() {
                        helper.erase(&name)?;
                        found = true;
                    }
                }
            }
            let before = contents.auths().map_or(0, Map::len);
            if before > 0 {
                let auths = contents.auths_mut()?;
                for name in spellings(key) {
                    auths.remove(&name);
                }
                if auths.len() != before {
                    found = true;
                    contents.write()?;
                }
            }
        }
        Ok(found)
    }

    /// The keys that have a credential in a file or through a helper, with the user names (empty
    /// where they are not known without asking the helper).
    ///
    /// # Errors
    /// Of the files.
    pub fn list(&self) -> Result<Vec<(String, String)>> {
        let mut seen = BTreeSet::new();
        let mut list = Vec::new();
        for path in &self.paths {
            let contents = Contents::read(path)?;
            let helpers = contents.fields.get("credHelpers").and_then(Value::as_object);
            let helpers = helpers.into_iter().flat_map(Map::keys);
            for key in contents.auths().into_iter().flat_map(Map::keys).chain(helpers) {
                if seen.insert(shown_key(key)) {
                    let user = match contents.entry(key)? {
                        Some(Credential::Basic { username, .. }) => username,
                        _ => String::new(),
                    };
                    list.push((shown_key(key), user));
                }
            }
        }
        Ok(list)
    }

    /// The credential for a name, from its most specific prefix to its registry.
    fn find(&self, name: &str) -> Result<Credential> {
        for place in &self.order {
            let found = match place.as_str() {
                AuthFiles::OWN => self.find_in_files(name)?,
                helper => {
                    let helper = Helper::find(self, helper)?;
                    helper.get(&stored_key(name.split('/').next().unwrap_or_default()))?
                }
            };
            if let Some(credential) = found {
                return Ok(credential);
            }
        }
        Ok(Credential::Anonymous)
    }

    fn find_in_files(&self, name: &str) -> Result<Option<Credential>> {
        for path in &self.paths {
            let contents = Contents::read(path)?;
            let found = first_of(prefixes(name), |prefix| {
                if !prefix.contains('/')
                    && let Some(helper) = contents.helper(prefix)
                    && let Some(found) = Helper::find(self, &helper)?.get(&stored_key(prefix))?
                {
                    return Ok(Some(found));
                }
                first_of(spellings(prefix), |key| contents.entry(&key))
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// `registry/team/app`, `registry/team`, `registry`.
fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |longer| longer.rsplit_once('/').map(|(shorter, _)| shorter))
}

fn first_of<K, T>(
    keys: impl IntoIterator<Item = K>,
    find: impl Fn(K) -> Result<Option<T>>,
) -> Result<Option<T>> {
    keys.into_iter().find_map(|key| find(key).transpose()).transpose()
}

impl Keychain for AuthFiles {
    fn credential(&self, repository: &Repository) -> Result<Credential> {
        self.find(&repository.to_string())
    }

    fn registry_credential(&self, registry: &str) -> Result<Credential> {
        self.find(registry)
    }
}

/// The key new entries get.
fn stored_key(key: &str) -> String {
    if key == "docker.io" { DOCKER_HUB.to_owned() } else { key.to_owned() }
}

/// A key as people write it.
fn shown_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    if bare == "index.docker.io" { "docker.io".to_owned() } else { bare.to_owned() }
}

/// All keys an entry for this prefix may have.
fn spellings(prefix: &str) -> Vec<String> {
    let mut spellings = vec![prefix.to_owned()];
    if prefix == "docker.io" {
        spellings.extend(
            [DOCKER_HUB, "index.docker.io", "https://index.docker.io/v1", "registry-1.docker.io"]
                .map(str::to_owned),
        );
    }
    if !prefix.contains('/') {
        for scheme in ["https", "http"] {
            spellings.extend(
                ["", "/", "/v1/", "/v2/", "/v1", "/v2"]
                    .map(|end| format!("{scheme}://{prefix}{end}")),
            );
        }
    }
    spellings
}

impl Contents {
    fn read(path: &Path) -> Result<Contents> {
        let broken = |reason: String| Error::CredentialsFile { path: path.to_owned(), reason };
        let failed = |source| Error::File {
            action: "reading credentials from",
            path: path.to_owned(),
            source,
        };
        let empty = || Contents { path: path.to_owned(), fields: Map::new() };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(empty()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LARGEST {
            return Err(broken(format!("more than {LARGEST} bytes")));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(empty());
        }
        // The parser's message may quote the file, so only its position is shown.
        let fields: Value = serde_json::from_slice(&bytes).map_err(|error| {
            broken(format!("malformed JSON in line {}, column {}", error.line(), error.column()))
        })?;
        let Value::Object(mut fields) = fields else {
            return Err(broken("it is not a JSON object".into()));
        };
        // The oldest form (.dockercfg) is the entries alone.
        let old = path.file_name().is_some_and(|name| name == ".dockercfg");
        if old && !fields.contains_key("auths") {
            fields = Map::from_iter([("auths".to_owned(), Value::Object(fields))]);
        }
        Ok(Contents { path: path.to_owned(), fields })
    }

    fn auths(&self) -> Option<&Map<String, Value>> {
        self.fields.get("auths").and_then(Value::as_object)
    }

    fn auths_mut(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.fields.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        let path = &self.path;
        auths.as_object_mut().ok_or_else(|| Error::CredentialsFile {
            path: path.clone(),
            reason: "\"auths\" is not an object".into(),
        })
    }

    /// The helper for a registry: its own, or the general one.
    fn helper(&self, host: &str) -> Option<String> {
        let own = self.fields.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
            spellings(host).iter().find_map(|key| helpers.get(key)).and_then(Value::as_str)
        });
        let store = self.fields.get("credsStore").and_then(Value::as_str);
        own.or(store).filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// What the file itself has under a key.
    fn entry(&self, key: &str) -> Result<Option<Credential>> {
        let Some(entry) = self.auths().and_then(|auths| auths.get(key)) else { return Ok(None) };
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::Identity(token.to_owned())));
        }
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::Bearer(token.to_owned())));
        }
        if let Some(auth) = text("auth") {
            let broken = || Error::CredentialsFile {
                path: self.path.clone(),
                reason: format!("the entry for {key} is not base64 of name:password"),
            };
            let bytes = base64::prelude::BASE64_STANDARD.decode(auth.trim());
            let pair = String::from_utf8(bytes.map_err(|_| broken())?).map_err(|_| broken())?;
            let pair = pair.trim_end_matches('\0');
            let (username, password) = pair.split_once(':').ok_or_else(broken)?;
            return Ok(Some(Credential::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            }));
        }
        Ok(text("username").zip(text("password")).map(|(username, password)| Credential::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        }))
    }

    /// Replaces the file in one step, readable by its owner only.
    fn write(&self) -> Result<()> {
        // A link (a file managed elsewhere) stays a link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed =
            |source| Error::File { action: "writing credentials to", path: path.clone(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        if !directory.exists() {
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(directory).map_err(failed)?;
        }
        let mut text = serde_json::to_vec_pretty(&self.fields)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        text.push(b'\n');
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = directory.join(format!(".{name}.{}", std::process::id()));
        let written = (|| {
            let _ = fs::remove_file(&temporary);
            let mut file =
                File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(directory)?.sync_all()
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })
    }
}
