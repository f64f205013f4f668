//! What the user asks for, and what he gets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dockerfile::Diagnostic;
use image::{Descriptor, Digest, Platform, Reference};
use layers::Compression;
use serde::{Deserialize, Serialize};

use crate::debug::DebugOptions;
use crate::image_options::Squash;
use crate::{
    Agent, Allow, Attest, CacheRequest, Explanation, GitUrl, HttpUrl, ImageOptions, Input,
    InputRules, RunOptions, Secret, SourceFile, Sources, Stream, Traffic,
};

/// Where files of a build come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// A directory; an absolute path.
    Directory(PathBuf),
    /// A tar archive, compressed or not.
    Archive(PathBuf),
    /// A tar archive, compressed or not, that comes through a pipe.
    #[serde(skip)]
    Stream(Stream),
    /// A commit of a git repository.
    Git(GitUrl),
    /// A tar archive, compressed or not, or a single file.
    Http(HttpUrl),
    /// An image by its name, as after `FROM`.
    Image(String),
    /// Nothing at all.
    Empty,
}

/// When to pull an image from a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// When the store does not have it.
    #[default]
    Missing,
    /// Every time; what has not changed is not fetched again.
    Always,
    /// Never.
    Never,
    /// Every time, but the store's is good enough when the registry does not answer.
    Newer,
}

/// Which network the commands of `RUN` see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network of their own, from which the world can be reached but not the loopback services
    /// of the machine.
    #[default]
    Default,
    /// None but a loopback of their own.
    None,
    /// The machine's.
    Host,
}

impl Network {
    /// `default`, `none` or `host`.
    pub fn as_str(self) -> &'static str {
        match self {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        }
    }

    /// The same for a container; nothing where its starter decides.
    pub(crate) fn mode(self) -> Option<runtime::Network> {
        match self {
            Network::Default => None,
            Network::None => Some(runtime::Network::None),
            Network::Host => Some(runtime::Network::Host),
        }
    }
}

/// The media types of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's.
    Docker,
}

/// How Dockerfiles are read where builders differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Of several files to a name without a slash the last remains, `VOLUME` makes nothing, `ADD`
    /// of a repository leaves `.git` out.
    #[default]
    BuildKit,
    /// Several sources to a name make a directory, `VOLUME` makes one, `ADD` of a repository keeps
    /// `.git`.
    Buildah,
}

impl Dialect {
    /// `buildkit` or `buildah`.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::BuildKit => "buildkit",
            Dialect::Buildah => "buildah",
        }
    }
}

impl Format {
    /// `oci` or `docker`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Oci => "oci",
            Format::Docker => "docker",
        }
    }
}

/// Where a result goes besides the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// An image to a place of [`transport::Location`]'s syntax: `docker://…`, `oci:…`,
    /// `oci-archive:…`, `docker-archive:…`, `dir:…`.
    Image(String),
    /// An image to a repository of a registry, without a tag.
    ByDigest(Reference),
    /// The files of the last stage into a directory, which is made if missing.
    Files(FilesOutput),
    /// The files of the last stage as a tar archive into a file; may be `/dev/stdout`.
    Tar(FilesOutput),
    /// Nowhere: what was built stays in the cache.
    Nothing,
}

/// Where the time of an image comes from, if the user gives none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeOf {
    /// The clock, when the build starts. Files have times of their own.
    Clock,
    /// The commit that is the build context; without one, the clock.
    #[default]
    Commit,
    /// The build context: its commit, its `Last-Modified`, or its newest file. Without any, the clock.
    Context,
}

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesOutput {
    /// The directory or archive; an absolute path.
    pub path: PathBuf,
    /// Whether each platform's files are in a directory of their own; without a wish, when there
    /// are several platforms.
    pub split: Option<bool>,
    /// Whether everything else in the directory goes.
    pub delete: bool,
}

impl FilesOutput {
    /// Files to this path, nothing else said.
    pub fn to(path: PathBuf) -> FilesOutput {
        FilesOutput { path, split: None, delete: false }
    }
}

