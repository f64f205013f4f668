//! Package URLs: one name for a package across all tools (the purl specification, ECMA-427).

use crate::{Ecosystem, Package, Release};

/// The package URL of a package; distribution packages are named within their distribution.
pub(crate) fn purl(package: &Package, release: &Release) -> String {
    let mut url = format!("pkg:{}/", package.ecosystem.as_str());
    let name = match package.ecosystem {
        Ecosystem::Pypi => package.name.to_lowercase().replace('_', "-"),
        Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Golang | Ecosystem::Composer => {
            package.name.to_lowercase()
        }
        _ => package.name.clone(),
    };
    if package.ecosystem.is_of_distribution() {
        let vendor = match (package.ecosystem, release.id.as_str()) {
            (Ecosystem::Deb, "") => "debian",
            (Ecosystem::Apk, "") => "alpine",
            (_, id) => id,
        };
        if !vendor.is_empty() {
            url.push_str(&encode(&vendor.to_lowercase()));
            url.push('/');
        }
        url.push_str(&encode(&name));
    } else {
        let separator = if package.ecosystem == Ecosystem::Maven { ':' } else { '/' };
        let parts = name.split(separator).filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.map(encode).collect();
        url.push_str(&parts.join("/"));
    }
    if !package.version.is_empty() {
        url.push('@');
        url.push_str(&encode(&package.version));
    }
    let mut qualifiers = Vec::new();
    if let Some(architecture) = &package.architecture {
        let key = if package.ecosystem == Ecosystem::Gem { "platform" } else { "arch" };
        qualifiers.push(format!("{key}={}", encode(architecture)));
    }
    if package.ecosystem.is_of_distribution() && !release.id.is_empty() {
        let distribution = match release.version.as_str() {
            "" => release.id.clone(),
            version => format!("{}-{version}", release.id),
        };
        qualifiers.push(format!("distro={}", encode(&distribution)));
    }
    if let Some(epoch) = package.epoch {
        qualifiers.push(format!("epoch={epoch}"));
    }
    if let Some(source) = &package.source {
        qualifiers.push(format!("upstream={}", encode(source)));
    }
    if !qualifiers.is_empty() {
        url.push('?');
        url.push_str(&qualifiers.join("&"));
    }
    url
}

/// Percent-encodes all but what the specification leaves as it is.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_urls_that_the_specification_gives_them() {
        let debian =
            Release { id: "debian".into(), version: "12".into(), name: "Debian 12".into() };
        let package = |ecosystem, name, version| Package::new(ecosystem, name, version).unwrap();
        let mut bash = package(Ecosystem::Deb, "bash", "5.2.15-2+b7");
        bash.architecture = Some("amd64".into());
        let mut curl = package(Ecosystem::Rpm, "curl", "7.50.3-1.fc25");
        curl.architecture = Some("i386".into());
        curl.epoch = Some(1);
        let fedora = Release { id: "fedora".into(), version: "25".into(), name: String::new() };
        let none = Release::default();
        let cases = [
            (&bash, &debian, "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12"),
            (
                &curl,
                &fedora,
                "pkg:rpm/fedora/curl@7.50.3-1.fc25?arch=i386&distro=fedora-25&epoch=1",
            ),
            (&package(Ecosystem::Npm, "@a/b", "1.0.0"), &debian, "pkg:npm/%40a/b@1.0.0"),
            (&package(Ecosystem::Pypi, "Typing_Ext", "4"), &none, "pkg:pypi/typing-ext@4"),
            (
                &package(Ecosystem::Golang, "github.com/Go/x", "v1.0.0"),
                &none,
                "pkg:golang/github.com/go/x@v1.0.0",
            ),
            (
                &package(Ecosystem::Maven, "org.apache.commons:commons-io", "1.3.4"),
                &debian,
                "pkg:maven/org.apache.commons/commons-io@1.3.4",
            ),
            (&package(Ecosystem::Maven, "a/b", "1"), &none, "pkg:maven/a%2Fb@1"),
            (&package(Ecosystem::Composer, "Laravel/x", "v5"), &none, "pkg:composer/laravel/x@v5"),
            (&package(Ecosystem::Gem, "RedCloth", "4"), &none, "pkg:gem/RedCloth@4"),
            (&package(Ecosystem::Cargo, "serde", ""), &none, "pkg:cargo/serde"),
            (&package(Ecosystem::Apk, "a?b#c d", "1:2"), &none, "pkg:apk/alpine/a%3Fb%23c%20d@1:2"),
        ];
        for (package, release, expected) in cases {
            assert_eq!(package.purl(release), expected);
        }
    }
}
