//! The parser on arbitrary text and on damaged Dockerfiles: it never panics, every span lies inside
//! the source, and what it reports can be drawn.

use dockerfile::{
    Dockerfile, Ignore, Instruction, InstructionKind, LintContext, Mount, Span, Word, expand, lint,
    parse, parse_instruction, render,
};
use proptest::prelude::*;

fn inside(source: &str, span: Span) -> bool {
    span.start <= span.end
        && span.end <= source.len()
        && source.is_char_boundary(span.start)
        && source.is_char_boundary(span.end)
}

fn check_instruction(source: &str, instruction: &Instruction) {
    assert!(inside(source, instruction.span), "{instruction:?}");
    assert!(inside(source, instruction.keyword.span), "{instruction:?}");
    for word in instruction.kind.words() {
        assert!(inside(source, word.span), "{word:?} of {instruction:?}");
        if word.span.len() == word.text.len() {
            assert_eq!(word.span.text(source), word.text, "{instruction:?}");
        }
        let _ = expand(word, &|name| (name.len() % 2 == 0).then(|| name.repeat(2)));
    }
    for heredoc in instruction.kind.heredocs() {
        assert!(inside(source, heredoc.span), "{heredoc:?}");
        assert_eq!(heredoc.span.text(source), heredoc.content);
    }
    match &instruction.kind {
        InstructionKind::Run(run) => {
            let _ = run.program();
            for mount in &run.mounts {
                let _ = Mount::parse(mount, &|_| Some("x".to_owned()));
            }
        }
        InstructionKind::Onbuild(inner) => {
            check_instruction(source, inner);
            let (again, _) = parse_instruction(&inner.full_text());
            assert_eq!(again.map(|again| again.name()), Some(inner.name()), "{inner:?}");
        }
        _ => {}
    }
}

fn check(source: &str) -> Dockerfile {
    let (file, diagnostics) = parse(source);
    file.instructions().for_each(|instruction| check_instruction(source, instruction));
    assert!(file.empty_continuations.iter().all(|span| inside(source, *span)));
    for diagnostic in diagnostics.iter().chain(&lint(&file, &LintContext::default())) {
        assert!(inside(source, diagnostic.span), "{diagnostic:?}");
        let drawing = render(source, "Dockerfile", diagnostic);
        assert!(drawing.contains(diagnostic.rule), "{drawing}");
    }
    file
}

/// Pieces that mean something, so that arbitrary sequences of them get far.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "FROM ", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "EXPOSE ", "HEALTHCHECK ",
            "ONBUILD ", "VOLUME ", "SHELL ", "CMD ", "USER ", "WORKDIR ", "STOPSIGNAL ",
        ]),
        4 => prop::sample::select(vec![
            "\n", "\\\n", "`\n", "\r\n", " ", "\t", "\u{a0}", "\u{feff}", "é", "日",
        ]),
        2 => prop::sample::select(vec![
            "# escape=`\n", "# check=skip=all\n", "# syntax=x\n", "# comment\n",
        ]),
        2 => prop::sample::select(vec!["<<EOF", "<<-'A B'", "EOF\n", "\tEOF\n", "A B\n", "<<", "3<<x"]),
        2 => prop::sample::select(vec!["[\"a\"]", "[\"", "['", "]", ",", "\\u00e9", "[[", "{"]),
        2 => prop::sample::select(vec![
            "${", "$x", "}", ":-", "${x//a/b}", "${x%%*}", "\"", "'", "\\", "`", "=",
        ]),
        2 => prop::sample::select(vec![
            "--mount=type=cache,target=/x", "--from=a", "--", "--link", "--interval=1s", "CMD ", "AS ",
            "alpine", "a b", "80/tcp",
        ]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Every golden case, without its answer.
fn corpus() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
    let mut sources: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder of cases")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .map(|text| text.split("====").next().unwrap_or_default().to_owned())
        .collect();
    sources.sort();
    sources
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(source in "\\PC{0,200}|[ -~\\n\\t\\r]{0,200}") {
        check(&source);
    }

    #[test]
    fn arbitrary_pieces(source in pieces()) {
        check(&source);
    }

    #[test]
    fn damaged_files(
        source in prop::sample::select(corpus()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, pieces()), 1..4),
    ) {
        let mut chars: Vec<char> = source.chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + cut * 7).min(chars.len());
            chars.splice(at..end, insert.chars());
        }
        check(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn single_instructions(source in pieces()) {
        let (instruction, diagnostics) = parse_instruction(&source);
        prop_assert!(instruction.is_some() || !diagnostics.is_empty());
        prop_assert!(diagnostics.iter().all(|diagnostic| inside(&source, diagnostic.span)));
    }

    #[test]
    fn ignore_files(
        source in "([!#*?a/.\\[\\]\\\\^-]{0,12}\n){0,6}",
        path in "[a*/.]{0,12}",
    ) {
        let (ignore, diagnostics) = Ignore::parse(&source);
        prop_assert!(diagnostics.iter().all(|diagnostic| inside(&source, diagnostic.span)));
        let included = !ignore.excluded(&path, false);
        // A walk that prunes finds every file that is included.
        for (at, _) in path.match_indices('/').filter(|_| included && !path.contains("//")) {
            let directory = &path[..at];
            prop_assert!(!ignore.excluded(directory, true) || ignore.may_include_below(directory));
        }
    }

    #[test]
    fn words_expand_or_fail(text in "[$a-c{}:?+#%/*'\"\\\\`\\- ]{0,40}") {
        let word = Word { span: Span::new(3, 3 + text.len()), ..Word::new(text.clone()) };
        match expand(&word, &|name| (name != "a").then(|| "value/of.it".to_owned())) {
            Ok(expanded) => prop_assert!(expanded.len() <= text.len() * 11),
            Err(error) => prop_assert!(
                word.span.start <= error.span.start && error.span.end <= word.span.end
            ),
        }
    }
}

