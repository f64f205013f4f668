//! `--output`, and names of `--tag` that are places.

use std::path::{Path, PathBuf};

use builder::{FilesOutput, ImageOptions, Level, Output};
use clap::ValueEnum;
use image::Reference;
use transport::Location;

use super::image_flags::CompressionName;
use crate::commands::lookup::local_name;
use crate::config;
use crate::flags;
use crate::report::Failure;

/// Everything the outputs of a build ask for.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// Where to write the result.
    pub(super) outputs: Vec<Output>,
    /// Names in the store.
    pub(super) tags: Vec<Reference>,
    /// Whether to report names with the digest.
    pub(super) canonical: bool,
    /// What outputs set for layers and media types; it applies to the whole build.
    pub(super) settings: Settings,
}

/// Settings of outputs that concern the image itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) compression: Option<CompressionName>,
    pub(super) level: Option<i32>,
    pub(super) force: Option<bool>,
    pub(super) oci: Option<bool>,
    pub(super) rewrite: Option<bool>,
    /// As `--annotation` takes them.
    pub(super) annotations: Vec<String>,
}

/// Whether an `--output` has standard output for itself.
pub(super) fn to_stdout(text: &str) -> bool {
    let keys = flags::fields(text).unwrap_or_default();
    let has = |wanted: &str| keys.iter().any(|pair| pair == wanted);
    let named = || keys.iter().any(|pair| pair.starts_with("dest="));
    text == "-" || has("dest=-") || has("type=tar") && !named()
}

/// An archive for standard output, in a file first: it is not written from front to end.
pub(super) struct Piped(tempfile::TempDir);

impl Piped {
    fn path(&self) -> PathBuf {
        self.0.path().join("image.tar")
    }

    /// Writes the archive to standard output.
    pub(super) fn print(&self) -> Result<(), Failure> {
        let failed = |error| Failure::io("writing the archive to standard output", &error);
        let mut file = std::fs::File::open(self.path()).map_err(failed)?;
        std::io::copy(&mut file, &mut std::io::stdout().lock()).map(drop).map_err(failed)
    }
}

/// Lets an archive of an image that goes to standard output go to a file.
pub(super) fn piped(outputs: &mut [String]) -> Result<Option<Piped>, Failure> {
    let mut piped = None;
    for text in outputs {
        let keys = flags::fields(text).unwrap_or_default();
        let archive = keys.iter().any(|key| ["type=oci", "type=docker"].contains(&&**key));
        if !archive || !keys.iter().any(|key| key == "dest=-") {
            continue;
        }
        if piped.is_some() {
            return Err(Failure::usage("--output: only one goes to standard output"));
        }
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            return Err(Failure::usage(format!(
                "--output {text:?}: an archive cannot go to a terminal"
            ))
            .hint("name a file with dest=, or redirect standard output"));
        }
        let scratch = tempfile::tempdir_in(config::scratch());
        let made = Piped(scratch.map_err(|error| Failure::io("making a directory", &error))?);
        let dest = format!("dest={}", made.path().display());
        let keys = keys.into_iter().map(|key| if key == "dest=-" { dest.clone() } else { key });
        let quoted = keys.map(|key| format!("\"{}\"", key.replace('"', "\"\"")));
        *text = quoted.collect::<Vec<_>>().join(",");
        piped = Some(made);
    }
    Ok(piped)
}

/// The transports a `--tag` may begin with, as buildah has it.
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

impl Outputs {
    /// Reads `--tag` and `--output`.
    ///
    /// # Errors
    /// What is not supported, by name; outputs that want the image in two ways at once.
    pub(super) fn read(tags: &[String], outputs: &[String]) -> Result<Outputs, Failure> {
        let mut all = Outputs::default();
        for tag in tags {
            if !TRANSPORTS.iter().any(|transport| tag.starts_with(transport)) {
                all.tags.push(local_name(tag)?);
                continue;
            }
            let place: Location = tag
                .parse()
                .map_err(|error| Failure::from(error).context(format!("reading --tag {tag:?}")))?;
            match place.under(&config::absolute(Path::new("."))?) {
                Location::Store(name) => all.tags.push(local_name(&name)?),
                place => all.outputs.push(Output::Image(place.to_string())),
            }
        }
        let mut settings: Option<Settings> = None;
        for text in outputs {
            let own = all.add(text)?;
            // Files have no layers.
            if own == Settings::default() && is_files(text) {
                continue;
            }
            if settings.as_ref().is_some_and(|known| *known != own) {
                return Err(Failure::usage(format!(
                    "--output {text:?}: its layers or media types differ from those of another output"
                ))
                .hint("a build makes one image: build once for each, the second is cached"));
            }
            settings = Some(own);
        }
        all.settings = settings.unwrap_or_default();
        Ok(all)
    }