/// What to build: a value that can be kept, sent and read again. A document that leaves a field out
/// has it as [`Request::new`] has it.
///
/// What belongs to this process alone is no value: a pipe, a terminal, the value of a secret, the
/// keys of an agent. A request that has one cannot be written. Addresses are written as they were
/// given, with their credentials.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// The Dockerfile.
    pub dockerfile: SourceFile,
    /// The build context.
    pub context: Context,
    /// The ignore file to use instead of the one in the context.
    pub ignore: Option<SourceFile>,
    /// `--build-context`: further contexts by name.
    pub contexts: BTreeMap<String, Context>,
    /// `-t`: the names of the image in the store.
    pub tags: Vec<Reference>,
    /// Whether the image is also pushed to each of its names.
    pub push: bool,
    /// Whether the store keeps an image that is pushed even if it must fetch a base for that which
    /// no step needs.
    pub keep: bool,
    /// `name-canonical`: metadata names the image with its digest.
    pub canonical: bool,
    /// `-o`: where else the result goes. With outputs and no tags nothing is named in the store.
    pub outputs: Vec<Output>,
    /// `--from`: what the first stage is built on instead of what it says.
    pub from: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: the stage to build, the last one without.
    pub target: Option<String>,
    /// What to build for; at least one. Several give an index.
    pub platforms: Vec<Platform>,
    /// `--all-platforms`: build for every platform that the base images have, whatever
    /// [`Request::platforms`] says.
    pub all_platforms: bool,
    /// What is built on: the `BUILDPLATFORM` of the Dockerfile.
    pub build_platform: Platform,
    /// How the Dockerfile is read.
    pub dialect: Dialect,
    /// Whether commands see the volumes of the image as they were declared, and what they write
    /// below them is dropped.
    pub drop_volumes: bool,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// What the image is to look like beyond what the Dockerfile says.
    pub image: ImageOptions,
    /// Run every step again.
    pub no_cache: bool,
    /// Run every step of these stages again.
    pub no_cache_filter: Vec<String>,
    /// When to pull base images.
    pub pull: Pull,
    /// The network of `RUN` without `--network`.
    pub network: Network,
    /// What commands of `RUN` get beyond what the Dockerfile says.
    pub run: RunOptions,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: agents by id.
    pub ssh: BTreeMap<String, Agent>,
    /// `--allow`.
    pub allow: Allow,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970: the time of everything in the image.
    pub source_date_epoch: Option<i64>,
    /// Where the time comes from without [`Request::source_date_epoch`].
    pub time_of: TimeOf,
    /// Media types.
    pub format: Format,
    /// How layers are compressed. Without an encoding of the user's, gzip: every registry and
    /// every runtime reads it.
    pub compression: Compression,
    /// Whether layers may stay unpacked, to be compressed when the image first leaves the store;
    /// its manifest is another one then. They do where nothing of this build needs the manifest
    /// that will leave.
    pub defer: bool,
    /// How many steps may run at once; at least 1.
    pub jobs: usize,
    /// Import and export of the cache.
    pub cache: CacheRequest,
    /// Proxy variables (`HTTP_PROXY`, …) for `RUN`; they are kept out of image, history and
    /// cache keys.
    pub proxy: BTreeMap<String, String>,
    /// Which inputs may be used, and with which content.
    pub inputs: InputRules,
    /// Where the Dockerfile is, and how files from elsewhere are fetched.
    pub sources: Sources,
    /// The attestations of the images.
    pub attest: Attest,
    /// What happens when a command fails.
    pub debug: DebugOptions,
    /// What becomes of what commands and downloads ask over HTTP.
    pub traffic: Traffic,
}

impl Default for Request {
    /// An empty Dockerfile without a context.
    fn default() -> Request {
        Request::new(SourceFile::default(), Context::Empty)
    }
}

