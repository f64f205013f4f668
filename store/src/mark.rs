//! What is needed and what is not: the marking part of a collection, on plain data.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use image::Digest;
use rusqlite::{Connection, Row};

use crate::budget::{Budget, CacheEntry, CollectionReport, ItemKind, RemovalReason, RemovedItem};
use crate::catalog::{Attempt, DigestKey, Kind, number};
use crate::step::Info;

/// An entry of the build cache, with what decides whether it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvictionCandidate<T> {
    pub(crate) id: T,
    /// Seconds since 1970.
    pub(crate) used: i64,
    pub(crate) bytes: u64,
}

/// What a collection removes.
#[derive(Debug, Default)]
pub(crate) struct CollectionPlan {
    blobs: BTreeMap<Digest, u64>,
    snapshots: BTreeMap<Digest, u64>,
    pub(crate) steps: BTreeMap<Digest, RemovalReason>,
    pub(crate) mounts: Vec<(EvictionCandidate<String>, RemovalReason)>,
    /// What only the steps that go have kept.
    freed: HashSet<Digest>,
}

/// Everything in the catalog that decides.
#[derive(Debug, Default)]
pub(crate) struct MarkState {
    blobs: HashMap<Digest, u64>,
    snapshots: HashMap<Digest, (Option<Digest>, u64)>,
    aliases: HashMap<Digest, Digest>,
    /// Children of nodes, referrers of subjects, compressed forms of derived layers: all stay with
    /// what they belong to.
    kept_by: HashMap<Digest, Vec<Digest>>,
    chains: HashMap<Digest, Digest>,
    /// The snapshots of layers without a file.
    derived: HashMap<Digest, Digest>,
    live_blobs: HashSet<Digest>,
    live_snapshots: HashSet<Digest>,
}

struct Step {
    key: Digest,
    snapshot: Option<Digest>,
    layer: Option<Digest>,
}

enum Candidate {
    Step(Step),
    Mount(EvictionCandidate<String>),
}

impl CollectionPlan {
    /// Reads the catalog and decides.
    pub(crate) fn make(
        db: &Connection,
        budget: &Budget,
        mounts: &[EvictionCandidate<String>],
        now: i64,
    ) -> Attempt<CollectionPlan> {
        let mut state = MarkState::read(db)?;
        for (kind, digest) in roots(db)? {
            let found = state.closure(kind, digest);
            state.keep(found);
        }
        let mut plan = CollectionPlan::default();
        state.spend(budget, candidates(db, mounts)?, now, &mut plan);
        // What nothing needed before is only meant where its kind and name are.
        let only = budget.filter.as_ref();
        let meant = |what, digest: &Digest, freed: &HashSet<Digest>| {
            freed.contains(digest)
                || only.is_none_or(|only| {
                    let kinds = !only.kinds.is_empty() || !only.ids.is_empty();
                    kinds && only.means(what, &digest.to_string(), false)
                })
        };
        let blobs = state.blobs.iter().filter(|(d, _)| !state.live_blobs.contains(d));
        plan.blobs.extend(blobs.filter(|(d, _)| meant(ItemKind::Blob, d, &plan.freed)));
        let snapshots = state.snapshots.iter().filter(|(d, _)| !state.live_snapshots.contains(d));
        let snapshots = snapshots.filter(|(d, _)| meant(ItemKind::Snapshot, d, &plan.freed));
        plan.snapshots.extend(snapshots.map(|(digest, (_, size))| (*digest, *size)));
        Ok(plan)
    }

    /// Everything with a file or directory that is to go.
    pub(crate) fn doomed(&self) -> impl Iterator<Item = (Kind, Digest)> {
        let blobs = self.blobs.keys().map(|digest| (Kind::Blob, *digest));
        blobs.chain(self.snapshots.keys().map(|digest| (Kind::Snapshot, *digest)))
    }

