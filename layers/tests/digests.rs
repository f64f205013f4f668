//! Layers are stable: the same content gives the same digest on every machine, with any number of
//! threads, today and tomorrow. If a new version of a codec changes one of these digests, the
//! change log says so.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::Write;

use image::{Digest, Encoding};
use layers::{Compression, LayerWriter, write_chunked};

/// 3.5 MB of numbers as text, then 1.2 MB that do not compress.
fn content() -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..560_000_u32).flat_map(|n| (n / 2).to_string().into_bytes()).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..150_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn layer(content: &[u8], compression: Compression, threads: usize) -> Digest {
    let mut writer = LayerWriter::new(Vec::new(), compression, threads);
    writer.write_all(content).unwrap();
    writer.finish().unwrap().1.descriptor.digest
}

#[test]
fn layers_have_the_digests_they_always_had() {
    let content = content();
    let golden = [
        (Encoding::Plain, None, "55d1c18a929dd8c75b80d58acd537444fdabc00ab91ef5932e116d0f80361e66"),
        (Encoding::Gzip, None, "16f726e09e9ab7654eff5ebdba19587307e72c1433d054fc2b5ebb57132b9e60"),
        (
            Encoding::Gzip,
            Some(0),
            "789e13698f0d29dc788f1f142b8dc69a84f156ab5828a8dd8d9f09d064b61c21",
        ),
        (
            Encoding::Gzip,
            Some(1),
            "66ba1d4f27e54615156a3e5b2ba31db3a0ec136804411842c0595728b1b81434",
        ),
        (
            Encoding::Gzip,
            Some(6),
            "61f555a955681aa77bf8698b0f846e0da0d87beffb9c4bffb2dfb352f5617092",
        ),
        (
            Encoding::Gzip,
            Some(9),
            "abb5765bfb81f8de3ebe88afb480d23d76cdf0f3825aded05d3c7b77c0c9ce77",
        ),
        (Encoding::Zstd, None, "51d2305ea08831fe906f3d35a68985a8f86cc3d92984d8d8be446eb6998ef50b"),
        (
            Encoding::Zstd,
            Some(1),
            "fae909698d6846a8d2eddb543e9219baf79ba9f8bc528b06347e8b2dcf329206",
        ),
        (
            Encoding::Zstd,
            Some(9),
            "2e4e9f4298b8c6e4260232096394e6ad9a66921b3ca11463f26626fb4c33e2c6",
        ),
    ];
    for (encoding, level, digest) in golden {
        for threads in [1, 2, 5] {
            let made = layer(&content, Compression { encoding, level }, threads);
            assert_eq!(made.hex(), digest, "{encoding:?} {level:?}, {threads} threads");
        }
    }
}

#[test]
fn chunked_layers_have_the_digests_they_always_had() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let content = content();
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, "file", &content[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    for (level, digest) in [
        (None, "376e5dc77cb39ed0c0a7ac0fe3a3d22bc202e72d437fd2f8c7d88b6c7d593e23"),
        (Some(1), "1d5492399cc42ede3f6e1f4933a5b880e62053db16af4313595a49ffff8ddeb3"),
        (Some(9), "cf88921f8fe8f50d790c6d341202675015380ff7a569e282b212b207cebf5702"),
    ] {
        let (_, info) = write_chunked(&archive[..], Vec::new(), level).unwrap();
        assert_eq!(info.descriptor.digest.hex(), digest, "{level:?}");
    }
}
