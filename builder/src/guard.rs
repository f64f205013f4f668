//! Keeps secrets in: an image is searched before it is pushed.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use image::{Descriptor, Image, Layer, Node};
use sbom::{AllowList, SECRET_VERSION, Secret};
use store::Store;
use task::{Cause, Fault, Kind, Task};
use transport::{Gate, Source, bridge};

/// Where the store remembers what was found in a layer.
const MEMO: &str = "secrets";
/// No more secrets are spelled out in a message.
const SPELLED_OUT: usize = 10;

/// Searches images for secrets: every file of every layer, also one that a later layer removes, and
/// the environment, labels, commands and history of the configuration. What was found in a layer is
/// remembered, so that a layer is searched once.
pub struct SecretGuard {
    /// Remembers layers, if there is a store.
    pub store: Option<Store>,
    /// What is allowed although it looks like a secret.
    pub allowed: AllowList,
    /// Gets what was found; without it, an image with a secret is refused.
    pub warn: Option<Arc<Warn>>,
}

/// Gets warnings.
pub type Warn = dyn Fn(&str) + Send + Sync;

/// An image has secrets.
#[derive(Debug)]
pub struct Leaks(Vec<String>);

impl std::error::Error for Leaks {}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the image contains secrets: ")?;
        let shown = self.0.len().min(SPELLED_OUT);
        f.write_str(&self.0[..shown].join("; "))?;
        match self.0.len() - shown {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Fault for Leaks {
    fn kind(&self) -> Kind {
        Kind::Refused
    }
}

#[async_trait]
impl Gate for SecretGuard {
    async fn check(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Cause> {
        let mut leaks = Vec::new();
        let mut images = vec![root.clone()];
        while let Some(next) = images.pop() {
            task.check()?;
            match transport::node(source, &next).await? {
                Node::Index(index) => {
                    images
                        .extend(index.manifests.iter().filter(|m| m.media_type.is_node()).cloned());
                }
                // An artifact has no configuration, and its files are meant to be read.
                Node::Manifest(manifest) if manifest.artifact_type.is_some() => {}
                Node::Manifest(_) => {
                    let image = transport::image(source, &next).await?;
                    self.search(source, &image, &mut leaks, task).await?;
                }
            }
        }
        if leaks.is_empty() {
            return Ok(());
        }
        match &self.warn {
            None => Err(Leaks(leaks).into()),
            Some(warn) => {
                leaks.iter().for_each(|leak| warn(&format!("secret: {leak}")));
                Ok(())
            }
        }
    }
}

impl SecretGuard {
    async fn search(
        &self,
        source: &dyn Source,
        image: &Image,
        leaks: &mut Vec<String>,
        task: &Task,
    ) -> Result<(), Cause> {
        let config = in_config(image).into_iter().filter(|secret| !self.allowed.allows(secret));
        leaks.extend(config.map(|one| format!("{} in its {} ({})", one.what, one.place, one.rule)));
        let steps = image.config().history.iter().filter(|step| !step.empty_layer);
        let mut steps = steps.map(|step| step.created_by.clone().unwrap_or_default());
        for (index, layer) in image.layers().enumerate() {
            let step: String = steps.next().unwrap_or_default().chars().take(60).collect();
            for one in self.in_layer(source, &layer, task).await? {
                if !self.allowed.allows(&one) {
                    let Secret { what, place, line, rule } = one;
                    let number = index + 1;
                    leaks.push(format!(
                        "{what} in {place}, line {line}, of layer {number} [{step}] ({rule})"
                    ));
                }
            }
        }
        Ok(())
    }

    async fn in_layer(
        &self,
        source: &dyn Source,
        layer: &Layer<'_>,
        task: &Task,
    ) -> Result<Vec<Secret>, Cause> {
        let key = format!("{SECRET_VERSION} {}", layer.diff_id);
        let known = match &self.store {
            Some(store) => store.memo(MEMO, key.as_bytes())?,
            None => None,
        };
        if let Some(found) = known.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(found);
        }
        let fetched = source.fetch(layer.descriptor).await?.verify(layer.descriptor);
        let reader = bridge::reader(fetched);
        let child = task.child(format!("search layer {}", layer.descriptor.digest.short()));
        let search = move || {
            let found = sbom::search_layer(reader, &child)?;
            child.done();
            Ok::<_, sbom::Error>(found)
        };
        let (found, diff_id) = bridge::blocking(search).await?;
        // What is remembered of a layer must be of that layer, whatever an image claims.
        if let Some(store) = self.store.as_ref().filter(|_| diff_id == layer.diff_id) {
            let bytes = serde_json::to_vec(&found).unwrap_or_default();
            store.set_memo(MEMO, key.as_bytes(), &bytes)?;
        }
        Ok(found)
    }
}

/// The secrets of what is not a layer.
fn in_config(image: &Image) -> Vec<Secret> {
    let config = image.config();
    let run = &config.config;
    let mut texts: Vec<(String, String)> = Vec::new();
    texts.extend(run.env.iter().map(|entry| ("environment".to_owned(), entry.clone())));
    let labels =
        run.labels.iter().map(|(key, value)| (format!("label {key}"), format!("{key}={value}")));
    texts.extend(labels);
    for (place, words) in [("entrypoint", &run.entrypoint), ("command", &run.cmd)] {
        texts.push((
            place.to_owned(),
            words.iter().flatten().cloned().collect::<Vec<_>>().join(" "),
        ));
    }
    for (index, step) in config.history.iter().enumerate() {
        let text = [&step.created_by, &step.comment].into_iter().flatten().cloned();
        texts.push((format!("history, step {}", index + 1), text.collect::<Vec<_>>().join("\n")));
    }
    texts.iter().flat_map(|(place, text)| sbom::search_config(text, place)).collect()
}
