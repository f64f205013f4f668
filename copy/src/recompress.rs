//! The same image with its layers compressed otherwise. Configs keep their bytes, because they
//! name layers by their uncompressed content, which is checked on the way.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use async_trait::async_trait;
use image::{Descriptor, Digest, Encoding, MediaType};
use layers::LayerWriter;
use task::{Cause, Kind, Task};

use crate::blob::{FaultCell, StreamMeter, Watch};
use crate::bridge::{self, blocking};
use crate::convert::like;
use crate::rewrite::{ChangedLayer, LayerChange, rewrite};
use crate::stop::Stop;
use crate::{
    CopyOptions, Error, Layers, Overlay, Recompress, Result, Select, Side, Source, scratch,
};

/// Annotations that describe the bytes of one compression.
const OF_THE_BYTES: [&str; 3] = [
    "io.github.containers.zstd-chunked.",
    "containerd.io/snapshot/stargz/",
    "dev.rbuild.gzip-index.",
];

/// Compresses the layers of the images that `select` chooses and lays the result over the source.
/// The root is then the selected document. If all layers are already as requested, nothing changes.
///
/// The new layers are in unnamed files in [`Recompress::room`] as long as the overlay lives.
///
/// # Errors
/// [`Error::Place`] if the source fails, [`Error::Layer`] for a layer that does not match its
/// config, [`Error::File`] without space, [`Error::Cancelled`].
pub async fn recompress<'a>(
    source: &'a dyn Source,
    select: &Select,
    how: &Recompress,
    attempts: u32,
    task: &Task,
) -> Result<Overlay<'a>> {
    let change = RecompressJob { source, how, task, stop: Stop::new(task) };
    Ok(rewrite(source, select, (&change, attempts), task).await?.overlay)
}

/// As [`recompress`], with what the options of a copy say about it.
pub(crate) async fn for_copy<'a>(
    source: &'a dyn Source,
    options: &CopyOptions,
    how: &Recompress,
    task: &Task,
) -> Result<(Overlay<'a>, CopyOptions)> {
    let before = source.resolve().await;
    let before = before.map_err(Error::resolve)?;
    let overlay = recompress(source, &options.select, how, options.attempts, task).await?;
    let after = overlay.resolve().await.map_err(Error::resolve)?;
    let select = match options.select {
        Select::IndexOnly => Select::IndexOnly,
        _ => Select::All,
    };
    if options.preserve_digests && overlay.changes() && before.digest != after.digest {
        let reason = format!("the layers of {} have another compression", before.digest);
        return Err(Error::WouldChange { reason });
    }
    warn_of_referrers(source, (&before, &after), options, task).await?;
    let mut format = options.format;
    if format.is_none() && how.compression.encoding == Encoding::Zstd && overlay.changes() {
        // Docker's own documents have no zstd layers.
        format = Some(crate::Format::Oci);
    }
    Ok((overlay, CopyOptions { select, format, recompress: None, ..options.clone() }))
}

/// Warns of what is attached to an image that becomes another one in the copy.
pub(crate) async fn warn_of_referrers(
    source: &dyn Source,
    (before, after): (&Descriptor, &Descriptor),
    options: &CopyOptions,
    task: &Task,
) -> Result<()> {
    if !options.referrers || before.digest == after.digest {
        return Ok(());
    }
    let listed = source.referrers(before).await;
    let listed = listed.map_err(Error::at("listing referrers", Side::Source))?;
    if !listed.is_empty() {
        task.warn(format!(
            "the referrers of {} stay behind: the copy has another digest",
            before.digest
        ));
    }
    Ok(())
}

struct RecompressJob<'w> {
    source: &'w dyn Source,
    how: &'w Recompress,
    task: &'w Task,
    stop: Stop,
}

#[async_trait]
impl LayerChange for RecompressJob<'_> {
    fn wants(&self, layer: &Descriptor) -> bool {
        let Some(encoding) = layer.media_type.layer_encoding() else { return false };
        if layer.media_type.is_foreign() {
            return false;
        }
        match self.how.layers {
            Layers::Plain => encoding == Encoding::Plain,
            Layers::Others => {
                let table = layer.annotations.keys().any(|key| key.starts_with(OF_THE_BYTES[0]));
                encoding != self.how.compression.encoding || self.how.chunked && !table
            }
            Layers::All => true,
        }
    }

    fn describe(&self, layer: &Descriptor, changed: &Descriptor) -> Descriptor {
        let encoding = self.how.compression.encoding;
        let mut described = like(layer, changed);
        described.media_type = MediaType::layer(encoding, layer.media_type.is_docker());
        described.annotations.retain(|key, _| !OF_THE_BYTES.iter().any(|of| key.starts_with(of)));
        described.annotations.extend(changed.annotations.clone());
        described
    }

    async fn change(&self, layer: &Descriptor, diff_id: Digest) -> Result<Option<ChangedLayer>> {
        let short = layer.digest.short();
        let metering = StreamMeter::new(self.task.sized(format!("recompress {short}"), layer.size));
        let reading = || Error::at(format!("reading layer {}", layer.digest), Side::Source);
        let unverified = self.source.fetch(layer).await.map_err(reading())?;
        let fault = FaultCell::default();
        let watch = Watch {
            meter: metering.clone(),
            fault: fault.clone(),
            stop: Box::pin(self.stop.wait()),
        };
        let reader = bridge::reader(unverified.verify(layer).watched(watch));
        let how = self.how.clone();
        let written = blocking(move || write(reader, &how)).await;
        let name = layer.digest.to_string();
        let (file, info) = match (written, fault.take()) {
            (Ok(written), _) => written,
            (Err(_), Some(cause)) if cause.kind() == Kind::Cancelled => {
                return Err(Error::Cancelled);
            }
            (Err(_), Some(cause)) => return Err(reading()(cause)),
            (Err(Error::Layer { source, .. }), None) => return Err(Error::Layer { name, source }),
            (Err(error), None) => return Err(error),
        };
        if info.diff_id != diff_id {
            let (expected, found) = (diff_id, info.diff_id);
            let source = Cause::new(image::Error::DigestMismatch { expected, found });
            return Err(Error::Layer { name, source });
        }
        metering.end(Task::done);
        Ok(Some(ChangedLayer { descriptor: info.descriptor, file: Some(Arc::new(file)) }))
    }
}

fn write(reader: bridge::BlobReader, how: &Recompress) -> Result<(File, layers::LayerInfo)> {
    let broken = |error: layers::Error| Error::Layer { name: String::new(), source: error.into() };
    let file = scratch(&how.room)?;
    let mut plain = layers::decompress(reader).map_err(broken)?;
    let full = |error: std::io::Error| Error::file("writing a layer in", &how.room)(error);
    if how.chunked {
        let out = BufWriter::new(file);
        let (out, info) =
            layers::write_chunked(plain, out, how.compression.level).map_err(broken)?;
        return Ok((out.into_inner().map_err(|error| full(error.into_error()))?, info));
    }
    let mut writer = LayerWriter::new(BufWriter::new(file), how.compression, how.threads);
    std::io::copy(&mut plain, &mut writer)
        .map_err(|error| broken(layers::Error::Read { source: error }))?;
    let (out, info) = writer.finish().map_err(broken)?;
    let mut file = out.into_inner().map_err(|error| full(error.into_error()))?;
    file.flush().map_err(full)?;
    Ok((file, info))
}