impl Request {
    /// A request for this Dockerfile and context with everything else at its default.
    pub fn new(dockerfile: SourceFile, context: Context) -> Request {
        Request {
            dockerfile,
            context,
            ignore: None,
            contexts: BTreeMap::new(),
            tags: Vec::new(),
            push: false,
            keep: false,
            canonical: false,
            outputs: Vec::new(),
            from: None,
            build_args: BTreeMap::new(),
            target: None,
            platforms: vec![Platform::host()],
            all_platforms: false,
            build_platform: Platform::host(),
            dialect: Dialect::default(),
            drop_volumes: false,
            labels: BTreeMap::new(),
            image: ImageOptions::default(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            pull: Pull::default(),
            network: Network::default(),
            run: RunOptions::default(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            allow: Allow::default(),
            source_date_epoch: None,
            time_of: TimeOf::default(),
            format: Format::default(),
            compression: Compression { encoding: image::Encoding::Gzip, level: None },
            defer: false,
            jobs: 4,
            cache: CacheRequest::default(),
            proxy: BTreeMap::new(),
            inputs: InputRules::default(),
            sources: Sources::default(),
            attest: Attest::default(),
            debug: DebugOptions::default(),
            traffic: Traffic::default(),
        }
    }

    /// The named context that replaces a name of the Dockerfile: the same text, or for an image
    /// another spelling of it.
    pub(crate) fn named_context(&self, name: &str) -> Option<(&str, &Context)> {
        let whole = |text: &str| text.parse::<Reference>().ok().map(Reference::or_latest);
        let same = || {
            let wanted = whole(name)?;
            self.contexts.iter().find(|(known, _)| whole(known).as_ref() == Some(&wanted))
        };
        let found = self.contexts.get_key_value(name).or_else(same)?;
        Some((found.0, found.1))
    }

    /// Does what build arguments that BuildKit knows ask for: `BUILDKIT_SANDBOX_HOSTNAME`,
    /// `BUILDKIT_INLINE_CACHE` and `BUILDKIT_MULTI_PLATFORM`.
    pub fn heed_build_args(&mut self) {
        let on = |name: &str| {
            let value = self.build_args.get(name).map(String::as_str);
            matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
        };
        let (inline, index) = (on("BUILDKIT_INLINE_CACHE"), on("BUILDKIT_MULTI_PLATFORM"));
        self.cache.inline |= inline;
        self.image.index |= index;
        let hostname = &mut self.run.base.network.hostname;
        if hostname.is_none() {
            *hostname = self.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned();
        }
    }

    /// No file in a layer or an output is newer than this.
    pub(crate) fn clamp(&self) -> Option<i64> {
        self.source_date_epoch.filter(|_| !self.image.keep_times)
    }

    /// Whether layers stay unpacked in the store.
    pub(crate) fn leaves_layers(&self) -> bool {
        let leaves = |output: &Output| matches!(output, Output::Image(_) | Output::ByDigest(_));
        self.defer
            && !self.push
            && !self.outputs.iter().any(leaves)
            && !self.attest.any()
            && !self.image.force_compression
            && self.image.squash == Squash::None
            && !self.cache.exports()
    }

    /// Whether an image is made, not only files.
    pub(crate) fn makes_image(&self) -> bool {
        let any = |kind: fn(&Output) -> bool| self.outputs.iter().any(kind);
        let named = self.push || !self.tags.is_empty() || self.outputs.is_empty();
        any(|output| matches!(output, Output::Image(_) | Output::ByDigest(_)))
            || named && !any(|output| matches!(output, Output::Nothing))
    }
}

/// One image of what was built.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// What was built for.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its configuration.
    pub id: Digest,
}

/// The result of a build.
#[derive(Debug, Clone)]
pub struct BuildResult {
    /// The manifest, or the index of several; `None` when only files were asked for.
    pub manifest: Option<Descriptor>,
    /// Whether that will be the manifest when the image leaves the store: its layers are as they
    /// leave.
    pub settled: bool,
    /// The image id: the digest of the configuration, of several images that of the index
    /// (`--iidfile`).
    pub id: Option<Digest>,
    /// The images, in the order of the platforms.
    pub images: Vec<BuiltImage>,
    /// The names the image has in the store now.
    pub names: Vec<String>,
    /// Where the image was pushed or written to.
    pub pushed: Vec<String>,
    /// Why each step that ran had to.
    pub explained: Vec<Explanation>,
    /// How many steps the target needed.
    pub steps: usize,
    /// How many of them the cache answered.
    pub cached: usize,
    /// Warnings about the Dockerfile.
    pub warnings: Vec<Diagnostic>,
    /// The Dockerfile the warnings are about.
    pub dockerfile: Arc<SourceFile>,
    /// What was taken from elsewhere: images, downloads, repositories.
    pub inputs: Vec<Input>,
    /// What was asked over HTTP and answered, if it was recorded or replayed.
    pub exchanges: Vec<recorder::Exchange>,
    /// The time of everything in the image, if it has one: seconds since 1970.
    pub time: Option<i64>,
    /// The content of `--metadata-file`.
    pub metadata: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::debug::{OnFailure, Terminal};

