//! `RUN`.

use dockerfile::{Device, Diagnostic, Instruction, Mount, MountKind, Program, Run, Word};

use super::Lowerer;
use super::config::shell;
use super::state::{Place, State, one_line};
use crate::plan::environment::{PROXY, in_env};
use crate::plan::path::clean;
use crate::plan::{From, Op, RunDevice, RunMount, RunMountKind, RunOp, SCRIPTS, StepId};
use crate::{Network, Traffic};

/// Mounts over the volumes of the image that start with what is there and are forgotten.
fn volumes(state: &State) -> Vec<RunMount> {
    let paths = state.config.config.volumes.keys().map(|path| clean("/", path));
    let mount = |path: String| {
        let kind = RunMountKind::Tmpfs { size: None, mode: None, copy_up: true };
        RunMount { target: Some(path), kind }
    };
    paths.filter(|path| path != "/").map(mount).collect()
}

impl Lowerer<'_> {
    pub(super) fn run(
        &mut self,
        run: &Run,
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) -> Result<bool, Diagnostic> {
        let (args, script) = match run.program() {
            Program::Exec(words) => (words, None),
            Program::Shell(text) => {
                let mut args = shell(state);
                args.push(text);
                (args, None)
            }
            Program::Script { name, content } => {
                (vec![format!("{SCRIPTS}/{name}")], Some((name, content)))
            }
        };
        let mut reads = Vec::new();
        let Some(mut mounts) = self.mounts(run, state, place, &mut reads)? else {
            return Ok(false);
        };
        if self.request.drop_volumes {
            mounts.splice(0..0, volumes(state));
        }
        let op = RunOp {
            args,
            script,
            env: environment(state),
            working_dir: state.config.config.working_dir.clone(),
            user: state.config.config.user.clone(),
            network: self.network(run.network.as_ref(), state)?,
            platform: state.platform.clone(),
            mounts,
            insecure: self.insecure(run, state)?,
            devices: self.devices(run, state)?,
        };
        let created_by = created_by(&op, run, state);
        let recorded = self.recorded(&op, run, instruction)?;
        let fresh = place.fresh;
        place.fresh |= recorded;
        self.step(Op::Run(Box::new(op)), reads, created_by, instruction, state, place);
        place.fresh = fresh;
        Ok(true)
    }

    /// Whether what the command gets is recorded now: then it has to run.
    fn recorded(
        &self,
        op: &RunOp,
        run: &Run,
        instruction: &Instruction,
    ) -> Result<bool, Diagnostic> {
        let traffic = &self.request.traffic;
        let what = match op.network.as_str() {
            "host" => Some("the network of this machine"),
            "default" if !self.request.run.base.network.networks.is_empty() => {
                Some("a named network")
            }
            _ => None,
        };
        if let Some(what) = what.filter(|_| *traffic != Traffic::Open) {
            let span = run.network.as_ref().map_or(instruction.span, |word| word.span);
            let message = format!("{what} cannot be recorded or replayed");
            return Err(Diagnostic::error("not-recorded", message, span));
        }
        Ok(traffic.is_recorded() && op.network != "none")
    }

    fn network(&self, word: Option<&Word>, state: &State) -> Result<String, Diagnostic> {
        let usual = match self.request.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        };
        let Some(word) = word else { return Ok(usual.to_owned()) };
        let text = state.expand(word)?;
        match text.as_str() {
            "default" => Ok(usual.to_owned()),
            "host" if usual != "host" && !self.request.allow.host_network => {
                let message = "the network of this machine is not allowed in this build";
                Err(Diagnostic::error("not-allowed", message, word.span)
                    .with_help("it needs the entitlement network.host".to_owned()))
            }
            "none" | "host" => Ok(text),
            _ => {
                let message = format!("unknown network {text:?}");
                Err(Diagnostic::error("bad-network", message, word.span)
                    .with_help("the networks are default, none and host".to_owned()))
            }
        }
    }

    /// The mounts of a command; `None` when an image they read is not known yet.
    fn mounts(
        &mut self,
        run: &Run,
        state: &State,
        place: &Place<'_>,
        reads: &mut Vec<StepId>,
    ) -> Result<Option<Vec<RunMount>>, Diagnostic> {
        let mut mounts = Vec::new();
        for word in &run.mounts {
            let mount = Mount::parse(word, &|name| state.variable(name))?;
            if let MountKind::Bind { from, .. } | MountKind::Cache { from, .. } = &mount.kind
                && from.as_deref() == Some("")
                && Mount::from_stage(word).is_some_and(|written| !written.is_empty())
            {
                let message = "from= is empty: its variables have no value here";
                return Err(Diagnostic::error("empty-from", message, word.span));
            }
            let working_dir = &state.config.config.working_dir;
            let target = mount.target.as_deref().map(|path| clean(working_dir, path));
            let Some(kind) = self.mount(mount.kind, target.as_deref(), word, place, reads)? else {
                return Ok(None);
            };
            let target = match (&kind, target) {
                (RunMountKind::Bind { .. }, None) => Some(working_dir.clone()),
                (RunMountKind::Ssh { .. }, None) => {
                    let number = mounts.iter().filter(is_ssh).count();
                    Some(format!("/run/buildkit/ssh_agent.{number}"))
                }
                (_, target) => target,
            };
            if target.as_deref() == Some("/") {
                let message = "nothing can be mounted on the root directory";
                return Err(Diagnostic::error("bad-mount", message, word.span));
            }
            mounts.push(RunMount { target, kind });
        }
        Ok(Some(mounts))
    }

    fn mount(
        &mut self,
        kind: MountKind,
        target: Option<&str>,
        word: &Word,
        place: &Place<'_>,
        reads: &mut Vec<StepId>,
    ) -> Result<Option<RunMountKind>, Diagnostic> {
        let inside = |path: Option<String>| clean("/", &path.unwrap_or_default())[1..].to_owned();
        Ok(Some(match kind {
            MountKind::Bind { from, source, writable, chown } => {
                let from = self.source(from.as_deref(), word.span, place, reads)?;
                let Some(from) = from else { return Ok(None) };
                RunMountKind::Bind { from, source: inside(source), writable, chown }
            }
            MountKind::Cache { id, from, source, read_only, sharing, ownership } => {
                let from = match from {
                    None => From::Scratch,
                    Some(name) => match self.source(Some(&name), word.span, place, reads)? {
                        Some(from) => from,
                        None => return Ok(None),
                    },
                };
                let id = id.unwrap_or_else(|| target.unwrap_or_default().to_owned());
                let space = self.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
                RunMountKind::Cache {
                    id: match space.filter(|space| !space.is_empty()) {
                        Some(space) => format!("{space}/{id}"),
                        None => id,
                    },
                    from,
                    source: inside(source),
                    read_only,
                    sharing,
                    mode: ownership.mode.unwrap_or(0o755),
                    uid: ownership.uid.unwrap_or(0),
                    gid: ownership.gid.unwrap_or(0),
                }
            }
            MountKind::Tmpfs { size, mode, copy_up } => RunMountKind::Tmpfs { size, mode, copy_up },
            MountKind::Secret { id, env, required, ownership } => RunMountKind::Secret {
                id,
                env,
                required,
                mode: ownership.mode.unwrap_or(0o400),
                uid: ownership.uid.unwrap_or(0),
                gid: ownership.gid.unwrap_or(0),
            },
            MountKind::Ssh { id, required, ownership } => RunMountKind::Ssh {
                id,
                required,
                mode: ownership.mode,
                uid: ownership.uid,
                gid: ownership.gid,
            },
        }))
    }

    fn insecure(&self, run: &Run, state: &State) -> Result<bool, Diagnostic> {
        let Some(word) = &run.security else { return Ok(false) };
        match state.expand(word)?.as_str() {
            "sandbox" => Ok(false),
            "insecure" if self.request.allow.insecure => Ok(true),
            "insecure" => {
                let message = "running with all privileges is not allowed";
                Err(Diagnostic::error("not-allowed", message, word.span)
                    .with_help("it needs the entitlement security.insecure".to_owned()))
            }
            other => {
                let message = format!("unknown security mode {other:?}");
                Err(Diagnostic::error("bad-security", message, word.span)
                    .with_help("the modes are sandbox and insecure".to_owned()))
            }
        }
    }

    fn devices(&self, run: &Run, state: &State) -> Result<Vec<RunDevice>, Diagnostic> {
        let one = |word: &Word| {
            let text = state.expand(word)?;
            let device = Device::parse(&Word { text, ..word.clone() })?;
            let path = clean("/", &device.name);
            if !device.name.starts_with("/dev/") || !path.starts_with("/dev/") {
                let message = format!("device {:?} is not supported", device.name);
                let help = "a device is a path such as /dev/fuse; names of the Container Device Interface (CDI) are not supported";
                return Err(
                    Diagnostic::error("bad-device", message, word.span).with_help(help.to_owned())
                );
            }
            if !self.request.allow.device(&path) {
                let message = format!("device {path} is not allowed");
                return Err(Diagnostic::error("not-allowed", message, word.span)
                    .with_help(format!("it needs the entitlement device={path}")));
            }
            Ok(RunDevice { path, required: device.required })
        };
        run.devices.iter().map(one).collect()
    }
}