    /// The plan for the user.
    pub(crate) fn report(&self) -> CollectionReport {
        let thing =
            |what, id: String, bytes, why| RemovedItem { kind: what, id, bytes, reason: why };
        let content = |what, digest: &Digest, bytes: u64| {
            let why = match self.freed.contains(digest) {
                true => RemovalReason::Asked,
                false => RemovalReason::Unneeded,
            };
            thing(what, digest.to_string(), bytes, why)
        };
        let blobs = self.blobs.iter().map(|(d, size)| content(ItemKind::Blob, d, *size));
        let snapshots =
            self.snapshots.iter().map(|(d, size)| content(ItemKind::Snapshot, d, *size));
        let steps = self.steps.iter().map(|(d, why)| thing(ItemKind::Step, d.to_string(), 0, *why));
        let mounts =
            self.mounts.iter().map(|(m, why)| thing(ItemKind::Mount, m.id.clone(), m.bytes, *why));
        let removed: Vec<RemovedItem> = blobs.chain(snapshots).chain(steps).chain(mounts).collect();
        let bytes = removed.iter().map(|removed| removed.bytes).sum();
        CollectionReport { removed, bytes }
    }
}

impl MarkState {
    fn read(db: &Connection) -> Attempt<MarkState> {
        let mut state = MarkState::default();
        each(db, "SELECT digest, size, snapshot, packed FROM blobs", |row| {
            let (digest, snapshot) = (key(row, 0)?, row.get::<_, Option<DigestKey>>(2)?);
            // A derived layer takes no room but its snapshot's.
            let size = if snapshot.is_some() { 0 } else { row.get::<_, i64>(1)?.unsigned_abs() };
            state.blobs.insert(digest, size);
            state.derived.extend(snapshot.map(|snapshot| (digest, snapshot.0)));
            let packed = row.get::<_, Option<String>>(3)?;
            let packed = packed.and_then(|text| serde_json::from_str::<Info>(&text).ok());
            if let Some(info) = packed {
                state.kept_by.entry(digest).or_default().push(info.descriptor.digest);
            }
            Ok(())
        })?;
        each(db, "SELECT id, parent, coalesce(size, 0) FROM snapshots", |row| {
            let parent: Option<DigestKey> = row.get(1)?;
            let size: i64 = row.get(2)?;
            let value = (parent.map(|parent| parent.0), size.unsigned_abs());
            state.snapshots.insert(key(row, 0)?, value);
            Ok(())
        })?;
        each(db, "SELECT chain, id FROM aliases", |row| {
            state.aliases.insert(key(row, 0)?, key(row, 1)?);
            Ok(())
        })?;
        let keeping =
            "SELECT parent, child FROM edges UNION ALL SELECT subject, referrer FROM referrers";
        each(db, keeping, |row| {
            state.kept_by.entry(key(row, 0)?).or_default().push(key(row, 1)?);
            Ok(())
        })?;
        each(db, "SELECT digest, chain FROM nodes WHERE chain IS NOT NULL", |row| {
            state.chains.insert(key(row, 0)?, key(row, 1)?);
            Ok(())
        })?;
        Ok(state)
    }

    /// What would stay if this stayed and does not stay already.
    fn closure(&self, kind: Kind, digest: Digest) -> BTreeSet<(Kind, Digest)> {
        let mut found = BTreeSet::new();
        let mut todo = vec![(kind, digest)];
        while let Some((kind, digest)) = todo.pop() {
            match kind {
                Kind::Blob => {
                    let known = self.live_blobs.contains(&digest);
                    if known || !self.blobs.contains_key(&digest) || !found.insert((kind, digest)) {
                        continue;
                    }
                    let kept = self.kept_by.get(&digest).into_iter().flatten();
                    todo.extend(kept.map(|child| (Kind::Blob, *child)));
                    todo.extend(self.chains.get(&digest).map(|chain| (Kind::Snapshot, *chain)));
                    todo.extend(self.derived.get(&digest).map(|id| (Kind::Snapshot, *id)));
                }
                Kind::Snapshot => {
                    let here = self.snapshots.contains_key(&digest);
                    let digest = match self.aliases.get(&digest) {
                        Some(id) if !here => *id,
                        _ => digest,
                    };
                    let Some((parent, _)) = self.snapshots.get(&digest) else { continue };
                    if self.live_snapshots.contains(&digest) || !found.insert((kind, digest)) {
                        continue;
                    }
                    todo.extend(parent.map(|parent| (Kind::Snapshot, parent)));
                }
            }
        }
        found
    }

