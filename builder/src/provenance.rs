//! How an image was built: a SLSA v1 provenance predicate. Pure; what it needs of the build is in
//! [`Facts`].

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::{Digest, Encoding, Platform};
use recorder::Exchange;
use runtime::ContainerSpec;
use serde_json::{Map, Value, json};

use crate::input::{Input, InputKind};
use crate::plan::{CopySource, From, Op, Plan, RunMountKind};
use crate::{Context, Dialect, Error, Network, Provenance, Request, Result};

/// The predicate's type.
pub const SLSA_V1: &str = "https://slsa.dev/provenance/v1";
/// What the external parameters mean; described in docs/supply-chain.md.
pub const BUILD_TYPE: &str = "urn:rbuild:dockerfile:v1";

/// What is known about a finished build.
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a Request,
    pub(crate) options: &'a Provenance,
    pub(crate) platform: &'a Platform,
    pub(crate) plan: &'a Plan,
    pub(crate) inputs: &'a [Input],
    /// What commands got over HTTP, if it was recorded or replayed.
    pub(crate) exchanges: &'a [Exchange],
    /// RFC 3339.
    pub(crate) started: String,
    /// RFC 3339.
    pub(crate) finished: String,
}

/// The predicate for the image of one platform.
pub(crate) fn predicate(facts: &Facts<'_>) -> Result<Value> {
    let request = facts.request;
    let complete = locals(facts).is_empty();
    let mut internal = json!({ "builderPlatform": request.build_platform.to_string() });
    if facts.options.max {
        internal["buildConfig"] = steps(facts.plan);
        let run = chosen_run(&request.run.base)?;
        if !run.is_empty() {
            internal["run"] = run.into();
        }
    }
    let mut run = json!({
        "builder": {
            "id": facts.options.builder_id,
            "version": { "rbuild": facts.options.version },
        },
        "metadata": {
            "invocationId": facts.options.invocation,
            "startedOn": facts.started,
            "finishedOn": facts.finished,
            "rbuild_hermetic": hermetic(facts),
            "rbuild_reproducible": facts.options.reproducible,
            "rbuild_completeness": {
                // Of a local context no digest is taken.
                "request": facts.options.max,
                "resolvedDependencies": complete,
            },
        },
    });
    if facts.options.max {
        let text = request.dockerfile.text.as_bytes();
        run["byproducts"] = json!([{
            "name": request.dockerfile.name,
            "mediaType": "text/x-dockerfile",
            "digest": digest_set(&Digest::of(text).to_string()),
            "content": BASE64.encode(text),
        }]);
    }
    Ok(json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external(facts),
            "internalParameters": internal,
            "resolvedDependencies": facts
                .inputs
                .iter()
                .filter(|input| concerns(input, facts.platform, facts))
                .map(dependency)
                .chain(facts.exchanges.iter().map(answer))
                .collect::<Vec<_>>(),
        },
        "runDetails": run,
    }))
}

/// What of the specification of commands is not as usual, group by group. The network is among
/// what the user chose.
fn chosen_run(run: &ContainerSpec) -> Result<Map<String, Value>> {
    let mut run = run.clone();
    run.network.mode = None;
    let value = |spec: &ContainerSpec| {
        serde_json::to_value(spec)
            .map_err(|source| Error::Document { action: "writing provenance".to_owned(), source })
    };
    let (Value::Object(mut groups), usual) = (value(&run)?, value(&ContainerSpec::default())?)
    else {
        return Ok(Map::new());
    };
    for (name, group) in &mut groups {
        if let Value::Object(fields) = group {
            fields.retain(|field, value| usual[name.as_str()].get(field) != Some(value));
        }
    }
    groups.retain(|_, group| group.as_object().is_some_and(|fields| !fields.is_empty()));
    Ok(groups)
}

/// Whether an input went into the image of this platform, as far as is known.
fn concerns(input: &Input, platform: &Platform, facts: &Facts<'_>) -> bool {
    match &input.platform {
        Some(own) => own == platform || *own == facts.request.build_platform,
        None => true,
    }
}

