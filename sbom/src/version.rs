//! The order of versions of each ecosystem.

use std::cmp::Ordering;

use semver::Version;

use crate::Ecosystem;

/// The order of versions of an ecosystem.
pub(crate) fn compare(ecosystem: Ecosystem, one: &str, other: &str) -> Ordering {
    match ecosystem {
        Ecosystem::Npm | Ecosystem::Cargo | Ecosystem::Golang => {
            let read = |text: &str| Version::parse(text.trim_start_matches('v'));
            match (read(one), read(other)) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                _ => debian(one, other),
            }
        }
        Ecosystem::Pypi => debian(&python(one), &python(other)),
        Ecosystem::Apk => debian(&alpine(one), &alpine(other)),
        Ecosystem::Maven => debian(&maven(one), &maven(other)),
        Ecosystem::Composer => debian(&composer(one), &composer(other)),
        Ecosystem::Gem => debian(&gem(one), &gem(other)),
        Ecosystem::Deb => debian(one, other),
        Ecosystem::Rpm => rpm(one, other),
    }
}

/// A version of PEP 440 in Debian's order: what comes before a release behind a tilde.
fn python(version: &str) -> String {
    let text = version.to_lowercase().replace(['-', '_'], ".");
    let text = text.trim_start_matches('v').split('+').next().unwrap_or_default();
    let text = text.replace(".dev", "~~dev").replace("rc", "~rc").replace(".post", "+post");
    let mut written = String::new();
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        let next = text[at + character.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if matches!(character, 'a' | 'b') && before.is_ascii_digit() && next {
            written.push('~');
        }
        written.push(character);
        before = character;
    }
    written.replace(".~", "~")
}

/// A version of Alpine in Debian's order.
fn alpine(version: &str) -> String {
    let mut text = version.to_owned();
    for before in ["alpha", "beta", "pre", "rc"] {
        text = text.replace(&format!("_{before}"), &format!("~{before}"));
    }
    text.replace("_p", "+p")
}

/// The numbers at the start, without `.0` at their end, and the rest.
pub(crate) fn numbers(version: &str) -> (&str, &str) {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let (mut numbers, rest) = version.split_at(end);
    numbers = numbers.trim_end_matches('.');
    while let Some(shorter) = numbers.strip_suffix(".0") {
        numbers = shorter;
    }
    (numbers, rest)
}

/// A version of Maven in Debian's order: the qualifiers that come before a release behind a tilde.
fn maven(version: &str) -> String {
    let text = version.to_lowercase();
    let (numbers, rest) = numbers(&text);
    let rest = rest.trim_start_matches(['-', '.', '_']);
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (qualifier, rest) = rest.split_at(letters);
    let rest = rest.replace(['-', '_'], ".");
    let counted = rest.starts_with(|c: char| c.is_ascii_digit());
    let before = match qualifier {
        "a" if counted => "alpha",
        "b" if counted => "beta",
        "m" if counted => "milestone",
        "cr" => "rc",
        "alpha" | "beta" | "milestone" | "rc" | "snapshot" => qualifier,
        "" if rest.is_empty() => return numbers.to_owned(),
        "ga" | "final" | "release" if rest.is_empty() => return numbers.to_owned(),
        other => return format!("{numbers}+{other}{rest}"),
    };
    format!("{numbers}~{before}{}", rest.trim_start_matches('.'))
}

/// A version of Composer in Debian's order.
fn composer(version: &str) -> String {
    let text = version.to_lowercase();
    let text = text.trim_start_matches('v').split('+').next().unwrap_or_default();
    let (numbers, rest) = numbers(text);
    let rest = rest.trim_start_matches(['-', '.', '_']).replace(['-', '.', '_'], "");
    let before = ["alpha", "beta", "rc"].iter().any(|before| rest.starts_with(before));
    match () {
        () if rest.is_empty() => numbers.to_owned(),
        () if rest.starts_with("dev") => format!("{numbers}~~{rest}"),
        () if before => format!("{numbers}~{rest}"),
        () => format!("{numbers}+{rest}"),
    }
}

