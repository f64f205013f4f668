//! A report of one file: the data of the image, and a page that shows it. It loads nothing and
//! runs wherever a browser is; names of files are data and never become markup.

use serde_json::{Value, json};

use crate::explored_image::{ExploredImage, shortened};
use crate::tree::{Node, Version};

/// The report as one HTML page.
pub fn html(explored: &ExploredImage) -> String {
    let data = data(explored).to_string();
    // So that no name of a file can end the script element it is in.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028");
    let title = explored.name.replace('&', "&amp;").replace('<', "&lt;");
    include_str!("report.html")
        .replace("{{title}}", &title)
        .replace("{{style}}", include_str!("report.css"))
        .replace("{{script}}", include_str!("report.js"))
        .replace("{{data}}", &data)
}

fn data(explored: &ExploredImage) -> Value {
    let layers = explored.layers.iter().map(|layer| {
        json!({
            "digest": layer.digest, "size": layer.size, "files": layer.files,
            "entries": layer.entries, "step": shortened(&layer.step),
        })
    });
    let nodes = explored.tree.nodes().iter().map(node);
    let waste = explored.tree.waste();
    let waste =
        waste.iter().map(|one| json!([one.node, one.bytes, one.written, one.hidden, one.removed]));
    let (carried, wasted) = explored.carried_and_wasted();
    json!({
        "image": explored.name, "digest": explored.digest, "platform": explored.platform,
        "carried": carried, "wasted": wasted, "config": explored.config,
        "layers": layers.collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>(),
        "waste": waste.collect::<Vec<_>>(),
    })
}

/// `[name, parent, [version, …]]`; a version is `[layer]` where the name was taken away, else
/// `[layer, permissions, uid, gid, size, mtime, link]`.
fn node(node: &Node) -> Value {
    let versions: Vec<Value> = node.versions.iter().map(version).collect();
    json!([String::from_utf8_lossy(&node.name), node.parent, versions])
}

fn version(version: &Version) -> Value {
    match &version.file {
        None => json!([version.layer]),
        Some(file) => json!([
            version.layer,
            file.permissions(),
            file.uid,
            file.gid,
            file.size,
            file.mtime,
            String::from_utf8_lossy(&file.link)
        ]),
    }
}

#[cfg(test)]
mod tests {
    use layers::EntryKind;

    use super::*;
    use crate::sample::{entry, sample};

    #[test]
    fn a_report_holds_hostile_names_as_data() {
        let mut explored = sample();
        let name = "</script><img src=x onerror=alert(1)>";
        explored.tree.take(1, entry(name, EntryKind::File, 1)).unwrap();
        let page = html(&explored);
        assert!(!page.contains("<img"), "a name became markup");
        assert!(page.contains("\\u003c/script>\\u003cimg") || page.contains("\\u003cimg src=x"));
        assert!(!page.contains("http://") && !page.contains("https://"), "it loads something");
    }
}
