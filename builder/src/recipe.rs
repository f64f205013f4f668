//! The recipe that provenance holds: what of a request decides the image, as values.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::{Digest, Encoding};
use runtime::{ContainerSpec, Isolation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::grant::{Grant, grants};
use crate::provenance::{BUILD_TYPE, SLSA_V1};
use crate::{
    Annotation, Dialect, DockerfileAt, Error, Format, Level, Lock, Network, Request, Result,
    SourceFile,
};

/// What provenance says of how to build an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recipe {
    /// What the user chose.
    pub choices: Choices,
    /// The Dockerfile, if provenance has it (`mode=max`).
    pub dockerfile: Option<SourceFile>,
    /// The path of the Dockerfile as the builder was given it.
    pub path: String,
    /// Whether files of a local context went in.
    pub locals: bool,
    /// Whether the values of build arguments are there.
    pub complete: bool,
    /// Ids of the secrets that the build had.
    pub secrets: Vec<String>,
    /// How commands ran. It may give commands more of this machine than the sandbox does: see
    /// [`Recipe::apply`].
    pub run: ContainerSpec,
    /// The same in older provenance, as it was written on the command line. A caller that reads it
    /// puts what it means into `run`.
    pub run_flags: Vec<String>,
    /// The content of every input.
    pub lock: Lock,
}

/// What of a build the user chose; `None` and nothing where provenance does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// See [`Request::target`].
    pub target: Option<String>,
    /// See [`Request::source_date_epoch`].
    pub time: Option<i64>,
    /// See [`Request::format`].
    pub format: Option<Format>,
    /// See [`Request::dialect`].
    pub dialect: Option<Dialect>,
    /// How layers are compressed.
    pub encoding: Option<Encoding>,
    /// The level of the compression.
    pub level: Option<i32>,
    /// See [`Request::network`].
    pub network: Option<Network>,
    /// See [`Request::labels`].
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// See [`Request::build_args`].
    pub build_args: BTreeMap<String, String>,
}

/// Which single choices a request states itself, so that a recipe leaves them alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExplicitChoices {
    /// [`Request::target`].
    pub target: bool,
    /// [`Request::source_date_epoch`].
    pub time: bool,
    /// [`Request::format`].
    pub format: bool,
    /// [`Request::dialect`].
    pub dialect: bool,
    /// The encoding of [`Request::compression`].
    pub encoding: bool,
    /// The level of [`Request::compression`].
    pub level: bool,
    /// [`Request::network`].
    pub network: bool,
}

impl Choices {
    fn read(args: &Map<String, Value>) -> Result<Choices> {
        let mut choices = Choices::default();
        for (name, value) in args {
            let text = value.as_str().unwrap_or_default();
            let unknown = || invalid(&format!("{name} is {text:?}"));
            let pair = |key: &str| (key.to_owned(), text.to_owned());
            match name.split_once(':') {
                Some(("build-arg", key)) => choices.build_args.extend([pair(key)]),
                Some(("label", key)) => choices.labels.extend([pair(key)]),
                Some(("annotation", key)) => choices.annotations.extend([pair(key)]),
                _ => match name.as_str() {
                    "target" => choices.target = Some(text.to_owned()),
                    "source-date-epoch" => {
                        choices.time = Some(text.parse().map_err(|_| unknown())?);
                    }
                    "format" => choices.format = Some(format(text).ok_or_else(unknown)?),
                    "dialect" => choices.dialect = Some(dialect(text).ok_or_else(unknown)?),
                    "compression" => choices.encoding = Some(encoding(text).ok_or_else(unknown)?),
                    "compression-level" => {
                        choices.level = Some(text.parse().map_err(|_| unknown())?);
                    }
                    "network" => choices.network = Some(network(text).ok_or_else(unknown)?),
                    _ => {}
                },
            }
        }
        Ok(choices)
    }