/// A version of RubyGems in Debian's order: every letter makes it earlier.
fn gem(version: &str) -> String {
    match numbers(version) {
        (numbers, "") => numbers.to_owned(),
        (numbers, rest) => format!("{numbers}~{}", rest.replace('-', ".pre.")),
    }
}

/// RPM's order of `EPOCH:VERSION-RELEASE` (rpm-version(7)).
fn rpm(one: &str, other: &str) -> Ordering {
    let split = |text: &str| {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse::<u64>().unwrap_or(0), version.to_owned(), release.to_owned())
    };
    let (one, other) = (split(one), split(other));
    let version = || rpm_part(one.1.as_bytes(), other.1.as_bytes());
    let release = || match one.2.is_empty() || other.2.is_empty() {
        true => Ordering::Equal,
        false => rpm_part(one.2.as_bytes(), other.2.as_bytes()),
    };
    one.0.cmp(&other.0).then_with(version).then_with(release)
}

/// How a part of an RPM's version goes on; in their order, but for the text within.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Segment<'a> {
    Tilde,
    End,
    Caret,
    Letters(&'a [u8]),
    /// The number of its digits, and these.
    Number(usize, &'a [u8]),
}

/// Takes the next segment; what is neither letter nor digit sets segments apart, and nothing more.
fn segment<'a>(text: &mut &'a [u8]) -> Segment<'a> {
    let separates = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'~' | b'^');
    let start = text.iter().take_while(|byte| separates(byte)).count();
    *text = &text[start..];
    let letters = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    match text.first() {
        None => Segment::End,
        Some(b'~') => {
            *text = &text[1..];
            Segment::Tilde
        }
        Some(b'^') => {
            *text = &text[1..];
            Segment::Caret
        }
        Some(_) if letters > 0 => {
            let (word, rest) = text.split_at(letters);
            *text = rest;
            Segment::Letters(word)
        }
        Some(_) => {
            let digits = number(text);
            Segment::Number(digits.len(), digits)
        }
    }
}

fn rpm_part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    loop {
        let (first, second) = (segment(&mut one), segment(&mut other));
        let order = first.cmp(&second);
        if order.is_ne() || first == Segment::End {
            return order;
        }
    }
}

