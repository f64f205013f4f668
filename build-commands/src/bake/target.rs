//! From a target to the request of its build.

use std::path::{Path, PathBuf};

use app::values::{agent, invocation, secret};
use bake::{Target, list, pairs, text};
use builder::syntax::{self, named_context};
use builder::{Pull, Request};
use serde_json::Value;
use task::Kind;

use crate::bud::{self, Question};
use options::Dialect;
use options::Failure;
use options::container::{MapFlags, SharedFlags};
use options::flags::of_flag;

/// Where the image of a target is that others are built on.
pub(super) fn layout(scratch: &Path, target: &str) -> PathBuf {
    scratch.join(format!("{target}.layout"))
}

/// The values of a target.
#[derive(Debug, Default)]
pub(super) struct BakeTarget {
    /// The build context, as given.
    pub(super) context: String,
    /// The Dockerfiles.
    pub(super) files: Vec<String>,
    /// Further contexts by name.
    contexts: Vec<(String, String)>,
    args: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    /// The stage to build.
    pub(super) target: Option<String>,
    /// What is asked instead of a build: the value of `--call`.
    call: Option<String>,
    pub(super) no_cache: bool,
    pub(super) pull: bool,
    no_cache_filter: Vec<String>,
    tags: Vec<String>,
    pub(super) outputs: Vec<String>,
    platforms: Vec<String>,
    cache_from: Vec<String>,
    cache_to: Vec<String>,
    secrets: Vec<String>,
    ssh: Vec<String>,
    attest: Vec<String>,
    pub(super) sbom: Option<String>,
    pub(super) provenance: Option<String>,
    pub(super) entitlements: Vec<String>,
    annotations: Vec<String>,
    /// What commands get.
    run: SharedFlags,
}

impl BakeTarget {
    /// The values of a target. What it is built on is in `scratch`.
    ///
    /// # Errors
    /// A key is not supported; a value has the wrong type.
    pub(super) fn read(name: &str, target: &Target, scratch: &Path) -> Result<BakeTarget, Failure> {
        let context = target.get("context").and_then(Value::as_str).unwrap_or(".");
        let mut read = BakeTarget { context: context.to_owned(), ..BakeTarget::default() };
        for (key, value) in target {
            read.set(key, value, scratch).map_err(|why| {
                Failure::new(Kind::Invalid, format!("target {name:?}, {key}: {value} {why}"))
            })?;
        }
        if let Some(text) = target.get("dockerfile-inline").and_then(Value::as_str) {
            let file = scratch.join(format!("{name}.Dockerfile"));
            std::fs::write(&file, text)
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
            read.files.push(file.display().to_string());
        }
        Ok(read)
    }

    /// Takes over one key.
    fn set(&mut self, key: &str, value: &Value, scratch: &Path) -> Result<(), String> {
        let no = |what: &str| format!("is no {what}");
        let wrong_type = || "has the wrong type".to_owned();
        let all = || pairs(value).ok_or_else(|| no("object"));
        match key {
            "context" | "description" => {}
            "dockerfile-inline" => drop(value.as_str().ok_or_else(|| no("text"))?),
            "dockerfile" => {
                let file = value.as_str().ok_or_else(|| no("text"))?;
                let beside = Path::new(&self.context).join(file);
                let file = if beside.exists() { beside } else { PathBuf::from(file) };
                self.files.push(file.display().to_string());
            }
            "contexts" => {
                let place = |(name, value): (String, String)| match bake::context_target(&value) {
                    Some(below) => {
                        (name, format!("oci-layout://{}", layout(scratch, below).display()))
                    }
                    None => (name, value),
                };
                self.contexts.extend(all()?.into_iter().map(place));
            }
            "args" => self.args.extend(all()?),
            "labels" => self.labels.extend(all()?),
            "extra-hosts" => {
                let host = |(name, address)| format!("{name}:{address}");
                self.run.add_host.extend(all()?.into_iter().map(host));
            }
            "no-cache" => self.no_cache = value.as_bool().ok_or_else(wrong_type)?,
            "pull" => self.pull = value.as_bool().ok_or_else(wrong_type)?,
            "target" => self.target = Some(text(value).ok_or_else(wrong_type)?),
            "call" => self.call = Some(text(value).ok_or_else(wrong_type)?),
            "shm-size" => {
                let size = options::flags::size(&text(value).ok_or_else(wrong_type)?);
                self.run.limits.shm_size = Some(size.map_err(|error| format!("({error})"))?);
            }
            "ulimits" => {
                for text in list(value).ok_or_else(wrong_type)? {
                    let limit = containers::syntax::ulimit(&text);
                    self.run.limits.ulimit.push(limit.map_err(|error| format!("({error})"))?);
                }
            }
            _ => {
                let texts = self.texts(key);
                let texts =
                    texts.ok_or_else(|| "is not supported: this key is not known".to_owned())?;
                texts.extend(list(value).ok_or_else(wrong_type)?);
            }
        }
        Ok(())
    }

