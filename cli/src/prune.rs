//! `rbuild prune` and `du`: the build cache and what nothing needs.

use std::time::{Duration, SystemTime};

use app::{App, Runnable, format, observed};
use builder::debug::KeptFailure;
use builder::{CacheFilter, unused_for};
use clap::Args;
use options::progress::Progress;
use options::{Failure, flags};
use serde_json::json;
use store::{Budget, CollectionReport, ItemKind, RemovedItem};

/// Remove what nothing needs: unnamed images, old build cache, leftovers
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove all build cache, unnamed images and kept failures of any age
    #[arg(short, long)]
    all: bool,
    /// Keep at most this much build cache
    #[arg(long, visible_aliases = ["max-used-space", "keep-storage"], value_name = "SIZE", value_parser = flags::size)]
    keep: Option<u64>,
    /// Never reduce the build cache below this
    #[arg(long, value_name = "SIZE", value_parser = flags::size)]
    reserved_space: Option<u64>,
    /// Remove build cache until this much of the disk is free
    #[arg(long, value_name = "SIZE", value_parser = flags::size)]
    min_free_space: Option<u64>,
    /// Remove what was not used for this long: 24h, 7d
    #[arg(long, visible_aliases = ["until", "keep-duration"], value_name = "AGE", value_parser = flags::age)]
    older_than: Option<Duration>,
    /// Remove matching entries only: until=AGE, type=step|mount|blob|snapshot|failed, id=PREFIX,
    /// shared=true|false, inuse=false
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show what would be removed and why; remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Show what is removed and why
    #[arg(short, long, alias = "verbose")]
    list: bool,
    /// Accepted for scripts: prune does not ask
    #[arg(short, long)]
    force: bool,
}

/// What `--filter` says.
fn filter(texts: &[String]) -> Result<CacheFilter, Failure> {
    let mut filter = CacheFilter::default();
    for text in texts {
        filter.add(text).map_err(flags::of_flag("--filter", text)).map_err(|failure| match text
            .starts_with("label")
        {
            true => failure.hint("`rbuild rmi` removes images"),
            false => failure,
        })?;
    }
    Ok(filter)
}

impl Runnable for Prune {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let filters = filter(&self.filter)?;
        let store = app.store()?;
        let age = self.older_than.or(filters.until);
        let asked = self.all || age.is_some() || filters.typed;
        let kept = if asked { filters.kept(store, age, SystemTime::now())? } else { Vec::new() };
        let mut budget = Budget {
            all: self.all,
            keep_bytes: self.keep,
            older_than: age,
            reserved: self.reserved_space.unwrap_or(0),
            filter: filters.only.clone(),
            dry_run: self.dry_run || filters.nothing,
        };
        let (failed, collected) = observed("prune", Progress::Auto, |task| {
            // First: it may be all that holds what is collected then.
            let failed = self.failed(kept)?;
            if filters.only_failed() {
                return Ok((failed, CollectionReport::default()));
            }
            if let Some(wanted) = self.min_free_space {
                let short = wanted.saturating_sub(store.free_space()?);
                let now: u64 = store.cache_entries(task)?.iter().map(|entry| entry.bytes).sum();
                let keep = if short == 0 { u64::MAX } else { now.saturating_sub(short) };
                budget.keep_bytes = Some(budget.keep_bytes.unwrap_or(u64::MAX).min(keep));
            }
            Ok((failed, store.collect(&budget, task)?))
        })?;
        let removed = match filters.nothing {
            true => Vec::new(),
            false => collected.removed,
        };
        if self.dry_run || self.list {
            out!("{}", listed(&removed, &failed));
        }
        let verb = if self.dry_run { "would remove" } else { "removed" };
        let count = |kind: ItemKind| removed.iter().filter(|r| r.kind == kind).count();
        let steps = match failed.len() {
            0 => String::new(),
            number => format!(", {number} failed steps"),
        };
        let bytes = failed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        outln!(
            "{verb} {} blobs, {} snapshots, {} cached steps, {} cache mounts{steps}: {}",
            count(ItemKind::Blob),
            count(ItemKind::Snapshot),
            count(ItemKind::Step),
            count(ItemKind::Mount),
            progress::bytes(removed.iter().map(|removed| removed.bytes).sum::<u64>() + bytes)
        );
        Ok(0)
    }
}

