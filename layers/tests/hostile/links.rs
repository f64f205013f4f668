//! Links of both kinds that lead out of the root.

use super::*;

#[test]
fn links_are_not_followed_out() {
    check(|canary| {
        vec![
            case(
                "write through an absolute link",
                &[symlink("l", "/out"), file("l/file", "x")],
                Holds(&[("l", "-> /out"), ("out", "dir"), ("out/file", "x")]),
            ),
            case(
                "write through a link of dots",
                &[symlink("l", "../../out"), file("l/file", "x")],
                Holds(&[("l", "-> ../../out"), ("out", "dir"), ("out/file", "x")]),
            ),
            case(
                "write through a chain of links",
                &[
                    dir("d"),
                    symlink("a", "b"),
                    symlink("b", "c/../.."),
                    symlink("c", "d"),
                    file("a/e/f", "x"),
                ],
                Holds(&[
                    ("a", "-> b"),
                    ("b", "-> c/../.."),
                    ("c", "-> d"),
                    ("d", "dir"),
                    ("e", "dir"),
                    ("e/f", "x"),
                ]),
            ),
            case(
                "a link to itself",
                &[symlink("a", "a"), file("a/b", "x")],
                Refused("opening directory a"),
            ),
            case(
                "overwrite a link's target",
                &[file("t", "safe"), symlink("l", "t"), file("l", "x")],
                Holds(&[("t", "safe"), ("l", "x")]),
            ),
            case(
                "a directory in place of a link",
                &[symlink("l", canary), dir("l").mode(0o777), file("l/file", "x")],
                Holds(&[("l", "dir"), ("l/file", "x")]),
            ),
            case(
                "a directory in place of a relative link",
                &[symlink("l", "../canary"), dir("l/").mode(0o777)],
                Holds(&[("l", "dir")]),
            ),
            case(
                "a held directory becomes a link",
                &[dir("d"), file("d/a", "1"), symlink("d", canary), dir("d"), file("d/file", "x")],
                Holds(&[("d", "dir"), ("d/file", "x")]),
            ),
            case(
                "a link changes its target",
                &[
                    dir("a"),
                    dir("b"),
                    symlink("l", "a"),
                    file("l/1", ""),
                    symlink("l", "b"),
                    file("l/2", ""),
                ],
                Holds(&[("a", "dir"), ("a/1", ""), ("b", "dir"), ("b/2", ""), ("l", "-> b")]),
            ),
            case(
                "attributes of a link",
                &[pax(&[("SCHILY.xattr.user.x", b"1"), ("mtime", b"5")]), symlink("l", canary)],
                Holds(&[("l", "-> ")]),
            )
            .outcome_link(canary),
            case("a link without target", &[symlink("l", "")], Refused("a link has no target")),
            case(
                "a link with a size",
                &[Entry { contents: vec![0; 512], ..symlink("l", "x") }],
                Refused("has a size"),
            ),
            case(
                "/proc is only a name",
                &[symlink("l", "/proc/self/cwd"), file("l/file", "x")],
                Holds(&[
                    ("l", "-> /proc/self/cwd"),
                    ("proc", "dir"),
                    ("proc/self", "dir"),
                    ("proc/self/cwd", "dir"),
                    ("proc/self/cwd/file", "x"),
                ]),
            ),
        ]
    });
}

#[test]
fn hard_links_stay_inside() {
    check(|canary| {
        let outside = format!("{canary}/file");
        vec![
            case(
                "dots",
                &[hardlink("l", "../canary/file")],
                Refused("the target of a hard link has a `..`"),
            ),
            case(
                "dots inside",
                &[dir("a"), file("b", ""), hardlink("l", "a/../b")],
                Refused("`..`"),
            ),
            case("absolute", &[hardlink("l", &outside)], Refused("not in this layer")),
            case(
                "dots in PAX",
                &[pax(&[("linkpath", b"../canary/file")]), hardlink("l", "x")],
                Refused("`..`"),
            ),
            case(
                "through a link of dots",
                &[symlink("d", "../canary"), hardlink("l", "d/file")],
                Refused("linking l to d/file, which is not in this layer"),
            ),
            case(
                "through an absolute link",
                &[symlink("d", canary), hardlink("l", "d/file")],
                Refused("not in this layer"),
            ),
            case(
                "to a link, then written",
                &[symlink("s", &outside), hardlink("l", "s"), file("l", "x")],
                Holds(&[]),
            )
            .outcome_two(&outside),
            case(
                "then written",
                &[file("a", "safe"), hardlink("b", "a"), file("b", "x")],
                Holds(&[("a", "safe"), ("b", "x")]),
            ),
            case(
                "twice",
                &[file("a", "1"), hardlink("b", "a"), hardlink("b", "a")],
                Holds(&[("a", "1"), ("b", "1")]),
            ),
            case("to itself", &[file("a", "1"), hardlink("a", "a")], Holds(&[("a", "1")])),
            case("to nothing", &[hardlink("a", "a")], Refused("not in this layer")),
            case(
                "to a directory",
                &[dir("d"), hardlink("a", "d")],
                Refused("a hard link to a directory"),
            ),
            case("to the root", &[hardlink("a", "/")], Refused("linking a to")),
            case(
                "to a whiteout",
                &[file(".wh.a", ""), hardlink("b", "a")],
                Refused("not in this layer"),
            ),
            case(
                "to a whiteout's name",
                &[file(".wh.a", ""), hardlink("b", ".wh.a")],
                Refused("a hard link to a whiteout"),
            ),
            case(
                "over the directory it is in",
                &[dir("d"), file("d/f", "1"), hardlink("d", "d/f")],
                Refused("not in this layer"),
            ),
            case(
                "with a size",
                &[
                    file("a", "1"),
                    Entry { size: Some(b"00000000001".to_vec()), ..hardlink("b", "a") },
                ],
                Holds(&[("a", "1"), ("b", "1")]),
            ),
        ]
    });
}
