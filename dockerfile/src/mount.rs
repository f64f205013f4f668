//! `RUN --mount` and `RUN --device`: comma-separated `key=value` lists, variables in the values.

use crate::diagnostic::Diagnostic;
use crate::directive::go_bool;
use crate::expand::{Scope, expand};
use crate::fields::fields;
use crate::span::{Span, Word};
use crate::suggest::did_you_mean;

/// One mount of a `RUN` instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; relative to the working directory. `None` for a bind means the working directory,
    /// for a secret that only its variable is set, for ssh the default socket path.
    pub target: Option<String>,
    /// Where the flag's value stands in the source.
    pub span: Span,
}

/// Owner and mode of what a mount creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// The types of mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image. Writes, where allowed, are thrown away.
    Bind {
        /// Stage, image or named context; `None` is the build context.
        from: Option<String>,
        /// Path in it, its root without one.
        source: Option<String>,
        /// `rw`: the command may write.
        writable: bool,
        /// `U`: owned by the user the command runs as.
        chown: bool,
    },
    /// A directory kept between builds.
    Cache {
        /// Names the cache; `None` means the target path.
        id: Option<String>,
        /// What a new cache starts with.
        from: Option<String>,
        /// Path in `from`.
        source: Option<String>,
        /// `ro`: the command may not write.
        read_only: bool,
        /// What happens when two builds want it at once.
        sharing: CacheSharing,
        /// Owner and mode of a new cache directory; defaults are 0755, 0, 0.
        ownership: Ownership,
    },
    /// Memory.
    Tmpfs {
        /// Largest size in bytes.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: Option<u32>,
        /// Starts with the content of the directory it covers.
        copy_up: bool,
    },
    /// A secret, as a file or a variable or both.
    Secret {
        /// Names the secret.
        id: String,
        /// Name of the variable that holds it.
        env: Option<String>,
        /// A missing secret is an error.
        required: bool,
        /// Owner and mode of the file; defaults are 0400, 0, 0.
        ownership: Ownership,
    },
    /// The socket of an ssh agent.
    Ssh {
        /// Names the agent, `default` without one.
        id: String,
        /// A missing agent is an error.
        required: bool,
        /// Owner and mode of the socket; defaults are 0600, 0, 0.
        ownership: Ownership,
    },
}

/// What happens when two builds use one cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// Both use it.
    #[default]
    Shared,
    /// Each gets one of its own.
    Private,
    /// The second waits.
    Locked,
}

/// A device of a `RUN --device` flag, in the words of the Container Device Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `vendor/class=name`, a class, or `*`.
    pub name: String,
    /// A missing device is an error.
    pub required: bool,
}

impl Mount {
    /// Reads the value of one `--mount` flag, replacing variables in its values first.
    pub fn parse(word: &Word, scope: Scope<'_>) -> Result<Self, Diagnostic> {
        let mut fields = Fields::default();
        for field in split_fields(word)? {
            fields.take(word, &field, scope)?;
        }
        fields.finish(word)
    }
}

impl Mount {
    /// The value of `from` in a `--mount` flag as it is written.
    #[must_use]
    pub fn from_stage(word: &Word) -> Option<String> {
        split_fields(word).ok()?.into_iter().rev().find_map(|field| {
            let (key, value) = field.text.split_once('=')?;
            key.eq_ignore_ascii_case("from").then(|| value.to_owned())
        })
    }
}

impl Device {
    /// Reads the value of one `--device` flag.
    pub fn parse(word: &Word) -> Result<Self, Diagnostic> {
        let bad = |message: String| Diagnostic::error("bad-device", message, word.span);
        let mut device = Self::default();
        for field in split_fields(word)? {
            match field.text.split_once('=') {
                Some(("required", value)) => {
                    device.required = go_bool(value)
                        .ok_or_else(|| bad(format!("required={value:?} is not a boolean")))?;
                }
                None if field.text == "required" => device.required = true,
                Some(("name", name)) if device.name.is_empty() => name.clone_into(&mut device.name),
                _ if device.name.is_empty() => field.text.clone_into(&mut device.name),
                _ => {
                    return Err(bad(format!("unknown device option {:?}", field.text))
                        .with_help("a device is name[,required]".to_owned()));
                }
            }
        }
        if device.name.is_empty() {
            return Err(bad("--device needs a name".to_owned()));
        }
        Ok(device)
    }
}