/// Debian's order of versions (deb-version(7)).
fn debian(one: &str, other: &str) -> Ordering {
    let split = |text: &str| {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.parse::<u64>().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let (one, other) = (split(one), split(other));
    let upstream = || part(one.1.as_bytes(), other.1.as_bytes());
    one.0.cmp(&other.0).then_with(upstream).then_with(|| part(one.2.as_bytes(), other.2.as_bytes()))
}

/// Letters before all other characters, a tilde before everything, also the end.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

fn part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let digit = |text: &[u8]| text.first().is_none_or(u8::is_ascii_digit);
        while !digit(one) || !digit(other) {
            let order = weight(one.first()).cmp(&weight(other.first()));
            if order.is_ne() {
                return order;
            }
            one = one.get(1..).unwrap_or_default();
            other = other.get(1..).unwrap_or_default();
        }
        let (first, second) = (number(&mut one), number(&mut other));
        let order = first.len().cmp(&second.len()).then_with(|| first.cmp(second));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the digits at the start, without leading zeros.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_their_ecosystem() {
        use Ecosystem::{Apk, Composer, Deb, Gem, Maven, Npm, Pypi, Rpm};
        for (ecosystem, smaller, larger) in [
            (Deb, "1.0~rc1-1", "1.0-1"),
            (Deb, "1.0-1", "1.0-1+deb12u1"),
            (Deb, "1.9-1", "1.10-1"),
            (Deb, "9:1-1", "10:0-1"),
            (Deb, "1.0a-1", "1.0.1-1"),
            (Deb, "1.2-9", "1.2-10"),
            (Apk, "1.2.3_rc1-r0", "1.2.3-r0"),
            (Apk, "1.2.3-r0", "1.2.3_p1-r0"),
            (Apk, "1.2.3-r9", "1.2.3-r10"),
            (Pypi, "1.0.dev1", "1.0a1"),
            (Pypi, "1.0a1", "1.0rc1"),
            (Pypi, "1.0rc1", "1.0"),
            (Pypi, "1.0", "1.0.post1"),
            (Npm, "1.0.0-alpha.9", "1.0.0-alpha.10"),
            (Npm, "1.0.0-rc.1", "1.0.0"),
            (Maven, "2.14.1", "2.15.0"),
            (Maven, "2.15.0-rc1", "2.15.0"),
            (Maven, "1.0-alpha-2", "1.0-alpha-10"),
            (Maven, "1.0-alpha-1", "1.0-beta-1"),
            (Maven, "1.0-M1", "1.0-RC1"),
            (Maven, "1.0-SNAPSHOT", "1.0"),
            (Maven, "1.0.0.RELEASE", "1.0.1"),
            (Maven, "1.0", "1.0-sp1"),
            (Maven, "1.0-1", "1.0.1"),
            (Maven, "31.1-jre", "32.0.0-android"),
            (Maven, "9.4.9.v20180320", "9.4.10.v20180503"),
            (Composer, "v5.4.9", "5.4.10"),
            (Composer, "1.0-dev", "1.0.0-alpha1"),
            (Composer, "1.0.0-beta2", "1.0.0-RC1"),
            (Composer, "1.0.0-RC1", "1.0"),
            (Composer, "1.0", "1.0.0-p1"),
            (Gem, "7.0.0.rc1", "7.0.0"),
            (Gem, "1.0.a9", "1.0.a10"),
            (Gem, "1.9.0", "1.10"),
            (Rpm, "1.0~rc1-1", "1.0-1"),
            (Rpm, "1.0-1", "1.0^git1-1"),
            (Rpm, "1.0^git1-1", "1.0.1-1"),
            (Rpm, "1.0-9.el9", "1.0-10.el9"),
            (Rpm, "1.0-1.el9_1", "1.0-1.el9_2.1"),
            (Rpm, "9.9-1", "1:0.1-1"),
            (Rpm, "1.0a-1", "1.0.1-1"),
            (Rpm, "2.0.a-1", "2.0.1-1"),
            (Rpm, "5.5p1-1", "5.5p10-1"),
            (Rpm, "1.009-1", "1.10-1"),
        ] {
            assert!(compare(ecosystem, smaller, larger).is_lt(), "{smaller} < {larger}");
            assert!(compare(ecosystem, larger, smaller).is_gt(), "{larger} > {smaller}");
            assert!(compare(ecosystem, larger, larger).is_eq(), "{larger}");
        }
    }

    #[test]
    fn one_version_can_be_written_in_several_ways() {
        use Ecosystem::{Composer, Gem, Maven, Rpm};
        for (ecosystem, one, other) in [
            (Maven, "1.0", "1"),
            (Maven, "4.1.0.Final", "4.1"),
            (Maven, "1.0-cr1", "1.0.0-RC1"),
            (Maven, "1.0a1", "1-alpha-1"),
            (Composer, "v1.2.0", "1.2"),
            (Gem, "1.0.0", "1"),
            (Rpm, "0:1.0-1", "1.0-1"),
            (Rpm, "1.0-1", "1.0"),
            (Rpm, "1_0-1", "1.0-1"),
            (Rpm, "1.05-1", "1.5-1"),
        ] {
            assert!(compare(ecosystem, one, other).is_eq(), "{one} = {other}");
            assert!(compare(ecosystem, other, one).is_eq(), "{other} = {one}");
        }
    }

    proptest::proptest! {
        /// An order has no contradictions, whatever the versions hold.
        #[test]
        fn rpm_versions_have_one_order(one in "[0-9a-b.~^:-]{0,8}", other in "[0-9a-b.~^:-]{0,8}") {
            let order = compare(Ecosystem::Rpm, &one, &other);
            proptest::prop_assert_eq!(order.reverse(), compare(Ecosystem::Rpm, &other, &one));
        }

        /// Versions come from packages and databases and may hold anything.
        #[test]
        fn versions_may_hold_anything(one in ".{0,12}", other in ".{0,12}") {
            use Ecosystem::{Apk, Cargo, Composer, Deb, Gem, Maven, Pypi, Rpm};
            for ecosystem in [Apk, Cargo, Composer, Deb, Gem, Maven, Pypi, Rpm] {
                compare(ecosystem, &one, &other);
            }
        }
    }
}
