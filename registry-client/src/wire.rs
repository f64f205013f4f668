//! Reading what registries put into headers and error bodies. Everything here takes foreign text:
//! total, bounded, and without an opinion on what to do.

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;

/// The most of a foreign message that is shown.
const MESSAGE: usize = 300;

/// The target of the `next` link of the `Link` headers (RFC 8288); a link that does not say what it
/// is can only be that.
///
/// # Errors
/// A header that is not understood: the list may go on.
pub(crate) fn next_link(headers: &HeaderMap) -> Result<Option<String>, String> {
    let mut unnamed = None;
    for value in headers.get_all(header::LINK) {
        let text = escaped(value);
        for link in links(&text).ok_or_else(|| printable(&text))? {
            match link.relations {
                Some(relations) if relations.iter().any(|one| one == "next") => {
                    return Ok(Some(link.target));
                }
                Some(_) => {}
                None => unnamed = unnamed.or(Some(link.target)),
            }
        }
    }
    Ok(unnamed)
}

struct Link {
    target: String,
    /// The relations it names, in lower case.
    relations: Option<Vec<String>>,
}

/// All links of a header; `None` where it is none.
fn links(text: &str) -> Option<Vec<Link>> {
    let (mut links, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let mut link = Link { target: target.trim().to_owned(), relations: None };
        rest = after.trim_start();
        while let Some(parameter) = rest.strip_prefix(';') {
            let (name, value, after) = parameter_of(parameter)?;
            if name.eq_ignore_ascii_case("rel") && link.relations.is_none() {
                let all = value.split_ascii_whitespace();
                link.relations = Some(all.map(str::to_ascii_lowercase).collect());
            }
            rest = after;
        }
        links.push(link);
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(links)
}

/// Name and value of a parameter, quoted or not, and what follows it.
fn parameter_of(text: &str) -> Option<(&str, String, &str)> {
    let end = text.find(['=', ';', ',']).unwrap_or(text.len());
    let name = text[..end].trim();
    let Some(value) = text[end..].strip_prefix('=') else {
        return Some((name, String::new(), &text[end..]));
    };
    let Some(quoted) = value.trim_start().strip_prefix('"') else {
        let end = value.find([';', ',']).unwrap_or(value.len());
        return Some((name, value[..end].trim().to_owned(), &value[end..]));
    };
    let (mut unquoted, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((name, unquoted, quoted[at + 1..].trim_start())),
            c => {
                unquoted.push(c);
                escaped = false;
            }
        }
    }
    None
}

/// `Content-Range: bytes first-last/total` (RFC 9110, 14.4): first, last, and total if known.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    parse_content_range(headers.get(header::CONTENT_RANGE)?.to_str().ok()?)
}

fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total.trim() == "*" { None } else { Some(number(total)?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, last, total))
}

/// How many bytes an upload session has: `Range: 0-last` (distribution-spec, "Pushing a blob in
/// chunks"). `None` where there is nothing or nonsense.
pub(crate) fn upload_range(headers: &HeaderMap) -> Option<u64> {
    parse_upload_range(headers.get(header::RANGE)?.to_str().ok()?)
}

fn parse_upload_range(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    if number(first)? != 0 {
        return None;
    }
    // "0-0" is what registries answer for an empty session as well as for one byte; taking it
    // for empty at worst sends that byte again, which the registry refuses clearly.
    match number(last)? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// What a registry warns of: `Warning: 299 - "text"` (distribution-spec, "Warnings").
pub(crate) fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(header::WARNING).iter().map(HeaderValue::as_bytes);
    let quoted = texts.filter_map(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim().strip_prefix("299 ")?.split_once('"')?.1;
        let text = text.strip_suffix('"').unwrap_or(text);
        Some(printable(&text.replace("\\\"", "\"").replace("\\\\", "\\")))
    });
    quoted.filter(|text| !text.is_empty()).take(10).collect()
}

