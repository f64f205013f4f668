//! regctl's command line.

mod arrange;
#[cfg(test)]
mod lines;

use self::arrange::{
    artifact_put, attached, blob, copy, delete, hosts, index_create, members, modify, name_here,
    one, plain, registry,
};
use super::Flag::{
    Anyway, AnywayValue, GlobalValue, Own, OwnValue, Platform, Refused, Value, Words,
};
use super::{FlagRow, Language, Verb, as_it_is};

/// What a template would print.
const FORMAT: FlagRow = (&["--format"], OwnValue);
const PLATFORM: FlagRow = (&["-p", "--platform"], Platform("--platform"));
const COPY_WORD: &[&str] = &["copy", "cp"];
const DELETE_WORD: &[&str] = &["delete", "del", "rm", "remove"];
const LS_WORD: &[&str] = &["ls", "list"];
const HEAD_WORD: &[&str] = &["head", "digest"];
const PUT_WORD: &[&str] = &["put", "push"];
const GET_WORD: &[&str] = &["get", "pull"];
const CREATE_WORD: &[&str] = &["create", "init", "new", "put"];

const DIGEST_FLAGS: &[FlagRow] = &[
    FORMAT,
    PLATFORM,
    (&["--require-digest"], Anyway),
    (&["--require-list"], Refused("`rcopy index list` fails if the image is no index")),
];
const GET_FLAGS: &[FlagRow] = &[
    FORMAT,
    PLATFORM,
    (&["--require-list"], Refused("`rcopy index list` fails if the image is no index")),
];
const DELETE_FLAGS: &[FlagRow] = &[
    (&["--force-tag-dereference"], Own),
    (&["--ignore-missing"], Refused("`rcopy digest` ends with 2 if the image does not exist")),
    (&["--referrers"], Anyway),
];

pub(super) const REGCTL: Language = Language {
    name: "regctl",
    verbs: VERBS,
    flags: &[
        (&["-v", "--verbosity"], GlobalValue("--log")),
        (&["--logopt"], AnywayValue),
        (&["--host"], OwnValue),
        (&["--user-agent"], Refused("`rcopy --user-agent-prefix TEXT` puts a text in front")),
    ],
    refused: &[
        ("image create", "`rcopy append` makes an image of layers; `rcopy mutate` sets its config"),
        ("manifest diff", "`rcopy diff` compares configs and files of two images"),
        ("blob diff-config", "`rcopy diff` compares configs and files of two images"),
        ("blob diff-layer", "`rcopy diff` compares configs and files of two images"),
        ("blob get-file", "`rcopy get-file IMAGE PATH` reads a file of an image"),
        ("registry config", "registries are configured in registries.conf"),
        ("registry set", "registries are configured in registries.conf; logins by `rcopy login`"),
        ("config", "there are no defaults to set"),
        ("completion", "`rcopy completion SHELL`"),
    ],
    name_here,
};

