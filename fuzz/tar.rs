//! Archives that a fuzzer can shape: headers are sound, what they say is its choice.

/// The header of one entry; names that are too long are cut.
pub fn header(path: &[u8], kind: u8, link: &[u8], size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, most: usize, text: &[u8]| {
        let text = &text[..text.len().min(most)];
        header[at..at + text.len()].copy_from_slice(text);
    };
    put(0, 100, path);
    put(100, 8, b"0000755\0");
    put(108, 8, b"0000000\0");
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{size:011o}\0").as_bytes());
    put(136, 12, b"00000000000\0");
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// The bytes as they are, or, after a 1, as a list of entries: kind, then name, link and content,
/// each behind its length.
#[allow(dead_code)]
pub fn layer(bytes: &[u8]) -> Vec<u8> {
    let Some((1, mut rest)) = bytes.split_first() else { return bytes.to_vec() };
    let mut archive = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        let mut field = || {
            let (length, after) = rest.split_first().unwrap_or((&0, &[]));
            let (field, after) = after.split_at(usize::from(*length).min(after.len()));
            rest = after;
            field
        };
        let (path, link, content) = (field(), field(), field());
        archive.extend_from_slice(&header(path, *kind, link, content.len()));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
