//! Whose command line the programs speak: the name they were started under decides, as by a link.
//! Where the tools agree there is nothing to ask; each function here is a place where they differ.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

use clap::Command;
use image::Digest;
use task::Kind;

use crate::Failure;

/// The tool whose habits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// This program under its own name: builds as BuildKit, behaves otherwise as buildah.
    Rbuild,
    /// `buildah`
    Buildah,
    /// `podman`
    Podman,
    /// `docker`
    Docker,
    /// This program under its own name: behaves as skopeo.
    Rcopy,
    /// `skopeo`
    Skopeo,
    /// `crane`
    Crane,
    /// `regctl`: its lines are translated.
    Regctl,
    /// `oras`: its lines are translated.
    Oras,
}

/// What the first word after `run` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNames {
    /// A working container of that name, else an image.
    Either,
    /// A working container.
    Working,
    /// An image.
    Image,
}

static SPOKEN: OnceLock<Dialect> = OnceLock::new();

impl Dialect {
    /// The dialect of a program that was started as `argv0`; `own` under a name of its own. One
    /// file is both programs: its names are links.
    pub fn of(own: Dialect, argv0: Option<&OsStr>) -> Dialect {
        match argv0.and_then(|name| Path::new(name).file_name()?.to_str()) {
            Some("rbuild" | "rbuild-runtime") => Dialect::Rbuild,
            Some("buildah") => Dialect::Buildah,
            Some("podman") => Dialect::Podman,
            Some("docker") => Dialect::Docker,
            Some("rcopy") => Dialect::Rcopy,
            Some("skopeo") => Dialect::Skopeo,
            Some("crane") => Dialect::Crane,
            Some("regctl") => Dialect::Regctl,
            Some("oras") => Dialect::Oras,
            _ => own,
        }
    }

    /// Whether this is the command line of `rcopy`.
    pub fn copies(self) -> bool {
        use Dialect::{Crane, Oras, Rcopy, Regctl, Skopeo};
        matches!(self, Rcopy | Skopeo | Crane | Regctl | Oras)
    }

    /// Makes this the dialect of the process. Of several calls the first counts.
    pub fn speak(self) {
        let _ = SPOKEN.set(self);
    }

    /// The dialect of this process.
    pub fn spoken() -> Dialect {
        SPOKEN.get().copied().unwrap_or(Dialect::Rbuild)
    }

    /// The exit code of a failure.
    pub fn code(self, failure: &Failure) -> u8 {
        match (failure.code, failure.kind, self) {
            // What BuildKit's command failed with is in its message; docker ends with 1.
            (Some(code), ..) => code,
            (None, Kind::Cancelled, _) => 130,
            (None, _, Dialect::Docker | Dialect::Crane | Dialect::Regctl | Dialect::Oras) => 1,
            (None, _, Dialect::Rbuild | Dialect::Buildah | Dialect::Podman) => 125,
            (None, Kind::NotFound, _) if !failure.lacks_file() => 2,
            (None, ..) => 1,
        }
    }

    /// The exit code of a command line that is not understood.
    pub fn usage_code(self) -> u8 {
        match self {
            _ if self.copies() => 1,
            _ => 125,
        }
    }

    /// The exit code of a build whose command failed with `code`.
    pub fn failed_step(self, code: u8) -> u8 {
        if self == Dialect::Docker { 1 } else { code }
    }

    /// Whether lines of progress have buildah's form, which scripts read.
    pub fn numbers_steps(self) -> bool {
        matches!(self, Dialect::Buildah | Dialect::Podman)
    }

    /// Whether a build makes a layer for each step, where no flag says.
    pub fn layers(self) -> bool {
        self != Dialect::Buildah
    }

    /// Whether `RUN --network=host` may have the network of this machine without being asked for.
    pub fn grants_host_network(self) -> bool {
        matches!(self, Dialect::Buildah | Dialect::Podman)
    }

    /// Whether a build runs every step again: buildah reads its cache only where each step makes a
    /// layer, or where a cache is named.
    pub fn runs_again(self, layers: bool, cache: bool) -> bool {
        self == Dialect::Buildah && !layers && !cache
    }

    /// Whether an image says in annotations what it is built on, and inherits those of its base.
    pub fn names_base(self) -> bool {
        matches!(self, Dialect::Buildah | Dialect::Podman)
    }

    /// Whether `containers-storage:NAME` is an image of the store.
    pub fn owns_containers_storage(self) -> bool {
        matches!(self, Dialect::Buildah | Dialect::Podman)
    }

