//! Matching in one pass: the set of all ways to match so far moves along the path, so the time is
//! bounded by the length of the path times the length of the pattern.

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// This character.
    Char(char),
    /// `?`: any character but `/`.
    Any,
    /// `*`: any characters but `/`.
    Star,
    /// `[a-z]`, `[^a-z]`; never `/`.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `**/`: nothing, or anything that ends with `/`.
    Deep,
    /// `**` at the end: anything.
    Rest,
}

impl Token {
    fn takes(&self, ch: char) -> bool {
        match self {
            Self::Char(expected) => *expected == ch,
            Self::Any => ch != '/',
            Self::Class { negated, ranges } => {
                ch != '/'
                    && *negated != ranges.iter().any(|(low, high)| (*low..=*high).contains(&ch))
            }
            Self::Star | Self::Deep | Self::Rest => false,
        }
    }
}

/// Reads `[...]`; `chars` stands behind the bracket. `None` when it is malformed.
pub(crate) fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        ch => Some(ch),
    }
}

/// What is true at one place of the path.
#[derive(Clone, Debug)]
pub(crate) struct States {
    /// Indexes into the tokens, twice; odd ones are inside a [`Token::Deep`].
    active: Vec<usize>,
    states: StateSet,
}

/// States to come, each once.
#[derive(Clone, Debug)]
struct StateSet {
    states: Vec<usize>,
    seen: Vec<bool>,
}

impl StateSet {
    fn add(&mut self, state: usize) {
        if !std::mem::replace(&mut self.seen[state], true) {
            self.states.push(state);
        }
    }
}

impl States {
    /// What was to come is now.
    fn advance(&mut self) {
        std::mem::swap(&mut self.active, &mut self.states.states);
        self.states.states.clear();
        for state in &self.active {
            self.states.seen[*state] = false;
        }
    }
}

/// The tokens of a pattern, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Automaton {
    tokens: Vec<Token>,
}

impl Automaton {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self { tokens }
    }

    pub(crate) fn start(&self) -> States {
        let seen = vec![false; 2 * self.tokens.len() + 1];
        let next = StateSet { states: Vec::new(), seen };
        let mut states = States { active: Vec::new(), states: next };
        self.enter(&mut states.states, 0);
        states.advance();
        states
    }

    /// Adds the state before token `index`, and those it reaches without a character.
    fn enter(&self, states: &mut StateSet, mut index: usize) {
        states.add(2 * index);
        while matches!(self.tokens.get(index), Some(Token::Star | Token::Deep | Token::Rest)) {
            index += 1;
            states.add(2 * index);
        }
    }

    pub(crate) fn step(&self, states: &mut States, ch: char) {
        let next = &mut states.states;
        for state in &states.active {
            let index = state / 2;
            match self.tokens.get(index) {
                Some(Token::Star) if ch != '/' => self.enter(next, index),
                Some(Token::Rest) => self.enter(next, index),
                Some(Token::Deep) => {
                    next.add(2 * index + 1);
                    if ch == '/' {
                        self.enter(next, index + 1);
                    }
                }
                Some(token) if token.takes(ch) => self.enter(next, index + 1),
                _ => {}
            }
        }
        states.advance();
    }

    /// The path so far matches.
    pub(crate) fn accepts(&self, states: &States) -> bool {
        states.active.contains(&(2 * self.tokens.len()))
    }

    /// Some continuation of the path so far matches.
    pub(crate) fn alive(states: &States) -> bool {
        !states.active.is_empty()
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut states = self.start();
        for ch in path.chars() {
            self.step(&mut states, ch);
            if !Self::alive(&states) {
                return false;
            }
        }
        self.accepts(&states)
    }

    /// The path or a directory above it matches.
    pub(crate) fn matches_upwards(&self, path: &str) -> bool {
        let mut states = self.start();
        for ch in path.chars() {
            if ch == '/' && self.accepts(&states) {
                return true;
            }
            self.step(&mut states, ch);
            if !Self::alive(&states) {
                return false;
            }
        }
        self.accepts(&states)
    }

    /// Something below the directory `path` may match.
    pub(crate) fn reaches_below(&self, path: &str) -> bool {
        let mut states = self.start();
        if !path.is_empty() {
            for ch in path.chars().chain(['/']) {
                self.step(&mut states, ch);
            }
        }
        // The state behind the last token takes no further character.
        states.active.iter().any(|state| state / 2 < self.tokens.len())
    }
}
