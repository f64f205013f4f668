//! Patterns of `${v#p}` and `${v/p/r}`: `*`, `?` and escaped characters.

/// One character of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatternPiece {
    Any,
    Char(char),
}

/// A pattern: fixed-length runs with a `*` between each two.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Never empty; `*` alone is two empty runs.
    runs: Vec<Vec<PatternPiece>>,
}

impl Pattern {
    /// Reads a pattern; the error is the offending escape.
    pub(super) fn parse(text: &str, escape: char) -> Result<Self, String> {
        let mut runs = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(ch) = chars.next() {
            let piece = match ch {
                '*' => {
                    runs.push(Vec::new());
                    continue;
                }
                '?' => PatternPiece::Any,
                _ if ch == escape => match chars.next() {
                    Some(next) if matches!(next, '*' | '?' | '}' | '/') || next == escape => {
                        PatternPiece::Char(next)
                    }
                    next => {
                        return Err(std::iter::once(ch).chain(next).collect());
                    }
                },
                _ => PatternPiece::Char(ch),
            };
            if let Some(run) = runs.last_mut() {
                run.push(piece);
            }
        }
        Ok(Self { runs })
    }

    /// The value without what the pattern matches at its start.
    pub(super) fn strip_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = if fits(&self.runs[0], &chars, 0) { self.end(&chars, 0, longest) } else { None };
        chars[end.unwrap_or(0)..].iter().collect()
    }

    /// The value without what the pattern matches at its end.
    pub(super) fn strip_suffix(&self, value: &str, longest: bool) -> String {
        let turned = |run: &Vec<PatternPiece>| run.iter().rev().copied().collect();
        let reversed = Self { runs: self.runs.iter().rev().map(turned).collect() };
        let value: String = value.chars().rev().collect();
        reversed.strip_prefix(&value, longest).chars().rev().collect()
    }

    /// The value with the first match, or all, replaced; `None` when it would exceed `limit` bytes.
    pub(super) fn replace(
        &self,
        value: &str,
        with: &str,
        all: bool,
        limit: usize,
    ) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let empty = self.runs.len() == 1 && self.runs[0].is_empty();
        while !empty && (at < chars.len() || (at == 0 && self.runs.len() > 1)) {
            // When the first place the first run fits leads nowhere, no later one does.
            let first = (at..=chars.len()).find(|start| fits(&self.runs[0], &chars, *start));
            let Some((start, end)) = first.and_then(|s| Some((s, self.end(&chars, s, true)?)))
            else {
                break;
            };
            out.extend(&chars[at..start]);
            out.push_str(with);
            if out.len() > limit {
                return None;
            }
            at = end;
            if !all || start == end {
                break;
            }
        }
        out.extend(&chars[at..]);
        (out.len() <= limit).then_some(out)
    }

    /// Where a match that begins at `start` ends, the first run being known to fit there.
    fn end(&self, chars: &[char], start: usize, longest: bool) -> Option<usize> {
        let mut at = start + self.runs[0].len();
        for (index, run) in self.runs.iter().enumerate().skip(1) {
            let mut places = at..=chars.len();
            let place = if longest && index + 1 == self.runs.len() {
                places.rfind(|place| fits(run, chars, *place))
            } else {
                places.find(|place| fits(run, chars, *place))
            };
            at = place? + run.len();
        }
        Some(at)
    }
}

fn fits(run: &[PatternPiece], chars: &[char], at: usize) -> bool {
    chars.get(at..at + run.len()).is_some_and(|slice| {
        run.iter().zip(slice).all(|(piece, ch)| match piece {
            PatternPiece::Any => true,
            PatternPiece::Char(expected) => expected == ch,
        })
    })
}
