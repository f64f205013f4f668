//! What a registry was asked for.

use registry_server::Registry;

use e2e::scene::Scene;

/// Bytes of layers that were asked for; of those that were asked for whole, `None`.
pub(crate) fn fetched(registry: &Registry, scene: &Scene, name: &str) -> Option<u64> {
    let requests = registry.requests();
    let raw = scene.rcopy(&["inspect", "--raw", &format!("docker://{name}")]).ok();
    let manifest: serde_json::Value = serde_json::from_str(raw.text()).expect("a manifest");
    let layers: Vec<&str> = manifest["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| layer["digest"].as_str().expect("a digest"))
        .collect();
    let of_layers = requests.iter().filter(|request| {
        request.method == "GET" && layers.iter().any(|digest| request.path.ends_with(digest))
    });
    let length = |range: &str| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some(last.parse::<u64>().ok()? - first.parse::<u64>().ok()? + 1)
    };
    of_layers.map(|request| length(request.header("range")?)).sum()
}
