//! Which tags go after a while.

use std::io;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use crate::content::Content;
use crate::pattern::Pattern;
use crate::{duration, keys};

/// Which tags of some repositories stay. The first rule that fits a tag decides; tags that no rule
/// fits stay.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Retention {
    /// Which repositories.
    pub repositories: Vec<Pattern>,
    /// Which tags; all of them if there are none.
    #[serde(default)]
    pub tags: Vec<Pattern>,
    /// So many tags stay, those that were set last.
    #[serde(default)]
    pub keep_last: Option<usize>,
    /// What was set less than this ago stays.
    #[serde(default, deserialize_with = "duration::read_some")]
    pub keep_within: Option<Duration>,
    /// What was pulled less than this ago stays.
    #[serde(default, deserialize_with = "duration::read_some")]
    pub keep_pulled_within: Option<Duration>,
    /// Whether manifests without a tag go when nothing needs them.
    #[serde(default)]
    pub delete_untagged: bool,
}

/// A tag that a retention rule removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredTag {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// How long ago it was set.
    pub age: Duration,
    /// How long ago it was pulled, if that was written down.
    pub pulled: Option<Duration>,
}

/// A tag as retention sees it.
#[derive(Debug, Clone)]
struct Tag {
    name: String,
    set: Duration,
    pulled: Option<Duration>,
}

impl Retention {
    fn here(&self, repository: &str) -> bool {
        self.repositories.iter().any(|pattern| pattern.fits(repository))
    }

    fn fits(&self, tag: &str) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|pattern| pattern.fits(tag))
    }

    /// Whether it ever lets a tag go.
    fn decides(&self) -> bool {
        self.keep_last.is_some() || self.keep_within.is_some() || self.keep_pulled_within.is_some()
    }

    /// Whether a tag stays that is the `rank`-th youngest of those this rule is for.
    fn keeps(&self, tag: &Tag, rank: usize, now: Duration) -> bool {
        let within = |at: Duration, span: Option<Duration>| span.is_some_and(|s| at + s > now);
        !self.decides()
            || self.keep_last.is_some_and(|count| rank < count)
            || within(tag.set, self.keep_within)
            || within(tag.pulled.unwrap_or(tag.set), self.keep_pulled_within)
    }
}

/// Whether untagged manifests of a repository go.
pub(crate) fn tidies(rules: &[Retention], repository: &str) -> bool {
    rules.iter().any(|rule| rule.delete_untagged && rule.here(repository))
}

/// Whether it matters when tags of a repository are pulled.
pub(crate) fn counts_pulls(rules: &[Retention], repository: &str) -> bool {
    rules.iter().any(|rule| rule.keep_pulled_within.is_some() && rule.here(repository))
}

/// What goes of one repository's tags.
fn retired(rules: &[&Retention], mut tags: Vec<Tag>, now: Duration) -> Vec<Tag> {
    tags.sort_by(|a, b| b.set.cmp(&a.set).then_with(|| a.name.cmp(&b.name)));
    let mut ranks = vec![0; rules.len()];
    tags.retain(|tag| {
        let Some(index) = rules.iter().position(|rule| rule.fits(&tag.name)) else {
            return false;
        };
        let rank = ranks[index];
        ranks[index] += 1;
        !rules[index].keeps(tag, rank, now)
    });
    tags
}

/// Applies the rules to all repositories; with `dry`, only says what would go.
pub(crate) async fn apply(
    content: &Content,
    rules: &[Retention],
    dry: bool,
) -> io::Result<Vec<ExpiredTag>> {
    let mut gone = Vec::new();
    if !rules.iter().any(Retention::decides) {
        return Ok(gone);
    }
    let storage = content.storage.as_ref();
    let now = content.time().await?;
    for name in storage.names(keys::NAMES, None, usize::MAX).await? {
        let repository = name.replace('%', "/");
        let here: Vec<&Retention> = rules.iter().filter(|rule| rule.here(&repository)).collect();
        if !here.iter().any(|rule| rule.decides()) {
            continue;
        }
        let names = storage.names(&keys::tags(&repository), None, usize::MAX).await?;
        let repository = &repository;
        let read = stream::iter(names).map(|name| async move {
            let set = storage.stat(&keys::tag(repository, &name)).await?;
            let pulled = storage.stat(&keys::pull(repository, &name)).await?;
            Ok::<_, io::Error>(set.map(|set| Tag {
                name,
                set: set.modified,
                pulled: pulled.map(|pulled| pulled.modified),
            }))
        });
        let tags = read.buffer_unordered(16).try_filter_map(|tag| async { Ok(tag) });
        for tag in retired(&here, tags.try_collect().await?, now) {
            if !dry {
                // It may have been set again since it was listed.
                let there = storage.stat(&keys::tag(repository, &tag.name)).await?;
                if there.is_none_or(|there| there.modified != tag.set) {
                    continue;
                }
                content.delete_tag(repository, &tag.name).await?;
            }
            gone.push(ExpiredTag {
                repository: repository.clone(),
                age: now.saturating_sub(tag.set),
                pulled: tag.pulled.map(|at| now.saturating_sub(at)),
                tag: tag.name,
            });
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn rule(tags: &[&str]) -> Retention {
        let tags = tags.iter().map(|tag| Pattern::new(tag).unwrap()).collect();
        Retention { repositories: vec![Pattern::new("**").unwrap()], tags, ..Retention::default() }
    }

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * DAY)
    }

    /// Tags by name, and on which day they were set and pulled; today is day 100.
    fn gone(rules: &[Retention], tags: &[(&str, u64, Option<u64>)]) -> Vec<String> {
        let tags = tags.iter().map(|(name, set, pulled)| Tag {
            name: (*name).to_owned(),
            set: days(*set),
            pulled: pulled.map(days),
        });
        let rules: Vec<_> = rules.iter().collect();
        let mut gone: Vec<_> =
            retired(&rules, tags.collect(), days(100)).into_iter().map(|tag| tag.name).collect();
        gone.sort();
        gone
    }

    #[test]
    fn what_goes() {
        let tags = [("v1", 10, Some(99)), ("v2", 50, None), ("v3", 95, None), ("dev-1", 20, None)];
        let last = Retention { keep_last: Some(2), ..rule(&["v*"]) };
        assert_eq!(gone(std::slice::from_ref(&last), &tags), ["v1"]);
        let within = Retention { keep_within: Some(days(30)), ..rule(&[]) };
        assert_eq!(gone(std::slice::from_ref(&within), &tags), ["dev-1", "v1", "v2"]);
        let pulled = Retention { keep_pulled_within: Some(days(30)), ..rule(&[]) };
        assert_eq!(gone(std::slice::from_ref(&pulled), &tags), ["dev-1", "v2"]);
        let either = Retention { keep_last: Some(1), ..pulled };
        assert_eq!(gone(&[either], &tags), ["dev-1", "v2"]);
        // The first that fits decides.
        assert_eq!(gone(&[rule(&["dev-*"]), within.clone()], &tags), ["v1", "v2"]);
        assert_eq!(gone(&[last, within], &tags), ["dev-1", "v1"]);
        assert!(gone(&[rule(&[])], &tags).is_empty());
        assert!(gone(&[], &tags).is_empty());
        let none = Retention { keep_last: Some(0), ..rule(&["v*"]) };
        assert_eq!(gone(&[none], &tags), ["v1", "v2", "v3"]);
    }
}