/// What the user chose.
fn external(facts: &Facts<'_>) -> Value {
    let request = facts.request;
    let mut args = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        args.insert(name.to_owned(), value);
    };
    set("platform", facts.platform.to_string());
    if let Some(target) = &request.target {
        set("target", target.clone());
    }
    if let Some(epoch) = request.source_date_epoch {
        set("source-date-epoch", epoch.to_string());
    }
    if request.dialect != Dialect::default() {
        set("dialect", request.dialect.as_str().to_owned());
    }
    set("format", request.format.as_str().to_owned());
    let compression = match request.compression.encoding {
        Encoding::Gzip => "gzip",
        Encoding::Zstd => "zstd",
        _ => "none",
    };
    set("compression", compression.to_owned());
    if let Some(level) = request.compression.level {
        set("compression-level", level.to_string());
    }
    set("network", request.network.as_str().to_owned());
    for (name, value) in &request.labels {
        set(&format!("label:{name}"), value.clone());
    }
    for one in &request.image.annotations {
        if let Some(value) = &one.value {
            set(&format!("annotation:{}", one.key), value.clone());
        }
    }
    // Values of build arguments may be confidential: only with `mode=max`.
    if facts.options.max {
        for (name, value) in &request.build_args {
            set(&format!("build-arg:{name}"), value.clone());
        }
    }
    let locals: Vec<_> = locals(facts)
        .into_iter()
        .map(|name| json!({ "name": if name.is_empty() { "context" } else { name } }))
        .collect();
    json!({
        "configSource": { "path": request.dockerfile.name },
        "request": {
            "frontend": "dockerfile.v0",
            "args": args,
            "secrets": request.secrets.keys().map(|id| json!({ "id": id })).collect::<Vec<_>>(),
            "ssh": request.ssh.keys().map(|id| json!({ "id": id })).collect::<Vec<_>>(),
            "locals": locals,
        },
    })
}

/// The contexts of this machine that files were taken from; no digest of them is known.
fn locals<'a>(facts: &Facts<'a>) -> BTreeSet<&'a str> {
    let from = |from: &'a From| match from {
        From::Context(name) => Some(name.as_str()),
        _ => None,
    };
    let mut names = BTreeSet::new();
    for step in &facts.plan.steps {
        match &step.op {
            Op::Copy(copy) => {
                let paths = copy.sources.iter().any(|s| matches!(s, CopySource::Path(_)));
                names.extend(from(&copy.from).filter(|_| paths));
            }
            Op::Run(run) => names.extend(run.mounts.iter().filter_map(|mount| match &mount.kind {
                RunMountKind::Bind { from: place, .. }
                | RunMountKind::Cache { from: place, .. } => from(place),
                _ => None,
            })),
            _ => {}
        }
    }
    let request = facts.request;
    let context = |name: &str| match name {
        "" => Some(&request.context),
        name => request.contexts.get(name),
    };
    names.retain(|name| {
        matches!(
            context(name),
            Some(Context::Directory(_) | Context::Archive(_) | Context::Stream(_))
        )
    });
    names
}

/// Whether no command could reach a network.
fn hermetic(facts: &Facts<'_>) -> bool {
    facts.plan.steps.iter().all(|step| match &step.op {
        Op::Run(run) => match run.network.as_str() {
            "none" => true,
            "default" => {
                facts.request.network == Network::None || facts.request.traffic.is_replayed()
            }
            _ => false,
        },
        _ => true,
    })
}

/// `sha256:…` or a commit, as in-toto writes digests.
fn digest_set(content: &str) -> Value {
    match content.split_once(':') {
        Some((algorithm, hex)) => json!({ algorithm: hex }),
        None if content.len() == 40 => json!({ "sha1": content, "gitCommit": content }),
        None => json!({ "gitCommit": content }),
    }
}

/// One input. `annotations.source` is its identifier, by which it can be had again.
fn dependency(input: &Input) -> Value {
    let mut annotations = json!({ "source": input.identifier });
    if let Some(manifest) = input.manifest {
        annotations["manifest"] = manifest.to_string().into();
    }
    if let Some(place) = &input.place {
        annotations["place"] = place.as_str().into();
    }
    json!({
        "uri": uri(input),
        "digest": digest_set(&input.resolved),
        "annotations": annotations,
    })
}

/// What a command got over HTTP. It has no `annotations.source`: the lock has it, not the recipe.
fn answer(exchange: &Exchange) -> Value {
    let mut annotations = json!({
        "step": exchange.step,
        "method": exchange.method,
        "status": exchange.status.to_string(),
    });
    if let Some(range) = &exchange.range {
        annotations["range"] = range.as_str().into();
    }
    if let Some(sent) = exchange.sent {
        annotations["sent"] = sent.to_string().into();
    }
    json!({
        "uri": exchange.url,
        "digest": digest_set(&exchange.digest.to_string()),
        "annotations": annotations,
    })
}

