//! Several layers as one. A squashed layer is cached under its inputs, so building again makes
//! none.

use std::collections::BTreeMap;
use std::sync::Arc;

use image::{Descriptor, Digest, Image};
use layers::{ApplyOptions, LayerInfo, LayerWriter, Whiteouts};
use store::{SnapshotId, StepNote, StepRecord};
use task::Task;
use transport::bridge;

use crate::error::ErrorContext;
use crate::image_options::Squash;
use crate::job::Build;
use crate::layer::LayerForm;
use crate::plan::key::{Key, KeyBuilder};
use crate::plan::{HistoryItem, StepId, Target};
use crate::{Error, Result, images, layer};

/// The layers of one image.
pub(crate) struct ImageLayers {
    /// The base's layers that stay, as they are described.
    pub(crate) below: Vec<Descriptor>,
    /// Whether the base's layers are in the first one of ours.
    pub(crate) whole: bool,
    /// The lines of history of our own, with the steps whose layers are left.
    pub(crate) history: Vec<HistoryItem>,
    /// Those layers.
    pub(crate) layers: BTreeMap<StepId, LayerInfo>,
    /// The file systems that end with those layers.
    pub(crate) snapshots: BTreeMap<StepId, SnapshotId>,
}

/// The inputs of one squashed layer.
struct Group {
    steps: Vec<StepId>,
    /// The layers to lay over each other, lowest first.
    parts: Vec<Part>,
    parent: Option<SnapshotId>,
}

#[derive(Clone)]
struct Part {
    blob: Descriptor,
    diff_id: Digest,
}

/// The layers of a target as the request wants them.
pub(crate) async fn layered(
    build: &Arc<Build>,
    target: &Target,
    made: &BTreeMap<StepId, LayerInfo>,
    task: &Arc<Task>,
) -> Result<ImageLayers> {
    let base = target.image.base.as_ref().map(|key| &build.bases[key]);
    let image = base.map(|base| &base.image);
    let mut layered = ImageLayers {
        below: below(build, target, task).await?,
        whole: false,
        history: target.image.history.clone(),
        layers: BTreeMap::new(),
        snapshots: BTreeMap::new(),
    };
    let steps = layered.history.iter().filter_map(|item| item.layer);
    for (number, step) in steps.enumerate() {
        layered.layers.extend(made.get(&step).map(|info| (step, info.clone())));
        // A layer that was made alone is not the file system it is in.
        let first = number == 0 && image.is_none();
        let whole = first || build.plan.steps[step.0].parent.is_some();
        let snapshot = build.made(step).filter(|_| whole).and_then(|made| made.snapshot);
        layered.snapshots.extend(snapshot.map(|snapshot| (step, snapshot)));
    }
    let squash = build.request.image.squash;
    if squash == Squash::None {
        return Ok(layered);
    }
    let mut parent = match (squash, base) {
        (Squash::All, Some(base)) => {
            images::fetch(&build.env, base, task).await?;
            None
        }
        (_, Some(base)) => images::unpack(&build.env, base, task).await?,
        (_, None) => None,
    };
    let mut groups = groups(build, &layered, squash);
    if squash == Squash::All {
        layered.below.clear();
        layered.whole = true;
        let base: Vec<Part> = image.into_iter().flat_map(parts_of).collect();
        match groups.first_mut() {
            Some(group) => {
                group.parts.splice(0..0, base);
            }
            None if !base.is_empty() => {
                // A result that is its base, as one layer.
                let step = target.step.ok_or(Error::internal("a result with layers has a step"))?;
                let created_by = "squash".to_owned();
                layered.history.push(HistoryItem { created_by, layer: Some(step) });
                groups.push(Group { steps: vec![step], parts: base, parent: None });
            }
            None => {}
        }
    }
    for mut group in groups {
        group.parent = parent;
        let Some(last) = group.steps.last().copied() else { continue };
        let (info, snapshot) = match (&group.parts[..], layered.snapshots.get(&last)) {
            ([_], Some(snapshot)) if !layered.whole || image.is_none() => {
                (layered.layers[&last].clone(), *snapshot)
            }
            _ => one(build, group.parent, group.parts.clone(), task).await?,
        };
        for step in &group.steps {
            layered.layers.remove(step);
            layered.snapshots.remove(step);
        }
        let steps = &group.steps[..group.steps.len() - 1];
        for item in &mut layered.history {
            item.layer = item.layer.filter(|step| !steps.contains(step));
        }
        layered.layers.insert(last, info);
        layered.snapshots.insert(last, snapshot);
        parent = Some(snapshot);
    }
    Ok(layered)
}

fn parts_of(image: &Image) -> Vec<Part> {
    let layers = image.layers();
    layers.map(|l| Part { blob: l.descriptor.clone(), diff_id: l.diff_id }).collect()
}

/// Our own layers in the groups that become one each.
fn groups(build: &Build, layers: &ImageLayers, squash: Squash) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut place = None;
    for step in layers.history.iter().filter_map(|item| item.layer) {
        let Some(info) = layers.layers.get(&step) else { continue };
        let here = Some(&build.plan.steps[step.0].place);
        let part = Part { blob: info.descriptor.clone(), diff_id: info.diff_id };
        match groups.last_mut() {
            Some(group) if squash != Squash::Stage || here == place => {
                group.steps.push(step);
                group.parts.push(part);
            }
            _ => groups.push(Group { steps: vec![step], parts: vec![part], parent: None }),
        }
        place = here;
    }
    groups
}

