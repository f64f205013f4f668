//! Textual encoding of keys (RFC 7468, read leniently as OpenSSL and Go read it).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::elliptic_curve::zeroize::Zeroizing;

/// No key file is larger than this.
pub(crate) const MAX_PEM: usize = 64 << 10;

/// One block: what it says it is, and its bytes.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

/// Finds the first block whose label `wanted` accepts; text around blocks and other blocks (such
/// as `EC PARAMETERS`) are passed over.
pub(crate) fn find(text: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Block, String> {
    Ok(read(text, wanted, 1)?.swap_remove(0))
}

/// Finds all blocks whose label `wanted` accepts, at least one.
pub(crate) fn all(text: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<Block>, String> {
    read(text, wanted, usize::MAX)
}

fn read(text: &[u8], wanted: impl Fn(&str) -> bool, most: usize) -> Result<Vec<Block>, String> {
    if text.len() > MAX_PEM {
        return Err(format!("it is larger than {MAX_PEM} bytes"));
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is not a PEM file".to_owned())?;
    let mut lines = text.lines();
    let (mut found, mut other) = (Vec::new(), None);
    while let Some(line) = lines.next() {
        let Some(label) = label(line, "BEGIN") else { continue };
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        let ended = lines.by_ref().any(|line| {
            let end = self::label(line, "END");
            if end.is_none() {
                body.push_str(line.trim());
            }
            end == Some(label)
        });
        if !ended {
            return Err(format!("its block {label:?} does not end"));
        }
        if !wanted(label) {
            other.get_or_insert(label);
            continue;
        }
        let bytes = STANDARD.decode(body.as_bytes());
        let bytes = bytes.map_err(|error| format!("its block {label:?} is not base64: {error}"))?;
        found.push(Block { label: label.to_owned(), bytes: Zeroizing::new(bytes) });
        if found.len() == most {
            break;
        }
    }
    match (found.is_empty(), other) {
        (false, _) => Ok(found),
        (true, Some(label)) => Err(format!("it holds a block {label:?} instead")),
        (true, None) => Err("it is not a PEM file".to_owned()),
    }
}

fn label<'a>(line: &'a str, edge: &str) -> Option<&'a str> {
    let line = line.trim().strip_prefix("-----")?.strip_suffix("-----")?;
    line.strip_prefix(edge)?.strip_prefix(' ')
}

/// Writes one block in lines of 64 characters.
pub(crate) fn write(label: &str, bytes: &[u8]) -> String {
    let body = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
