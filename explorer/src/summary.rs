//! The same in words, and as JSON.

use std::fmt::Write;

use progress::bytes;
use serde_json::{Value, json};

use crate::explored_image::{ExploredImage, shortened};

/// How many wasted files the words name.
const NAMED: usize = 20;

/// Layers and waste as a page of text.
pub fn summary(explored: &ExploredImage) -> String {
    let mut out = String::new();
    let (carried, wasted) = explored.carried_and_wasted();
    let _ = writeln!(out, "{} {} {}", explored.name, explored.platform, explored.digest);
    let _ = writeln!(out);
    let _ = writeln!(out, "LAYER  BLOB      FILES     ENTRIES  STEP");
    for (number, layer) in explored.layers.iter().enumerate() {
        let step: String = shortened(&layer.step).split_whitespace().collect::<Vec<_>>().join(" ");
        let step: String = step.chars().take(80).collect();
        let _ = writeln!(
            out,
            "{number:<5}  {:<8}  {:<8}  {:<7}  {step}",
            bytes(layer.size),
            bytes(layer.files),
            layer.entries
        );
    }
    let percent = (wasted * 100).checked_div(carried).unwrap_or(0);
    let _ = writeln!(out);
    let _ = writeln!(
        out,
        "{} in files, {} of them wasted ({percent} percent): written by one layer, hidden by a later one",
        bytes(carried),
        bytes(wasted)
    );
    let waste = explored.tree.waste();
    for one in waste.iter().take(NAMED) {
        let verb = if one.removed { "removed" } else { "written again" };
        let _ = writeln!(
            out,
            "  {:<8}  {}  (layer {}, {verb} in layer {})",
            bytes(one.bytes),
            explored.tree.path(one.node),
            one.written,
            one.hidden
        );
    }
    if waste.len() > NAMED {
        let _ = writeln!(out, "  and {} more files", waste.len() - NAMED);
    }
    out
}

/// Layers and waste as JSON.
pub fn json(explored: &ExploredImage) -> Value {
    let (carried, wasted) = explored.carried_and_wasted();
    let layers = explored.layers.iter().enumerate().map(|(number, layer)| {
        json!({
            "number": number, "digest": layer.digest, "diffID": layer.diff_id, "size": layer.size,
            "fileBytes": layer.files, "entries": layer.entries, "step": layer.step,
        })
    });
    let waste = explored.tree.waste();
    let waste = waste.iter().map(|one| {
        json!({
            "path": explored.tree.path(one.node), "bytes": one.bytes, "writtenBy": one.written,
            "hiddenBy": one.hidden, "removed": one.removed,
        })
    });
    json!({
        "image": explored.name, "digest": explored.digest, "platform": explored.platform,
        "layers": layers.collect::<Vec<_>>(),
        "fileBytes": carried, "wastedBytes": wasted, "wasted": waste.collect::<Vec<_>>(),
    })
}