    fn keep(&mut self, found: BTreeSet<(Kind, Digest)>) {
        for (kind, digest) in found {
            match kind {
                Kind::Blob => self.live_blobs.insert(digest),
                Kind::Snapshot => self.live_snapshots.insert(digest),
            };
        }
    }

    fn size(&self, kind: Kind, digest: Digest) -> u64 {
        match kind {
            Kind::Blob => self.blobs.get(&digest).copied().unwrap_or(0),
            Kind::Snapshot => self.snapshots.get(&digest).map_or(0, |(_, size)| *size),
        }
    }

    /// Keeps of the build cache what the budget allows, the last used first.
    fn spend(
        &mut self,
        budget: &Budget,
        candidates: Vec<(i64, Candidate)>,
        now: i64,
        plan: &mut CollectionPlan,
    ) {
        let mut left = budget.keep_bytes.unwrap_or(u64::MAX);
        let mut reserved = budget.reserved;
        let oldest = budget.older_than.map(|age| now.saturating_sub(number(age.as_secs())));
        let only = budget.filter.as_ref();
        // What is asked for without more is everything that is meant.
        let bounded = budget.keep_bytes.is_some() || oldest.is_some();
        for (used, candidate) in candidates {
            let (what, id, cost) = match &candidate {
                Candidate::Mount(mount) => (ItemKind::Mount, mount.id.clone(), Some(mount.bytes)),
                Candidate::Step(step) => {
                    (ItemKind::Step, step.key.to_string(), self.cost(step).map(|(_, bytes)| bytes))
                }
            };
            let bytes = cost.unwrap_or(0);
            let shared = what == ItemKind::Step && bytes == 0;
            let meant = only.is_none_or(|only| only.means(what, &id, shared));
            let old = oldest.is_some_and(|oldest| used < oldest);
            let all = (budget.all && oldest.is_none()) || (only.is_some() && !bounded);
            let why = match cost {
                None => Some(RemovalReason::Broken),
                Some(bytes) if !meant || (reserved > 0 && bytes <= reserved) => None,
                Some(_) if all => Some(RemovalReason::Asked),
                Some(_) if old => Some(RemovalReason::Old),
                Some(bytes) if bytes > left => Some(RemovalReason::Room),
                Some(_) => None,
            };
            if why.is_none() {
                left = left.saturating_sub(bytes);
                reserved = reserved.saturating_sub(bytes);
            }
            match (candidate, why) {
                (Candidate::Mount(mount), Some(why)) => plan.mounts.push((mount, why)),
                (Candidate::Mount(_), None) => {}
                (Candidate::Step(step), None) => {
                    let kept = self.cost(&step).map(|(found, _)| found).unwrap_or_default();
                    self.keep(kept);
                }
                (Candidate::Step(step), Some(why)) => {
                    let freed = self.cost(&step).map(|(found, _)| found).unwrap_or_default();
                    plan.freed.extend(freed.into_iter().map(|(_, digest)| digest));
                    plan.steps.insert(step.key, why);
                }
            }
        }
    }

