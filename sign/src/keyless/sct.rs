//! Signed certificate timestamps: a log's promise to list a certificate (RFC 6962, section 3).

use x509_cert::der::Encode as _;

use super::certificate::{Leaf, SCTS, octets};
use super::roots::Log;
use crate::hash::sha256;
use crate::spki::Hash;

/// More of them in one certificate are not looked at.
const MAX_SCTS: usize = 16;

/// One promise, in the layout of TLS.
struct Sct<'a> {
    log: &'a [u8],
    timestamp: &'a [u8],
    extensions: &'a [u8],
    hash: Hash,
    signature: &'a [u8],
}

/// Takes bytes from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or("a certificate's timestamps are cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    /// What follows a length of two bytes.
    fn counted(&mut self) -> Result<&'a [u8], String> {
        let length = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([length[0], length[1]])))
    }
}

fn read(list: &[u8]) -> Result<Vec<Sct<'_>>, String> {
    let mut outer = Bytes(list);
    let mut all = Bytes(outer.counted()?);
    let mut scts = Vec::new();
    while !all.0.is_empty() && scts.len() < MAX_SCTS {
        let mut one = Bytes(all.counted()?);
        let version = one.take(1)?;
        let (log, timestamp) = (one.take(32)?, one.take(8)?);
        let extensions = one.counted()?;
        let algorithms = one.take(2)?;
        let signature = one.counted()?;
        let hash = match algorithms {
            [4, 1 | 3] => Hash::Sha256,
            [5, 1 | 3] => Hash::Sha384,
            // Ed25519 has no hash of its own here.
            [8, 7] => Hash::Sha256,
            _ => continue,
        };
        if version == [0] {
            scts.push(Sct { log, timestamp, extensions, hash, signature });
        }
    }
    Ok(scts)
}

/// Whether one of these logs promised to list the certificate.
///
/// # Errors
/// None did.
pub(crate) fn verify(leaf: &Leaf, issuer: &Leaf, logs: &[Log]) -> Result<(), String> {
    let list = leaf.extension(SCTS)?.ok_or("its certificate has no promise of a log")?;
    let scts = read(octets(list)?)?;
    let mut logged = leaf.tbs().clone();
    if let Some(extensions) = &mut logged.extensions {
        extensions.retain(|extension| extension.extn_id != SCTS);
    }
    let logged = logged.to_der().map_err(|error| error.to_string())?;
    let issuer = sha256(issuer.key.der());
    for sct in &scts {
        let time: [u8; 8] = sct.timestamp.try_into().map_err(|_| "a timestamp is cut off")?;
        let time = u64::from_be_bytes(time) / 1000;
        let length = u32::try_from(logged.len()).map_err(|error| error.to_string())?;
        let length_of_extensions = [sct.extensions.len() >> 8, sct.extensions.len() & 0xff];
        let signed: Vec<u8> = [
            &[0, 0][..],
            sct.timestamp,
            &[0, 1],
            &issuer,
            &length.to_be_bytes()[1..],
            &logged,
            &length_of_extensions.map(|byte| byte as u8),
            sct.extensions,
        ]
        .concat();
        let promised = logs.iter().any(|log| {
            log.id == sct.log
                && log.window.contains(time)
                && log.key.verifies_with(sct.hash, &signed, sct.signature)
        });
        if promised {
            return Ok(());
        }
    }
    Err(match scts.is_empty() {
        true => "its certificate has no promise of a log that can be read".to_owned(),
        false => "no trusted log promised to list its certificate".to_owned(),
    })
}