    /// Whether `manifest add` prints the digest of the entry beside the list's id.
    pub fn tells_entries(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether `images NAME` fails where there is no such image.
    pub fn misses_images(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether the files of an image get its time, where only the image's time is given.
    pub fn rewrites_times(self) -> bool {
        self != Dialect::Buildah
    }

    /// Whether layers are written uncompressed into loose files.
    pub fn keeps_files_plain(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether `inspect` shows the config of an image as the text it is, in `.Config`.
    pub fn shows_config_as_text(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether `info` prints JSON where no format is given.
    pub fn informs_in_json(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether files of this machine are copied without a word about it.
    pub fn copies_silently(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether an image gets the name that its archive has for it, not that of the file.
    pub fn names_by_content(self) -> bool {
        matches!(self, Dialect::Buildah | Dialect::Podman)
    }

    /// What a build prints when it is done: the id, or nothing.
    pub fn built(self, id: Digest, quiet: bool) -> Option<String> {
        match (self, quiet) {
            (Dialect::Docker, true) => Some(id.to_string()),
            (Dialect::Docker, false) => None,
            _ => Some(id.hex()),
        }
    }

    /// What a pull prints when it is done: the id, or the name.
    pub fn pulled(self, name: &str, id: Digest) -> String {
        if self == Dialect::Docker { name.to_owned() } else { id.hex() }
    }

    /// The registry that a name without one is completed with when an image gets it.
    pub fn home(self) -> &'static str {
        if self == Dialect::Docker { "docker.io" } else { "localhost" }
    }

    /// The registries that a name without one may be completed with, in the order they are tried.
    pub fn homes(self) -> [&'static str; 2] {
        match self {
            Dialect::Docker => ["docker.io", "localhost"],
            _ => ["localhost", "docker.io"],
        }
    }

    /// A name as it is shown: docker leaves out its own registry.
    pub fn shown(self, name: &str) -> &str {
        let rest = match self {
            Dialect::Docker => name.strip_prefix("docker.io/"),
            _ => None,
        };
        rest.map_or(name, |rest| rest.strip_prefix("library/").unwrap_or(rest))
    }

    /// What `run` runs in.
    pub fn run_names(self) -> RunNames {
        match self {
            Dialect::Buildah => RunNames::Working,
            Dialect::Podman | Dialect::Docker => RunNames::Image,
            _ => RunNames::Either,
        }
    }

    /// Whether `inspect` shows one thing after the other, not a list.
    pub fn inspects_singly(self) -> bool {
        self == Dialect::Buildah
    }

    /// Whether commands on containers print ids, not the names they were given.
    pub fn prints_ids(self) -> bool {
        matches!(self, Dialect::Buildah | Dialect::Podman)
    }

    /// What `rmi` prints of a name that was taken away.
    pub fn untagged(self, name: &str) -> String {
        match self {
            Dialect::Docker | Dialect::Podman => format!("Untagged: {}", self.shown(name)),
            _ => format!("untagged: {name}"),
        }
    }

    /// What `rmi` prints of an image that is gone.
    pub fn deleted(self, id: Digest) -> String {
        match self {
            Dialect::Docker => format!("Deleted: {id}"),
            Dialect::Podman => format!("Deleted: {}", id.hex()),
            Dialect::Buildah => id.hex(),
            _ => format!("deleted: {id}"),
        }
    }

    /// A failure with a hint that names the program that was started.
    pub fn hinted(self, failure: Failure) -> Failure {
        let named = |hint: String| match self.copies() {
            true => hint.replace("`rbuild login", "`rcopy login"),
            false => hint,
        };
        Failure { hint: failure.hint.map(named), ..failure }
    }

    /// There is no such image: scripts look for the words of the tool that they were written for.
    pub fn no_image(self, name: &str) -> String {
        match self {
            Dialect::Buildah | Dialect::Podman => format!("{name}: image not known"),
            _ => format!("there is no image {name:?} in the store"),
        }
    }

    /// There is no such container, in the same way; `sort` is what sort is looked for.
    pub fn no_container(self, sort: &str, name: &str) -> String {
        match self {
            Dialect::Buildah => format!("container {name:?}: container not known"),
            _ => format!("there is no {sort} {name:?}"),
        }
    }

    /// A failure of `rm` or `rmi`: podman tells what is missing and what is in use from all else.
    pub fn removing(self, failure: Failure) -> Failure {
        let code = match (self, failure.kind) {
            (Dialect::Podman, Kind::NotFound) => Some(1),
            (Dialect::Podman, Kind::Refused) => Some(2),
            _ => failure.code,
        };
        Failure { code, ..failure }
    }

    /// Whether a copy is of every platform where nothing else is said.
    pub fn copies_all(self) -> bool {
        self == Dialect::Crane
    }

    /// Whether what is written to an OCI layout becomes OCI documents, and what is pushed is
    /// compressed, where no flag says otherwise.
    pub fn suits_destinations(self) -> bool {
        self == Dialect::Skopeo
    }

    /// Whether a directory of certificates that does not exist has none.
    pub fn takes_missing_certificates(self) -> bool {
        self == Dialect::Skopeo
    }

    /// Whether registries on this machine need TLS as all others, where nothing else is said.
    pub fn trusts_no_loopback(self) -> bool {
        self == Dialect::Skopeo
    }

    /// Whether a location needs a transport.
    pub fn needs_transports(self) -> bool {
        self == Dialect::Skopeo
    }

    /// Whether of a stored blob only the digest is printed.
    pub fn prints_digests(self) -> bool {
        self == Dialect::Regctl
    }

    /// Whether a push prints `Pushed NAME` and `Digest: DIGEST`.
    pub fn prints_pushes(self) -> bool {
        self == Dialect::Oras
    }

    /// Whether deleting a tag leaves the manifest.
    pub fn deletes_tags(self) -> bool {
        self == Dialect::Crane
    }

    /// Commands that are called otherwise.
    pub fn tree(self, tree: Command) -> Command {
        match self {
            // buildah has no other containers than its own.
            Dialect::Buildah => tree
                .mut_subcommand("ps", |ps| ps.name("ps-of-all").hide(true))
                .mut_subcommand("containers", |list| list.alias("ps")),
            Dialect::Skopeo => tree.display_name("skopeo").version(concat!(
                "version ",
                env!("CARGO_PKG_VERSION"),
                " (rcopy)"
            )),
            _ => tree,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_says_whose_dialect_it_speaks() {
        let of = |own, name: &str| Dialect::of(own, Some(OsStr::new(name)));
        for (name, dialect) in [
            ("buildah", Dialect::Buildah),
            ("/usr/local/bin/podman", Dialect::Podman),
            ("./docker", Dialect::Docker),
            ("rbuild", Dialect::Rbuild),
            ("/bin/crane", Dialect::Crane),
            ("/bin/regctl", Dialect::Regctl),
            ("oras", Dialect::Oras),
            ("skopeo", Dialect::Skopeo),
            ("rcopy", Dialect::Rcopy),
        ] {
            assert_eq!(of(Dialect::Rbuild, name), dialect, "{name}");
            assert_eq!(of(Dialect::Rcopy, name), dialect, "{name}");
        }
        assert_eq!(of(Dialect::Rbuild, "dockerd"), Dialect::Rbuild);
        assert_eq!(of(Dialect::Rcopy, "rcopy-1.0"), Dialect::Rcopy);
        assert_eq!(Dialect::of(Dialect::Rcopy, None), Dialect::Rcopy);
    }

    #[test]
    fn hints_name_the_program_that_was_started() {
        let hint = |dialect: Dialect| {
            let failure = Failure::new(Kind::Denied, "x").hint("log in with `rbuild login r`");
            dialect.hinted(failure).hint.unwrap()
        };
        assert_eq!(hint(Dialect::Rcopy), "log in with `rcopy login r`");
        assert_eq!(hint(Dialect::Rbuild), "log in with `rbuild login r`");
    }

    #[test]
    fn codes_are_those_of_each_tool() {
        let missing = std::io::Error::from_raw_os_error(2);
        let failures = [
            Failure::new(Kind::NotFound, "x"),
            Failure::new(Kind::Denied, "x"),
            Failure::usage("x"),
            Failure::io("reading x", &missing),
            Failure::new(Kind::Cancelled, "x"),
            Failure { code: Some(7), ..Failure::new(Kind::System, "x") },
        ];
        for (dialect, codes) in [
            (Dialect::Rbuild, [125, 125, 125, 125, 130, 7]),
            (Dialect::Buildah, [125, 125, 125, 125, 130, 7]),
            (Dialect::Podman, [125, 125, 125, 125, 130, 7]),
            (Dialect::Docker, [1, 1, 1, 1, 130, 7]),
            (Dialect::Rcopy, [2, 1, 1, 1, 130, 7]),
            (Dialect::Skopeo, [2, 1, 1, 1, 130, 7]),
            (Dialect::Crane, [1, 1, 1, 1, 130, 7]),
            (Dialect::Regctl, [1, 1, 1, 1, 130, 7]),
            (Dialect::Oras, [1, 1, 1, 1, 130, 7]),
        ] {
            assert_eq!(
                failures.each_ref().map(|failure| dialect.code(failure)),
                codes,
                "{dialect:?}"
            );
        }
        assert_eq!(Dialect::Docker.failed_step(7), 1);
        assert_eq!(Dialect::Buildah.failed_step(7), 7);
    }

    #[test]
    fn docker_leaves_its_own_registry_out_of_names() {
        for (name, shown) in [
            ("docker.io/library/app:1", "app:1"),
            ("docker.io/team/app:1", "team/app:1"),
            ("localhost/app:1", "localhost/app:1"),
        ] {
            assert_eq!(Dialect::Docker.shown(name), shown);
            assert_eq!(Dialect::Podman.shown(name), name);
        }
    }
}
