use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

use crate::{Error, Result};

/// A registered digest algorithm (image-spec, descriptor.md#registered-algorithms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`, what everything uses.
    Sha256,
    /// `sha512`, optional in the spec.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the raw digest in bytes.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// The name of content: a hash algorithm and its value. Strings exist only at the edges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// `sha256:…`
    Sha256([u8; 32]),
    /// `sha512:…`
    Sha512([u8; 64]),
}

impl Digest {
    /// The sha256 digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw value.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }

    /// The value in lower-case hexadecimal; safe as a file name.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let nibbles = self.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
    }

    /// The first twelve hexadecimal digits, as tools show it to people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().as_str(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Exactly `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Digest> {
        let refuse = |reason| Error::Digest { text: text.chars().take(160).collect(), reason };
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| refuse("it has no algorithm and colon"))?;
        match algorithm {
            "sha256" => unhex(hex)
                .map(Digest::Sha256)
                .ok_or_else(|| refuse("sha256 takes exactly 64 lower-case hexadecimal digits")),
            "sha512" => unhex(hex)
                .map(Digest::Sha512)
                .ok_or_else(|| refuse("sha512 takes exactly 128 lower-case hexadecimal digits")),
            _ => Err(refuse("the algorithm is neither sha256 nor sha512")),
        }
    }
}

fn unhex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if hex.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Computes a digest from bytes as they pass; also an [`std::io::Write`] sink.
#[derive(Clone)]
pub struct Digester(Hasher);

#[derive(Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Default for Digester {
    fn default() -> Self {
        Digester::new(Algorithm::Sha256)
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// A digester for this algorithm; `default()` is sha256.
    pub fn new(algorithm: Algorithm) -> Self {
        Digester(match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl std::io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Digests and counts what is read through it.
#[derive(Debug)]
pub struct DigestReader<R> {
    inner: R,
    digester: Digester,
    length: u64,
}

impl<R> DigestReader<R> {
    /// A reader of `inner` that digests with this algorithm.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        DigestReader { inner, digester: Digester::new(algorithm), length: 0 }
    }

    /// How many bytes were read.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The inner reader, and the digest of what was read.
    pub fn finish(self) -> (R, Digest) {
        (self.inner, self.digester.finish())
    }
}

impl<R: std::io::Read> std::io::Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.digester.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}

/// The name of a stack of layers: each layer applied on what is below it
/// (image-spec, config.md#layer-chainid).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain id of a layer with this diff id on `parent`.
    pub fn of(parent: Option<ChainId>, diff_id: Digest) -> ChainId {
        match parent {
            None => ChainId(diff_id),
            Some(parent) => ChainId(Digest::of(format!("{} {diff_id}", parent.0).as_bytes())),
        }
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_round_trips() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        let long = Digester::new(Algorithm::Sha512).finish();
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
        assert_eq!(serde_json::to_string(&Digest::of(b"")).unwrap(), format!("\"{EMPTY}\""));
    }

    #[test]
    fn only_the_exact_grammar_is_read() {
        let hex = &EMPTY[7..];
        let bad = [
            String::new(),
            hex.to_owned(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha512:{hex}"),
            format!("SHA256:{hex}"),
            format!("sha256:../{}", &hex[3..]),
            format!(" {EMPTY}"),
            format!("md5:{}", &hex[..32]),
            "sha256:".to_owned() + &"é".repeat(32),
        ];
        for text in bad {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn chain_ids_follow_the_spec() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let first = ChainId::of(None, a);
        assert_eq!(first.0, a);
        assert_eq!(ChainId::of(Some(first), b).0, Digest::of(format!("{a} {b}").as_bytes()));
    }
}