    fn apply(&self, request: &mut Request, explicit: ExplicitChoices) {
        let Choices {
            target,
            time,
            format,
            dialect,
            encoding,
            level,
            network,
            labels,
            annotations,
            build_args,
        } = self;
        if let Some(target) = target.as_ref().filter(|_| !explicit.target) {
            request.target = Some(target.clone());
        }
        if let Some(time) = time.filter(|_| !explicit.time) {
            request.source_date_epoch = Some(time);
        }
        if let Some(format) = format.filter(|_| !explicit.format) {
            request.format = format;
        }
        if let Some(dialect) = dialect.filter(|_| !explicit.dialect) {
            request.dialect = dialect;
        }
        if let Some(encoding) = encoding.filter(|_| !explicit.encoding) {
            request.compression.encoding = encoding;
        }
        if !explicit.encoding && !explicit.level {
            request.compression.level = *level;
        }
        if let Some(network) = network.filter(|_| !explicit.network) {
            request.network = network;
        }
        let lay = |below: &BTreeMap<String, String>, above: &mut BTreeMap<String, String>| {
            for (name, value) in below {
                above.entry(name.clone()).or_insert_with(|| value.clone());
            }
        };
        lay(labels, &mut request.labels);
        lay(build_args, &mut request.build_args);
        let annotation = |(key, value): (&String, &String)| Annotation {
            level: Level::Manifest,
            platform: None,
            key: key.clone(),
            value: Some(value.clone()),
        };
        let annotations: Vec<_> = annotations.iter().map(annotation).collect();
        request.image.annotations.splice(0..0, annotations);
    }
}

fn format(text: &str) -> Option<Format> {
    [Format::Oci, Format::Docker].into_iter().find(|format| format.as_str() == text)
}

fn dialect(text: &str) -> Option<Dialect> {
    [Dialect::BuildKit, Dialect::Buildah].into_iter().find(|dialect| dialect.as_str() == text)
}

fn network(text: &str) -> Option<Network> {
    let all = [Network::Default, Network::None, Network::Host];
    all.into_iter().find(|network| network.as_str() == text)
}

fn encoding(text: &str) -> Option<Encoding> {
    match text {
        "gzip" => Some(Encoding::Gzip),
        "zstd" => Some(Encoding::Zstd),
        "none" => Some(Encoding::Plain),
        _ => None,
    }
}

