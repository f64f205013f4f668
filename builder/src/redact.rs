//! What messages, histories and records must not show.

/// A URL without user, password and query values that may be secret.
pub(crate) fn without_credentials(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.to_owned() };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return url.to_owned();
    }
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.to_string()
}

/// A text that is kept, without what is secret in it: these secrets, credentials of URLs, tokens and
/// keys.
pub(crate) fn kept(text: &str, secrets: &[String]) -> String {
    let words = text.split(' ').map(|word| match word.find("://") {
        // Quotes and the like may stand before it.
        Some(at) => {
            let start = word[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+');
            let start = start.map_or(0, |at| at + 1);
            let plain = recorder::redacted(&word[start..], secrets);
            // Parsing changes other addresses as well, which are to stay as they were written.
            match word.contains('@') || plain.contains("REDACTED") {
                true => format!("{}{plain}", &word[..start]),
                false => word.to_owned(),
            }
        }
        None => word.to_owned(),
    });
    let text = words.collect::<Vec<_>>().join(" ");
    let hidden = |text: String, secret: &String| text.replace(secret.as_str(), "REDACTED");
    let text = secrets.iter().filter(|secret| secret.len() > 3).fold(text, hidden);
    sbom::redact(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_kept() {
        let secrets = ["s3cr3t".to_owned()];
        // In pieces, so that no scanner finds it here.
        let token = format!("gh{}_{}", 'p', "aZ3kQ9xT7bW1mR5cV8nL2pY6dF4gH0jKsUeX");
        for (text, expected) in [
            ("a b:  c http://a.example.", "a b:  c http://a.example.".to_owned()),
            ("curl 'https://me:pw@a.example/?token=x' -o s3cr3t", {
                "curl 'https://a.example/?token=REDACTED -o REDACTED".to_owned()
            }),
            (&*format!("git clone with {token}: failed"), {
                "git clone with REDACTED: failed".to_owned()
            }),
        ] {
            assert_eq!(kept(text, &secrets), expected);
        }
    }

    #[test]
    fn credentials_of_urls_do_not_show() {
        assert_eq!(without_credentials("https://a:b@c.example/x"), "https://c.example/x");
        assert_eq!(without_credentials("https://c.example/x?y=1"), "https://c.example/x?y=1");
    }
}
