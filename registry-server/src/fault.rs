use std::time::Duration;

/// What goes wrong, when.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The method it is for; empty is any.
    pub method: &'static str,
    /// The path with query that it applies to; `*` matches any text.
    pub path: String,
    /// Fitting requests let through first.
    pub skip: usize,
    /// Fitting requests it acts on then; `usize::MAX` is all.
    pub times: usize,
    /// What happens.
    pub effect: Effect,
}

/// What happens to a request or its answer.
#[derive(Debug, Clone)]
pub enum Effect {
    /// This answer instead of the real one.
    Answer {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// The connection is reset without an answer; the request's body is not read.
    Reset,
    /// The request is done, then the connection is closed without an answer.
    Forget,
    /// No answer ever comes.
    Silence,
    /// The connection breaks after this many bytes of the body.
    Cut(u64),
    /// Nothing more comes after this many bytes of the body.
    Stall(u64),
    /// One byte of the body each time this long has passed.
    Drip(Duration),
    /// The body never ends and has no declared length.
    Endless,
    /// One bit of the body's byte at this place is turned.
    Corrupt(u64),
    /// `Content-Length` is this; the body is what it is.
    Length(u64),
    /// A header of the real answer has this value.
    Set(&'static str, String),
    /// A header of the real answer is missing.
    Remove(&'static str),
    /// The request is answered as if it had not had this header.
    Ignore(&'static str),
}

impl Fault {
    /// Acts on every fitting request.
    pub fn always(method: &'static str, path: impl Into<String>, effect: Effect) -> Fault {
        Fault { method, path: path.into(), skip: 0, times: usize::MAX, effect }
    }

    /// Acts on the first `times` fitting requests.
    pub fn times(
        times: usize,
        method: &'static str,
        path: impl Into<String>,
        effect: Effect,
    ) -> Fault {
        Fault { times, ..Fault::always(method, path, effect) }
    }

    /// Lets the first `skip` fitting requests through.
    #[must_use]
    pub fn after(self, skip: usize) -> Fault {
        Fault { skip, ..self }
    }

    /// Whether it acts on this request; counts.
    pub(crate) fn acts(&mut self, method: &str, path: &str) -> bool {
        if !(self.method.is_empty() || self.method == method) || !fits(&self.path, path) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times == 0 {
            return false;
        }
        if self.times != usize::MAX {
            self.times -= 1;
        }
        true
    }
}

impl Effect {
    /// A status with nothing but that.
    pub fn status(status: u16) -> Effect {
        Effect::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A status with headers.
    pub fn with(status: u16, headers: &[(&'static str, &str)]) -> Effect {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Effect::Answer { status, headers, body: Vec::new() }
    }

    /// A success with this JSON.
    pub fn json(body: impl Into<String>) -> Effect {
        let headers = vec![("content-type", "application/json".to_owned())];
        Effect::Answer { status: 200, headers, body: body.into().into_bytes() }
    }
}

/// Whether a text matches a pattern in which `*` matches any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "/v2/", true),
            ("/v2/", "/v2/", true),
            ("/v2/", "/v2/x", false),
            ("/v2/*", "/v2/x", true),
            ("/v2/*/blobs/*", "/v2/a/b/blobs/sha256:1", true),
            ("/v2/*/blobs/*", "/v2/a/b/manifests/sha256:1", false),
            ("*/tags/list", "/v2/a/tags/list", true),
            ("*/tags/list", "/v2/a/tags/list?n=1", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn counts() {
        let mut fault = Fault::times(2, "GET", "*", Effect::Reset).after(1);
        let acts: Vec<bool> = (0..5).map(|_| fault.acts("GET", "/")).collect();
        assert_eq!(acts, [false, true, true, false, false]);
        assert!(!fault.acts("PUT", "/"));
    }
}
