//! Flags of other tools that have no effect here, and those that are refused: each with why.

use clap::{Args, ValueEnum};
use options::{Dialect, Failure};

/// Flags accepted for scripts of other tools.
#[derive(Debug, Args)]
pub(super) struct CompatFlags {
    /// Build like this tool where they differ: buildah and podman, or docker (default: docker, or
    /// the tool of the program's name)
    #[arg(long, value_enum, value_name = "TOOL")]
    compat: Option<Tool>,
    /// Drop what commands write below a volume of the image
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compat_volumes: Option<bool>,
    // Without effect, because what they ask for always holds.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    compress: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    /// Keep a pushed image in the store, too, although no step needs its base
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) load: Option<bool>,
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,

    // Refused.
    #[arg(long, hide = true, value_name = "KEY")]
    decryption_key: Vec<String>,
    #[arg(long, hide = true, value_name = "DIR")]
    hooks_dir: Vec<String>,
    #[arg(long, hide = true, value_name = "FINGERPRINT")]
    sign_by: Option<String>,
    #[arg(long, hide = true, value_name = "OPTIONS")]
    cw: Option<String>,
    #[arg(long, hide = true, value_name = "OPTIONS")]
    policy_eval: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    print: Option<String>,
    #[arg(long, hide = true)]
    debug: bool,
}

/// A build tool.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Tool {
    Buildah,
    Podman,
    #[value(alias = "buildkit")]
    Docker,
}

impl CompatFlags {
    /// Whose habits count in this build.
    pub(super) fn dialect(&self) -> Dialect {
        match self.compat {
            None => Dialect::spoken(),
            Some(Tool::Buildah) => Dialect::Buildah,
            Some(Tool::Podman) => Dialect::Podman,
            Some(Tool::Docker) => Dialect::Docker,
        }
    }

    /// Whether what commands write below a volume is dropped.
    pub(super) fn volumes(&self) -> bool {
        self.compat_volumes.unwrap_or(false)
    }

    /// Refuses what is not supported.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let refused = [
            (!self.decryption_key.is_empty(), "--decryption-key", "layers are not encrypted here"),
            (!self.hooks_dir.is_empty(), "--hooks-dir", "commands run without hooks"),
            (self.sign_by.is_some(), "--sign-by", "sign the image with `rbuild sign`"),
            (self.cw.is_some(), "--cw", "images for confidential machines are not made"),
            (self.policy_eval.is_some(), "--policy-eval", "rules are in --source-policy-file"),
            (self.print.is_some(), "--print", "use --call"),
            (self.debug, "--debug", "use --log debug"),
            (
                self.rm == Some(false),
                "--rm=false",
                "containers of steps are removed; --on-failure=keep keeps a failed one",
            ),
            (
                self.disable_content_trust == Some(false),
                "--disable-content-trust=false",
                "set the required signatures in policy.json",
            ),
            (
                self.load == Some(false),
                "--load=false",
                "with --output type=cacheonly the image is not kept",
            ),
        ];
        if let Some((_, flag, why)) = refused.iter().find(|(given, ..)| *given) {
            return Err(Failure::usage(format!("{flag} is not supported")).hint(*why));
        }
        if self.compress == Some(true) {
            eprintln!("warning: --compress has no effect: the context is sent nowhere");
        }
        if let Some(name) = self.builder.as_deref().filter(|name| *name != "default") {
            eprintln!("warning: --builder {name} has no effect: this program builds by itself");
        }
        Ok(())
    }
}