/// The smallest chunk that a registry takes, but for the last one (`OCI-Chunk-Min-Length`).
pub(crate) fn least_chunk(headers: &HeaderMap) -> u64 {
    let name = header::HeaderName::from_static("oci-chunk-min-length");
    text(headers, name).and_then(|text| number(&text)).unwrap_or(0)
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// How long to wait: `Retry-After` in seconds or as a date, which is compared with the response's
/// own `Date` (RFC 9110, 10.2.3), so the local clock does not matter.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Some(seconds) = number(text) {
        return Some(Duration::from_secs(seconds));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::MAX);
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// An HTTP date as seconds since 1970.
pub(crate) fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    let date = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
    date.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The value of a header as text, whatever bytes it has.
pub(crate) fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get(name)?.as_bytes());
    Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// `Location`, with what a URL must not have as it is in percent-encoding.
pub(crate) fn location(headers: &HeaderMap) -> Option<String> {
    let text = escaped(headers.get(header::LOCATION)?);
    Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A header's bytes, those that are not ASCII in percent-encoding.
fn escaped(value: &HeaderValue) -> String {
    let each = value.as_bytes().iter().map(|byte| match byte.is_ascii() {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    each.collect()
}

/// `Content-Type` without parameters, in lower case.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = text(headers, header::CONTENT_TYPE)?;
    let bare = text.split(';').next().unwrap_or_default().trim();
    (!bare.is_empty()).then(|| bare.to_ascii_lowercase())
}

/// `Content-Length`.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(&text(headers, header::CONTENT_LENGTH)?)
}

#[derive(Deserialize, Default)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorItem>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
}

#[derive(Deserialize, Default)]
struct ErrorItem {
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<String>,
}

