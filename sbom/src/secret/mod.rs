//! Secrets in layers and configurations: private keys, tokens of the big services, values that look
//! random behind names that tell. What counts as one is data: `rules.toml`.
//!
//! Every file of a layer is looked at, also one that a higher layer removes: it travels all the
//! same. Of a file the first mebibyte is read. A secret itself is never kept or shown.

use std::io::Read;
use std::sync::OnceLock;

use image::{Algorithm, Digest, DigestReader};
use layers::{EntryKind, LayerEntries, Limits, decompress};
use regex::bytes::{Match, Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};
use task::Task;

use crate::Result;
use crate::scan::failed;

mod allow;
#[cfg(test)]
mod tests;

pub use self::allow::AllowList;

/// Changes whenever the same layer would be searched with another result.
pub const SECRET_VERSION: u32 = 3;

/// No more of a file is read.
const MAX_FILE: u64 = 1 << 20;
/// No more finds of one layer are kept.
const MOST: usize = 200;
/// A value with one of these words in it stands for a secret that is put in later.
const PLACEHOLDERS: [&str; 8] =
    ["example", "changeme", "placeholder", "dummy", "xxxx", "your", "redacted", "123456789"];

/// A secret that was found; not the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Secret {
    /// Which rule found it.
    pub rule: String,
    /// What people call such a secret.
    pub what: String,
    /// The file in the layer, or the part of the configuration.
    pub place: String,
    /// The line, counted from 1.
    pub line: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    samples: Samples,
    rule: Vec<RuleDocument>,
}

/// Where keys are samples that everybody knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    packages: Vec<String>,
    parts: Vec<String>,
}

impl Samples {
    fn has(&self, place: &str) -> bool {
        let published = self.packages.iter().any(|package| {
            place
                .match_indices(package.as_str())
                .any(|(at, _)| at == 0 || place[..at].ends_with('/'))
        });
        let directories = place.rsplit_once('/').map_or("", |(directories, _)| directories);
        published && directories.split('/').any(|part| self.parts.iter().any(|one| one == part))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleDocument {
    id: String,
    what: String,
    pattern: String,
    entropy: Option<f64>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    known: Vec<String>,
    #[serde(default = "yes")]
    samples: bool,
}

fn yes() -> bool {
    true
}

struct SecretRule {
    written: RuleDocument,
    /// Compiled where it is needed: a set says first which rules match at all.
    pattern: OnceLock<Regex>,
}

/// What counts as a secret.
struct Rules {
    rules: Vec<SecretRule>,
    all: RegexSet,
    samples: Samples,
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| {
        let file: RulesFile =
            toml::from_str(include_str!("rules.toml")).expect("the built-in rules are well formed");
        let patterns = file.rule.iter().map(|rule| &rule.pattern);
        // Secrets are ASCII; with Unicode's classes compiling takes longer than many a build.
        let all = RegexSetBuilder::new(patterns).unicode(false).build();
        let samples = file.samples;
        let rules = file.rule.into_iter();
        let rules = rules.map(|written| SecretRule { written, pattern: OnceLock::new() });
        let all = all.expect("the built-in patterns are well formed");
        Rules { rules: rules.collect(), all, samples }
    })
}

/// Where text comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    File,
    Config,
}

impl SecretRule {
    fn applies(&self, place: &str, origin: Origin) -> bool {
        let files = &self.written.files;
        origin == Origin::Config
            || files.is_empty()
            || files.iter().any(|end| {
                place.strip_suffix(end.as_str()).is_some_and(|before| {
                    before.is_empty() || before.ends_with('/') || end.starts_with('.')
                })
            })
    }

    fn pattern(&self) -> &Regex {
        self.pattern.get_or_init(|| {
            let built = RegexBuilder::new(&self.written.pattern).unicode(false).build();
            built.expect("the built-in patterns are well formed")
        })
    }

    /// Each match with a secret: where the match begins, and the secret.
    fn all<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, Match<'a>)> {
        self.pattern().captures_iter(bytes).filter_map(|found| {
            let whole = found.get(0)?;
            let secret = found.name("secret").unwrap_or(whole);
            let least = self.written.entropy.unwrap_or_default();
            let real = entropy(secret.as_bytes()) >= least
                && !is_placeholder(secret.as_bytes())
                && !self.is_known(secret.as_bytes());
            real.then_some((whole.start(), secret))
        })
    }

    fn is_known(&self, secret: &[u8]) -> bool {
        let text = String::from_utf8_lossy(secret);
        self.written.known.iter().any(|known| text.contains(known.as_str()))
    }

    /// Where the first secret begins.
    fn first(&self, bytes: &[u8]) -> Option<usize> {
        self.all(bytes).next().map(|(start, _)| start)
    }

    fn redacted(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut out, mut end) = (Vec::with_capacity(bytes.len()), 0);
        for (_, secret) in self.all(bytes) {
            out.extend_from_slice(&bytes[end..secret.start()]);
            out.extend_from_slice(b"REDACTED");
            end = secret.end();
        }
        out.extend_from_slice(&bytes[end..]);
        out
    }
}

/// How many bits each byte carries.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let all = bytes.len() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / all);
    shares.map(|share| -share * share.log2()).sum()
}

fn is_placeholder(secret: &[u8]) -> bool {
    // Keys in base64 may have any word in them.
    if secret.len() > 100 {
        return false;
    }
    let text = String::from_utf8_lossy(secret).to_lowercase();
    PLACEHOLDERS.iter().any(|word| text.contains(word))
}

fn search(bytes: &[u8], place: &str, origin: Origin, found: &mut Vec<Secret>) {
    let rules = rules();
    for index in rules.all.matches(bytes) {
        let rule = &rules.rules[index];
        let sample = || !rule.written.samples && origin == Origin::File && rules.samples.has(place);
        if found.len() >= MOST || !rule.applies(place, origin) || sample() {
            continue;
        }
        if let Some(at) = rule.first(bytes) {
            let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            let (id, what) = (rule.written.id.clone(), rule.written.what.clone());
            found.push(Secret { rule: id, what, place: place.to_owned(), line });
        }
    }
}

/// Searches a text of an image's configuration; `place` is what it is called.
pub fn search_config(text: &str, place: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    search(text.as_bytes(), place, Origin::Config, &mut found);
    found
}

/// A text of a record or a message with `REDACTED` in place of every secret in it.
pub fn redact(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for index in &rules().all.matches(text.as_bytes()) {
        bytes = rules().rules[index].redacted(&bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Searches one layer, compressed or not; its bytes, as read, count on `task`. Also gives the digest
/// of the uncompressed layer.
///
/// # Errors
/// [`crate::Error::Layer`] when the layer cannot be read, [`crate::Error::Cancelled`].
pub fn search_layer(layer: impl Read, task: &Task) -> Result<(Vec<Secret>, Digest)> {
    let stream = decompress(task.reading(layer))?;
    let mut stream = DigestReader::new(stream, Algorithm::Sha256);
    let mut entries = LayerEntries::new(&mut stream, Limits::default());
    let (mut found, mut bytes) = (Vec::new(), Vec::new());
    while let Some(entry) = entries.next()? {
        if entry.kind != EntryKind::File {
            continue;
        }
        bytes.clear();
        entries.by_ref().take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
        search(&bytes, &String::from_utf8_lossy(&entry.path), Origin::File, &mut found);
    }
    drop(entries);
    std::io::copy(&mut stream, &mut std::io::sink()).map_err(failed)?;
    Ok((found, stream.finish().1))
}
