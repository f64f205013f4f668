//! Hints for unknown flags: the flag of ours that does the job of another program's flag, or the flag
//! with nearly the same spelling.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags of docker, podman, buildah, kaniko, skopeo, crane, regctl, oras and cosign that are spelled
/// another way here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("--all-tags", "push each name by itself; `rcopy copy --all-tags` copies a repository"),
    ("--allow-nondistributable-artifacts", "foreign layers are copied where the source holds them"),
    ("--attest", "--sbom and --provenance"),
    ("--builder", "there is one builder, and it needs no daemon"),
    ("--bundle", "--output type=oci"),
    ("--cache", "--cache-from and --cache-to"),
    ("--cache-dir", "--cache-from type=local,src=DIR and --cache-to type=local,dest=DIR"),
    ("--cache-repo", "--cache-to type=registry,ref=NAME and --cache-from type=registry,ref=NAME"),
    ("--cache_path", "layers in the store are not fetched again: `rbuild pull`"),
    ("--cert-path", "--cert-dir DIR"),
    ("--certificate", "the certificate is read from the signature"),
    ("--check-claims", "the signed digest is always compared with the image"),
    ("--cleanup", "the machine's files are never changed by a build"),
    ("--concurrency", "`rcopy copy --jobs NUMBER`"),
    ("--context", "name the context without a flag"),
    ("--customPlatform", "--platform OS/ARCH"),
    ("--decryption-key", "layers are not decrypted; decrypt the image with skopeo"),
    ("--depth", "everything that is attached is shown"),
    ("--descriptor", "`rcopy manifest head` prints the descriptor"),
    ("--dest-insecure", "--dest-tls-verify=false"),
    ("--dest-precompute-digests", "a blob that is there already is never sent"),
    ("--destination", "-t NAME --push"),
    ("--digest-file", "--iidfile or --metadata-file"),
    ("--disable-content-trust", "policy.json decides which images are trusted"),
    ("--dockerfile", "-f FILE"),
    ("--encrypt-layer", "layers are not encrypted; encrypt the image with skopeo"),
    ("--encryption-key", "layers are not encrypted; encrypt the image with skopeo"),
    ("--export-cache", "--cache-to"),
    ("--fast", "blobs and manifests that are there already are never sent again"),
    ("--force-recursive", "blobs and manifests that are there already are never sent again"),
    ("--from-oci-layout", "name the layout as oci:PATH"),
    ("--frontend", "the Dockerfile frontend is built in"),
    ("--gpus", "--device"),
    ("--human", "sizes and ages are for people; --format json has numbers"),
    ("--image", "name the image without a flag"),
    ("--image-parallel-copies", "--jobs"),
    ("--import-cache", "--cache-from"),
    ("--include-external", "foreign layers are copied where the source holds them"),
    ("--insecure", "--tls-verify=false"),
    ("--insecure-ignore-tlog", "a signature by key needs no log entry"),
    ("--insecure-registry", "--tls-verify=false"),
    ("--jobs-per-image", "--jobs"),
    ("--kaniko-dir", "--root DIR"),
    ("--link", "--network"),
    (
        "--load",
        "what is built is in the store; -o type=docker,dest=- gives `docker load` an archive",
    ),
    ("--local", "name the context without a flag; --build-context names others"),
    ("--log-driver", "`rbuild logs` reads what a container wrote"),
    ("--multi-image-archive", "name several images: an archive takes all of them"),
    ("--no-push", "nothing is pushed without --push"),
    ("--no-push-cache", "nothing is pushed without --cache-to"),
    ("--oci-layout", "name the layout as oci:PATH"),
    ("--oci-layout-path", "-o type=oci,dest=DIR,tar=false"),
    ("--offline", "signatures by key and bundles are verified without a network"),
    ("--opt", "--build-arg NAME=VALUE, --target STAGE, --platform OS/ARCH"),
    ("--plain-http", "--tls-verify=false"),
    ("--pod", "there are no pods; share namespaces by --network"),
    ("--pretty", "`rcopy manifest NAME | jq .`"),
    ("--publish", "-p in `rbuild run`; a build publishes no ports"),
    ("--push-retry", "--retry TIMES"),
    ("--recursive", "--all copies every platform, --referrers what is attached"),
    ("--registry-certificate", "--cert-dir DIR"),
    ("--registry-config", "--authfile FILE"),
    ("--reproducible", "--timestamp 0"),
    ("--single-snapshot", "--squash=new"),
    ("--sk", "--key with the URI of a key service or of PKCS#11"),
    ("--skip-tls-verify", "--tls-verify=false"),
    ("--snapshot-mode", "changes are found by an overlay, whatever their size and time"),
    ("--src-insecure", "--src-tls-verify=false"),
    ("--stream", "output is shown as it comes"),
    ("--tarPath", "-o type=docker,dest=FILE"),
    ("--tlog-upload", "a signature by key is never logged"),
    ("--to-oci-layout", "name the layout as oci:PATH"),
    ("--tree", "`rcopy tree` shows what is attached, `rbuild history` the steps"),
    ("--uncompressed", "layers of a docker-archive are not compressed"),
    ("--upload", "a signature is always stored with the image; `sign-blob` writes a file"),
    ("--use-new-run", "each step is an overlay: nothing is scanned"),
    ("--username-stdin", "--password-stdin"),
    ("--yes", "there are no questions"),
];

/// Adds a hint to the error about an unknown flag. The guess of the parser stays only if its spelling
/// is near.
pub(crate) fn translated(mut error: clap::Error) -> clap::Error {
    let flag = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => flag,
        _ => return error,
    };
    let name = flag.split(['=', ' ']).next().unwrap_or_default().to_owned();
    // A flag that is unknown is not meant as a value.
    error.remove(ContextKind::Suggested);
    if let Some((_, here)) = ELSEWHERE.iter().find(|(known, _)| *known == name) {
        error.remove(ContextKind::SuggestedArg);
        let hint = StyledStr::from(format!("here: {here}"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    } else if let Some(ContextValue::String(found)) = error.get(ContextKind::SuggestedArg)
        && !near(&name, found)
    {
        error.remove(ContextKind::SuggestedArg);
        // It shows the guess, too.
        error.remove(ContextKind::Usage);
    }
    error
}

/// Whether a user who wrote `name` may have meant `found`: a misspelling, or a longer or shorter form.
fn near(name: &str, found: &str) -> bool {
    let (name, found) = (name.trim_start_matches('-'), found.trim_start_matches('-'));
    let begins = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.starts_with('-'))
    };
    begins(name, found) || begins(found, name) || dockerfile::closest(name, [found]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_other_programs_are_in_order_and_each_once() {
        let names: Vec<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn a_guess_is_near_what_was_written() {
        for (name, found, meant) in [
            ("--ntework", "--network", true),
            ("--tls", "--tls-verify", true),
            ("--security-optx", "--security-opt", true),
            ("--no-push", "--cpus", false),
            ("--snapshot-mode", "--ssh", false),
            ("--frontend", "--root", false),
            ("--tlog-upload", "--log", false),
        ] {
            assert_eq!(near(name, found), meant, "{name} {found}");
        }
    }
}
