//! What statements say, and the statements made of it: in-toto's with the names that cosign has for
//! the types of predicates.

use image::Digest;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The type of in-toto statements that is written.
pub const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
/// The predicate that says how an image was built (SLSA 1).
pub const SLSA_V1: &str = "https://slsa.dev/provenance/v1";
/// The predicate that is an SPDX document.
pub const SPDX: &str = "https://spdx.dev/Document";
/// A statement about anything; the predicate holds a text.
pub const CUSTOM: &str = "https://cosign.sigstore.dev/attestation/v1";
/// No larger predicate is read (3 MiB).
pub const MAX_PREDICATE: u64 = 3 << 20;

/// The short names.
const NAMES: &str = "slsaprovenance, slsaprovenance02, slsaprovenance1, link, spdx, spdxjson, cyclonedx, vuln, openvex \
                     and custom";

/// The URI of a predicate's type; the short names are cosign's.
///
/// # Errors
/// In words: the text is neither a URI nor a short name.
pub fn predicate_type(text: &str) -> Result<String, String> {
    Ok(match text {
        "slsaprovenance1" => SLSA_V1.to_owned(),
        "slsaprovenance" | "slsaprovenance02" => "https://slsa.dev/provenance/v0.2".to_owned(),
        "link" => "https://in-toto.io/Link/v1".to_owned(),
        "spdxjson" | "spdx" => SPDX.to_owned(),
        "cyclonedx" => "https://cyclonedx.org/bom".to_owned(),
        "vuln" => "https://cosign.sigstore.dev/attestation/vuln/v1".to_owned(),
        "openvex" => "https://openvex.dev/ns".to_owned(),
        "custom" => CUSTOM.to_owned(),
        uri if uri.contains(':') => uri.to_owned(),
        other => return Err(format!("{other:?} is neither a URI nor one of {NAMES}")),
    })
}

/// The statement with `predicate`, the content of a file, about an image. `name` is what the
/// image is called in it; `now`, in RFC 3339, is when a text of the type [`CUSTOM`] was said.
///
/// # Errors
/// [`Error::Sign`] for a predicate that is no JSON, or, of the type [`CUSTOM`], no UTF-8.
pub fn statement(
    (name, image): (&str, Digest),
    predicate_type: &str,
    predicate: &[u8],
    now: &str,
) -> Result<Vec<u8>> {
    let refuse = |why: String| Error::Sign { image, reason: format!("its predicate: {why}") };
    let predicate: Value = match predicate_type {
        CUSTOM => {
            let text = std::str::from_utf8(predicate).map_err(|error| refuse(error.to_string()))?;
            json!({ "Data": text, "Timestamp": now })
        }
        _ => serde_json::from_slice(predicate).map_err(|error| refuse(error.to_string()))?,
    };
    let statement = json!({
        "_type": STATEMENT_V1,
        "subject": [{ "name": name, "digest": { image.algorithm().as_str(): image.hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    Ok(statement.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_becomes_a_statement_about_one_image() {
        let image = Digest::of(b"image");
        let said = statement(("app", image), SPDX, b"{\"a\": 1}", "2026-01-01T00:00:00Z").unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(said["predicate"]["a"], 1);
        assert_eq!(said["subject"][0]["digest"]["sha256"], image.hex());
        let text = statement(("app", image), CUSTOM, b"good", "2026-01-01T00:00:00Z").unwrap();
        let text: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(text["predicate"]["Data"], "good");
        for (kind, bytes) in [(SPDX, &b"none"[..]), (CUSTOM, b"\xff")] {
            assert!(statement(("app", image), kind, bytes, "").is_err());
        }
        assert!(predicate_type("spdx").is_ok() && predicate_type("https://x/y").is_ok());
        assert!(predicate_type("sbom").is_err());
    }
}