/// One field and where it stands.
struct Field {
    text: String,
    span: Span,
}

/// The fields of a flag's value.
fn split_fields(word: &Word) -> Result<Vec<Field>, Diagnostic> {
    let all = fields(&word.text).map_err(|why| {
        Diagnostic::error(
            "bad-list",
            format!("{:?} is no list of fields: {why}", word.text),
            word.span,
        )
    })?;
    let placed = |one: crate::fields::Field| Field { span: word.part(one.range), text: one.text };
    Ok(all.into_iter().map(placed).collect())
}

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 26] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "env",
    "mode",
    "uid",
    "gid",
    "size",
    "tmpfs-size",
    "tmpfs-mode",
    "tmpcopyup",
    "u",
    "chown",
    "z",
    "relabel",
];

/// Everything that was given, before it is known whether this type allows it.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<CacheSharing>,
    required: bool,
    env: Option<String>,
    ownership: Ownership,
    size: Option<u64>,
    copy_up: bool,
    chown: bool,
    /// Keys seen, for [`Fields::finish`] to judge.
    seen: Vec<(&'static str, Span)>,
}

impl Fields {
    fn take(&mut self, word: &Word, field: &Field, scope: Scope<'_>) -> Result<(), Diagnostic> {
        let bad = |message: String| Diagnostic::error("bad-mount", message, field.span);
        let (key, value) = match field.text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.text.as_str(), None),
        };
        let lower = key.to_lowercase();
        if key.is_empty() {
            let help = "--mount=type=TYPE,target=/path".to_owned();
            return Err(bad("a mount option is empty".to_owned()).with_help(help));
        }
        let Some(key) = KEYS.into_iter().find(|known| *known == lower) else {
            return Err(Diagnostic::error(
                "unknown-mount-option",
                format!("unknown mount option {key:?}"),
                field.span,
            )
            .with_help(did_you_mean(&lower, KEYS)));
        };
        let flag = matches!(
            key,
            "readonly" | "ro" | "readwrite" | "rw" | "required" | "tmpcopyup" | "u" | "chown" | "z"
        );
        let value = match value {
            Some(value) => {
                let text = value.to_owned();
                expand(&Word { text, span: field.span, escape: word.escape }, scope)?
            }
            None if flag => "true".to_owned(),
            None => return Err(bad(format!("mount option {key:?} needs a value: {key}=..."))),
        };
        self.seen.push((key, field.span));
        self.set(key, value, &bad)
    }

    fn set(
        &mut self,
        key: &'static str,
        value: String,
        bad: &dyn Fn(String) -> Diagnostic,
    ) -> Result<(), Diagnostic> {
        let boolean = |value: &str| {
            go_bool(value).ok_or_else(|| bad(format!("{key}={value:?} is not true or false")))
        };
        let number = |value: &str, radix| {
            u32::from_str_radix(value, radix).map_err(|_| {
                let kind = if radix == 8 { "an octal mode" } else { "a number" };
                bad(format!("{key}={value:?} is not {kind}"))
            })
        };
        match key {
            "type" => {
                let kind = value.to_lowercase();
                if !TYPES.contains(&kind.as_str()) {
                    let mut error = bad(format!("unknown mount type {value:?}"));
                    error.rule = "unknown-mount-type";
                    let all = format!("known types: {}", TYPES.join(", "));
                    return Err(error.with_help(did_you_mean(&kind, TYPES).or(Some(all))));
                }
                self.kind = Some(kind);
            }
            "from" => self.from = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "readonly" | "ro" => self.read_only = Some(boolean(&value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(&value)?),
            "id" => self.id = Some(value),
            "required" => self.required = boolean(&value)?,
            "env" => self.env = Some(value),
            "mode" | "tmpfs-mode" => self.ownership.mode = Some(number(&value, 8)?),
            "uid" => self.ownership.uid = Some(number(&value, 10)?),
            "gid" => self.ownership.gid = Some(number(&value, 10)?),
            "size" | "tmpfs-size" => {
                self.size = Some(
                    bytes(&value).ok_or_else(|| bad(format!("{key}={value:?} is not a size")))?,
                );
            }
            "tmpcopyup" => self.copy_up = boolean(&value)?,
            "u" | "chown" => self.chown = boolean(&value)?,
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => CacheSharing::Shared,
                    "private" => CacheSharing::Private,
                    "locked" => CacheSharing::Locked,
                    other => {
                        let all = format!("known values: {}", SHARING.join(", "));
                        return Err(bad(format!("unknown cache sharing {value:?}"))
                            .with_help(did_you_mean(other, SHARING).or(Some(all))));
                    }
                });
            }
            // Labels of SELinux: written for other builders, without meaning here.
            _ => {}
        }
        Ok(())
    }

    fn finish(self, word: &Word) -> Result<Mount, Diagnostic> {
        let kind = self.kind.as_deref().unwrap_or("bind");
        let allowed: &[&str] = match kind {
            "bind" => &["from", "source", "src", "u", "chown", "z", "relabel"],
            "cache" => {
                &["id", "from", "source", "src", "sharing", "mode", "uid", "gid", "z", "u", "chown"]
            }
            "tmpfs" => &["size", "mode", "tmpfs-size", "tmpfs-mode", "tmpcopyup"],
            "secret" => &["id", "source", "src", "env", "required", "mode", "uid", "gid"],
            _ => &["id", "source", "src", "required", "mode", "uid", "gid"],
        };
        let everywhere =
            ["type", "target", "dst", "destination", "readonly", "ro", "readwrite", "rw"];
        let stray = self.seen.iter().find(|(k, _)| !allowed.contains(k) && !everywhere.contains(k));
        if let Some((key, span)) = stray {
            let message = format!("mount option {key:?} does not belong to type={kind}");
            return Err(Diagnostic::error("bad-mount", message, *span)
                .with_help(format!("type={kind} takes {}", allowed.join(", "))));
        }
        let bad = |message: &str| Diagnostic::error("bad-mount", message, word.span);
        let read_only = self.read_only;
        let mut target = self.target;
        let kind = match kind {
            "bind" => MountKind::Bind {
                from: self.from,
                source: self.source,
                writable: read_only == Some(false),
                chown: self.chown,
            },
            "cache" | "tmpfs" if target.as_deref().unwrap_or_default().is_empty() => {
                return Err(bad(&format!("a {kind} mount needs a target"))
                    .with_help(format!("--mount=type={kind},target=/path")));
            }
            "cache" => MountKind::Cache {
                id: self.id,
                from: self.from,
                source: self.source,
                read_only: read_only == Some(true),
                sharing: self.sharing.unwrap_or_default(),
                ownership: self.ownership,
            },
            "tmpfs" => MountKind::Tmpfs {
                size: self.size,
                mode: self.ownership.mode,
                copy_up: self.copy_up,
            },
            "secret" => {
                if self.id.is_some() && self.source.is_some() {
                    return Err(bad("a secret mount takes id or source, not both"));
                }
                let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
                let Some(id) = self.id.or(self.source).or(target.as_deref().map(base)) else {
                    return Err(bad("a secret mount needs an id")
                        .with_help("--mount=type=secret,id=NAME".to_owned()));
                };
                if target.is_none() && self.env.is_none() {
                    target = Some(format!("/run/secrets/{}", base(&id)));
                }
                let env = self.env.map(|name| if name.is_empty() { id.clone() } else { name });
                MountKind::Secret { id, env, required: self.required, ownership: self.ownership }
            }
            _ => MountKind::Ssh {
                id: self.id.or(self.source).unwrap_or_else(|| "default".to_owned()),
                required: self.required,
                ownership: self.ownership,
            },
        };
        Ok(Mount { kind, target, span: word.span })
    }
}

/// A size in bytes with an optional binary unit: `512`, `64k`, `1.5GiB`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let number = lower.trim_end_matches(|ch: char| ch.is_ascii_alphabetic());
    let unit = lower[number.len()..].trim_end_matches('b').trim_end_matches('i');
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let scale = 1024u64.pow(power);
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let size = number
        .parse::<f64>()
        .ok()
        .filter(|n| (0.0..1e6).contains(n))
        .map(|n| (n * scale as f64) as u64);
    size
}
