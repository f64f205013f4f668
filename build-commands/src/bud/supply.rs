//! What `rbuild bud` says about the image beside it, and the lock it obeys.

use options::environment;
use std::path::{Path, PathBuf};

use builder::{Attest, BuildResult, EnforcedLock, Lock, Pull, Request, TimeOf, Traffic, syntax};
use clap::{Args, ValueEnum};

use options::Failure;
use options::environment::write_whole;
use options::flags::of_flag;

/// Attestations and locked inputs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SupplyFlags {
    /// Attach an SBOM (SPDX): true or false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Supply chain")]
    sbom: Option<String>,
    /// Attach provenance (SLSA v1): true, false, or mode=min|max,builder-id=URI,reproducible=BOOL
    #[arg(long, value_name = "BOOL|mode=…", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Supply chain")]
    provenance: Option<String>,
    /// Attach an SBOM or provenance: type=sbom or type=provenance,mode=…
    #[arg(long, value_name = "type=…", help_heading = "Supply chain")]
    attest: Vec<String>,
    /// Attach attestations as referrers of the image, or in the index as in BuildKit
    #[arg(long, value_enum, default_value = "referrers", help_heading = "Supply chain")]
    attest_as: AttestAs,
    /// Use only the inputs in the lock file, with exactly these digests (default: rbuild.lock in
    /// the context)
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, help_heading = "Supply chain")]
    locked: Option<Option<PathBuf>>,
    /// Record what RUN and ADD get over HTTP: requests and digests in a lock file, contents in the
    /// directory FILE.d
    #[arg(long, value_name = "FILE", conflicts_with = "offline", help_heading = "Supply chain")]
    record: Option<PathBuf>,
    /// Build without a network: answer RUN and ADD from what --record wrote
    #[arg(long, value_name = "FILE", conflicts_with = "locked", help_heading = "Supply chain")]
    offline: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum AttestAs {
    #[default]
    Referrers,
    Index,
}

impl SupplyFlags {
    /// What to say about the images.
    ///
    /// # Errors
    /// A flag is wrong.
    pub(super) fn attest(&self, attest: &mut Attest) -> Result<(), Failure> {
        attest.in_index = self.attest_as == AttestAs::Index;
        attested(attest, &self.attest, self.sbom.as_deref(), self.provenance.as_deref())
    }

    /// Which inputs may be used; `context` is the build context as given.
    ///
    /// # Errors
    /// A flag is wrong; the lock file cannot be read.
    pub(super) fn inputs(&self, request: &mut Request, context: &str) -> Result<(), Failure> {
        if let Some(file) = &self.locked {
            let file = file.clone().unwrap_or_else(|| Lock::default_file(context));
            let lock = Lock::read(&file)?;
            let file = file.display().to_string();
            request.inputs.lock = Some(EnforcedLock { lock, file, partial: false });
        }
        self.traffic(request)
    }

    /// What becomes of what commands and downloads ask over HTTP.
    fn traffic(&self, request: &mut Request) -> Result<(), Failure> {
        if let Some(file) = &self.record {
            request.traffic = Traffic::Record { contents: contents_of(file)? };
            request.time_of = TimeOf::Context;
        }
        let Some(file) = &self.offline else { return Ok(()) };
        if !request.cache.from.is_empty() {
            return Err(Failure::usage("--offline: --cache-from may need the network"));
        }
        let mut lock = Lock::read(file)?;
        let (contents, exchanges) = (contents_of(file)?, std::mem::take(&mut lock.exchanges));
        request.traffic = Traffic::Replay { contents, exchanges };
        request.source_date_epoch = request.source_date_epoch.or(lock.time);
        request.pull = Pull::Never;
        let file = file.display().to_string();
        request.inputs.lock = Some(EnforcedLock { lock, file, partial: false });
        Ok(())
    }

    /// Writes what `--record` recorded.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn record(&self, built: &BuildResult) -> Result<(), Failure> {
        let Some(file) = &self.record else { return Ok(()) };
        let lock = Lock::of(&built.inputs).recorded(built.exchanges.clone(), built.time);
        write_whole(file, lock.to_string().as_bytes())
    }
}

/// Attestations as texts ask for them; the short forms decide over the long one.
///
/// # Errors
/// A text is malformed.
pub(crate) fn attested(
    attest: &mut Attest,
    texts: &[String],
    sbom: Option<&str>,
    provenance: Option<&str>,
) -> Result<(), Failure> {
    for text in texts {
        syntax::add_attestation(text, attest).map_err(of_flag("--attest", text))?;
    }
    if let Some(text) = sbom {
        syntax::set_sbom(text, attest).map_err(of_flag("--sbom", text))?;
    }
    if let Some(text) = provenance {
        syntax::set_provenance(text, attest).map_err(of_flag("--provenance", text))?;
    }
    Ok(())
}

/// The directory for the content of what a lock file lists.
fn contents_of(file: &Path) -> Result<PathBuf, Failure> {
    let mut name = file.as_os_str().to_owned();
    name.push(".d");
    environment::absolute(Path::new(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(flags: &SupplyFlags) -> Result<Attest, Failure> {
        let mut request = Request::default();
        flags.attest(&mut request.attest)?;
        super::super::completed(request).map(|request| request.attest)
    }

    #[test]
    fn attestations_are_asked_for_as_with_buildx() {
        let flags = |sbom: Option<&str>, provenance: Option<&str>, attest: &[&str]| SupplyFlags {
            sbom: sbom.map(str::to_owned),
            provenance: provenance.map(str::to_owned),
            attest: attest.iter().map(|text| (*text).to_owned()).collect(),
            ..SupplyFlags::default()
        };
        let nothing = said(&flags(None, None, &[])).unwrap();
        assert!(!nothing.sbom && nothing.provenance.is_none());
        let both =
            said(&flags(Some("true"), Some("mode=max,builder-id=https://x/y"), &[])).unwrap();
        let provenance = both.provenance.unwrap();
        assert!(both.sbom && provenance.max && provenance.invocation.len() == 32);
        assert_eq!(provenance.builder_id, "https://x/y");
        let long = said(&flags(None, None, &["type=sbom", "type=provenance,mode=min"])).unwrap();
        assert!(long.sbom && long.provenance.is_some_and(|provenance| !provenance.max));
        // The short form decides over the long one.
        let off = said(&flags(Some("false"), Some("false"), &["type=sbom"])).unwrap();
        assert!(!off.sbom && off.provenance.is_none());
        let wrong = said(&flags(None, Some("mode=half"), &[])).unwrap_err();
        assert!(wrong.usage, "{wrong:?}");
    }
}