impl Prune {
    /// Removes what failing steps left; names and bytes of what is gone.
    fn failed(&self, kept: Vec<KeptFailure>) -> Result<Vec<(String, u64)>, Failure> {
        let mut gone = Vec::new();
        for kept in kept {
            let told = (kept.name().to_owned(), kept.bytes());
            if self.dry_run || kept.discard()? {
                gone.push(told);
            }
        }
        Ok(gone)
    }
}

fn word(what: ItemKind) -> &'static str {
    match what {
        ItemKind::Blob => "blob",
        ItemKind::Snapshot => "snapshot",
        ItemKind::Step => "step",
        ItemKind::Mount => "mount",
    }
}

fn listed(removed: &[RemovedItem], failed: &[(String, u64)]) -> String {
    let mut rows: Vec<Vec<String>> = removed
        .iter()
        .map(|removed| {
            let size = progress::bytes(removed.bytes);
            let (what, why) = (word(removed.kind).to_owned(), removed.reason.as_str().to_owned());
            vec![what, removed.id.clone(), size, why]
        })
        .collect();
    rows.extend(failed.iter().map(|(name, bytes)| {
        let why = "asked for".to_owned();
        vec!["failed".to_owned(), name.clone(), progress::bytes(*bytes), why]
    }));
    if rows.is_empty() {
        return String::new();
    }
    format::table(&["TYPE", "ID", "SIZE", "WHY"], &rows)
}

/// Show the size of the build cache: each step, cache mount and kept failure
#[derive(Debug, Args)]
pub(crate) struct Du {
    /// Show matching entries only: type=step|mount|failed, id=PREFIX, shared=true|false, until=AGE
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show full ids
    #[arg(short, long)]
    verbose: bool,
    /// Format the output with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Runnable for Du {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let filters = filter(&self.filter)?;
        let store = app.store()?;
        let mut entries = observed("du", Progress::Quiet, |task| Ok(store.cache_entries(task)?))?;
        let now = SystemTime::now();
        entries.retain(|entry| filters.means(entry, now));
        let kept = filters.kept(store, filters.until, now)?;
        if let Some(template) = self.format.as_deref() {
            for kept in &kept {
                let value = json!({
                    "ID": kept.name(), "Type": "failed", "Size": progress::bytes(kept.bytes()),
                    "Bytes": kept.bytes(), "Shared": false, "LastUsed": kept.failed.time,
                    "Description": kept.failed.instruction,
                });
                outln!("{}", format::template(template, &value)?);
            }
            for entry in &entries {
                let value = json!({
                    "ID": entry.id, "Type": word(entry.kind), "Size": progress::bytes(entry.bytes),
                    "Bytes": entry.bytes, "Shared": entry.shared, "LastUsed": entry.used,
                    "Description": entry.about,
                });
                outln!("{}", format::template(template, &value)?);
            }
            return Ok(0);
        }
        let mut rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| {
                let id = match self.verbose {
                    true => entry.id.clone(),
                    false => {
                        let hex = entry.id.split_once(':').map_or(entry.id.as_str(), |(_, h)| h);
                        hex.chars().take(12).collect()
                    }
                };
                let used = progress::duration(unused_for(entry.used, now));
                let size = match entry.shared {
                    true => "shared".to_owned(),
                    false => progress::bytes(entry.bytes),
                };
                vec![id, word(entry.kind).to_owned(), size, used, entry.about.clone()]
            })
            .collect();
        rows.extend(kept.iter().map(|kept| {
            let time = i64::try_from(kept.failed.time).unwrap_or(i64::MAX);
            let used = progress::duration(unused_for(time, now));
            let (size, about) = (progress::bytes(kept.bytes()), kept.failed.instruction.clone());
            vec![kept.name().to_owned(), "failed".to_owned(), size, used, about]
        }));
        out!("{}", format::table(&["ID", "TYPE", "SIZE", "UNUSED FOR", "DESCRIPTION"], &rows));
        let total = entries.iter().map(|entry| entry.bytes).sum::<u64>();
        let failed = kept.iter().map(KeptFailure::bytes).sum::<u64>();
        outln!("total: {}", progress::bytes(total + failed));
        Ok(0)
    }
}