    /// Adds one output; returns its settings of the image.
    fn add(&mut self, text: &str) -> Result<Settings, Failure> {
        let refuse = |why: String| Failure::usage(format!("--output {text:?}: {why}"));
        if !text.contains('=') {
            self.outputs.push(match text {
                "-" => Output::Tar(FilesOutput::to("/dev/stdout".into())),
                path => Output::Files(FilesOutput::to(config::absolute(Path::new(path))?)),
            });
            return Ok(Settings::default());
        }
        let mut one = One::default();
        for field in flags::fields(text).map_err(refuse)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(refuse(format!("{field:?} is not KEY=VALUE")));
            };
            one.set(key, value).map_err(refuse)?;
        }
        if one.dest.as_deref() == Some("-") && !matches!(one.kind.as_str(), "tar" | "") {
            return Err(refuse("only archives go to standard output".to_owned()));
        }
        if one.delete && one.kind != "local" {
            return Err(refuse("mode=delete is for type=local".to_owned()));
        }
        match one.kind.as_str() {
            "local" | "tar" => self.files(&one).map_err(|failure| context(failure, text))?,
            "oci" | "docker" => self.archive(&one).map_err(|failure| context(failure, text))?,
            "image" | "registry" => {
                self.registry(&one).map_err(|failure| context(failure, text))?;
            }
            "cacheonly" => self.outputs.push(Output::Nothing),
            "" => return Err(refuse("it has no type=".to_owned())),
            other => {
                return Err(refuse(format!("type {other:?} is not supported"))
                    .hint("the types are local, tar, oci, docker, image, registry and cacheonly"));
            }
        }
        Ok(one.settings)
    }

    fn files(&mut self, one: &One) -> Result<(), Failure> {
        let output = |path| FilesOutput { path, split: one.split, delete: one.delete };
        match (one.kind.as_str(), one.dest.as_deref()) {
            ("tar", None | Some("-")) => {
                self.outputs.push(Output::Tar(output("/dev/stdout".into())));
            }
            ("tar", Some(path)) => {
                self.outputs.push(Output::Tar(output(config::absolute(Path::new(path))?)));
            }
            (_, Some(path)) => {
                self.outputs.push(Output::Files(output(config::absolute(Path::new(path))?)));
            }
            (_, None) => return Err(Failure::usage("it has no dest=")),
        }
        Ok(())
    }

    fn archive(&mut self, one: &One) -> Result<(), Failure> {
        let names = one.names()?;
        let Some(dest) = &one.dest else {
            if one.kind == "docker" {
                // As docker buildx: into the image store of this machine.
                self.tags.extend(names);
                return Ok(());
            }
            return Err(Failure::usage("it has no dest="));
        };
        let path: PathBuf = config::absolute(Path::new(dest))?;
        let transport = match (one.kind.as_str(), one.tar) {
            ("oci", true) => "oci-archive",
            ("oci", false) => "oci",
            (_, true) => "docker-archive",
            (_, false) => return Err(Failure::usage("tar=false is for type=oci")),
        };
        let own = names.first().or(self.tags.first());
        let name = own.map(|name| format!(":{name}")).unwrap_or_default();
        self.outputs.push(Output::Image(format!("{transport}:{}{name}", path.display())));
        Ok(())
    }

    fn registry(&mut self, one: &One) -> Result<(), Failure> {
        if one.dest.is_some() {
            return Err(Failure::usage(format!("type={} has no dest=", one.kind)));
        }
        let own = one.names()?;
        let names = if own.is_empty() { self.tags.clone() } else { own };
        let push = one.push.unwrap_or(one.kind == "registry") || one.by_digest;
        if names.is_empty() && push {
            return Err(Failure::usage("it has no name=, and there is no --tag"));
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

/// Refuses annotations of an entry that no output has.
///
/// # Errors
/// There are some.
pub(super) fn has_entry(image: &ImageOptions, outputs: &[Output]) -> Result<(), Failure> {
    let wanted = image.annotations.iter().any(|one| one.level == Level::IndexDescriptor);
    let listed = |output: &Output| matches!(output, Output::Image(to) if to.starts_with("oci:") || to.starts_with("oci-archive:"));
    match wanted && !outputs.iter().any(listed) {
        true => Err(Failure::usage("--annotation index-descriptor: no output has an index.json")
            .hint("write a layout or archive with --output type=oci,dest=PATH")),
        false => Ok(()),
    }
}

fn context(failure: Failure, text: &str) -> Failure {
    let message = failure.messages.first().cloned().unwrap_or_default();
    let messages = vec![format!("--output {text:?}: {message}")];
    let rest = failure.messages.iter().skip(1).cloned();
    Failure { messages: messages.into_iter().chain(rest).collect(), ..failure }
}

fn is_files(text: &str) -> bool {
    let files = |pair: &String| ["type=local", "type=tar"].contains(&pair.as_str());
    !text.contains('=') || flags::fields(text).is_ok_and(|fields| fields.iter().any(files))
}

/// The keys of one output.
#[derive(Debug)]
struct One {
    kind: String,
    dest: Option<String>,
    name: String,
    push: Option<bool>,
    by_digest: bool,
    canonical: bool,
    tar: bool,
    split: Option<bool>,
    delete: bool,
    settings: Settings,
}

impl Default for One {
    fn default() -> One {
        One {
            kind: String::new(),
            dest: None,
            name: String::new(),
            push: None,
            by_digest: false,
            canonical: false,
            tar: true,
            split: None,
            delete: false,
            settings: Settings::default(),
        }
    }
}

impl One {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let flag = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{key}={other} is neither true nor false")),
        };
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
            "compression" => {
                let known = CompressionName::from_str(value, false);
                self.settings.compression =
                    Some(known.map_err(|_| format!("compression {value:?} is not supported"))?);
            }
            "compression-level" => {
                let level = value.parse().map_err(|_| format!("{value:?} is not a level"))?;
                self.settings.level = Some(level);
            }
            "force-compression" => self.settings.force = Some(flag()?),
            "oci-mediatypes" => self.settings.oci = Some(flag()?),
            "rewrite-timestamp" => self.settings.rewrite = Some(flag()?),
            // An image is always in the store, and what it needs to run is unpacked already.
            "store" | "unpack" if flag()? => {}
            _ => match key.split_once('.') {
                Some(("annotation", rest)) => self.annotate("manifest", rest, value),
                Some((level, rest)) if level.starts_with("annotation-") => {
                    self.annotate(&level["annotation-".len()..], rest, value);
                }
                _ => return Err(format!("{key}={value} is not supported")),
            },
        }
        Ok(())
    }

    fn annotate(&mut self, level: &str, key: &str, value: &str) {
        self.settings.annotations.push(format!("{level}:{key}={value}"));
    }

    fn names(&self) -> Result<Vec<Reference>, Failure> {
        let names = self.name.split(',').filter(|name| !name.is_empty());
        names.map(local_name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tags: &[&str], outputs: &[&str]) -> Result<Outputs, Failure> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        Outputs::read(&owned(tags), &owned(outputs))
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
    fn only_a_tar_goes_to_standard_output() {
        for (text, taken) in [
            ("-", true),
            ("type=tar", true),
            ("type=tar,dest=-", true),
            ("type=tar,dest=out.tar", false),
            ("type=oci,dest=image.tar", false),
            ("out", false),
        ] {
            assert_eq!(to_stdout(text), taken, "{text}");
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
        assert_eq!(read(&[], &same).unwrap().settings.compression, Some(CompressionName::Zstd));
        let other = ["type=oci,dest=/a,compression=zstd", "type=docker,dest=/b"];
        assert!(read(&[], &other).is_err());
        let with = "type=oci,dest=/a,annotation.a=1,annotation-index.b=2";
        assert_eq!(read(&[], &[with]).unwrap().settings.annotations, ["manifest:a=1", "index:b=2"]);
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
            assert_eq!(read(&[], &[text]).unwrap_err().exit_code(), 2, "{text}");
        }
        assert!(read(&["oci:"], &[]).is_err());
    }
}
