//! A plan as text, for people and for golden tests.

use std::fmt::{self, Display, Formatter};

use super::{
    Chmod, CopyOp, CopySource, From, ImagePlan, Op, Plan, RunMount, RunMountKind, RunOp, Step,
    StepId, Target,
};

impl Display for StepId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (id, step) in self.steps.iter().enumerate() {
            write!(f, "step {id}")?;
            if let Some(parent) = step.parent {
                write!(f, " on {parent}")?;
            }
            if !step.reads.is_empty() {
                let reads: Vec<String> = step.reads.iter().map(ToString::to_string).collect();
                write!(f, " reads {}", reads.join(" "))?;
            }
            writeln!(f, ": {}{}", step.name, if step.fresh { " (no cache)" } else { "" })?;
            describe(step, f)?;
        }
        for target in &self.targets {
            if self.targets.len() > 1 {
                writeln!(f, "for {}", target.platform)?;
            }
            write!(f, "{target}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => writeln!(f, "target: step {step}")?,
            None => writeln!(f, "target: nothing")?,
        }
        for also in &self.also {
            writeln!(f, "also: step {also}")?;
        }
        write!(f, "{}", self.image)
    }
}

fn describe(step: &Step, f: &mut Formatter<'_>) -> fmt::Result {
    match &step.op {
        Op::Image(key) => writeln!(f, "    image {} for {}", key.name, key.platform),
        Op::Graft => writeln!(f, "    put {} on it", step.reads[0]),
        Op::Workdir(op) => writeln!(f, "    make {} for {:?}", op.path, op.user),
        Op::Copy(op) => copy(op, step, f),
        Op::Run(op) => run(op, step, f),
    }
}

fn from(from: &From, step: &Step) -> String {
    match from {
        From::Context(name) if name.is_empty() => "context".to_owned(),
        From::Context(name) => format!("context {name:?}"),
        From::Read(index) => format!("step {}", step.reads[*index]),
        From::Scratch => "nothing".to_owned(),
    }
}

fn copy(op: &CopyOp, step: &Step, f: &mut Formatter<'_>) -> fmt::Result {
    for source in &op.sources {
        match source {
            CopySource::Path(path) => writeln!(f, "    take {path:?} of {}", from(&op.from, step))?,
            CopySource::Inline { name, content } => writeln!(f, "    write {name:?} {content:?}")?,
            CopySource::Http { url } => writeln!(f, "    download {url}")?,
            CopySource::Git { url } => writeln!(f, "    check out {url}")?,
        }
    }
    write!(f, "    to {:?}", op.destination)?;
    for (flag, value) in [("chown", &op.chown), ("checksum", &op.checksum)] {
        if let Some(value) = value {
            write!(f, " {flag}={value}")?;
        }
    }
    match &op.chmod {
        Some(Chmod::Octal(mode)) => write!(f, " chmod={mode:o}")?,
        Some(Chmod::Clauses(_)) => write!(f, " chmod=symbolic")?,
        None => {}
    }
    for pattern in &op.exclude {
        write!(f, " exclude={pattern:?}")?;
    }
    for (name, on) in [("parents", op.parents), ("link", op.link), ("add", op.add)] {
        if on {
            write!(f, " {name}")?;
        }
    }
    writeln!(f)
}

fn run(op: &RunOp, step: &Step, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "    run {:?}", op.args)?;
    if let Some((name, content)) = &op.script {
        writeln!(f, "    script {name:?} {content:?}")?;
    }
    writeln!(f, "    in {} as {:?} network {}", op.working_dir, op.user, op.network)?;
    for line in &op.env {
        writeln!(f, "    env {line}")?;
    }
    for RunMount { target, kind } in &op.mounts {
        write!(f, "    mount {} ", target.as_deref().unwrap_or("-"))?;
        match kind {
            RunMountKind::Bind { from: source, source: path, writable, .. } => {
                let mode = if *writable { "rw" } else { "ro" };
                writeln!(f, "bind {path:?} of {} {mode}", from(source, step))?;
            }
            RunMountKind::Cache { id, mode, uid, gid, .. } => {
                writeln!(f, "cache {id:?} {mode:o} {uid}:{gid}")?;
            }
            RunMountKind::Ssh { id, required, .. } => {
                writeln!(f, "ssh {id:?} required={required}")?;
            }
            RunMountKind::Tmpfs { size, .. } => writeln!(f, "tmpfs {size:?}")?,
            RunMountKind::Secret { id, env, required, mode, .. } => {
                writeln!(f, "secret {id:?} env={env:?} required={required} {mode:o}")?;
            }
        }
    }
    Ok(())
}

impl Display for ImagePlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.base {
            Some(base) => writeln!(f, "base: {} for {}", base.name, base.platform)?,
            None => writeln!(f, "base: scratch")?,
        }
        let config = serde_json::to_string_pretty(&self.config).map_err(|_| fmt::Error)?;
        writeln!(f, "config: {config}")?;
        for item in &self.history {
            match item.layer {
                Some(step) => writeln!(f, "history: {:?} layer of step {step}", item.created_by)?,
                None => writeln!(f, "history: {:?}", item.created_by)?,
            }
        }
        Ok(())
    }
}
