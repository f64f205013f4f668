//! Outputs, and names of images that are places.

use std::path::PathBuf;

use image::{Encoding, Reference};
use transport::Location;

use super::invocation::{fields, truth};
use super::{Invocation, SyntaxError, annotations, compression};
use crate::{Annotation, FilesOutput, Format, Output, Request, Result};

/// Everything the outputs of a build ask for.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Where to write the result.
    pub outputs: Vec<Output>,
    /// Names in the store.
    pub tags: Vec<Reference>,
    /// Whether to report names with the digest.
    pub canonical: bool,
    /// What outputs set for layers and media types; it applies to the whole build.
    pub settings: ImageSettings,
    /// Whether an output of an image has been added.
    has_image: bool,
}

/// Settings of outputs that concern the image itself; what none of them sets is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// How layers are compressed.
    pub compression: Option<Encoding>,
    /// The level of the compression.
    pub level: Option<i32>,
    /// Whether layers of the base are compressed again.
    pub force: Option<bool>,
    /// Whether the media types are those of OCI.
    pub oci: Option<bool>,
    /// Whether times in layers are bounded.
    pub rewrite: Option<bool>,
    /// Annotations.
    pub annotations: Vec<Annotation>,
}

/// The transports a name may begin with, as buildah has it.
const TRANSPORTS: [&str; 8] = [
    "docker:",
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "dir:",
    "docker-daemon:",
    "containers-storage:",
    "store:",
];

/// Whether a text with `=` is the path of a directory: it is one field, and no key has a slash.
fn is_path(text: &str) -> bool {
    !text.contains(',') && text.split('=').next().is_some_and(|key| key.contains('/'))
}

impl Outputs {
    /// Whether an output has standard output for itself.
    pub fn takes_stdout(text: &str) -> bool {
        let keys = fields(text).unwrap_or_default();
        let has = |wanted: &str| keys.iter().any(|pair| pair == wanted);
        let named = || keys.iter().any(|pair| pair.starts_with("dest="));
        text == "-" || has("dest=-") || has("type=tar") && !named()
    }

    /// Adds a name of the image, or a place to write it to: `app:2`, `docker://registry.example/app`.
    ///
    /// # Errors
    /// It is malformed.
    pub fn add_tag(&mut self, text: &str, call: &Invocation<'_>) -> Result<()> {
        if !TRANSPORTS.iter().any(|transport| text.starts_with(transport)) {
            self.tags.push(call.name(text)?);
            return Ok(());
        }
        let place: Location =
            text.parse().map_err(|error| SyntaxError::new(task::chain(&error).join(": ")))?;
        match place.under(&call.absolute(".")) {
            Location::Store(name) => self.tags.push(call.name(&name)?),
            place => self.outputs.push(Output::Image(place.to_string())),
        }
        Ok(())
    }

    /// Adds an output: `type=oci|docker|tar|local|image|registry|cacheonly,KEY=VALUE,…`, a
    /// directory, or `-` for an archive of files on standard output. Names come first: an output
    /// without a name of its own takes those.
    ///
    /// # Errors
    /// What is not supported, by name; outputs that want the image in two ways at once.
    pub fn add(&mut self, text: &str, call: &Invocation<'_>) -> Result<()> {
        let own = self.one(text, call)?;
        // Files have no layers.
        if own == ImageSettings::default() && is_files(text) {
            return Ok(());
        }
        if self.has_image && self.settings != own {
            return Err(SyntaxError::new(
                "its layers or media types differ from those of another output",
            )
            .hinting("a build makes one image: build once for each, the second is cached")
            .into());
        }
        (self.settings, self.has_image) = (own, true);
        Ok(())
    }

