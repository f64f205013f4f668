//! Archives that two readers could take for two things: there is one reading.

use super::*;

#[test]
fn there_is_one_reading() {
    let a = || Holds(&[("a", "x")]);
    check(|_| {
        let hidden = Tar::of(&[file("hidden", "!")]).0;
        let inside = Entry { contents: hidden.clone(), ..file("a", "") };
        let both =
            [Tar::of(&[file("a", "x")]).ended(), Tar::of(&[file("b", "y")]).ended()].concat();
        let lone = [Tar::of(&[file("a", "x")]).0, vec![0; 512], hidden.clone()].concat();
        let short = Tar::of(&[file("a", "x")]).0;
        let x = |records: Vec<u8>| Entry { contents: records, ..entry(b'x', "p") };
        let l = |name: &[u8]| Entry { contents: name.to_vec(), ..entry(b'L', "long") };
        vec![
            case(
                "an archive in a file",
                std::slice::from_ref(&inside),
                Holds(&[("a", "1024 bytes")]),
            ),
            case(
                "PAX size hides an entry",
                &[pax(&[("size", b"0")]), inside.clone()],
                Holds(&[("a", ""), ("hidden", "!")]),
            ),
            case(
                "PAX size swallows an entry",
                &[pax(&[("size", b"1536")]), file("a", "x"), file("b", "y"), file("c", "z")],
                Holds(&[("a", "1536 bytes"), ("c", "z")]),
            ),
            case(
                "a size on a directory",
                &[Entry { size: Some(b"00000002000".to_vec()), ..dir("d") }, file("a", "x")],
                Holds(&[("d", "dir"), ("a", "x")]),
            ),
            case(
                "a size on a link",
                &[
                    Entry { size: Some(b"00000001000".to_vec()), ..symlink("l", "x") },
                    file("a", "x"),
                ],
                Refused("has a size"),
            ),
            case(
                "a size on a pipe",
                &[pax(&[("size", b"512")]), entry(b'6', "p"), file("a", "x")],
                Refused("has a size"),
            ),
            case(
                "a newline in a record",
                &[
                    pax(&[("SCHILY.xattr.user.n", b"1\n30 path=other\n"), ("path", b"a")]),
                    file("z", "x"),
                ],
                a(),
            ),
            case(
                "a record in a record",
                &[
                    x([record("comment", b"\n12 path=b\n"), record("path", b"a")].concat()),
                    file("z", "x"),
                ],
                a(),
            ),
            case(
                "the last record counts",
                &[pax(&[("path", b"b"), ("path", b"a")]), file("z", "x")],
                a(),
            ),
            case("no newline", &[x(b"7 path=b".to_vec()), file("a", "x")], Refused("PAX record")),
            case(
                "a record that is too long",
                &[x(b"99 path=b\n".to_vec()), file("a", "x")],
                Refused("wrong length"),
            ),
            case(
                "a record that is too short",
                &[x(b"5 path=b\n".to_vec()), file("a", "x")],
                Refused("PAX record"),
            ),
            case(
                "a signed length",
                &[x(b"+10 path=b\n".to_vec()), file("a", "x")],
                Refused("no length"),
            ),
            case(
                "NULs behind the records",
                &[x([record("path", b"b"), vec![0; 10]].concat()), file("a", "x")],
                Refused("no length"),
            ),
            case(
                "a NUL in a PAX name",
                &[pax(&[("path", b"a\0b")]), file("a", "x")],
                Refused("path has a malformed value"),
            ),
            case(
                "a NUL in a PAX link",
                &[pax(&[("linkpath", b"a\0b")]), symlink("l", "x")],
                Refused("linkpath has a malformed value"),
            ),
            case(
                "an empty PAX name",
                &[pax(&[("path", b"")]), file("a", "x")],
                Refused("path has a malformed value"),
            ),
            case("a NUL in a long name", &[l(b"a\0b\0"), file("a", "x")], Refused("a NUL in it")),
            case(
                "two long names",
                &[l(b"b\0"), l(b"a\0"), file("z", "x")],
                Refused("two extended headers"),
            ),
            case(
                "two PAX headers",
                &[pax(&[("path", b"b")]), pax(&[("path", b"a")]), file("z", "x")],
                Refused("two extended headers"),
            ),
            case(
                "PAX and GNU names differ",
                &[pax(&[("path", b"b")]), l(b"a\0"), file("z", "x")],
                Refused("two different long names"),
            ),
            case(
                "PAX and GNU names agree",
                &[pax(&[("path", b"a")]), l(b"a\0"), file("z", "x")],
                a(),
            ),
            case(
                "an extended header for nothing",
                &[file("a", "x"), pax(&[("path", b"b")])],
                Refused("not followed by an entry"),
            ),
            case(
                "a global name",
                &[Entry { flag: b'g', ..pax(&[("path", b"b")]) }, file("a", "x")],
                Refused("a global header sets path"),
            ),
            case(
                "a global size",
                &[Entry { flag: b'g', ..pax(&[("size", b"0")]) }, file("a", "x")],
                Refused("a global header sets size"),
            ),
            case(
                "a global remark",
                &[Entry { flag: b'g', ..pax(&[("comment", b"c")]) }, file("a", "x")],
                a(),
            ),
            case(
                "a global header in between",
                &[pax(&[("path", b"b")]), Entry { flag: b'g', ..pax(&[]) }, file("a", "x")],
                Refused("a global header stands between"),
            ),
            case(
                "a negative size",
                &[Entry { size: Some(vec![0xff; 12]), ..file("a", "x") }],
                Refused("the size is negative"),
            ),
            case(
                "a negative PAX size",
                &[pax(&[("size", b"-1")]), file("a", "x")],
                Refused("size has a malformed value"),
            ),
            case(
                "a size that is not a number",
                &[Entry { size: Some(b"1x".to_vec()), ..file("a", "x") }],
                Refused("the size is malformed"),
            ),
            case(
                "a size of 8 EiB",
                &[pax(&[("size", b"9223372036854775807")]), file("a", "x")],
                Refused("bytes in one file"),
            ),
            case(
                "a size beyond 64 bits",
                &[pax(&[("size", b"99999999999999999999")]), file("a", "x")],
                Refused("malformed value"),
            ),
            case(
                "a size beyond 63 bits",
                &[pax(&[("size", b"18446744073709551615")]), file("a", "x")],
                Refused("the size is too large"),
            ),
            case(
                "a time that is not a number",
                &[pax(&[("mtime", b"1e3")]), file("a", "x")],
                Refused("mtime has a malformed value"),
            ),
            case("a wrong checksum", &[], Refused("checksum"))
                .bytes([vec![b'a'], vec![0; 511]].concat()),
            case("no archive", &[], Refused("checksum")).bytes(vec![b'x'; 10240]),
            case("a header cut short", &[], Refused("ends within a block"))
                .bytes(short[..300].to_vec()),
            case("contents cut short", &[], Refused("ends within an entry"))
                .bytes(short[..512].to_vec()),
            case("padding cut short", &[], Refused("ends within an entry"))
                .bytes(short[..600].to_vec()),
            case("no end", &[], a()).bytes(short.clone()),
            case("nothing", &[], Holds(&[])).bytes(Vec::new()),
            case("two archives", &[], a()).bytes(both),
            case("a lone block of zeros", &[], Refused("one block of zeros")).bytes(lone),
            case("the same name twice", &[file("a", "1"), file("a", "x")], a()),
            case(
                "a file, then a directory",
                &[file("d", "1"), dir("d"), file("a", "x")],
                Holds(&[("d", "dir"), ("a", "x")]),
            ),
            case("a directory, then a file", &[dir("a"), file("a/b", "1"), file("a", "x")], a()),
            case("a slash behind a file's name", &[file("a/", "x")], Refused("ends in a slash")),
            case("a directory of old", &[Entry { flag: 0, ..dir("d/") }], Holds(&[("d", "dir")])),
            case(
                "a prefix without magic",
                &[Entry { magic: [0; 8], ..file("a", "x") }.patch(345, b"p")],
                Refused("without magic"),
            ),
            case(
                "a name of any bytes",
                &[file(b"\xff\n\x01", "x")],
                Holds(&[("\u{fffd}\n\u{1}", "x")]),
            ),
            case("junk behind a name's end", &[file("a", "x").patch(1, b"\0junk")], a()),
        ]
    });
}
