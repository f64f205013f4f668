//! A request on its way through.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, Version};

use crate::access::Requester;

/// Bytes of a refused request that are read away.
const DRAINED: usize = 8 << 20;
/// How long a client may send nothing in the middle of a body.
const STALL: Duration = Duration::from_secs(60);

/// A request on its way through.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    pub(crate) client: SocketAddr,
    pub(crate) requester: Requester,
}

impl Call {
    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All values of a parameter.
    pub(crate) fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The next bytes of the body.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(STALL, self.body.frame()).await;
            let frame = frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            let Some(frame) = frame.transpose().map_err(io::Error::other)? else {
                return Ok(None);
            };
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// Drains an unused body, so that the client reads its response; `false` if the body is too
    /// large for that.
    pub(crate) async fn drain(&mut self) -> bool {
        if hyper::body::Body::is_end_stream(&self.body) {
            return true;
        }
        let all = async {
            let mut drained = 0;
            while drained < DRAINED {
                match self.next().await {
                    Ok(Some(bytes)) => drained += bytes.len(),
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
            false
        };
        tokio::time::timeout(Duration::from_secs(5), all).await.unwrap_or(false)
    }

    /// The body, if it is not larger than `limit` and comes whole.
    pub(crate) async fn collect(&mut self, limit: usize) -> Option<Bytes> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await.ok()? {
            if all.len() + bytes.len() > limit {
                return None;
            }
            all.extend_from_slice(&bytes);
        }
        Some(all.into())
    }
}

/// `%xx` and `+` undone; what is malformed stays.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `a=b&c=d` as pairs.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs("a=b%3Ac&d+e=&f"), [pair("a", "b:c"), pair("d e", ""), pair("f", "")]);
        assert_eq!(decode("%zz%"), "%zz%");
    }
}
