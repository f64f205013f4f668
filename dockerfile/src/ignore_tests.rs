use super::*;

fn ignore(text: &str) -> Ignore {
    let (ignore, diagnostics) = Ignore::parse(text);
    assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
    ignore
}

#[test]
fn one_pattern() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**/", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir", "a/b/dir/file", true),
        ("**/dir", "a/bdir/file", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/afile", true),
        ("**file*", "dir/afile", false),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abc/def", false),
        ("a\\\\", "a\\", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/x-1.0+g0.whl", true),
        ("*", "file", true),
        ("*", "dir/file", true),
        ("foo/", "foo", true),
        ("foo/", "foo/bar", true),
        ("/foo", "foo", true),
        ("/foo", "bar/foo", false),
        ("foo", "bar/foo", false),
        ("./foo/../bar//baz/.", "bar/baz", true),
        ("*/temp*", "somedir/temporary.txt", true),
        ("*/temp*", "a/b/temp", false),
        ("*/*/temp*", "a/b/temp", true),
        ("temp?", "tempa", true),
        ("temp?", "temp", false),
        ("  foo  ", "foo", true),
        ("# foo", "# foo", false),
        (" # foo", "# foo", true),
        ("../foo", "foo", false),
        ("/../foo", "foo", true),
        (".", "foo", false),
        ("foo\r", "foo", true),
        ("\u{feff}foo", "foo", true),
        ("[[]x]", "[x]", true),
        ("**/node_modules", "a/node_modules/b/c.js", true),
        ("ünï*", "ünïcode", true),
    ] {
        assert_eq!(ignore(pattern).excluded(path, false), expected, "{pattern:?} {path:?}");
    }
}

#[test]
fn last_match_wins() {
    for (patterns, path, expected) in [
        ("!fileutils.go\n*.go", "fileutils.go", true),
        ("*.go\n!fileutils.go", "fileutils.go", false),
        ("docs\n!docs/README.md", "docs/README.md", false),
        ("docs\n!docs/README.md", "docs/other", true),
        ("docs\n!docs/README.md", "docs", true),
        ("docs/\n!docs/README.md", "docs/README.md", false),
        ("docs/*\n!docs/README.md", "docs/README.md", false),
        ("**\n!util/docker/web", "util/docker/web/foo", false),
        ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", true),
        ("**\n!dist/*.whl", "dist/a.whl", false),
        ("*\n! /src ", "src/lib.rs", false),
        ("*\n!src\nsrc/**/*.bak", "src/a/b.bak", true),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
        ("", "foo", false),
        ("*", ".", false),
        ("*", "", false),
    ] {
        assert_eq!(ignore(patterns).excluded(path, false), expected, "{patterns:?} {path:?}");
    }
}

#[test]
fn pruning() {
    for (patterns, directory, expected) in [
        ("node_modules", "node_modules", false),
        ("node_modules\n!node_modules/keep/this", "node_modules", true),
        ("node_modules\n!node_modules/keep/this", "node_modules/keep", true),
        ("node_modules\n!node_modules/keep/this", "node_modules/other", false),
        ("!a/b\na", "a", false),
        ("*\n!src", "src", true),
        ("*\n!src", "doc", false),
        ("*\n!**/*.md", "doc/deep", true),
        ("*\n!*.md", "doc", false),
        ("*\n!*/x", "doc", true),
        ("**\n!a/*/c", "a/b", true),
        ("**\n!a/*/c", "b", false),
        ("*", "", true),
    ] {
        assert_eq!(
            ignore(patterns).may_include_below(directory),
            expected,
            "{patterns:?} {directory:?}"
        );
    }
}

#[test]
fn malformed_lines_are_reported_and_skipped() {
    let text = "foo\n[\n!\nbar\\\nbaz\n";
    let (ignore, diagnostics) = Ignore::parse(text);
    let spans: Vec<_> = diagnostics.iter().map(|d| d.span.text(text)).collect();
    assert_eq!(spans, ["[", "!", "bar\\"]);
    assert!(ignore.excluded("foo", false) && ignore.excluded("baz", false));
    assert!(!ignore.excluded("bar", false));
}

/// A walk that prunes sees exactly the files that are not excluded.
#[test]
fn pruned_walk_agrees_with_the_rules() {
    let names = ["a", "b", "ab"];
    let mut paths = vec![String::new()];
    for _ in 0..3 {
        let longer: Vec<String> = paths
            .iter()
            .flat_map(|p| {
                names.map(|n| if p.is_empty() { n.to_owned() } else { format!("{p}/{n}") })
            })
            .collect();
        paths.extend(longer);
    }
    for rules in ["*\n!a/b", "**\n!**/ab\na", "a\n!a/b\na/b/ab", "*/b\n!a/*/ab", "a*\n!ab/**"] {
        let ignore = ignore(rules);
        for path in paths.iter().filter(|path| !path.is_empty()) {
            let reached = path.match_indices('/').all(|(at, _)| {
                let directory = &path[..at];
                !ignore.excluded(directory, true) || ignore.may_include_below(directory)
            });
            assert!(reached || ignore.excluded(path, false), "{rules:?} {path}");
        }
    }
}

#[test]
fn the_line_that_excludes_a_path_is_the_last_that_matches() {
    let rules = ignore("# comment\n*.log\n\n!keep.log\nd\nd/x\n");
    for (path, line) in [
        ("a.log", Some(2)),
        ("keep.log", None),
        ("d/y", Some(5)),
        ("/d/x/", Some(6)),
        ("other", None),
        ("", None),
    ] {
        assert_eq!(rules.excluded_by(path), line, "{path}");
    }
}