const VERBS: &[Verb] = &[
    Verb {
        words: &[&["image"], COPY_WORD],
        here: &["copy"],
        flags: &[
            (&["-p", "--platform"], OwnValue),
            (&["--referrers"], Own),
            (&["--digest-tags"], Own),
            (&["--fast", "--force-recursive"], Anyway),
            FORMAT,
            (&["--include-external"], Refused("foreign layers are copied if the source has them")),
            (&["--referrers-src", "--referrers-tgt"], Refused("referrers are beside their image")),
        ],
        arrange: copy,
    },
    Verb {
        words: &[&["repo"], COPY_WORD],
        here: &["copy", "--all", "--all-tags"],
        flags: &[
            (&["--concurrent"], AnywayValue),
            (&["--new-tags"], Words(&["--no-clobber"])),
            (&["--referrers"], Own),
            (&["--include"], Refused("`rcopy sync --tag-regex PATTERN` copies some tags")),
            (&["--exclude"], Refused("`rcopy sync --tag-regex PATTERN` copies some tags")),
        ],
        arrange: |line| {
            line.words(2, 2)?;
            attached(line)?;
            hosts(line)
        },
    },
    Verb {
        words: &[&["image"], &["digest"]],
        here: &["digest"],
        flags: DIGEST_FLAGS,
        arrange: one,
    },
    Verb {
        words: &[&["manifest"], HEAD_WORD],
        here: &["digest"],
        flags: DIGEST_FLAGS,
        arrange: one,
    },
    Verb {
        words: &[&["image"], &["manifest"]],
        here: &["manifest", "get"],
        flags: GET_FLAGS,
        arrange: one,
    },
    Verb {
        words: &[&["manifest"], GET_WORD],
        here: &["manifest", "get"],
        flags: GET_FLAGS,
        arrange: one,
    },
    Verb {
        words: &[&["image"], &["inspect", "config"]],
        here: &["config"],
        flags: &[FORMAT, PLATFORM],
        arrange: one,
    },
    Verb {
        words: &[&["manifest"], PUT_WORD],
        here: &["manifest", "put"],
        flags: &[
            (&["-t", "--content-type"], Value("--media-type")),
            (&["--by-digest"], Refused("name the digest: REPOSITORY@DIGEST")),
            FORMAT,
        ],
        arrange: |line| {
            line.words(1, 1)?;
            line.words.push("-".to_owned());
            plain(line)
        },
    },
    Verb {
        words: &[&["image"], DELETE_WORD],
        here: &["delete", "--yes"],
        flags: DELETE_FLAGS,
        arrange: delete,
    },
    Verb {
        words: &[&["manifest"], DELETE_WORD],
        here: &["delete", "--yes"],
        flags: DELETE_FLAGS,
        arrange: delete,
    },
    Verb {
        words: &[&["tag"], DELETE_WORD],
        here: &["delete", "--yes", "--tag-only"],
        flags: &[(
            &["--ignore-missing"],
            Refused("`rcopy digest` ends with 2 if the tag does not exist"),
        )],
        arrange: one,
    },
    Verb {
        words: &[&["tag"], LS_WORD],
        here: &["list-tags", "--plain"],
        flags: &[
            FORMAT,
            (&["--include"], OwnValue),
            (&["--exclude"], OwnValue),
            (&["--last", "--limit"], Refused("all tags are listed; `head` takes the first ones")),
        ],
        arrange: |line| {
            // Their patterns are for the whole tag.
            for flag in ["--include", "--exclude"] {
                let patterns: Vec<_> = line.all(flag).map(|p| format!("^(?:{p})$")).collect();
                patterns.into_iter().for_each(|pattern| line.push(flag, pattern));
            }
            one(line)
        },
    },
    Verb {
        words: &[&["repo"], LS_WORD],
        here: &["catalog"],
        flags: &[
            FORMAT,
            (&["--last", "--limit"], Refused("all are listed; `head` takes the first ones")),
        ],
        arrange: one,
    },
    Verb {
        words: &[&["image"], &["export"]],
        here: &["pull"],
        flags: &[
            PLATFORM,
            (&["--compress"], Refused("compress the file afterwards")),
            (&["--name"], Refused("`rcopy copy docker://… docker-archive:FILE:NAME`")),
        ],
        arrange: |line| match line.words.len() {
            1 => Err("an archive is written to a file: name it".to_owned()),
            _ => line.words(2, 2).and_then(|()| plain(line)),
        },
    },
    Verb {
        words: &[&["image"], &["import"]],
        here: &["push"],
        flags: &[(&["--name"], Refused("`rcopy copy docker-archive:FILE:NAME docker://…`"))],
        arrange: |line| {
            line.words(2, 2)?;
            line.words.swap(0, 1);
            plain(line)
        },
    },
    Verb {
        words: &[&["image"], &["get-file", "cat"]],
        here: &["get-file"],
        flags: &[FORMAT, PLATFORM],
        arrange: |line| line.words(2, 3).and_then(|()| plain(line)),
    },
    Verb {
        words: &[&["image"], &["check-base"]],
        here: &["check-base"],
        flags: &[
            PLATFORM,
            (&["--base"], Value("--base")),
            (&["--digest"], Value("--digest")),
            (&["--quiet"], Words(&["--quiet"])),
            (&["--no-config"], Refused("layers are compared if no digest is known")),
        ],
        arrange: one,
    },
    Verb {
        words: &[&["image"], &["ratelimit", "rate-limit"]],
        here: &["ratelimit"],
        flags: &[FORMAT],
        arrange: one,
    },
    Verb { words: &[&["image"], &["mod"]], here: &["mutate"], flags: MOD_FLAGS, arrange: modify },
    Verb { words: &[&["blob"], GET_WORD], here: &["blob", "get"], flags: &[FORMAT], arrange: blob },
    Verb {
        words: &[&["blob"], HEAD_WORD],
        here: &["blob", "head"],
        flags: &[FORMAT],
        arrange: blob,
    },
    Verb {
        words: &[&["blob"], &["delete", "del", "rm"]],
        here: &["blob", "delete"],
        flags: &[],
        arrange: blob,
    },
    Verb {
        words: &[&["blob"], PUT_WORD],
        here: &["blob", "put"],
        flags: &[FORMAT, (&["--digest"], Value("--digest"))],
        arrange: |line| {
            line.words(1, 1)?;
            line.words.push("-".to_owned());
            plain(line)
        },
    },
    Verb {
        words: &[&["blob"], COPY_WORD],
        here: &["blob", "copy"],
        flags: &[],
        arrange: |line| {
            line.words(3, 3)?;
            line.pin(0, 2);
            plain(line)
        },
    },
    Verb {
        words: &[&["index"], CREATE_WORD],
        here: &["index", "append"],
        flags: &[
            FORMAT,
            (&["--ref"], OwnValue),
            (&["--digest"], OwnValue),
            (&["--platform"], OwnValue),
            (&["-m", "--media-type"], OwnValue),
            (&["--referrers", "--digest-tags"], Anyway),
            (&["--by-digest"], Refused("give the index a tag")),
            (&["--annotation", "--desc-annotation"], Refused("an index gets no annotations here")),
            (
                &["--artifact-type", "--subject", "--desc-platform"],
                Refused("write the index with `rcopy manifest put`"),
            ),
        ],
        arrange: index_create,
    },
    Verb {
        words: &[&["index"], &["add", "append", "insert"]],
        here: &["index", "append"],
        flags: &[
            (&["--ref"], OwnValue),
            (&["--digest"], OwnValue),
            (&["--referrers", "--digest-tags"], Anyway),
            (&["--platform"], Refused("`rcopy index filter` keeps some platforms")),
            (
                &["--desc-annotation", "--desc-platform"],
                Refused("entries say what their images say"),
            ),
        ],
        arrange: |line| {
            line.words(1, 1)?;
            let index = line.words[0].clone();
            members(line, &index)?;
            line.push("--tag", index);
            plain(line)
        },
    },
    Verb {
        words: &[&["index"], DELETE_WORD],
        here: &["index", "remove"],
        flags: &[(&["--digest"], Value("--digest")), (&["--platform"], Value("--platform"))],
        arrange: |line| {
            line.words(1, 1)?;
            let index = line.words[0].clone();
            line.push("--tag", index);
            plain(line)
        },
    },
    Verb {
        words: &[&["artifact"], &["put", "create", "push"]],
        here: &["artifact", "push"],
        flags: &[
            FORMAT,
            (&["--artifact-type"], Value("--artifact-type")),
            (&["--annotation"], Value("--annotation")),
            (&["--config-file"], OwnValue),
            (&["--config-type"], OwnValue),
            (&["-f", "--file"], OwnValue),
            (&["-m", "--file-media-type"], OwnValue),
            (&["--file-title", "--strip-dirs"], Anyway),
            (&["--subject"], OwnValue),
            (&["-p", "--platform"], Platform("--platform")),
            (&["--by-digest", "--index"], Refused("give the artifact a tag")),
            (&["--external"], Refused("referrers are beside their image")),
        ],
        arrange: artifact_put,
    },
    Verb {
        words: &[&["artifact"], GET_WORD],
        here: &["artifact", "pull"],
        flags: &[
            (&["-o", "--output"], Value("--output")),
            (&["--strip-dirs"], Anyway),
            (&["--config", "--config-file"], Refused("`rcopy config NAME` prints the config")),
            (&["-f", "--file", "-m", "--file-media-type"], Refused("all files are fetched")),
            (
                &[
                    "--subject",
                    "--latest",
                    "--filter-artifact-type",
                    "--filter-annotation",
                    "-p",
                    "--platform",
                    "--sort-annotation",
                    "--sort-desc",
                    "--external",
                    "--slow-referrers",
                ],
                Refused(
                    "`rcopy artifact discover SUBJECT` shows the digests; pull one by its digest",
                ),
            ),
        ],
        arrange: |line| {
            line.words(1, 1)?;
            if !line.flags.iter().any(|flag| flag == "--output") {
                line.push("--output", "-");
            }
            line.flags.push("--overwrite".to_owned());
            plain(line)
        },
    },
    Verb {
        words: &[&["artifact"], LS_WORD],
        here: &["artifact", "discover", "--format", "table"],
        flags: TREE_FLAGS,
        arrange: one,
    },
    Verb { words: &[&["artifact"], &["tree"]], here: &["tree"], flags: TREE_FLAGS, arrange: one },
    Verb {
        words: &[&["registry"], &["login"]],
        here: &["login"],
        flags: &[
            (&["-u", "--user"], Value("--username")),
            (&["-p", "--pass"], Value("--password")),
            (&["--pass-stdin"], Words(&["--password-stdin"])),
            (&["--skip-check"], Refused("a login is always checked")),
        ],
        arrange: registry,
    },
    Verb { words: &[&["registry"], &["logout"]], here: &["logout"], flags: &[], arrange: registry },
    Verb { words: &[&["registry"], &["whoami"]], here: &["whoami"], flags: &[], arrange: registry },
    Verb { words: &[&["version"]], here: &["version"], flags: &[FORMAT], arrange: as_it_is },
];

