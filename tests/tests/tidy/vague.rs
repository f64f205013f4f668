//! Names of types that say nothing by themselves: bare participles and words of grammar.

use std::collections::BTreeSet;

/// Participles that do not end like one.
const IRREGULAR: &[&str] = &[
    "Begun",
    "Bound",
    "Broken",
    "Built",
    "Chosen",
    "Done",
    "Drawn",
    "Fallen",
    "Forgotten",
    "Found",
    "Frozen",
    "Given",
    "Gone",
    "Grown",
    "Held",
    "Hidden",
    "Kept",
    "Known",
    "Laid",
    "Led",
    "Left",
    "Lent",
    "Lost",
    "Made",
    "Meant",
    "Met",
    "Paid",
    "Proven",
    "Read",
    "Risen",
    "Said",
    "Seen",
    "Sent",
    "Shown",
    "Sold",
    "Spent",
    "Spoken",
    "Stolen",
    "Taken",
    "Taught",
    "Thrown",
    "Told",
    "Torn",
    "Woven",
    "Written",
];

/// Question words, pronouns, prepositions and adverbs.
const GRAMMAR: &[&str] = &[
    "After",
    "Alone",
    "Any",
    "Anything",
    "Before",
    "Between",
    "Both",
    "By",
    "During",
    "Each",
    "Ends",
    "Every",
    "Everything",
    "Except",
    "Extra",
    "Far",
    "Half",
    "How",
    "Inside",
    "Later",
    "Near",
    "Never",
    "Next",
    "Nothing",
    "Once",
    "One",
    "Only",
    "Other",
    "Others",
    "Ours",
    "Outside",
    "Own",
    "Rest",
    "Something",
    "Theirs",
    "Way",
    "What",
    "When",
    "Where",
    "Which",
    "Who",
    "Whose",
    "Why",
    "With",
    "Without",
];

/// Nouns that end like a participle.
const NOUNS: &[&str] = &[
    "Encoding", "Feed", "Finding", "Keyring", "Listing", "Matching", "Setting", "String", "Wording",
];

/// Types that keep such a name, and why.
pub const ALLOWED: &[(&str, &str)] = &[
    ("Cancelled", "the error of a cancelled task, beside `Kind::Cancelled`"),
    ("Metered", "wraps a reader or a writer, which stays the noun: `Metered<File>`"),
    ("Unverified", "the first state of content (invariant I4)"),
    ("Verified", "the state of a signature that only verification gives"),
];

/// Whether a name is one word and that is no noun.
pub fn is_vague(name: &str) -> bool {
    let one_word =
        name.starts_with(char::is_uppercase) && name.chars().skip(1).all(char::is_lowercase);
    let participle = name.ends_with("ed") || name.ends_with("ing") || IRREGULAR.contains(&name);
    one_word && (participle || GRAMMAR.contains(&name)) && !NOUNS.contains(&name)
}

/// The types that a file defines under a vague name which is not allowed; `seen` gets the allowed
/// ones.
pub fn of<'t>(
    names: impl Iterator<Item = &'t str>,
    seen: &mut BTreeSet<&'static str>,
) -> Vec<&'t str> {
    let mut vague = Vec::new();
    for name in names.filter(|name| is_vague(name)) {
        match ALLOWED.iter().find(|(allowed, _)| *allowed == name) {
            Some((allowed, _)) => drop(seen.insert(allowed)),
            None => vague.push(name),
        }
    }
    vague
}

#[test]
fn vague_names_are_found() {
    for name in ["Kept", "What", "Referred", "Placing", "By"] {
        assert!(is_vague(name), "{name}");
    }
    for name in ["Encoding", "KeptFailure", "Step", "Red2", "Bytes"] {
        assert!(!is_vague(name), "{name}");
    }
}
