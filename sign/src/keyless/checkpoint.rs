//! What a log says its tree is: a signed note (C2SP tlog-checkpoint, signed-note).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::Hash;
use crate::spki::Spki;

/// A note with more signatures is not looked at.
const MAX_SIGNATURES: usize = 32;

/// A parsed checkpoint; nothing in it is trusted before one of its signatures is verified.
#[derive(Debug)]
pub(crate) struct Checkpoint<'a> {
    text: &'a str,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    signatures: Vec<Vec<u8>>,
}

impl<'a> Checkpoint<'a> {
    /// Reads a note.
    ///
    /// # Errors
    /// Says what it lacks.
    pub(crate) fn read(note: &'a str) -> Result<Checkpoint<'a>, String> {
        let end = note.find("\n\n").ok_or("it has no signatures")?;
        let (text, signed) = (&note[..=end], &note[end + 2..]);
        let mut lines = text.lines();
        let origin = lines.next().unwrap_or_default();
        let size = lines.next().and_then(|line| line.parse::<u64>().ok());
        let root = lines.next().and_then(|line| STANDARD.decode(line).ok());
        let root = root.and_then(|root| Hash::try_from(root).ok());
        let (false, Some(size), Some(root)) = (origin.is_empty(), size, root) else {
            return Err("it has no origin, size or root".to_owned());
        };
        let mut signatures = Vec::new();
        for line in signed.lines() {
            let words = line.strip_prefix("\u{2014} ").and_then(|rest| rest.rsplit_once(' '));
            let (_, signature) = words.ok_or("a line of it is not a signature")?;
            let signature = STANDARD.decode(signature).map_err(|error| error.to_string())?;
            if signature.len() < 5 || signatures.len() == MAX_SIGNATURES {
                return Err("a signature of it is too short, or there are too many".to_owned());
            }
            signatures.push(signature);
        }
        Ok(Checkpoint { text, size, root, signatures })
    }

    /// Whether this key signed it. The four bytes before a signature are a hint at the key, and
    /// are passed over: other keys' signatures do not fit.
    pub(crate) fn is_signed_by(&self, key: &Spki) -> bool {
        self.signatures.iter().any(|signature| key.verifies(self.text.as_bytes(), &signature[4..]))
    }
}
