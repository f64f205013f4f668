//! `rbuild manifest push`.

use std::path::PathBuf;

use app::lists::require;
use app::place::{self, Access};
use app::{App, observed};
use clap::Args;
use options::Failure;
use options::place::location;
use options::sign_copy::SignFlags;
use transport::{CopyOptions, Format, Location, Select};

use crate::transfer::own_name;
use crate::transfer_flags::{DocumentFormat, TransferFlags};

/// Push a manifest list and its images to a registry or another location
#[derive(Debug, Args)]
pub struct Push {
    /// Push the images too; with =false only the list, for a registry that has the images
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    all: bool,
    /// Remove the list from the store after the push
    #[arg(short, long, visible_alias = "purge")]
    rm: bool,
    /// Convert documents to this format
    #[arg(short, long, value_enum)]
    format: Option<DocumentFormat>,
    /// Write the digest of the list to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Accepted for scripts: signatures are never pushed
    #[arg(long)]
    remove_signatures: bool,
    /// Sign the list and its images on a registry with this GPG key
    #[arg(long, value_name = "FINGERPRINT")]
    sign_by: Option<String>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    /// The list in the store
    list: String,
    /// The destination: NAME on a registry, or transport:… (default: the list's own name)
    destination: Option<String>,
}

impl Push {
    pub(super) fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let list = require(store, &self.list)?;
        let to = match &self.destination {
            Some(text) => location(text, "docker://")?,
            None => own_name(&list.name)?,
        };
        let signer = SignFlags::with_gpg(self.sign_by.as_deref()).signer(app, &app.conf, &to)?;
        let options = CopyOptions {
            select: if self.all { Select::All } else { Select::IndexOnly },
            format: self.format.map(Format::from),
            attempts: self.transfer.attempts(),
            ..CopyOptions::default()
        };
        let progress = self.transfer.progress(self.quiet);
        let from = Location::Store(list.name.clone());
        let root = observed(&format!("push {to}"), progress, |task| {
            let access = Access::new(app, self.transfer.reach()?);
            let root = access.copy_ungated(&from, &to, &options, task)?;
            if let Some(signer) = signer {
                place::sign(&signer, &access, &to, &root, task)?;
            }
            Ok(root)
        })?;
        if let Some(file) = &self.digestfile {
            crate::copy::write_digest(file, &root)?;
        }
        if self.rm {
            store.forget(list.index.digest(), Some(&list.name))?;
        }
        if progress.tells() {
            eprintln!("pushed {to} {}", root.digest);
        }
        Ok(0)
    }
}