    /// What a step would keep beyond what stays anyway, and its bytes; `None` if part of what it
    /// made is gone already.
    fn cost(&self, step: &Step) -> Option<(BTreeSet<(Kind, Digest)>, u64)> {
        let mut found = BTreeSet::new();
        if let Some(id) = step.snapshot {
            let target = self.aliases.get(&id).unwrap_or(&id);
            if !self.snapshots.contains_key(&id) && !self.snapshots.contains_key(target) {
                return None;
            }
            found.extend(self.closure(Kind::Snapshot, id));
        }
        if let Some(layer) = step.layer {
            self.blobs.get(&layer)?;
            found.extend(self.closure(Kind::Blob, layer));
        }
        let bytes = found.iter().map(|(kind, digest)| self.size(*kind, *digest)).sum();
        Some((found, bytes))
    }
}

/// The build cache, the last used first, with what each thing would free and whether images or
/// containers have the rest of it.
pub(crate) fn entries(
    db: &Connection,
    mounts: &[EvictionCandidate<String>],
) -> Attempt<Vec<CacheEntry>> {
    let mut state = MarkState::read(db)?;
    for (kind, digest) in roots(db)? {
        let found = state.closure(kind, digest);
        state.keep(found);
    }
    let mut entries = Vec::new();
    for (used, candidate) in candidates(db, mounts)? {
        let (what, id, bytes, shared) = match candidate {
            Candidate::Mount(mount) => (ItemKind::Mount, mount.id, mount.bytes, false),
            Candidate::Step(step) => {
                let bytes = state.cost(&step).map_or(0, |(_, bytes)| bytes);
                (ItemKind::Step, step.key.to_string(), bytes, bytes == 0)
            }
        };
        entries.push(CacheEntry { kind: what, id, used, bytes, shared, about: String::new() });
    }
    Ok(entries)
}

/// What stays in any case: names, containers and what live leases have pinned.
fn roots(db: &Connection) -> Attempt<Vec<(Kind, Digest)>> {
    let mut roots = Vec::new();
    each(db, "SELECT digest FROM names", |row| {
        roots.push((Kind::Blob, key(row, 0)?));
        Ok(())
    })?;
    each(db, "SELECT kind, digest FROM pins", |row| {
        roots.push((row.get(0)?, key(row, 1)?));
        Ok(())
    })?;
    each(db, "SELECT image, snapshot FROM containers", |row| {
        let (image, snapshot): (Option<String>, Option<DigestKey>) = (row.get(0)?, row.get(1)?);
        if image.is_some() {
            let image: image::Descriptor = crate::name::json_column(row, 0)?;
            roots.push((Kind::Blob, image.digest));
        }
        roots.extend(snapshot.map(|id| (Kind::Snapshot, id.0)));
        Ok(())
    })?;
    Ok(roots)
}

/// The build cache, the last used first.
fn candidates(
    db: &Connection,
    mounts: &[EvictionCandidate<String>],
) -> Attempt<Vec<(i64, Candidate)>> {
    let mut candidates: Vec<(i64, Candidate)> =
        mounts.iter().map(|mount| (mount.used, Candidate::Mount(mount.clone()))).collect();
    each(db, "SELECT key, snapshot, layer, used FROM steps ORDER BY key", |row| {
        let (snapshot, layer): (Option<DigestKey>, Option<DigestKey>) = (row.get(1)?, row.get(2)?);
        let step = Step {
            key: key(row, 0)?,
            snapshot: snapshot.map(|key| key.0),
            layer: layer.map(|key| key.0),
        };
        candidates.push((row.get(3)?, Candidate::Step(step)));
        Ok(())
    })?;
    candidates.sort_by_key(|(used, _)| Reverse(*used));
    Ok(candidates)
}

/// Calls a function with every row of a query.
pub(crate) fn each(
    db: &Connection,
    query: &str,
    mut body: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> Attempt<()> {
    let mut query = db.prepare(query)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        body(row)?;
    }
    Ok(())
}

/// A column that holds a digest.
pub(crate) fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    Ok(row.get::<_, DigestKey>(column)?.0)
}