/// Lays layers over each other on a parent: one layer and the file system it ends.
async fn one(
    build: &Arc<Build>,
    parent: Option<SnapshotId>,
    parts: Vec<Part>,
    task: &Arc<Task>,
) -> Result<(LayerInfo, SnapshotId)> {
    let (build, task) = (Arc::clone(build), Arc::clone(task));
    bridge::blocking(move || {
        let store = &build.env.store;
        let action = "squashing layers";
        let mut key = KeyBuilder::new("squash");
        key.part(parent.map(|id| id.0.to_string()).unwrap_or_default().as_bytes());
        for part in &parts {
            key.part(part.diff_id.as_bytes());
        }
        let form = LayerForm::of(&build.request);
        let key = layer::name(key.finish(), form);
        let known = store.step(key.0).during("fetching a layer from the cache")?;
        if let Some(StepRecord { snapshot: Some(snapshot), layer: Some(info), .. }) = known {
            return Ok((info, snapshot));
        }
        let task = task.child(format!("squashing {} layers", parts.len()));
        let active = store.begin().during(action)?;
        let root = match parent {
            None => active.root().during(action)?,
            Some(_) => {
                let stack = active.stack(parent).during(action)?;
                stack.mount().during(action)?
            }
        };
        let options = ApplyOptions { whiteouts: Whiteouts::Delete, ..ApplyOptions::default() };
        for part in &parts {
            let blob = store.open_blob(part.blob.digest).during(action)?;
            let applied = layers::apply(task.reading(blob), &root, &options);
            for skipped in applied.during(action)?.skipped {
                task.warn(skipped);
            }
        }
        drop(root);
        let mut unique = KeyBuilder::new("snapshot");
        unique.part(key.0.as_bytes());
        unique.part(active.dir().as_os_str().as_encoded_bytes());
        let snapshot = SnapshotId(unique.finish().0);
        active.commit(snapshot, parent).during(action)?;
        let info = layer::make(&build, snapshot, form, &task)?;
        let record = StepRecord {
            snapshot: Some(snapshot),
            layer: Some(info.clone()),
            note: StepNote::default(),
        };
        store.record_step(key.0, &record).during("recording a layer")?;
        task.done();
        Ok((info, snapshot))
    })
    .await
}

/// The layers of the base, compressed as ours if that is wanted.
async fn below(build: &Arc<Build>, target: &Target, task: &Arc<Task>) -> Result<Vec<Descriptor>> {
    let Some(key) = &target.image.base else { return Ok(Vec::new()) };
    let base = &build.bases[key];
    let parts = parts_of(&base.image);
    let parts = match build.request.leaves_layers() {
        true => parts,
        false => packed(build, parts, task).await?,
    };
    let wanted = build.request.compression;
    let ours = move |part: &Part| {
        part.blob.media_type.layer_encoding() == Some(wanted.encoding) && wanted.level.is_none()
    };
    if !build.request.image.force_compression || parts.iter().all(ours) {
        return Ok(parts.into_iter().map(|part| part.blob.bare()).collect());
    }
    images::fetch(&build.env, base, task).await?;
    let (build, task) = (Arc::clone(build), Arc::clone(task));
    bridge::blocking(move || {
        let each = parts.iter().map(|part| match ours(part) {
            true => Ok(part.blob.bare()),
            false => recompressed(&build, part, &task),
        });
        each.collect()
    })
    .await
}

/// The layers of a base with those compressed that stand unpacked in the store.
async fn packed(build: &Arc<Build>, parts: Vec<Part>, task: &Arc<Task>) -> Result<Vec<Part>> {
    let (store, task) = (build.env.store.clone(), Arc::clone(task));
    bridge::blocking(move || {
        let each = parts.into_iter().map(|part| {
            let info =
                store.pack(part.blob.digest, &task).during("compressing layers of the base")?;
            Ok(match info {
                Some(info) => Part { blob: info.descriptor, ..part },
                None => part,
            })
        });
        each.collect()
    })
    .await
}

fn recompressed(build: &Build, part: &Part, task: &Task) -> Result<Descriptor> {
    let store = &build.env.store;
    let compression = build.request.compression;
    let mut key = KeyBuilder::new("recompressed");
    key.part(part.diff_id.as_bytes());
    key.part(format!("{:?} {:?}", compression.encoding, compression.level).as_bytes());
    let Key(key) = key.finish();
    if let Some(info) =
        store.step(key).during("fetching a layer from the cache")?.and_then(|r| r.layer)
    {
        return Ok(info.descriptor);
    }
    let action = || format!("compressing layer {} again", part.blob.digest);
    let task = task.sized(action(), part.blob.size);
    let blob = store.open_blob(part.blob.digest).during(action())?;
    let mut tar = layers::decompress(task.reading(blob)).during(action())?;
    let writer = store.writer().during(action())?;
    let mut layer = LayerWriter::new(writer, compression, build.env.threads);
    std::io::copy(&mut tar, &mut layer)
        .map_err(Error::file("compressing", store.blob_path(part.blob.digest)))?;
    drop(tar);
    let (blob, info) = layer.finish().during(action())?;
    if info.diff_id != part.diff_id {
        return Err(Error::DiffId {
            layer: part.blob.digest,
            found: info.diff_id,
            expected: part.diff_id,
            witness: "its image",
        });
    }
    blob.commit(Some(&info.descriptor)).during(action())?;
    let record = StepRecord { layer: Some(info.clone()), ..StepRecord::default() };
    store.record_step(key, &record).during("recording a layer")?;
    task.done();
    Ok(info.descriptor)
}