    /// Adds one output; returns its settings of the image.
    fn one(&mut self, text: &str, call: &Invocation<'_>) -> Result<ImageSettings> {
        if !text.contains('=') || is_path(text) {
            self.outputs.push(match text {
                "-" => Output::Tar(FilesOutput::to("/dev/stdout".into())),
                path => Output::Files(FilesOutput::to(call.absolute(path))),
            });
            return Ok(ImageSettings::default());
        }
        let mut one = Keys::default();
        for field in fields(text)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(SyntaxError::new(format!("{field:?} is not KEY=VALUE")).into());
            };
            one.set(key, value)?;
        }
        if one.dest.as_deref() == Some("-") && !matches!(one.kind.as_str(), "tar" | "") {
            return Err(SyntaxError::new("only archives go to standard output").into());
        }
        if one.delete && one.kind != "local" {
            return Err(SyntaxError::new("mode=delete is for type=local").into());
        }
        match one.kind.as_str() {
            "local" | "tar" => self.files(&one, call)?,
            "oci" | "docker" => self.archive(&one, call)?,
            "image" | "registry" => self.registry(&one, call)?,
            "cacheonly" => self.outputs.push(Output::Nothing),
            "" => return Err(SyntaxError::new("it has no type=").into()),
            other => {
                return Err(SyntaxError::new(format!("type {other:?} is not supported"))
                    .hinting("the types are local, tar, oci, docker, image, registry and cacheonly")
                    .into());
            }
        }
        Ok(one.settings)
    }

    /// Puts the names, the outputs and what they set for the image into a request.
    ///
    /// # Errors
    /// The compression has no such level.
    pub fn apply(self, request: &mut Request) -> Result<(), SyntaxError> {
        let Outputs { outputs, tags, canonical, settings, has_image: _ } = self;
        (request.outputs, request.tags, request.canonical) = (outputs, tags, canonical);
        let free =
            ImageSettings { compression: None, level: None, force: None, ..settings.clone() };
        request.defer &= free == settings;
        let ImageSettings { compression: encoding, level, force, oci, rewrite, annotations } =
            settings;
        request.compression = compression(
            encoding.unwrap_or(request.compression.encoding),
            level.or(request.compression.level),
        )?;
        request.image.annotations.extend(annotations);
        request.image.force_compression = force.unwrap_or(request.image.force_compression);
        request.image.keep_times = rewrite.map_or(request.image.keep_times, |rewrite| !rewrite);
        request.format = match oci {
            None => request.format,
            Some(true) => Format::Oci,
            Some(false) => Format::Docker,
        };
        Ok(())
    }

    fn files(&mut self, one: &Keys, call: &Invocation<'_>) -> Result<()> {
        let output = |path| FilesOutput { path, split: one.split, delete: one.delete };
        match (one.kind.as_str(), one.dest.as_deref()) {
            ("tar", None | Some("-")) => {
                self.outputs.push(Output::Tar(output("/dev/stdout".into())));
            }
            ("tar", Some(path)) => {
                self.outputs.push(Output::Tar(output(call.absolute(path))));
            }
            (_, Some(path)) => {
                self.outputs.push(Output::Files(output(call.absolute(path))));
            }
            (_, None) => return Err(SyntaxError::new("it has no dest=").into()),
        }
        Ok(())
    }

    fn archive(&mut self, one: &Keys, call: &Invocation<'_>) -> Result<()> {
        let names = one.names(call)?;
        let Some(dest) = &one.dest else {
            if one.kind == "docker" {
                // As docker buildx: into the image store of this machine.
                self.tags.extend(names);
                return Ok(());
            }
            return Err(SyntaxError::new("it has no dest=").into());
        };
        let path: PathBuf = call.absolute(dest);
        let transport = match (one.kind.as_str(), one.tar) {
            ("oci", true) => "oci-archive",
            ("oci", false) => "oci",
            (_, true) => "docker-archive",
            (_, false) => return Err(SyntaxError::new("tar=false is for type=oci").into()),
        };
        let own = names.first().or(self.tags.first());
        let name = own.map(|name| format!(":{name}")).unwrap_or_default();
        self.outputs.push(Output::Image(format!("{transport}:{}{name}", path.display())));
        Ok(())
    }

    fn registry(&mut self, one: &Keys, call: &Invocation<'_>) -> Result<()> {
        if one.dest.is_some() {
            return Err(SyntaxError::new(format!("type={} has no dest=", one.kind)).into());
        }
        let own = one.names(call)?;
        let names = if own.is_empty() { self.tags.clone() } else { own };
        let push = one.push.unwrap_or(one.kind == "registry") || one.by_digest;
        if names.is_empty() && push {
            return Err(SyntaxError::new("it has no name=, and the image has none either").into());
        }
        self.canonical |= one.canonical;
        if one.kind == "image" && !one.by_digest {
            let new: Vec<_> =
                names.iter().filter(|name| !self.tags.contains(name)).cloned().collect();
            self.tags.extend(new);
        }
        for name in names.iter().filter(|_| push) {
            self.outputs.push(match one.by_digest {
                true => Output::ByDigest(Reference { tag: None, ..name.clone() }),
                false => Output::Image(format!("docker://{name}")),
            });
        }
        Ok(())
    }
}