fn invalid(reason: &str) -> Error {
    Error::malformed("provenance", reason.to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Recipe {
    /// Reads an in-toto statement with our provenance of the image with this digest.
    ///
    /// # Errors
    /// [`Error::Malformed`]: it is something else, or about another image.
    pub fn parse(statement: &[u8], subject: Digest) -> Result<Recipe> {
        let value: Value =
            serde_json::from_slice(statement).map_err(|error| invalid(&error.to_string()))?;
        let definition = definition(&value, subject)?;
        let parameters = &definition["externalParameters"];
        let request = &parameters["request"];
        let details = &value["predicate"]["runDetails"];
        let internal = &definition["internalParameters"];
        let run = match &internal["run"] {
            Value::Null => ContainerSpec::default(),
            run => ContainerSpec::deserialize(run).map_err(|error| invalid(&error.to_string()))?,
        };
        Ok(Recipe {
            choices: Choices::read(request["args"].as_object().unwrap_or(&Map::new()))?,
            dockerfile: dockerfile(&details["byproducts"]),
            path: text(&parameters["configSource"]["path"]),
            locals: list(&request["locals"]).next().is_some(),
            complete: details["metadata"]["rbuild_completeness"]["request"] == true,
            secrets: list(&request["secrets"]).map(|secret| text(&secret["id"])).collect(),
            run,
            run_flags: list(&internal["runFlags"]).map(text).collect(),
            lock: lock(&definition["resolvedDependencies"])?,
        })
    }

    /// The recipe in the first of several statements that has one.
    ///
    /// # Errors
    /// There are statements, and none has a recipe: why the last one has none.
    pub fn find<S: AsRef<[u8]>>(statements: &[S], subject: Digest) -> Result<Option<Recipe>> {
        let mut refused = None;
        for statement in statements {
            match Recipe::parse(statement.as_ref(), subject) {
                Ok(recipe) => return Ok(Some(recipe)),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// Completes the request of a build that is to give the same image. What the request says
    /// itself holds: each field of [`Request::run`] that is not at its default, each build
    /// argument, label and annotation, and what is `stated`.
    ///
    /// The result is what commands get beyond the sandbox because the recipe, and not the request,
    /// says so. Run such a request only if you trust the maker of the provenance.
    pub fn apply(&self, request: &mut Request, explicit: ExplicitChoices) -> Vec<Grant> {
        let own = grants(&request.run.base, request.network);
        self.choices.apply(request, explicit);
        request.run.base = over(&self.run, &request.run.base);
        if !explicit.network {
            request.run.base.network.mode = request.network.mode();
        }
        request.heed_build_args();
        if request.run.base.network.http_proxy == Some(false) {
            request.proxy.clear();
        }
        if let Some(dockerfile) = &self.dockerfile {
            request.dockerfile = dockerfile.clone();
            request.sources.dockerfile = DockerfileAt::Given;
        }
        let mut all = grants(&request.run.base, request.network);
        all.retain(|grant| !own.contains(grant));
        all
    }
}

/// One specification with each field of another that is not at its default in place of its own.
fn over(below: &ContainerSpec, above: &ContainerSpec) -> ContainerSpec {
    let ContainerSpec { process, isolation, limits, files, network, lifecycle } = above.clone();
    let usual = ContainerSpec::default();
    ContainerSpec {
        process: laid(&below.process, process, &usual.process),
        isolation: Isolation {
            user_namespace: isolation.user_namespace,
            ..laid(&below.isolation, isolation, &usual.isolation)
        },
        limits: laid(&below.limits, limits, &usual.limits),
        files: laid(&below.files, files, &usual.files),
        network: laid(&below.network, network, &usual.network),
        lifecycle: laid(&below.lifecycle, lifecycle, &usual.lifecycle),
    }
}

/// The fields of `above` that are not as usual over those of `below`.
fn laid<T: Clone + Serialize + DeserializeOwned>(below: &T, above: T, usual: &T) -> T {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    let (Some(mut all), Some(own), Some(usual)) = (fields(below), fields(&above), fields(usual))
    else {
        // A path that is no UTF-8: all of it is what the request says.
        return above;
    };
    all.extend(own.into_iter().filter(|(name, value)| usual.get(name) != Some(value)));
    serde_json::from_value(Value::Object(all)).unwrap_or(above)
}

/// The build definition of a statement that is ours and about this image.
fn definition(statement: &Value, subject: Digest) -> Result<&Value> {
    if statement["predicateType"] != SLSA_V1 {
        return Err(invalid(&format!("it is {}, not {SLSA_V1}", statement["predicateType"])));
    }
    let algorithm = subject.algorithm().as_str();
    if !list(&statement["subject"]).any(|s| s["digest"][algorithm] == subject.hex().as_str()) {
        return Err(invalid(&format!("it is not about {subject}")));
    }
    let definition = &statement["predicate"]["buildDefinition"];
    match &definition["buildType"] {
        kind if kind == BUILD_TYPE => Ok(definition),
        other => Err(invalid(&format!(
            "the image was built as {other}, not by this program ({BUILD_TYPE})"
        ))),
    }
}

fn dockerfile(byproducts: &Value) -> Option<SourceFile> {
    let part = list(byproducts).find(|part| part["mediaType"] == "text/x-dockerfile")?;
    let bytes = BASE64.decode(part["content"].as_str()?).ok()?;
    Some(SourceFile { name: text(&part["name"]), text: String::from_utf8(bytes).ok()? })
}

fn lock(dependencies: &Value) -> Result<Lock> {
    let mut lock = Lock::default();
    // What commands got over HTTP is not pinned by a recipe.
    let answers = |input: &&Value| input["annotations"]["method"].is_string();
    for input in list(dependencies).filter(|input| !answers(input)) {
        let source = text(&input["annotations"]["source"]);
        let digests = input["digest"].as_object().ok_or_else(|| invalid("no digest"))?;
        let git = digests.get("gitCommit").map(text);
        let other = digests.iter().next().map(|(name, hex)| format!("{name}:{}", text(hex)));
        let content = git.or(other).ok_or_else(|| invalid("an input without a digest"))?;
        lock.pin(&source, &content)
            .map_err(|reason| invalid(&format!("the input {source:?}: {reason}")))?;
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn statement(subject: Digest) -> Value {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": subject.hex()}}],
            "predicateType": SLSA_V1,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "configSource": {"path": "Dockerfile"},
                        "request": {
                            "args": {"target": "x", "compression": "zstd", "network": "none",
                                "build-arg:A": "1", "build-arg:B": "2", "label:l": "v"}, "secrets": [{"id": "token"}],
                            "locals": [{"name": "context"}],
                        },
                    },
                    "internalParameters": {"run": {"limits": {"memory": 1, "pids_limit": 7}}},
                    "resolvedDependencies": [{
                        "digest": {"sha256": subject.hex()},
                        "annotations": {"source": "docker-image://a/b:1"},
                    }],
                },
                "runDetails": {"byproducts": [{
                    "mediaType": "text/x-dockerfile", "name": "D", "content": BASE64.encode("FROM x"),
                }]},
            },
        })
    }

    #[test]
    fn recipes_are_read_and_other_statements_refused() {
        let subject = Digest::of(b"image");
        let good = statement(subject);
        let recipe = Recipe::parse(&serde_json::to_vec(&good).unwrap(), subject).unwrap();
        assert_eq!(recipe.dockerfile.unwrap().text, "FROM x");
        assert_eq!(recipe.choices.target.as_deref(), Some("x"));
        assert_eq!(recipe.secrets, ["token"]);
        assert_eq!(recipe.lock.sources().collect::<Vec<_>>(), ["docker-image://a/b:1"]);
        assert_eq!(recipe.run.limits.memory, Some(1));
        assert!(recipe.locals && !recipe.complete);
        for (pointer, value) in [
            ("/predicateType", json!("https://spdx.dev/Document")),
            ("/subject/0/digest/sha256", json!("00")),
            ("/predicate/buildDefinition/buildType", json!("https://mobyproject.org/x")),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({})),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({"sha256": "x"})),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(
                Recipe::parse(&serde_json::to_vec(&bad).unwrap(), subject).is_err(),
                "{pointer}"
            );
        }
        for bytes in [&b""[..], b"[]", b"null", b"{\"subject\":3}"] {
            assert!(Recipe::parse(bytes, subject).is_err());
        }
    }

    fn recipe(change: impl FnOnce(&mut Value)) -> Recipe {
        let subject = Digest::of(b"image");
        let mut statement = statement(subject);
        change(&mut statement["predicate"]["buildDefinition"]);
        Recipe::parse(&serde_json::to_vec(&statement).unwrap(), subject).unwrap()
    }

    fn request() -> Request {
        Request::new(SourceFile::default(), crate::Context::Empty)
    }

    #[test]
    fn a_recipe_completes_a_request_that_keeps_what_it_says_itself() {
        let mut request = request();
        request.build_args.insert("B".to_owned(), "own".to_owned());
        request.run.base.limits.memory = Some(2);
        request.run.base.isolation.user_namespace = true;
        let stated = ExplicitChoices { encoding: true, ..ExplicitChoices::default() };
        let usual = request.compression;
        assert_eq!(recipe(|_| {}).apply(&mut request, stated), []);
        assert_eq!(request.target.as_deref(), Some("x"));
        assert_eq!((&request.build_args["A"][..], &request.build_args["B"][..]), ("1", "own"));
        assert_eq!((request.compression, request.network), (usual, Network::None));
        assert_eq!(request.run.base.network.mode, Some(runtime::Network::None));
        let limits = &request.run.base.limits;
        assert_eq!((limits.memory, limits.pids_limit), (Some(2), Some(7)));
        assert!(request.run.base.isolation.user_namespace);
        assert_eq!(request.dockerfile.text, "FROM x");
    }

    #[test]
    fn what_a_recipe_opens_is_reported_unless_the_request_opens_it_too() {
        let open = recipe(|definition| {
            definition["externalParameters"]["request"]["args"]["network"] = json!("host");
            definition["internalParameters"]["run"] =
                json!({"isolation": {"cap_add": ["NET_ADMIN"]}});
        });
        let capability = Grant::Capability("NET_ADMIN".to_owned());
        let mut own = request();
        assert_eq!(
            open.apply(&mut own, ExplicitChoices::default()),
            [capability, Grant::HostNetwork]
        );
        let mut own = request();
        own.run.base.isolation.cap_add = vec!["NET_ADMIN".to_owned()];
        own.network = Network::None;
        let stated = ExplicitChoices { network: true, ..ExplicitChoices::default() };
        assert_eq!(open.apply(&mut own, stated), []);
        assert_eq!(own.run.base.isolation.cap_add, ["NET_ADMIN"]);
        assert_eq!(own.network, Network::None);
    }

    #[test]
    fn older_provenance_has_flags_and_no_specification() {
        let older = recipe(|definition| {
            definition["internalParameters"] = json!({"runFlags": ["--memory=1"]});
        });
        assert_eq!(older.run_flags, ["--memory=1"]);
        assert_eq!(older.run, ContainerSpec::default());
    }
}