fn is_ssh(mount: &&RunMount) -> bool {
    matches!(mount.kind, RunMountKind::Ssh { .. })
}

/// The variables of a command: the image's, then arguments that no `ENV` hides.
fn environment(state: &State) -> Vec<String> {
    let mut env = state.config.config.env.clone();
    for (name, value) in state.args.iter() {
        let Some(value) = value.filter(|_| !PROXY.contains(&name)) else { continue };
        if in_env(&state.config.config.env, name).is_none() {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// `RUN |2 A=1 B=2 /bin/sh -c command # buildkit`.
fn created_by(op: &RunOp, run: &Run, state: &State) -> String {
    let mut words = vec!["RUN".to_owned()];
    let args: Vec<String> = state
        .args
        .iter()
        .filter(|(name, _)| !PROXY.contains(name))
        .map(|(name, _)| format!("{name}={}", state.variable(name).unwrap_or_default()))
        .collect();
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(args);
    }
    match &op.script {
        None => words.extend(op.args.iter().cloned()),
        Some(_) => {
            if let dockerfile::CommandLine::Shell(word) = &run.command {
                words.push(word.text.clone());
            }
            words.extend(
                run.heredocs
                    .iter()
                    .map(|heredoc| format!("({})", one_line(heredoc.body().trim_end()))),
            );
        }
    }
    words.push("# buildkit".to_owned());
    words.join(" ")
}