const TREE_FLAGS: &[FlagRow] = &[
    FORMAT,
    PLATFORM,
    (&["--digest-tags"], Anyway),
    (&["--filter-artifact-type"], Value("--artifact-type")),
    (
        &["--filter-annotation", "--latest", "--sort-annotation", "--sort-desc"],
        Refused("`rcopy artifact discover --format json` shows annotations"),
    ),
    (&["--external", "--slow-referrers"], Refused("referrers are beside their image")),
];

const MOD_FLAGS: &[FlagRow] = &[
    (&["--create"], OwnValue),
    (&["--replace"], Own),
    (&["--annotation"], OwnValue),
    (&["--annotation-base"], OwnValue),
    (&["--label"], OwnValue),
    (&["--env"], OwnValue),
    (&["--config-cmd"], OwnValue),
    (&["--config-entrypoint"], OwnValue),
    (&["--config-platform"], Value("--set-platform")),
    (&["--config-time"], OwnValue),
    (&["--time"], OwnValue),
    (&["--user"], Value("--user")),
    (&["--workdir"], Value("--workdir")),
    (&["--expose-add"], Value("--exposed-ports")),
    (&["--volume-add"], Value("--volume")),
    (&["--layer-add"], OwnValue),
    (&["--layer-rm-index"], Value("--drop-layer")),
    (&["--layer-strip-file"], Value("--strip")),
    (&["--rebase"], Own),
    (&["--rebase-ref"], OwnValue),
    (&["--to-oci"], Own),
    (&["--to-docker"], Own),
    (
        &["--reproducible"],
        Refused(
            "--time set=TIME,after=TIME sets times; layers are written the same way every time",
        ),
    ),
    (
        &[
            "--author",
            "--expose-rm",
            "--volume-rm",
            "--buildarg-rm",
            "--buildarg-rm-regex",
            "--label-to-annotation",
            "--annotation-promote",
            "--external-urls-rm",
            "--to-oci-referrers",
        ],
        Refused("`rcopy mutate --help` lists what can be changed"),
    ),
    (
        &[
            "--data-max",
            "--digest-algo",
            "--file-tar-time",
            "--layer-time",
            "--layer-rm-created-by",
        ],
        Refused("`rcopy mutate --help` lists what can be changed"),
    ),
    (
        &["--layer-compress"],
        Refused("`rcopy copy --dest-compress-format FORMAT --dest-force-compress-format`"),
    ),
];

#[cfg(test)]
pub(super) use self::lines::{LINES, REFUSED_LINES};
