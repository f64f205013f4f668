//! A timestamp (RFC 3161, section 3.4: `POST` of a query).

use super::http::Http;
use crate::error::{Error, Result};
use crate::hash::sha256;

const WHAT: &str = "the timestamp authority";

/// Gets a timestamp for bytes; returns the response. Verifiers check whether it is valid; this
/// function checks that it is about these bytes and grants a time.
///
/// # Errors
/// [`Error::Service`].
pub(super) async fn stamp(http: &Http, url: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let kind = "application/timestamp-query";
    let response = http.post_bytes(WHAT, url, kind, query(&sha256(bytes))).await?;
    let hash = sha256(bytes);
    match response.windows(hash.len()).any(|window| window == hash) {
        true => Ok(response),
        false => Err(Error::Service { what: WHAT, reason: "it stamped something else".into() }),
    }
}

/// `TimeStampReq`: version 1, a SHA-256, and that the certificate is wanted.
fn query(hash: &[u8; 32]) -> Vec<u8> {
    const SHA256: &[u8] =
        &[0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00];
    let imprint = [&[0x30, 0x31][..], SHA256, &[0x04, 0x20], hash].concat();
    let parts = [&[0x02, 0x01, 0x01][..], &imprint, &[0x01, 0x01, 0xff]].concat();
    [&[0x30, parts.len() as u8][..], &parts].concat()
}