    /// What a list of texts fills.
    fn texts(&mut self, key: &str) -> Option<&mut Vec<String>> {
        Some(match key {
            "tags" => &mut self.tags,
            "platforms" => &mut self.platforms,
            "network" => &mut self.run.network,
            "cache-from" => &mut self.cache_from,
            "cache-to" => &mut self.cache_to,
            "secret" => &mut self.secrets,
            "ssh" => &mut self.ssh,
            "output" => &mut self.outputs,
            "attest" => &mut self.attest,
            "entitlements" => &mut self.entitlements,
            "no-cache-filter" => &mut self.no_cache_filter,
            "annotations" => &mut self.annotations,
            _ => return None,
        })
    }

    /// What is asked of the Dockerfile instead of a build.
    ///
    /// # Errors
    /// It is not understood.
    pub(super) fn question(&self) -> Result<Option<Question>, Failure> {
        self.call.as_deref().map_or(Ok(None), Question::of)
    }

    /// The request of the build; `push` says whether the image is pushed to its names.
    ///
    /// # Errors
    /// A value is not understood; a file is not there.
    pub(super) fn request(&self, push: bool) -> Result<Request, Failure> {
        let BakeTarget {
            context,
            files,
            contexts,
            args,
            labels,
            target,
            call: _,
            no_cache,
            pull,
            no_cache_filter,
            tags,
            outputs,
            platforms,
            cache_from,
            cache_to,
            secrets,
            ssh,
            attest,
            sbom,
            provenance,
            entitlements,
            annotations,
            run,
        } = self;
        let call = invocation()?;
        let found = bud::inputs(context, files, &[], &call)?;
        let mut request =
            bud::usual(found, Dialect::spoken(), bud::options(run, &MapFlags::default())?)?;
        for (name, text) in contexts {
            let place = named_context(text, &call).map_err(of_flag("--build-context", text))?;
            request.contexts.insert(name.clone(), place);
        }
        request.build_args.extend(args.iter().cloned());
        request.labels.extend(labels.iter().cloned());
        request.target.clone_from(target);
        (request.no_cache, request.no_cache_filter) = (*no_cache, no_cache_filter.clone());
        request.pull = if *pull { Pull::Always } else { Pull::Missing };
        if !platforms.is_empty() {
            request.platforms = bud::platforms(platforms)?;
        }
        for text in annotations {
            let read = syntax::annotations(text).map_err(of_flag("--annotation", text))?;
            request.image.annotations.extend(read);
        }
        bud::deliver(&mut request, bud::outputs(tags, outputs, &call)?, push)?;
        request.cache = bud::caches(request.cache, cache_from, cache_to)?;
        for text in secrets {
            request.secrets.extend([secret(text)?]);
        }
        for text in ssh {
            request.ssh.extend([agent(text)?]);
        }
        request.allow = bud::allowed(entitlements)?;
        bud::attested(&mut request.attest, attest, sbom.as_deref(), provenance.as_deref())?;
        bud::completed(request)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_is_a_request() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("D"), "FROM scratch\n").unwrap();
        let target = json!({
            "context": directory.path(), "dockerfile": "D", "args": {"A": "1", "B": null},
            "contexts": {"base": "target:other"}, "labels": {"l": "v"}, "tags": ["app:2"],
            "platforms": ["linux/arm64"], "network": "none", "extra-hosts": {"db": "10.0.0.1"},
            "no-cache": true, "pull": true, "target": "t", "shm-size": "1m",
            "cache-to": [{"type": "inline"}], "annotations": ["index:a=b"],
            "entitlements": ["security.insecure"], "attest": [{"type": "sbom"}],
            "output": [{"type": "oci", "dest": "/x.tar", "compression": "zstd"}],
        });
        let target: Target = serde_json::from_value(target).unwrap();
        let read = BakeTarget::read("app", &target, Path::new("/scratch")).unwrap();
        let value = serde_json::to_value(read.request(true).unwrap()).unwrap();
        for (pointer, expected) in [
            ("/dockerfile/text", json!("FROM scratch\n")),
            ("/build_args", json!({"A": "1"})),
            ("/contexts/base/image", json!("oci:/scratch/other.layout")),
            ("/labels/l", json!("v")),
            ("/tags", json!(["localhost/app:2"])),
            ("/push", json!(true)),
            ("/platforms/0/architecture", json!("arm64")),
            ("/network", json!("none")),
            ("/no_cache", json!(true)),
            ("/pull", json!("always")),
            ("/target", json!("t")),
            ("/cache/inline", json!(true)),
            ("/allow/insecure", json!(true)),
            ("/attest/sbom", json!(true)),
            ("/compression/encoding", json!("zstd")),
            ("/defer", json!(false)),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}: {value:#}");
        }
        for wrong in [json!({"nonsense": 1}), json!({"args": 1}), json!({"no-cache": "x"})] {
            let target: Target = serde_json::from_value(wrong).unwrap();
            assert!(BakeTarget::read("app", &target, Path::new("/scratch")).is_err());
        }
    }
}
