//! Layers: a step's changes as a tar stream, made beside the work of later steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use layers::{Compression, LayerInfo};
use store::{SnapshotId, StepRecord, Store};
use task::Task;
use tokio::task::JoinHandle;
use transport::bridge;

use crate::error::ErrorContext;
use crate::job::Build;
use crate::plan::key::{Key, KeyBuilder};
use crate::plan::{Plan, StepId};
use crate::{Error, Request, Result};

/// The caller has looked up the key of the step.
const KEYED: &str = "a step with a layer has a key";

type LayerJob = JoinHandle<Result<LayerInfo>>;

/// The layers that are being made.
#[derive(Default)]
pub(crate) struct Layers {
    wanted: BTreeSet<StepId>,
    making: Mutex<BTreeMap<StepId, LayerJob>>,
}

impl Layers {
    /// The layers of a plan's images; empty if there are no images.
    pub(crate) fn new(plan: &Plan, request: &Request) -> Layers {
        let history = plan.targets.iter().flat_map(|target| &target.image.history);
        let wanted = history.filter_map(|item| item.layer);
        let wanted = wanted.filter(|_| request.makes_image()).collect();
        Layers { wanted, making: Mutex::default() }
    }

    /// Starts to make the layer of a step that was just executed, if the image has it.
    pub(crate) fn start(&self, build: &Arc<Build>, id: StepId, key: Key, task: &Task) {
        let made = build.made(id).filter(|_| self.wanted.contains(&id));
        let Some(snapshot) = made.and_then(|made| made.snapshot) else { return };
        let build = Arc::clone(build);
        let task = task.child(title(&build, id));
        let making = tokio::task::spawn_blocking(move || {
            // The changes may be the same as before although the step was run again; the record
            // of the layer must be that of these files.
            let form = LayerForm::of(&build.request);
            let info = make(&build, snapshot, form, &task)?;
            record(&build, key, form, &info)?;
            task.done();
            Ok(info)
        });
        self.making.lock().unwrap_or_else(PoisonError::into_inner).insert(id, making);
    }

    /// The layers of the images by their steps, made now if they were not made before.
    pub(crate) async fn collect(
        &self,
        build: &Arc<Build>,
        task: &Arc<Task>,
    ) -> Result<BTreeMap<StepId, LayerInfo>> {
        let mut layers = BTreeMap::new();
        for id in &self.wanted {
            let making = self.making.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            let info = match making {
                Some(making) => making.await??,
                None => obtain(build, *id, LayerForm::of(&build.request), task).await?,
            };
            layers.insert(*id, info);
        }
        Ok(layers)
    }

    /// Whether a layer is still being made.
    pub(crate) fn is_busy(&self) -> bool {
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.values().any(|making| !making.is_finished())
    }

    /// Waits for the layers that are no longer needed.
    pub(crate) async fn join(&self) {
        let all = std::mem::take(&mut *self.making.lock().unwrap_or_else(PoisonError::into_inner));
        for making in all.into_values() {
            let _ = making.await;
        }
    }
}

/// The layer of a step that the cache answered, in this form: known, or made now.
pub(crate) async fn obtain(
    build: &Arc<Build>,
    id: StepId,
    form: LayerForm,
    task: &Arc<Task>,
) -> Result<LayerInfo> {
    if let Some(info) = known(build, id, form)? {
        return Ok(info);
    }
    let made = build.made(id).ok_or(Error::internal("a step with a layer was made"))?;
    if let Some(remote) = made.remote.filter(|remote| form.is_met_by(&remote.form)) {
        let imports = build.imports(task).await;
        match imports.fetch(&build.env.store, &remote, task).await {
            Ok(()) => {
                let key = build.key_of(id).ok_or(Error::internal(KEYED))?;
                record(build, key, form, &remote.layer)?;
                return Ok(remote.layer.clone());
            }
            Err(Error::Cancelled(cancelled)) => return Err(cancelled.into()),
            // The layer can still be made of the step's files, or the step be run again.
            Err(error) => task.warn(format!(
                "a layer of the cache {} is not used: {}",
                imports.name(&remote),
                task::chain(&error).join(": ")
            )),
        }
    }
    let snapshot = build.available(id, task).await?;
    let snapshot = snapshot.ok_or(Error::internal("a step with a layer has a snapshot"))?;
    let key = build.key_of(id).ok_or(Error::internal(KEYED))?;
    let (build, task) = (Arc::clone(build), Arc::clone(task));
    bridge::blocking(move || {
        let task = task.child(title(&build, id));
        let info = make(&build, snapshot, form, &task)?;
        record(&build, key, form, &info)?;
        task.done();
        Ok(info)
    })
    .await
}

