//! Where the services of keyless signing are: `signing_config.json` (sigstore protobuf-specs,
//! `SigningConfig` v0.2), or their URLs.

use serde::Deserialize;

/// Which API a signature log speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RekorVersion {
    /// `POST /api/v1/log/entries`.
    V1,
    /// `POST /api/v2/log/entries`.
    V2,
}

/// Where the services are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// The certificate authority.
    pub fulcio: String,
    /// The signature log, if signatures are logged.
    pub rekor: Option<(String, RekorVersion)>,
    /// The timestamp authority, if there is one: the whole URL.
    pub timestamps: Option<String>,
    /// The OpenID provider that people sign in with.
    pub provider: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigningConfigFile {
    media_type: String,
    #[serde(default)]
    ca_urls: Vec<Service>,
    #[serde(default)]
    oidc_urls: Vec<Service>,
    #[serde(default)]
    rekor_tlog_urls: Vec<Service>,
    #[serde(default)]
    tsa_urls: Vec<Service>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    url: String,
    #[serde(default)]
    major_api_version: u32,
    #[serde(default)]
    valid_for: Window,
}

#[derive(Deserialize, Default)]
struct Window {
    start: Option<String>,
    end: Option<String>,
}

impl Service {
    fn is_valid(&self, now: u64) -> bool {
        let time = |text: &Option<String>| text.as_deref().map(crate::keyless::seconds);
        let begun = time(&self.valid_for.start).is_none_or(|at| at.is_some_and(|at| at <= now));
        begun && time(&self.valid_for.end).is_none_or(|at| at.is_some_and(|at| now <= at))
    }
}

/// The newest API that we speak among the services that are in use now.
fn best(services: Vec<Service>, versions: &[u32], now: u64) -> Option<Service> {
    let usable = services
        .into_iter()
        .filter(|service| service.is_valid(now) && versions.contains(&service.major_api_version));
    // The first of the newest: the order is the operator's.
    usable.reduce(|best, next| match next.major_api_version > best.major_api_version {
        true => next,
        false => best,
    })
}

impl Services {
    /// Reads a `signing_config.json`. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(json: &[u8], now: u64) -> Result<Services, String> {
        let file: SigningConfigFile =
            serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if file.media_type != "application/vnd.dev.sigstore.signingconfig.v0.2+json" {
            return Err(format!("its media type {:?} is not known", file.media_type));
        }
        let fulcio = best(file.ca_urls, &[1], now).ok_or("it has no certificate authority")?;
        let rekor = best(file.rekor_tlog_urls, &[1, 2], now).map(|log| match log {
            Service { major_api_version: 2, url, .. } => (url, RekorVersion::V2),
            Service { url, .. } => (url, RekorVersion::V1),
        });
        Ok(Services {
            fulcio: fulcio.url,
            rekor,
            timestamps: best(file.tsa_urls, &[1], now).map(|service| service.url),
            provider: best(file.oidc_urls, &[1], now).map(|service| service.url),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_service_in_use_is_taken() {
        let config = serde_json::json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [
                { "url": "old", "majorApiVersion": 1, "validFor": { "start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z" } },
                { "url": "ca", "majorApiVersion": 1, "validFor": { "start": "2021-01-01T00:00:00Z" } },
            ],
            "rekorTlogUrls": [
                { "url": "one", "majorApiVersion": 1 },
                { "url": "two", "majorApiVersion": 2 },
                { "url": "three", "majorApiVersion": 3 },
            ],
            "rekorTlogConfig": { "selector": "ANY" },
        });
        let read = Services::read(config.to_string().as_bytes(), 1_767_225_600).unwrap();
        assert_eq!(read.fulcio, "ca");
        assert_eq!(read.rekor, Some(("two".to_owned(), RekorVersion::V2)));
        assert_eq!((read.timestamps, read.provider), (None, None));
        assert!(Services::read(b"{}", 0).is_err());
        assert!(Services::read(config.to_string().as_bytes(), 0).is_err());
    }
}
