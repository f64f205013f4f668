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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_urls_do_not_show() {
        assert_eq!(without_credentials("https://a:b@c.example/x"), "https://c.example/x");
        assert_eq!(without_credentials("https://c.example/x?y=1"), "https://c.example/x?y=1");
    }
}
