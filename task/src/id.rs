//! Ids of what has no content that could name it: containers, networks, builds, volumes.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// The digits of an id that stand for all of it, as in a host name.
const SHORT: usize = 12;

/// 256 random bits as 64 hexadecimal digits.
///
/// A letter is among the first twelve: they are the host name of a container, and programs take a
/// host name of digits alone for an IPv4 address.
///
/// ```
/// assert_eq!(task::random_id().len(), 64);
/// ```
///
/// # Panics
/// The kernel gives no random bytes. No supported kernel lacks them, and an id that can be guessed
/// would be worse than stopping.
pub fn random_id() -> String {
    id_from(|bytes| {
        let mut filled = 0;
        while filled < bytes.len() {
            match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no random bytes: {error}"),
            }
        }
    })
}

fn id_from(mut fill: impl FnMut(&mut [u8; 32])) -> String {
    loop {
        let mut bytes = [0; 32];
        fill(&mut bytes);
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if id[..SHORT].contains(|digit: char| digit.is_ascii_alphabetic()) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_of_an_id_is_never_a_number() {
        let mut random = [0x12, 0x9f].into_iter();
        let id = id_from(|bytes| bytes.fill(random.next().expect("a second number")));
        assert_eq!(id, "9f".repeat(32));
        assert_ne!(random_id(), random_id());
    }
}