fn is_files(text: &str) -> bool {
    let files = |pair: &String| ["type=local", "type=tar"].contains(&pair.as_str());
    !text.contains('=')
        || is_path(text)
        || fields(text).is_ok_and(|fields| fields.iter().any(files))
}

/// The keys of one output.
#[derive(Debug)]
struct Keys {
    kind: String,
    dest: Option<String>,
    name: String,
    push: Option<bool>,
    by_digest: bool,
    canonical: bool,
    tar: bool,
    split: Option<bool>,
    delete: bool,
    settings: ImageSettings,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys {
            kind: String::new(),
            dest: None,
            name: String::new(),
            push: None,
            by_digest: false,
            canonical: false,
            tar: true,
            split: None,
            delete: false,
            settings: ImageSettings::default(),
        }
    }
}

impl Keys {
    fn set(&mut self, key: &str, value: &str) -> Result<(), SyntaxError> {
        let flag = || truth(key, value);
        match key {
            "type" => value.clone_into(&mut self.kind),
            "dest" => self.dest = Some(value.to_owned()),
            "name" => value.clone_into(&mut self.name),
            "push" => self.push = Some(flag()?),
            "push-by-digest" => self.by_digest = flag()?,
            "name-canonical" => self.canonical = flag()?,
            "tar" => self.tar = flag()?,
            "platform-split" => self.split = Some(flag()?),
            "mode" if value == "copy" => self.delete = false,
            "mode" if value == "delete" => self.delete = true,
            "compression" => self.settings.compression = Some(encoding(value)?),
            "compression-level" => {
                let level = value.parse();
                let level =
                    level.map_err(|_| SyntaxError::new(format!("{value:?} is not a level")))?;
                self.settings.level = Some(level);
            }
            "force-compression" => self.settings.force = Some(flag()?),
            "oci-mediatypes" => self.settings.oci = Some(flag()?),
            "rewrite-timestamp" => self.settings.rewrite = Some(flag()?),
            // An image is always in the store, and what it needs to run is unpacked already.
            "store" | "unpack" if flag()? => {}
            _ => match key.split_once('.') {
                Some(("annotation", rest)) => self.annotate("manifest", rest, value)?,
                Some((level, rest)) if level.starts_with("annotation-") => {
                    self.annotate(&level["annotation-".len()..], rest, value)?;
                }
                _ => return Err(SyntaxError::new(format!("{key}={value} is not supported"))),
            },
        }
        Ok(())
    }

    fn annotate(&mut self, level: &str, key: &str, value: &str) -> Result<(), SyntaxError> {
        self.settings.annotations.extend(annotations(&format!("{level}:{key}={value}"))?);
        Ok(())
    }

    fn names(&self, call: &Invocation<'_>) -> Result<Vec<Reference>> {
        let names = self.name.split(',').filter(|name| !name.is_empty());
        names.map(|name| call.name(name)).collect()
    }
}