/// What a registry says went wrong (distribution-spec, "Error Codes"), or the start of whatever
/// text it sent, made fit for a terminal.
pub(crate) fn message(body: &[u8], content_type: Option<&str>) -> RegistryMessage {
    let mut first = String::new();
    let said = match serde_json::from_slice::<Errors>(body) {
        Ok(errors) if !errors.errors.is_empty() => {
            let items = errors.errors.iter().take(3).map(|item| {
                let code = match &item.code {
                    Some(serde_json::Value::String(code)) => code.as_str(),
                    _ => "",
                };
                if first.is_empty() {
                    first = printable(code);
                }
                match (code, item.message.as_deref().unwrap_or_default()) {
                    ("", message) => message.to_owned(),
                    (code, "") => code.to_owned(),
                    (code, message) => format!("{code}: {message}"),
                }
            });
            items.collect::<Vec<_>>().join("; ")
        }
        Ok(errors) => {
            errors.details.or(errors.error_description).or(errors.message).unwrap_or_default()
        }
        Err(_) if content_type.is_some_and(|kind| kind.contains("html")) => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    RegistryMessage { code: first, message: printable(&said) }
}

/// A registry's own words about a failure, fit for a terminal.
#[derive(Debug, Default)]
pub(crate) struct RegistryMessage {
    /// The first error code.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Foreign text without control bytes, on one line, cut.
pub(crate) fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let spaced = text.chars().take(4 * MESSAGE).map(|c| if hidden(c) { ' ' } else { c });
    let spaced: String = spaced.collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MESSAGE) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn next_links() {
        for (text, expected) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("</v2/a>; rel=next", Some("/v2/a")),
            (r#"<x>; rel="prev", <y>; title="a"; REL="last next""#, Some("y")),
            (r#"<a,b;c>; rel="next""#, Some("a,b;c")),
            (r#"<x>; rel="prev""#, None),
            (r#"<x>; title="<a>, \"; rel=last"; rel=prev, <y>; rel=next"#, Some("y")),
            ("<x>; rel=prev; rel=next", None),
            ("</v2/x?last=b>", Some("/v2/x?last=b")),
            ("<x>; title=more", Some("x")),
            ("<x>, <y>; rel=next", Some("y")),
            ("", None),
        ] {
            let next = next_link(&headers(header::LINK, text)).unwrap();
            assert_eq!(next.as_deref(), expected, "{text}");
        }
        assert_eq!(next_link(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_link_that_is_not_understood_is_no_end() {
        for text in ["<x", "nonsense", "/v2/x; rel=next", "<x>; rel=\"next", "<x> rel=next"] {
            assert!(next_link(&headers(header::LINK, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_above_127_are_read() {
        let raw = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap();
        let map = HeaderMap::from_iter([
            (header::LOCATION, raw(b"/v2/caf\xc3\xa9?x=\xe9")),
            (header::LINK, raw(b"</v2/x?last=\xe9>; rel=next")),
            (header::WARNING, raw(b"299 - \"caf\xc3\xa9\"")),
        ]);
        assert_eq!(location(&map).as_deref(), Some("/v2/caf%C3%A9?x=%E9"));
        assert_eq!(next_link(&map).unwrap().as_deref(), Some("/v2/x?last=%E9"));
        assert_eq!(warnings(&map), ["caf\u{e9}"]);
    }

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes 0-9/10", Some((0, 9, Some(10)))),
            ("bytes 5-9/*", Some((5, 9, None))),
            ("bytes 9-5/10", None),
            ("bytes 0-10/10", None),
            ("bytes */10", None),
            ("bytes -1-5/10", None),
            ("0-9/10", None),
            ("bytes 0-99999999999999999999/*", None),
        ] {
            assert_eq!(parse_content_range(text), expected, "{text}");
        }
        for (text, expected) in [
            ("0-0", Some(0)),
            ("0-41", Some(42)),
            ("bytes=0-41", Some(42)),
            ("1-41", None),
            ("0-", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(parse_upload_range(text), expected, "{text}");
        }
    }

    #[test]
    fn pauses() {
        let mut map = headers(header::RETRY_AFTER, "Wed, 21 Oct 2015 07:28:30 GMT");
        assert_eq!(retry_after(&map), None);
        map.insert(header::DATE, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&map), Some(Duration::from_secs(30)));
        map.insert(header::DATE, "Wed, 21 Oct 2015 07:29:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&map), Some(Duration::ZERO));
        for (text, expected) in [
            ("7", Some(Duration::from_secs(7))),
            ("99999999999999999999999", Some(Duration::MAX)),
            ("-7", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(&headers(header::RETRY_AFTER, text)), expected, "{text}");
        }
    }

    #[test]
    fn warnings_are_read() {
        for (text, expected) in [
            ("299 - \"the end is near\"", Some("the end is near")),
            ("299 - \"say \\\"no\\\"\"", Some("say \"no\"")),
            ("199 - \"other\"", None),
            ("299 - \"\"", None),
            ("299", None),
        ] {
            let found = warnings(&headers(header::WARNING, text));
            assert_eq!(found.first().map(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn messages() {
        let json = |text: &str| message(text.as_bytes(), Some("application/json")).message;
        assert_eq!(
            json(r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way"},{"code":"X"}]}"#),
            "DENIED: no [31m way; X"
        );
        assert_eq!(json(r#"{"details":"bad password"}"#), "bad password");
        assert_eq!(json("{}"), "");
        assert_eq!(message(br#"{"errors":[{"code":"DENIED"}]}"#, None).code, "DENIED");
        assert_eq!(message(b"<html>no", Some("text/html")).message, "");
        assert_eq!(message(b"a\r\nb\x07", None).message, "a b");
        assert_eq!(message(&[b'x'; 5000], None).message.chars().count(), MESSAGE + 1);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            links(&text);
            parse_content_range(&text);
            parse_upload_range(&text);
            let said = message(&bytes, None).message;
            prop_assert!(!said.chars().any(char::is_control));
            if let Ok(value) = header::HeaderValue::from_bytes(&bytes) {
                let map = HeaderMap::from_iter([
                    (header::LINK, value.clone()),
                    (header::RETRY_AFTER, value.clone()),
                    (header::DATE, value.clone()),
                    (header::CONTENT_TYPE, value.clone()),
                    (header::CONTENT_LENGTH, value),
                ]);
                let _ = next_link(&map);
                location(&map);
                retry_after(&map);
                content_type(&map);
                content_length(&map);
            }
        }

        #[test]
        fn next_links_come_out(target in "[a-z/?=&,;]{1,30}") {
            let text = format!("<{target}>; rel=\"next\"");
            let map = headers(header::LINK, &text);
            prop_assert_eq!(next_link(&map).unwrap(), Some(target));
        }
    }
}