    /// A request in which no part is at its default, as an earlier version wrote it. A change that
    /// makes this test fail breaks what users keep: read the old form as well.
    const KEPT: &str = include_str!("request.json");

    /// Whether everything in one value is in another; what was added since does not matter.
    fn holds(all: &Value, some: &Value) -> bool {
        match (all, some) {
            (Value::Object(all), Value::Object(some)) => {
                some.iter().all(|(key, some)| all.get(key).is_some_and(|all| holds(all, some)))
            }
            (Value::Array(all), Value::Array(some)) => {
                all.len() == some.len() && all.iter().zip(some).all(|(all, some)| holds(all, some))
            }
            (all, some) => all == some,
        }
    }

    #[test]
    fn a_request_of_an_earlier_version_is_read_and_written_as_it_was() {
        let kept: Value = serde_json::from_str(KEPT).unwrap();
        let request: Request = serde_json::from_str(KEPT).unwrap();
        let written = serde_json::to_value(&request).unwrap();
        let usual = serde_json::to_value(Request::default()).unwrap();
        for (key, kept) in kept.as_object().unwrap() {
            assert!(holds(&written[key], kept), "{key}: {:#}", written[key]);
            assert_ne!(written[key], usual[key], "{key}");
        }
        let missing = |key: &&String| kept.get(key.as_str()).is_none();
        let missing: Vec<_> = usual.as_object().unwrap().keys().filter(missing).collect();
        assert!(missing.is_empty(), "add them to request.json: {missing:?}");
    }

    #[test]
    fn what_a_document_leaves_out_is_as_in_a_new_request() {
        let text = r#"{"dockerfile": {"name": "D", "text": "FROM scratch"}, "tags": ["a/b:1"]}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        let dockerfile = SourceFile { name: "D".to_owned(), text: "FROM scratch".to_owned() };
        let new = Request {
            tags: vec!["a/b:1".parse().unwrap()],
            ..Request::new(dockerfile, Context::Empty)
        };
        let value = |request: &Request| serde_json::to_value(request).unwrap();
        assert_eq!(value(&request), value(&new));
        for wrong in [r#"{"tag": ["a"]}"#, r#"{"context": {"git": "x y"}}"#, r#"{"tags": [":"]}"#] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_belongs_to_this_process_is_never_written() {
        let refused = |change: &dyn Fn(&mut Request)| {
            let mut request = Request::default();
            change(&mut request);
            serde_json::to_string(&request).unwrap_err().to_string()
        };
        let secret = |request: &mut Request| {
            request.secrets.insert("s".to_owned(), Secret::Value(b"hidden".to_vec()));
        };
        let keys = |request: &mut Request| {
            let keys = crate::Keys::read(&[]).unwrap();
            request.ssh.insert("k".to_owned(), Agent::Keys(Arc::new(keys)));
        };
        let stream = |request: &mut Request| {
            request.context = Context::Stream(Stream::new(std::io::empty()));
        };
        let shell = |request: &mut Request| {
            let open = || std::fs::File::open("/dev/null").unwrap().into();
            let terminal = Terminal { input: open(), output: open(), size: (1, 1) };
            request.debug.on_failure = OnFailure::Shell(Arc::new(terminal));
        };
        assert!(refused(&secret).contains("Value"));
        assert!(refused(&keys).contains("Keys"));
        assert!(refused(&stream).contains("Stream"));
        assert!(refused(&shell).contains("Shell"));
    }
}