fn encoding(name: &str) -> Result<Encoding, SyntaxError> {
    match name {
        "gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        "none" | "uncompressed" => Ok(Encoding::Plain),
        other => Err(SyntaxError::new(format!("compression {other:?} is not supported"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn read(tags: &[&str], outputs: &[&str]) -> Result<Outputs> {
        let call =
            Invocation { directory: "/here".into(), variable: &|_| None, registry: "localhost" };
        let mut read = Outputs::default();
        tags.iter().try_for_each(|text| read.add_tag(text, &call))?;
        outputs.iter().try_for_each(|text| read.add(text, &call))?;
        Ok(read)
    }

    fn images(tags: &[&str], outputs: &[&str]) -> Vec<String> {
        let read = read(tags, outputs).unwrap();
        let outputs = read.outputs.iter().map(|output| match output {
            Output::Image(place) => place.clone(),
            Output::ByDigest(name) => format!("{name}@"),
            Output::Files(to) => format!("files {}", to.path.display()),
            Output::Tar(to) => format!("tar {}", to.path.display()),
            Output::Nothing => "nothing".to_owned(),
        });
        outputs.chain(read.tags.iter().map(|tag| format!("store {tag}"))).collect()
    }

    #[test]
    fn a_path_may_have_an_equals_sign() {
        assert_eq!(images(&[], &["./v=1"]), ["files /here/v=1"]);
        assert_eq!(images(&[], &["/out/a=b=c"]), ["files /out/a=b=c"]);
        for text in ["v=1", "./v=1,mode=delete", "dest=/out/a"] {
            assert!(read(&[], &[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_tar_goes_to_standard_output() {
        for (text, taken) in [
            ("-", true),
            ("type=tar", true),
            ("type=tar,dest=-", true),
            ("type=tar,dest=out.tar", false),
            ("type=oci,dest=image.tar", false),
            ("out", false),
            ("./with=sign", false),
        ] {
            assert_eq!(Outputs::takes_stdout(text), taken, "{text}");
            assert!(read(&[], &[text]).is_ok(), "{text}");
        }
        for text in ["type=oci,dest=-", "type=docker,dest=-", "type=local,dest=-"] {
            assert!(read(&[], &[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn places_and_names_are_told_apart() {
        assert_eq!(
            images(&["app", "oci-archive:/x.tar:app", "docker://r.example/a:1"], &[]),
            ["oci-archive:/x.tar:app", "docker://r.example/a:1", "store localhost/app:latest"]
        );
        assert_eq!(
            images(&[], &["type=oci,tar=false,dest=/l,name=a"]),
            ["oci:/l:localhost/a:latest"]
        );
        assert_eq!(
            images(&[], &["type=image,\"name=r.example/a:1,r.example/b\",push=true"]),
            [
                "docker://r.example/a:1",
                "docker://r.example/b:latest",
                "store r.example/a:1",
                "store r.example/b:latest"
            ]
        );
        assert_eq!(
            images(&[], &["type=image,name=r.example/a,push-by-digest=true"]),
            ["r.example/a@"]
        );
        assert_eq!(
            images(&["r.example/a"], &["type=registry"]),
            ["docker://r.example/a:latest", "store r.example/a:latest"]
        );
        assert_eq!(images(&["a"], &["type=docker"]), ["store localhost/a:latest"]);
        assert_eq!(images(&[], &["type=cacheonly"]), ["nothing"]);
        assert_eq!(images(&[], &["/out", "type=tar,dest=/t"]), ["files /out", "tar /t"]);
    }

    #[test]
    fn outputs_agree_on_the_image() {
        let same = ["type=oci,dest=/a,compression=zstd", "type=oci,dest=/b,compression=zstd", "/o"];
        assert_eq!(read(&[], &same).unwrap().settings.compression, Some(Encoding::Zstd));
        let other = ["type=oci,dest=/a,compression=zstd", "type=docker,dest=/b"];
        assert!(read(&[], &other).is_err());
        let with = "type=oci,dest=/a,annotation.a=1,annotation-index.b=2";
        let found = read(&[], &[with]).unwrap().settings.annotations;
        let levels: Vec<_> = found.iter().map(|one| (one.level, one.key.as_str())).collect();
        assert_eq!(levels, [(Level::Manifest, "a"), (Level::Index, "b")]);
        for text in [
            "type=oci,dest=/a,compression=estargz",
            "type=oci,dest=/a,frob=1",
            "type=oci,dest=/a,\"name=x",
            "type=docker,tar=false,dest=/a",
            "type=tar,mode=delete,dest=/a",
            "type=image,push=true",
            "type=image,name=a,push=maybe",
            "type=image,name=a,dest=/x",
            "type=moby",
            "dest=/a",
        ] {
            assert!(read(&[], &[text]).is_err(), "{text}");
        }
        assert!(read(&["oci:"], &[]).is_err());
    }
}
