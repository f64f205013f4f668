//! How the large hosted registries differ from the specification, as data.
//!
//! A row changes what is tried first and the hint of a failure. Whatever works with any registry
//! (redirects, fallbacks, other forms of upload) needs no row.

/// How one kind of registry differs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quirk {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Its registries: a host, or `*.domain`; `*` within a label matches any text.
    pub(crate) hosts: &'static [&'static str],
    /// The API's host, where it is not the registry's name.
    pub(crate) api: Option<&'static str>,
    /// How large blobs are uploaded.
    pub(crate) parts: Parts,
    /// Whether it has a list of its repositories.
    pub(crate) catalog: bool,
    /// How one logs in there.
    pub(crate) login: Option<&'static str>,
    /// What a refused push most likely means.
    pub(crate) push: Option<&'static str>,
}

/// Whether a large blob may come in several parts, which makes an upload resumable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// In parts of any size, as the specification has it.
    Any,
    /// In parts of at least and at most so many bytes, the last excepted.
    Sized(u64, u64),
    /// In one request only.
    None,
}

const PLAIN: Quirk = Quirk {
    name: "",
    hosts: &[],
    api: None,
    parts: Parts::Any,
    catalog: true,
    login: None,
    push: None,
};

/// The registries that differ.
pub(crate) const TABLE: &[Quirk] = &[
    Quirk {
        name: "Docker Hub",
        hosts: &["docker.io", "registry-1.docker.io", "index.docker.io"],
        api: Some("registry-1.docker.io"),
        catalog: false,
        push: Some("push to docker.io/YOUR-NAME/REPOSITORY; library/ is Docker's own"),
        ..PLAIN
    },
    Quirk {
        name: "GitHub Container Registry",
        hosts: &["ghcr.io", "docker.pkg.github.com"],
        parts: Parts::None,
        catalog: false,
        login: Some(
            "log in with your GitHub name and a token that has the scope write:packages or read:packages",
        ),
        ..PLAIN
    },
    Quirk {
        name: "Amazon ECR",
        hosts: &[
            "*.dkr.ecr.*.amazonaws.com",
            "*.dkr.ecr.*.amazonaws.com.cn",
            "*.dkr.ecr-fips.*.amazonaws.com",
        ],
        parts: Parts::Sized(5 << 20, 20 << 20),
        login: Some(
            "log in as AWS with the password that `aws ecr get-login-password` prints, or use the helper docker-credential-ecr-login",
        ),
        push: Some("Amazon ECR wants repositories to be made first: `aws ecr create-repository`"),
        ..PLAIN
    },
    Quirk {
        name: "Amazon ECR Public",
        hosts: &["public.ecr.aws"],
        parts: Parts::Sized(5 << 20, 20 << 20),
        catalog: false,
        login: Some(
            "log in as AWS with the password that `aws ecr-public get-login-password` prints for the region us-east-1",
        ),
        ..PLAIN
    },
    Quirk {
        name: "Google Artifact Registry",
        hosts: &["*-docker.pkg.dev"],
        parts: Parts::None,
        catalog: false,
        login: Some(
            "log in as oauth2accesstoken with the password that `gcloud auth print-access-token` prints, or use the helper docker-credential-gcloud",
        ),
        push: Some(
            "Google Artifact Registry wants repositories to be made first: `gcloud artifacts repositories create`",
        ),
        ..PLAIN
    },
    Quirk {
        name: "Google Container Registry",
        hosts: &["gcr.io", "*.gcr.io"],
        parts: Parts::None,
        login: Some(
            "log in as oauth2accesstoken with the password that `gcloud auth print-access-token` prints, or use the helper docker-credential-gcloud",
        ),
        ..PLAIN
    },
    Quirk {
        name: "Azure Container Registry",
        hosts: &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"],
        parts: Parts::Sized(1 << 20, 20 << 20),
        login: Some(
            "log in as 00000000-0000-0000-0000-000000000000 with the token that `az acr login` exposes",
        ),
        ..PLAIN
    },
    Quirk {
        name: "Quay",
        hosts: &["quay.io"],
        catalog: false,
        login: Some(
            "log in as a robot account, or with an encrypted password from the account's settings",
        ),
        ..PLAIN
    },
    Quirk {
        name: "GitLab",
        hosts: &["registry.gitlab.com"],
        catalog: false,
        login: Some("log in with a token that has the scope read_registry or write_registry"),
        ..PLAIN
    },
    Quirk {
        name: "Artifactory",
        hosts: &["*.jfrog.io"],
        parts: Parts::None,
        login: Some("log in with an identity token or API key as the password"),
        ..PLAIN
    },
    Quirk {
        name: "Harbor",
        hosts: &["demo.goharbor.io", "harbor.*"],
        login: Some(
            "log in as a robot account (robot$NAME) or with the CLI secret from the user's profile",
        ),
        push: Some("Harbor wants the project to be made first"),
        ..PLAIN
    },
    Quirk {
        name: "Red Hat registry",
        hosts: &["registry.redhat.io"],
        catalog: false,
        login: Some(
            "log in with a registry service account from https://access.redhat.com/terms-based-registry",
        ),
        ..PLAIN
    },
    Quirk {
        name: "NVIDIA NGC",
        hosts: &["nvcr.io"],
        catalog: false,
        login: Some("log in as $oauthtoken with an NGC API key as the password"),
        ..PLAIN
    },
];

/// The row of a registry.
pub(crate) fn of(registry: &str) -> &'static Quirk {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.to_ascii_lowercase();
    let fits = |quirk: &&Quirk| quirk.hosts.iter().any(|pattern| is(pattern, &host));
    TABLE.iter().find(fits).unwrap_or(&PLAIN)
}

/// Whether a host fits a pattern; a star is not the whole of a domain.
fn is(pattern: &str, host: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == host };
    let Some(mut left) = host.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        // A star stands for one character at least.
        let Some(after) = left.char_indices().nth(1).map(|(at, _)| at) else {
            return part.is_empty() && !left.is_empty();
        };
        if parts.peek().is_none() {
            return left[after..].ends_with(part);
        }
        match left[after..].find(part) {
            Some(at) => left = &left[after + at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_hosts() {
        let known = [
            ("docker.io", "Docker Hub"),
            ("ghcr.io", "GitHub Container Registry"),
            ("ghcr.io:443", "GitHub Container Registry"),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "Amazon ECR"),
            ("public.ecr.aws", "Amazon ECR Public"),
            ("europe-west1-docker.pkg.dev", "Google Artifact Registry"),
            ("eu.gcr.io", "Google Container Registry"),
            ("Team.azurecr.io", "Azure Container Registry"),
            ("quay.io", "Quay"),
            ("registry.gitlab.com", "GitLab"),
            ("team.jfrog.io", "Artifactory"),
            ("harbor.team.example", "Harbor"),
            ("registry.redhat.io", "Red Hat registry"),
            ("nvcr.io", "NVIDIA NGC"),
            ("r.example", ""),
            ("ghcr.io.example", ""),
            ("evil-ghcr.io", ""),
            (".azurecr.io", ""),
            ("localhost:5000", ""),
            ("[::1]:5000", ""),
        ];
        for (registry, name) in known {
            assert_eq!(of(registry).name, name, "{registry}");
        }
        for quirk in TABLE {
            assert!(known.iter().any(|(_, name)| *name == quirk.name), "{}", quirk.name);
        }
    }
}