#[test]
fn cases_hold_the_same_properties() {
    for source in corpus() {
        check(&source);
    }
}

#[test]
fn hostile_sizes_are_read_in_linear_time() {
    let onbuild = "FROM a\n".to_owned() + &"ONBUILD ".repeat(200_000);
    let flags = format!("FROM a\nRUN {}true\n", "--mount=type=ssh ".repeat(20_000));
    let stages = "FROM a AS b\n".repeat(20_000);
    let json = format!("FROM a\nRUN {}\n", "[".repeat(500_000));
    let nested = format!("FROM a\nENV a={}\n", "${a:-".repeat(100_000));
    let continued = format!("FROM a\nRUN a {}\n", "\\\n\n#\n".repeat(100_000));
    let heredocs = format!("FROM a\nRUN {}\n", "<<E ".repeat(20_000));
    for source in [onbuild, flags, stages, json, nested, continued, heredocs] {
        let (file, _) = parse(&source);
        let _ = lint(&file, &LintContext::default());
    }
}

#[test]
fn files_beyond_the_limit_are_refused_unread() {
    let source = "#".repeat(dockerfile::MAX_SOURCE + 1);
    let (file, diagnostics) = parse(&source);
    assert!(file.stages.is_empty());
    assert_eq!(diagnostics[0].rule, "file-too-large");
}

#[test]
fn triggers_are_read_back() {
    let (file, _) = parse("FROM a\nONBUILD COPY <<-A <<'B' /x/\n\tone\n\tA\ntwo\nB\n");
    let InstructionKind::Onbuild(inner) = &file.stages[0].instructions[0].kind else {
        panic!("an ONBUILD")
    };
    assert_eq!(inner.full_text(), "COPY <<-A <<'B' /x/\n\tone\nA\ntwo\nB");
    let (again, diagnostics) = parse_instruction(&inner.full_text());
    assert!(diagnostics.is_empty());
    let contents =
        |i: &Instruction| i.kind.heredocs().iter().map(|h| h.content.clone()).collect::<Vec<_>>();
    assert_eq!(contents(&again.expect("an instruction")), contents(inner));
    assert_eq!(parse_instruction("").1[0].rule, "empty-file");
    assert_eq!(parse_instruction("RUN a\nRUN b").1[0].rule, "several-instructions");
}

#[test]
fn text_that_is_no_dockerfile_is_given_up() {
    let (file, diagnostics) = parse(&"this is prose\n".repeat(1000));
    assert!(file.stages.is_empty());
    assert_eq!(diagnostics.len(), 101);
    assert_eq!(diagnostics[100].rule, "too-many-problems");
}
