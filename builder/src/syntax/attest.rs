//! Attestations: `type=sbom`, `type=provenance,mode=max`, or what stands behind their types.

use super::SyntaxError;
use super::invocation::{fields, truth};
use crate::{Attest, Provenance};

/// Adds what a text of several keys, among them `type`, asks for: `type=provenance,mode=max`.
///
/// # Errors
/// There is no type; what is not supported, by name.
pub fn add_attestation(text: &str, attest: &mut Attest) -> Result<(), SyntaxError> {
    let mut kind = None;
    let mut rest = Vec::new();
    for part in parts(text)? {
        match part.strip_prefix("type=") {
            Some(value) => kind = Some(value.to_owned()),
            None => rest.push(part),
        }
    }
    match kind.as_deref() {
        Some("sbom") => sbom(&rest, attest),
        Some("provenance") => provenance(&rest, attest),
        Some(other) => {
            Err(SyntaxError::new(format!("type {other:?} is neither sbom nor provenance")))
        }
        None => Err(SyntaxError::new("there is no type=sbom|provenance")),
    }
}

/// Asks for an SBOM, or takes that back: `true`, `false`, `disabled=BOOL`.
///
/// # Errors
/// What is not supported, by name.
pub fn set_sbom(text: &str, attest: &mut Attest) -> Result<(), SyntaxError> {
    sbom(&parts(text)?, attest)
}

/// Asks for provenance, or takes that back: `true`, `false`, `mode=min|max`, `builder-id=URI`,
/// `reproducible=BOOL`, `disabled=BOOL`.
///
/// # Errors
/// What is not supported, by name.
pub fn set_provenance(text: &str, attest: &mut Attest) -> Result<(), SyntaxError> {
    provenance(&parts(text)?, attest)
}

/// The fields that say something.
fn parts(text: &str) -> Result<Vec<String>, SyntaxError> {
    let trimmed = fields(text)?.into_iter().map(|field| field.trim().to_owned());
    Ok(trimmed.filter(|field| !field.is_empty()).collect())
}

fn sbom(parts: &[String], attest: &mut Attest) -> Result<(), SyntaxError> {
    attest.sbom = true;
    for part in parts.iter().map(String::as_str) {
        match part.split_once('=') {
            None if matches!(part, "true" | "false" | "1" | "0") => {
                attest.sbom = truth("sbom", part)?;
            }
            Some(("disabled", value)) => attest.sbom = !truth("disabled", value)?,
            _ => {
                return Err(SyntaxError::new(format!(
                    "{part:?} is not supported: no scanner runs, packages are read from the layers"
                ))
                .hinting("true attaches SPDX; `rbuild sbom` writes other forms"));
            }
        }
    }
    Ok(())
}

fn provenance(parts: &[String], attest: &mut Attest) -> Result<(), SyntaxError> {
    let mut options = Provenance::default();
    let mut wanted = true;
    for part in parts.iter().map(String::as_str) {
        match part.split_once('=') {
            None if matches!(part, "true" | "false" | "1" | "0") => {
                wanted = truth("provenance", part)?;
            }
            None if matches!(part, "min" | "max") => options.max = part == "max",
            Some(("mode", "min")) => options.max = false,
            Some(("mode", "max")) => options.max = true,
            Some(("disabled", value)) => wanted = !truth("disabled", value)?,
            Some(("builder-id", value)) => value.clone_into(&mut options.builder_id),
            Some(("reproducible", value)) => options.reproducible = truth("reproducible", value)?,
            Some(("version", "v1")) => {}
            _ => {
                return Err(SyntaxError::new(format!("{part:?} is not supported")).hinting(
                    "there are true, false, mode=min|max, builder-id=URI, reproducible=BOOL and version=v1",
                ));
            }
        }
    }
    attest.provenance = wanted.then_some(options);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestations_are_asked_for_as_with_buildx() {
        let mut attest = Attest::default();
        set_sbom("true", &mut attest).unwrap();
        set_provenance("mode=max,builder-id=https://x/y", &mut attest).unwrap();
        let provenance = attest.provenance.clone().unwrap();
        assert!(attest.sbom && provenance.max && provenance.builder_id == "https://x/y");
        add_attestation("type=provenance,mode=min", &mut attest).unwrap();
        assert!(!attest.provenance.clone().unwrap().max);
        set_sbom("false", &mut attest).unwrap();
        add_attestation("type=provenance,disabled=true", &mut attest).unwrap();
        assert!(!attest.sbom && attest.provenance.is_none());
        for text in ["generator=image", "syft"] {
            assert!(set_sbom(text, &mut attest).is_err(), "{text}");
        }
        for text in ["mode=half", "inline-only=true", "version=v0.2"] {
            assert!(set_provenance(text, &mut attest).is_err(), "{text}");
        }
        for text in ["type=vuln", "mode=max", ""] {
            assert!(add_attestation(text, &mut attest).is_err(), "{text}");
        }
    }
}
