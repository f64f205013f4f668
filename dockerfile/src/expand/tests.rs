use super::*;
use crate::span::{Escape, Span};

fn scope(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "SHELL" => "bash",
        "NULL" => "",
        "GREEK" => "λόγος",
        "FILE" => "path/to/archive.tar.gz",
        "EXT" => ".gz",
        "STARS" => r"a*b\*c",
        "SPACE" => "abc  def",
        "EDGES" => "  ab c ",
        _ => return None,
    };
    Some(value.to_owned())
}

/// A word and what it expands to; `None` is an error.
#[rustfmt::skip]
const WORDS: &[(&str, Option<&str>)] = &[
    (r#"plain-word"#, Some(r#"plain-word"#)),
    (r#""#, Some(r#""#)),
    (r#"lib'one two'64"#, Some(r#"libone two64"#)),
    (r#"open'quote"#, None),
    (r#"open"quote"#, None),
    (r#"it\'s"#, Some(r#"it's"#)),
    (r#"say \"x\""#, Some(r#"say "x""#)),
    (r#"tail\\"#, Some(r#"tail\"#)),
    (r#"'no $SHELL here'"#, Some(r#"no $SHELL here"#)),
    (r#""with $SHELL here""#, Some(r#"with bash here"#)),
    (r#""kept \$SHELL""#, Some(r#"kept $SHELL"#)),
    (r#"kept\$SHELL"#, Some(r#"kept$SHELL"#)),
    (r#"back\\$SHELL"#, Some(r#"back\bash"#)),
    (r#""it's $SHELL""#, Some(r#"it's bash"#)),
    (r#"/bin/$SHELL"#, Some(r#"/bin/bash"#)),
    (r#"$SHELL.d"#, Some(r#"bash.d"#)),
    (r#"$SHELL/$SHELL"#, Some(r#"bash/bash"#)),
    (r#"x${SHELL}x"#, Some(r#"xbashx"#)),
    (r#"$shell"#, Some(r#""#)),
    (r#"a$UNSET/b"#, Some(r#"a/b"#)),
    (r#"a${UNSET}b"#, Some(r#"ab"#)),
    (r#"price: 5$."#, Some(r#"price: 5$."#)),
    (r#"${UNSET:-7}"#, Some(r#"7"#)),
    (r#"${NULL:-7}"#, Some(r#"7"#)),
    (r#"${SHELL:-7}"#, Some(r#"bash"#)),
    (r#"${UNSET-7}"#, Some(r#"7"#)),
    (r#"${NULL-7}"#, Some(r#""#)),
    (r#"${SHELL-7}"#, Some(r#"bash"#)),
    (r#"${UNSET:+7}"#, Some(r#""#)),
    (r#"${NULL:+7}"#, Some(r#""#)),
    (r#"${SHELL:+7}"#, Some(r#"7"#)),
    (r#"${UNSET+7}"#, Some(r#""#)),
    (r#"${NULL+7}"#, Some(r#"7"#)),
    (r#"${SHELL+7}"#, Some(r#"7"#)),
    (r#"${UNSET:?gone}"#, None),
    (r#"${NULL:?gone}"#, None),
    (r#"${SHELL:?gone}"#, Some(r#"bash"#)),
    (r#"${UNSET?gone}"#, None),
    (r#"${NULL?gone}"#, Some(r#""#)),
    (r#"${SHELL?gone}"#, Some(r#"bash"#)),
    (r#"${UNSET:-/opt/$SHELL}"#, Some(r#"/opt/bash"#)),
    (r#"${UNSET:-${NONE:-deep}}"#, Some(r#"deep"#)),
    (r#"${SHELL:+<${SHELL}>}"#, Some(r#"<bash>"#)),
    (r#"${UNSET:-'$SHELL'}"#, Some(r#"$SHELL"#)),
    (r#"${UNSET:-"two words"}"#, Some(r#"two words"#)),
    (r#"${UNSET:-\$SHELL}"#, Some(r#"$SHELL"#)),
    (r#"${UNSET:-shut\}in}"#, Some(r#"shut}in"#)),
    (r#"${SHELL"#, None),
    (r#"${UNSET:-never ends"#, None),
    (r#"${}"#, None),
    (r#"${:-x}"#, None),
    (r#"${SHELL:=x}"#, None),
    (r#"${SHELL=x}"#, None),
    (r#"${SHELL:x}"#, None),
    (r#"${SHELL}}"#, Some(r#"bash}"#)),
    (r#"\${SHELL}"#, Some(r#"${SHELL}"#)),
    (r#"$GREEK!"#, Some(r#"λόγος!"#)),
    (r#""λ'$NULL'""#, Some(r#"λ''"#)),
    (r#"two  $SHELL  words"#, Some(r#"two  bash  words"#)),
    (r#"${FILE#*/}"#, Some(r#"to/archive.tar.gz"#)),
    (r#"${FILE##*/}"#, Some(r#"archive.tar.gz"#)),
    (r#"${FILE%.*}"#, Some(r#"path/to/archive.tar"#)),
    (r#"${FILE%%.*}"#, Some(r#"path/to/archive"#)),
    (r#"${FILE#archive}"#, Some(r#"path/to/archive.tar.gz"#)),
    (r#"${FILE%%*}"#, Some(r#""#)),
    (r#"${FILE##*}"#, Some(r#""#)),
    (r#"${FILE#*}"#, Some(r#"path/to/archive.tar.gz"#)),
    (r#"${FILE#????/}"#, Some(r#"to/archive.tar.gz"#)),
    (r#"${FILE%.t?r*}"#, Some(r#"path/to/archive"#)),
    (r#"${FILE%$EXT}"#, Some(r#"path/to/archive.tar"#)),
    (r#"${STARS#a\*}"#, Some(r#"b\*c"#)),
    (r#"${STARS##*\*}"#, Some(r#"c"#)),
    (r#"${STARS%%\\*}"#, Some(r#"a*b"#)),
    (r#"${FILE:#x}"#, None),
    (r#"${FILE:%x}"#, None),
    (r#"${FILE#\x}"#, None),
    (r#"${UNSET#x}y"#, Some(r#"y"#)),
    (r#"${FILE/a/A}"#, Some(r#"pAth/to/archive.tar.gz"#)),
    (r#"${FILE//a/A}"#, Some(r#"pAth/to/Archive.tAr.gz"#)),
    (r#"${FILE/\//:}"#, Some(r#"path:to/archive.tar.gz"#)),
    (r#"${FILE//\//:}"#, Some(r#"path:to:archive.tar.gz"#)),
    (r#"${FILE//\//\/}"#, Some(r#"path\/to\/archive.tar.gz"#)),
    (r#"${FILE/.*/}"#, Some(r#"path/to/archive"#)),
    (r#"${FILE//[/x}"#, Some(r#"path/to/archive.tar.gz"#)),
    (r#"${FILE/q/x}"#, Some(r#"path/to/archive.tar.gz"#)),
    (r#"${FILE/*/all}"#, Some(r#"all"#)),
    (r#"${FILE//?/x}"#, Some(r#"xxxxxxxxxxxxxxxxxxxxxx"#)),
    (r#"${FILE/$EXT/.zip}"#, Some(r#"path/to/archive.tar.zip"#)),
    (r#"${FILE/tar/$SHELL}"#, Some(r#"path/to/archive.bash.gz"#)),
    (r#"${NULL/*/x}"#, Some(r#"x"#)),
    (r#"${FILE/a}"#, None),
    (r#"${FILE//}"#, None),
    (r#"${UNSET/a/b}y"#, Some(r#"y"#)),
    (r#"${FILE^^}"#, None),
];

#[test]
fn words() {
    assert!(WORDS.len() >= 80);
    for (text, expected) in WORDS {
        let found = expand(&Word::new(*text), &scope).ok();
        assert_eq!(found.as_deref(), *expected, "{text}");
    }
}

#[test]
fn backtick_escapes() {
    for (text, expected) in [
        ("a`$PWD", Some("a$PWD")),
        (r"C:\dir\$SHELL", Some(r"C:\dir\bash")),
        ("\"`\"\"", Some("\"")),
        ("a``b", Some("a`b")),
        ("${X:-a`}b}", Some("a}b")),
        ("'`'", Some("`")),
    ] {
        let word = Word { escape: Escape::Backtick, ..Word::new(text) };
        assert_eq!(expand(&word, &scope).ok().as_deref(), expected, "{text}");
    }
}

#[test]
fn splitting() {
    for (text, expected) in [
        ("80/tcp", Some(&["80/tcp"][..])),
        ("80 443/udp", Some(&["80", "443/udp"])),
        ("pre${UNSET}post", Some(&["prepost"])),
        ("<${SPACE}>", Some(&["<abc", "def>"])),
        ("<\"${SPACE}\">", Some(&["<abc  def>"])),
        ("1 \"${SPACE}\"2", Some(&["1", "abc  def2"])),
        ("1${EDGES}2", Some(&["1", "ab", "c", "2"])),
        ("1\"${EDGES}\"", Some(&["1  ab c "])),
        (r"one\ word", Some(&["one word"])),
        ("x ${U:-a b} y", Some(&["x", "a", "b", "y"])),
        ("a${U:-b}c", Some(&["abc"])),
        ("", Some(&[])),
        ("$NULL ''", Some(&[])),
        ("80 \"443", None),
    ] {
        let found = expand_list(&Word::new(text), &scope).ok();
        let expected =
            expected.map(|words| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn heredoc_content() {
    for (text, expected) in [
        ("it's \"$SHELL\"\n", "it's \"bash\"\n"),
        ("a \\$SHELL ${U:-'x'}\n", "a $SHELL 'x'\n"),
        ("1 < 2 << 3\n", "1 < 2 << 3\n"),
    ] {
        assert_eq!(expand_content(&Word::new(text), &scope).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn only_known_variables() {
    for (text, expected) in [
        ("$SHELL $U ${U} ${U:-x} ${U#x} ${U//a/b}", "bash $U ${U} ${U:-x} ${U#x} ${U//a/b}"),
        ("'$SHELL' \"$SHELL\"", "'$SHELL' \"bash\""),
    ] {
        assert_eq!(expand_known(&Word::new(text), &scope).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn tells_which_variables_were_asked_for() {
    let word = Word::new("$PWD ${A:-$B} $PWD ${SHELL:+$C} '$D'");
    let found = expand_tracked(&word, &scope).unwrap();
    assert_eq!(found.used, ["PWD", "SHELL"]);
    assert_eq!(found.undefined, ["B", "A", "C"]);
    assert_eq!(found.missing, ["B", "C"]);
}

#[test]
fn errors_point_at_the_substitution() {
    let text = "abc ${X:?set it} def";
    let word = Word { span: Span::new(10, 10 + text.len()), ..Word::new(text) };
    let error = expand(&word, &scope).unwrap_err();
    assert_eq!(error.message, "X: set it");
    assert_eq!(error.rule, "required-variable");
    assert_eq!(error.span, Span::new(14, 26));
    assert_eq!(expand(&Word::new("${X?}"), &scope).unwrap_err().message, "X: must be set");
    assert_eq!(
        expand(&Word::new("${NULL:?}"), &scope).unwrap_err().message,
        "NULL: must not be empty"
    );
}

#[test]
fn work_is_bounded() {
    let nested = format!("{}x{}", "${X:-".repeat(100_000), "}".repeat(100_000));
    assert!(expand(&Word::new(nested), &scope).is_err());
    let value = |_: &str| Some("x".repeat(10_000));
    assert!(expand(&Word::new("$X".repeat(1000)), &value).is_err());
    assert!(expand(&Word::new(format!("${{X//x/{}}}", "y".repeat(1000))), &value).is_err());
}
