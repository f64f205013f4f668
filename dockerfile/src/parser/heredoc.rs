//! Here-document markers: `<<EOF`, `<<-"EOF"`, `3<< EOF`.

use crate::expand::{requote, split_raw, unquote};
use crate::span::Word;

/// What a marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) name: String,
    pub(crate) expand: bool,
    pub(crate) strip_tabs: bool,
    pub(crate) descriptor: u32,
}

/// Reads a word that is a marker and nothing else.
pub(crate) fn marker(word: &str) -> Option<Marker> {
    let digits = word.find(|ch: char| !ch.is_ascii_digit())?;
    let rest = word[digits..].strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let rest = Word::new(rest);
    let [name] = unquote(&rest)?.try_into().ok()?;
    // A quote that was taken out says: leave the content alone.
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == requote(&rest).map_or(0, |raw| quotes(&raw));
    let descriptor = word[..digits].parse().unwrap_or(0);
    Some(Marker { name, expand, strip_tabs, descriptor })
}

/// True when the text is one marker and nothing else.
pub(crate) fn is_marker(text: &str) -> bool {
    marker(text.trim()).is_some()
}

/// The markers among the words of a line, in order.
pub(crate) fn markers(line: &str) -> Vec<Marker> {
    if !line.contains("<<") {
        return Vec::new();
    }
    split_raw(&Word::new(line)).iter().filter_map(|word| marker(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_markers() {
        let is = |name: &str, expand, strip_tabs, descriptor| {
            Some(Marker { name: name.to_owned(), expand, strip_tabs, descriptor })
        };
        for (text, expected) in [
            ("<<EOF", is("EOF", true, false, 0)),
            ("<<-EOF", is("EOF", true, true, 0)),
            ("<<'EOF'", is("EOF", false, false, 0)),
            ("<<-\"E O F\"", is("E O F", false, true, 0)),
            ("<< EOF", is("EOF", true, false, 0)),
            ("3<<EOF", is("EOF", true, false, 3)),
            ("<<EO'F'", is("EOF", false, false, 0)),
            ("<<$EOF", is("$EOF", true, false, 0)),
            ("<<", None),
            ("<<<EOF", None),
            ("a<<EOF", None),
            ("<<'EOF", None),
            ("<EOF", None),
        ] {
            assert_eq!(marker(text), expected, "{text}");
        }
    }

    #[test]
    fn finds_markers_in_lines() {
        let names = |line: &str| markers(line).into_iter().map(|m| m.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat <<A <<'B' > x"), ["A", "B"]);
        assert_eq!(names("RUN echo '<<A' \"<<B\" $((1<<2)) <<<x"), Vec::<String>::new());
        assert_eq!(names("RUN cat << A"), ["A"]);
    }
}
