//! Lines of regctl, and what they are here.

pub(in crate::translate) const LINES: &[(&str, &str)] = &[
    (
        "regctl image copy r.example/a:1 ocidir://dir:1",
        "rcopy copy --all --referrers=false --digest-tags=false r.example/a:1 oci:dir:1",
    ),
    ("regctl image cp --referrers --digest-tags a b", "rcopy copy --all a b"),
    (
        "regctl -v debug image copy -p linux/arm64 --referrers --digest-tags=true a b",
        "rcopy --log debug copy --platform linux/arm64 a b",
    ),
    (
        "regctl image digest --host reg=r.example,tls=disabled a",
        "rcopy --tls-verify=false digest a",
    ),
    ("regctl manifest get --format raw-body a", "rcopy manifest get a"),
    (
        "regctl manifest put -t application/json a",
        "rcopy manifest put --media-type application/json a -",
    ),
    ("regctl blob get r/a sha256:0", "rcopy blob get r/a@sha256:0"),
    ("regctl blob copy r/a:1 r/b sha256:0", "rcopy blob copy r/a@sha256:0 r/b"),
    ("regctl tag rm a:1", "rcopy delete --yes --tag-only a:1"),
    ("regctl tag ls --include v.* a", "rcopy list-tags --plain --include ^(?:v.*)$ a"),
    ("regctl repo ls r.example", "rcopy catalog r.example"),
    ("regctl image export a f.tar", "rcopy pull a f.tar"),
    ("regctl image import a f.tar", "rcopy push f.tar a"),
    (
        "regctl image mod a:1 --create 2 --label x=y --label z= --annotation [*]k=v --env=A=1",
        "rcopy mutate --label x=y --unset-label z --annotation k=v --env A=1 --tag a:2 a:1",
    ),
    (
        r#"regctl image mod a:1 --replace --config-cmd ["a","b"] --layer-strip-file /x --layer-rm-index=0"#,
        "rcopy mutate --strip /x --drop-layer 0 --cmd a,b --tag a:1 a:1",
    ),
    ("regctl image mod a --to-oci --create r/b:1", "rcopy copy --all --format oci a r/b:1"),
    (
        "regctl image mod a --rebase-ref b:1,b:2 --create c",
        "rcopy rebase --old-base b:1 --new-base b:2 --tag a:c a",
    ),
    (
        "regctl index create r/a:1 --ref x --ref ocidir://y:z",
        "rcopy index append --manifest x --manifest oci:y:z --no-flatten --tag r/a:1",
    ),
    (
        "regctl index create r/a:1 --ref x --platform linux/amd64 --platform linux/arm64",
        "rcopy index filter --platform linux/amd64,linux/arm64 --tag r/a:1 x",
    ),
    (
        "regctl index add r/a:1 --digest sha256:0",
        "rcopy index append --manifest r/a@sha256:0 --no-flatten --tag r/a:1 r/a:1",
    ),
    (
        "regctl index rm r/a:1 --platform linux/s390x",
        "rcopy index remove --platform linux/s390x --tag r/a:1 r/a:1",
    ),
    (
        "regctl artifact put --artifact-type text/x -f a -m text/plain r/a:1",
        "rcopy artifact push --artifact-type text/x r/a:1 a:text/plain",
    ),
    (
        "regctl artifact put --subject r/a:1 --artifact-type t/x",
        "rcopy artifact attach --artifact-type t/x r/a:1 -",
    ),
    ("regctl artifact get r/a:1", "rcopy artifact pull --output - --overwrite r/a:1"),
    ("regctl artifact list r/a:1", "rcopy artifact discover --format table r/a:1"),
    ("regctl artifact tree --digest-tags r/a:1", "rcopy tree r/a:1"),
    (
        "regctl registry login -u me --pass-stdin r.example",
        "rcopy login --username me --password-stdin r.example",
    ),
    ("regctl manifest delete r/a@sha256:0", "rcopy delete --yes r/a@sha256:0"),
    ("regctl image copy --help", "rcopy copy --help"),
    ("regctl", "rcopy --help"),
    ("regctl version", "rcopy version"),
];

pub(in crate::translate) const REFUSED_LINES: &[(&str, &str)] = &[
    ("regctl image copy a", "an argument is missing"),
    ("regctl image copy a b c", "unexpected argument \"c\""),
    ("regctl image copy --no-such a b", "there is no flag --no-such"),
    ("regctl image copy --include-external a b", "--include-external is not supported"),
    ("regctl nosuch", "no command \"nosuch\" of regctl"),
    ("regctl registry set r", "registries.conf"),
    ("regctl manifest diff a b", "rcopy diff"),
    ("regctl manifest delete a:1", "--force-tag-dereference"),
    ("regctl manifest get --format {{.X}} a", "--format"),
    ("regctl image mod a --label [linux/amd64]a=b", "all images"),
    ("regctl image mod a --time set=2020-01-01T00:00:00Z", "set=TIME,after=TIME"),
];
