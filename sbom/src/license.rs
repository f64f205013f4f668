//! Which licences can be written as SPDX expressions.

use spdx::{Expression, LicenseReq, ParseMode};

/// What packages write today: identifiers of earlier versions of the list (`GPL-2.0`) and
/// `GPL-2.0+` are expressions, too. Other operators and names are not.
const MODE: ParseMode =
    ParseMode { allow_deprecated: true, allow_postfix_plus_on_gpl: true, ..ParseMode::STRICT };

/// The text, if it is an expression of licences on the SPDX licence list. A `LicenseRef-…` is not,
/// because the document does not define it.
pub(crate) fn expression(text: &str) -> Option<&str> {
    let mut words = text.split([' ', '(', ')']);
    if words.any(|word| matches!(word, "and" | "or" | "with")) {
        // Version 2.3 of the specification, in which the documents are, writes them large.
        return None;
    }
    let expression = Expression::parse_mode(text, MODE).ok()?;
    let listed = |each: &LicenseReq| {
        let addition = each.addition.as_ref();
        each.license.id().is_some() && addition.is_none_or(|addition| addition.id().is_some())
    };
    expression.requirements().all(|each| listed(&each.req)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn only_known_licences_make_an_expression() {
        for good in [
            "MIT",
            "(MIT OR Apache-2.0) AND BSD-3-Clause",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-2.0",
            "GPL-2.0+",
            "LGPL-2.1-or-later",
            "MulanPSL-2.0",
        ] {
            assert_eq!(expression(good), Some(good));
        }
        for bad in [
            "",
            "GPL",
            "GPL-2+",
            "MIT AND",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "OR MIT",
            "MIT WITH MIT",
            "MIT and ISC",
            "MIT/ISC",
            "LicenseRef-ours",
            "MIT OR DocumentRef-x:LicenseRef-y",
        ] {
            assert_eq!(expression(bad), None, "{bad}");
        }
    }
}