fn uri(input: &Input) -> String {
    let image = input.identifier.strip_prefix("docker-image://");
    match (input.kind, image) {
        (InputKind::Image, Some(name)) => image_purl(name, input.platform.as_ref()),
        _ => input.identifier.clone(),
    }
}

/// `pkg:docker/NAME@TAG?platform=…`, in the form that BuildKit gives it.
pub(crate) fn image_purl(name: &str, platform: Option<&Platform>) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let encode = |text: &str| text.replace('%', "%25").replace('/', "%2F").replace(':', "%3A");
    let parts: Vec<_> = path.split('/').map(|part| part.replace(':', "%3A")).collect();
    let mut url = format!("pkg:docker/{}", parts.join("/"));
    if let Some(version) = tag.or(digest) {
        url.push('@');
        url.push_str(&version.replace(':', "%3A"));
    }
    let mut qualifiers = Vec::new();
    if let Some(digest) = digest.filter(|_| tag.is_some()) {
        qualifiers.push(format!("digest={}", digest.replace(':', "%3A")));
    }
    if let Some(platform) = platform {
        qualifiers.push(format!("platform={}", encode(&platform.to_string())));
    }
    if !qualifiers.is_empty() {
        url.push('?');
        url.push_str(&qualifiers.join("&"));
    }
    url
}

/// The steps of the plan, without values of secrets, which no plan has.
fn steps(plan: &Plan) -> Value {
    let step = |(id, step): (usize, &crate::plan::Step)| {
        let mut value = json!({
            "id": format!("step{id}"),
            "name": step.name,
            "inputs": step.inputs().map(|input| format!("step{}", input.0)).collect::<Vec<_>>(),
        });
        match &step.op {
            Op::Image(key) => value["image"] = key.name.as_str().into(),
            Op::Run(run) => {
                value["run"] = json!(run.args);
                value["network"] = run.network.as_str().into();
                let secrets = run.mounts.iter().filter_map(|mount| match &mount.kind {
                    RunMountKind::Secret { id, .. } => Some(id.as_str()),
                    _ => None,
                });
                let secrets: Vec<_> = secrets.collect();
                if !secrets.is_empty() {
                    value["secrets"] = json!(secrets);
                }
            }
            Op::Copy(copy) => {
                let sources = copy.sources.iter().map(|source| match source {
                    CopySource::Path(path) => format!("/{path}"),
                    CopySource::Inline { name, .. } => name.clone(),
                    other => remote(other),
                });
                value["copy"] = sources.collect();
                value["destination"] = copy.destination.as_str().into();
            }
            Op::Graft => {}
            Op::Workdir(workdir) => value["workdir"] = workdir.path.as_str().into(),
        }
        value
    };
    let targets = plan.targets.iter().filter_map(|target| target.step);
    json!({
        "steps": plan.steps.iter().enumerate().map(step).collect::<Vec<_>>(),
        "results": targets.map(|id| format!("step{}", id.0)).collect::<Vec<_>>(),
    })
}

fn remote(source: &CopySource) -> String {
    match source {
        CopySource::Http { url } => crate::redact::without_credentials(url),
        CopySource::Git { url } => {
            crate::GitUrl::parse(url).map(|url| url.to_string()).unwrap_or_default()
        }
        CopySource::Path(path) => path.clone(),
        CopySource::Inline { name, .. } => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_the_urls_that_buildkit_gives_them() {
        let platform: Platform = "linux/arm64".parse().expect("a platform");
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        let cases = [
            (
                "docker.io/library/debian:12".to_owned(),
                "pkg:docker/debian@12?platform=linux%2Farm64".to_owned(),
            ),
            (
                "docker.io/team/app:1".to_owned(),
                "pkg:docker/team/app@1?platform=linux%2Farm64".to_owned(),
            ),
            (
                "r.example:5000/a/b:1".to_owned(),
                "pkg:docker/r.example%3A5000/a/b@1?platform=linux%2Farm64".to_owned(),
            ),
            (
                format!("r.example/a:1@sha256:{hex}"),
                format!("pkg:docker/r.example/a@1?digest=sha256%3A{hex}&platform=linux%2Farm64"),
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(image_purl(&name, Some(&platform)), expected);
        }
    }

    #[test]
    fn digests_are_written_as_in_toto_writes_them() {
        assert_eq!(digest_set("sha512:ab"), json!({ "sha512": "ab" }));
        let commit = "0123456789".repeat(4);
        assert_eq!(digest_set(&commit), json!({ "sha1": commit, "gitCommit": commit }));
    }
}