/// The layer of a step in this form, if it was made before. One that was compressed when its image
/// left the store serves both forms.
pub(crate) fn known(build: &Build, id: StepId, form: LayerForm) -> Result<Option<LayerInfo>> {
    let action = "fetching a layer from the cache";
    let store = &build.env.store;
    let key = build.key_of(id).ok_or(Error::internal(KEYED))?;
    let recall = |form: LayerForm| -> Result<Option<LayerInfo>> {
        Ok(store.step(name(key, form).0).during(action)?.and_then(|record| record.layer))
    };
    let (left, packed) = (form.left(), form.packed());
    if form != left && form != packed {
        return recall(form);
    }
    if let Some(info) = recall(packed)? {
        return Ok(Some(info));
    }
    let Some(info) = recall(left)? else { return Ok(None) };
    let compressed = store.packed(info.descriptor.digest).during(action)?;
    Ok(compressed.or_else(|| (form == left).then_some(info)))
}

/// What decides the bytes of a layer besides the files in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerForm {
    /// `None`: it stays unpacked until it leaves the store.
    pub(crate) compression: Option<Compression>,
    /// No file is younger than this.
    pub(crate) clamp: Option<i64>,
}

impl LayerForm {
    /// The form a request's image has its layers in.
    pub(crate) fn of(request: &Request) -> LayerForm {
        let compression = Some(request.compression).filter(|_| !request.leaves_layers());
        LayerForm { compression, clamp: request.clamp() }
    }

    fn left(self) -> LayerForm {
        LayerForm { compression: None, ..self }
    }

    /// The form that the store gives layers which leave it.
    fn packed(self) -> LayerForm {
        LayerForm { compression: Some(Store::PACKED), ..self }
    }

    /// Whether a layer in the form that a cache names is as good as one in this form.
    fn is_met_by(self, form: &str) -> bool {
        form == self.to_string() || (self == self.left() && form == self.packed().to_string())
    }
}

impl std::fmt::Display for LayerForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.compression {
            Some(Compression { encoding, level }) => write!(f, "{encoding:?} {level:?}")?,
            None => f.write_str("Left")?,
        }
        match self.clamp {
            Some(clamp) => write!(f, " clamp {clamp}"),
            None => Ok(()),
        }
    }
}

/// What the user sees while the layer is made: `[build 2/5] layer`.
fn title(build: &Build, id: StepId) -> String {
    let name = &build.plan.steps[id.0].name;
    let label = name.find("] ").map_or("", |end| &name[..=end]);
    format!("{label} layer").trim_start().to_owned()
}

/// The name of a layer in the cache: the step, and what else decides the bytes.
pub(crate) fn name(key: Key, form: LayerForm) -> Key {
    let mut name = KeyBuilder::new("layer");
    name.part(key.0.as_bytes());
    name.part(form.to_string().as_bytes());
    name.finish()
}

fn record(build: &Build, key: Key, form: LayerForm, info: &LayerInfo) -> Result<()> {
    let record = StepRecord { layer: Some(info.clone()), ..StepRecord::default() };
    build.env.store.record_step(name(key, form).0, &record).during("recording a layer")
}

/// Makes the layer of a snapshot: what it changes on what it lies on.
pub(crate) fn make(
    build: &Build,
    snapshot: SnapshotId,
    form: LayerForm,
    task: &Task,
) -> Result<LayerInfo> {
    let action = "making a layer";
    let store = &build.env.store;
    let Some(compression) = form.compression else {
        return store.derive(snapshot, form.clamp, task).during(action);
    };
    let blob = store.writer().during(action)?;
    let threads = build.env.threads;
    let (blob, info) =
        store.write_layer(snapshot, form.clamp, compression, threads, blob, task).during(action)?;
    blob.commit(Some(&info.descriptor)).during(action)?;
    Ok(info)
}
