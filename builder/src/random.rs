//! Names that nothing else has.

use crate::{Error, Result};

/// 256 random bits as 64 hexadecimal digits: an id.
///
/// # Errors
/// [`Error::File`]: the kernel gives no random numbers.
pub fn random_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::file("reading", "/dev/urandom")(errno.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
