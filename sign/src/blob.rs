//! Signatures of files, in bundles beside them.

use task::Task;

use crate::bundle::{Bundle, MAX_BUNDLE, MadeBy};
use crate::error::Result;
use crate::mismatch::Mismatch;
use crate::sealer::Sealer;
use crate::signers::{Signer, Signers};

/// Signs the content of a file; gives back the bundle as JSON.
///
/// # Errors
/// [`crate::Error::Service`].
pub async fn sign_blob(content: &[u8], sealer: Sealer<'_>, task: &Task) -> Result<Vec<u8>> {
    #[cfg(feature = "online")]
    if let Sealer::Identity(signer) = sealer {
        return Ok(signer.sign(content, task).await?.to_json());
    }
    let (signature, public) = (sealer.sign(content).await?, sealer.public());
    let made = signature.zip(public.as_ref());
    let made = made.map(|(signature, public)| {
        Bundle::of_message(content, &signature, MadeBy::Key(public)).to_json()
    });
    Ok(made.unwrap_or_default())
}

/// Checks that a trusted signer signed the content of a file.
///
/// # Errors
/// What the bundle lacks.
pub fn verify_blob(content: &[u8], bundle: &[u8], signers: &Signers) -> Result<Signer, Mismatch> {
    let size = bundle.len() as u64;
    if size > MAX_BUNDLE {
        return Err(Mismatch::TooLarge { size, limit: MAX_BUNDLE });
    }
    signers.of_message(&Bundle::open_message(bundle, content)?, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    #[tokio::test]
    async fn a_file_is_verified_by_the_bundle_beside_it() {
        let one = key(1);
        let bundle = sign_blob(b"content", Sealer::Key(&one), &Task::silent()).await.unwrap();
        let signers = Signers::keys(vec![one.public()]);
        assert_eq!(verify_blob(b"content", &bundle, &signers), Ok(Signer::Key(one.public().id())));
        let other = verify_blob(b"other", &bundle, &signers);
        assert_eq!(other, Err(Mismatch::Content("signs another file")));
        let stranger = verify_blob(b"content", &bundle, &Signers::keys(vec![key(2).public()]));
        assert!(matches!(stranger, Err(Mismatch::Key { .. })), "{stranger:?}");
        // An image's signature is no file's.
        let image = image::Digest::of(b"content");
        let of_image = Bundle::sign(&image, None, &Default::default(), &one).unwrap().to_json();
        assert!(verify_blob(b"content", &of_image, &signers).is_err());
    }
}
