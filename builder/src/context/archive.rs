//! Telling archives from other files, by what is in them.

use std::fs::File;
use std::io::Read;

/// Whether a file's beginning is that of a tar archive, or of something compressed. As much as a
/// pipe can be asked for before it is known what comes through it.
pub(crate) fn begins_archive(head: &[u8]) -> bool {
    layers::sniff(head).is_some() || head.first_chunk().is_some_and(layers::is_tar_header)
}

/// Whether this is a tar archive, compressed or not: its first header is sound.
pub(crate) fn holds(file: File) -> bool {
    let Ok(mut reader) = layers::decompress(file) else { return false };
    let mut header = [0u8; 512];
    let mut filled = 0;
    while filled < header.len() {
        match reader.read(&mut header[filled..]) {
            Ok(0) | Err(_) => return false,
            Ok(n) => filled += n,
        }
    }
    layers::is_tar_header(&header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut header = tar::Header::new_ustar();
        header.set_path("f").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert!(begins_archive(header.as_bytes()));
        for head in [&b"\x1f\x8b\x08"[..], b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"] {
            let mut long = head.to_vec();
            long.resize(600, 0);
            assert!(begins_archive(&long), "{head:?}");
        }
        for head in [&b"FROM scratch\n"[..], b"", b"# syntax=x\n", &[b'a'; 600]] {
            assert!(!begins_archive(head), "{head:?}");
        }
    }
}
