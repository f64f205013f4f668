//! Sparse files in the forms of GNU tar.

use super::*;

fn sparse(records: &[(&str, &[u8])], contents: &str) -> [Entry; 2] {
    let records: Vec<(String, &[u8])> =
        records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), *value)).collect();
    let records: Vec<(&str, &[u8])> =
        records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    [pax(&records), file("a", contents)]
}

#[test]
fn sparse_files() {
    check(|_| {
        let gnu = |name: &str, map: &[&str], size: &str, contents: &str| {
            let mut old = Entry { flag: b'S', magic: *b"ustar  \0", ..file(name, contents) };
            for (index, number) in map.iter().enumerate() {
                old = old.patch(386 + 12 * index, format!("{number:0>11}\0").as_bytes());
            }
            old.patch(483, format!("{size:0>11}\0").as_bytes())
        };
        let leading = |map: &str, real: &str| {
            let mut contents = map.as_bytes().to_vec();
            contents.resize(512, 0);
            contents.extend_from_slice(b"abc");
            let head = [
                ("GNU.sparse.major", &b"1"[..]),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", real.as_bytes()),
            ];
            [pax(&head), Entry { contents, ..file("a", "") }]
        };
        let hole = || Holds(&[("a", "\0\0abc\0")]);
        vec![
            case("0.1", &sparse(&[("map", b"2,3"), ("size", b"6")], "abc"), hole()),
            case(
                "0.0",
                &sparse(
                    &[("size", b"6"), ("numblocks", b"1"), ("offset", b"2"), ("numbytes", b"3")],
                    "abc",
                ),
                hole(),
            ),
            case("1.0", &leading("1\n2\n3\n", "6"), hole()),
            case("old", &[gnu("a", &["2", "3"], "6", "abc")], hole()),
            case(
                "old, without GNU's magic",
                &[Entry { magic: *b"ustar\x0000", ..gnu("a", &["2", "3"], "6", "abc") }],
                Refused("no GNU header"),
            ),
            case(
                "out of order",
                &sparse(&[("map", b"4,1,0,2"), ("size", b"6")], "abc"),
                Refused("out of order"),
            ),
            case(
                "overlapping",
                &sparse(&[("map", b"0,2,1,1"), ("size", b"6")], "abc"),
                Refused("out of order"),
            ),
            case(
                "overflowing",
                &sparse(&[("map", b"18446744073709551615,2"), ("size", b"6")], "abc"),
                Refused("overflows"),
            ),
            case(
                "beyond the size",
                &sparse(&[("map", b"5,3"), ("size", b"6")], "abc"),
                Refused("longer than the file"),
            ),
            case(
                "less than is stored",
                &sparse(&[("map", b"2,1"), ("size", b"6")], "abc"),
                Refused("does not cover"),
            ),
            case(
                "more than is stored",
                &sparse(&[("map", b"1,4"), ("size", b"6")], "abc"),
                Refused("does not cover"),
            ),
            case(
                "half a piece",
                &sparse(&[("map", b"2,3,4"), ("size", b"6")], "abc"),
                Refused("malformed value"),
            ),
            case("no size", &sparse(&[("map", b"2,3")], "abc"), Refused("no size")),
            case(
                "two sizes",
                &sparse(&[("map", b"2,3"), ("size", b"6"), ("realsize", b"7")], "abc"),
                Refused("two sizes"),
            ),
            case(
                "unknown version",
                &sparse(&[("major", b"2"), ("minor", b"0"), ("size", b"6")], "abc"),
                Refused("unknown format"),
            ),
            case(
                "a map that is not a list",
                &sparse(&[("map", b"2;3"), ("size", b"6")], "abc"),
                Refused("malformed value"),
            ),
            case(
                "9 EB",
                &sparse(&[("map", b"2,3"), ("size", b"9223372036854775807")], "abc"),
                Refused("bytes in one file"),
            ),
            case(
                "a leading map without end",
                &leading("1\n2\n3", "6"),
                Refused("map is cut short"),
            ),
            case(
                "a leading map of too many",
                &leading("99999999\n", "6"),
                Refused("pieces in a sparse file"),
            ),
            case(
                "a leading map of a bad number",
                &leading("1\n-2\n3\n", "6"),
                Refused("map is malformed"),
            ),
            case(
                "a leading map cut short",
                &[
                    pax(&[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.size", b"6"),
                    ]),
                    file("a", "1\n"),
                ],
                Refused("map is cut short"),
            ),
            case(
                "a sparse directory",
                &[pax(&[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", b"0")]), dir("d")],
                Refused("not a plain file is sparse"),
            ),
        ]
    });
}
