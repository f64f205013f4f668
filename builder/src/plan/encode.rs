//! How operations are written into keys: field by field, each under its own name.
//!
//! A field that has the value it has when nothing is said is left out, so that a new field of the
//! language changes no key of a step that does not use it. Everything is taken apart by name: who
//! adds a field decides here whether it is part of the key.

use dockerfile::mount::Ownership;
use image::Platform;

use super::chmod::Chmod;
use super::key::KeyBuilder;
use super::{
    CopyOp, CopySource, From, ImageKey, Op, RunDevice, RunMount, RunMountKind, RunOp, WorkdirOp,
};

/// Writes fields into a key.
pub(crate) struct Fields<'a>(&'a mut KeyBuilder);

impl<'a> Fields<'a> {
    pub(crate) fn of(key: &'a mut KeyBuilder) -> Fields<'a> {
        Fields(key)
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.0.part(name.as_bytes()).part(value);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    fn option(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.bytes(name, b"");
        }
    }

    fn switch(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.text(name, if value { "yes" } else { "no" });
        }
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.bytes(name, &value.to_le_bytes());
        }
    }

    fn list(&mut self, name: &str, values: &[String]) {
        for value in values {
            self.text(name, value);
        }
    }

    fn from(&mut self, name: &str, from: &From) {
        match from {
            From::Context(context) => self.text(name, &format!("context {context}")),
            From::Read(index) => self.text(name, &format!("step {index}")),
            From::Scratch => self.text(name, "nothing"),
        }
    }

    fn platform(&mut self, platform: &Platform) {
        let Platform { architecture, os, os_version, os_features, variant } = platform;
        self.text("architecture", architecture);
        self.text("os", os);
        self.option("os.version", os_version.as_ref());
        self.list("os.feature", os_features);
        self.option("variant", variant.as_ref());
    }

    fn ownership(&mut self, ownership: Ownership) {
        let Ownership { mode, uid, gid } = ownership;
        for (name, value) in [("mode", mode), ("uid", uid), ("gid", gid)] {
            self.number(name, value.map(u64::from));
        }
    }

    /// An operation.
    pub(crate) fn op(&mut self, op: &Op) {
        match op {
            Op::Image(ImageKey { name, platform }) => {
                self.text("name", name);
                self.platform(platform);
            }
            Op::Run(op) => self.run(op),
            Op::Copy(op) => self.copy(op),
            Op::Workdir(WorkdirOp { path, user }) => {
                self.text("path", path);
                self.text("user", user);
            }
            Op::Graft => {}
        }
    }

    /// A copy.
    pub(crate) fn copy(&mut self, op: &CopyOp) {
        let CopyOp {
            add,
            from,
            sources,
            destination,
            chown,
            chmod,
            exclude,
            parents,
            link,
            unpack,
            checksum,
            keep_git_dir,
            // It decides whether the step fails, not what it makes.
            strict: _,
        } = op;
        self.flag("add", *add);
        self.from("from", from);
        sources.iter().for_each(|source| self.source(source));
        self.text("destination", destination);
        self.option("chown", chown.as_ref());
        self.chmod(chmod.as_ref());
        self.list("exclude", exclude);
        self.flag("parents", *parents);
        self.flag("link", *link);
        self.switch("unpack", *unpack);
        self.option("checksum", checksum.as_ref());
        self.switch("keep-git-dir", *keep_git_dir);
    }

    fn source(&mut self, source: &CopySource) {
        match source {
            CopySource::Path(path) => self.text("path", path),
            CopySource::Inline { name, content } => {
                self.text("inline", name);
                self.text("content", content);
            }
            CopySource::Http { url } => self.text("http", url),
            CopySource::Git { url } => self.text("git", url),
        }
    }

    fn chmod(&mut self, chmod: Option<&Chmod>) {
        if let Some(chmod) = chmod {
            self.text("chmod", &chmod.encoded());
        }
    }

    fn run(&mut self, op: &RunOp) {
        let RunOp {
            args,
            script,
            env,
            working_dir,
            user,
            network,
            platform,
            mounts,
            insecure,
            devices,
        } = op;
        self.list("arg", args);
        if let Some((name, content)) = script {
            self.text("script", name);
            self.text("content", content);
        }
        self.list("env", env);
        self.text("directory", working_dir);
        self.text("user", user);
        self.text("network", network);
        self.platform(platform);
        mounts.iter().for_each(|mount| self.mount(mount));
        self.flag("insecure", *insecure);
        for RunDevice { path, required } in devices {
            self.text("device", path);
            self.flag("required", *required);
        }
    }

    fn mount(&mut self, mount: &RunMount) {
        let RunMount { target, kind } = mount;
        let name = match kind {
            RunMountKind::Bind { .. } => "bind",
            RunMountKind::Cache { .. } => "cache",
            RunMountKind::Tmpfs { .. } => "tmpfs",
            RunMountKind::Secret { .. } => "secret",
            RunMountKind::Ssh { .. } => "ssh",
        };
        self.text("mount", name);
        self.option("target", target.as_ref());
        match kind {
            RunMountKind::Bind { from, source, writable, chown } => {
                self.from("from", from);
                self.text("source", source);
                self.flag("writable", *writable);
                self.flag("chown", *chown);
            }
            // How builds share a cache decides nothing that a command gives.
            RunMountKind::Cache { id, from, source, read_only, sharing: _, mode, uid, gid } => {
                self.text("id", id);
                self.from("from", from);
                self.text("source", source);
                self.flag("read-only", *read_only);
                self.ownership(Ownership { mode: Some(*mode), uid: Some(*uid), gid: Some(*gid) });
            }
            RunMountKind::Tmpfs { size, mode, copy_up } => {
                self.number("size", *size);
                self.ownership(Ownership { mode: *mode, ..Ownership::default() });
                self.flag("copy-up", *copy_up);
            }
            RunMountKind::Secret { id, env, required, mode, uid, gid } => {
                self.text("id", id);
                self.option("env", env.as_ref());
                self.flag("required", *required);
                self.ownership(Ownership { mode: Some(*mode), uid: Some(*uid), gid: Some(*gid) });
            }
            RunMountKind::Ssh { id, required, mode, uid, gid } => {
                self.text("id", id);
                self.flag("required", *required);
                self.ownership(Ownership { mode: *mode, uid: *uid, gid: *gid });
            }
        }
    }
}
