//! Which licences can be written as SPDX expressions.

/// The identifiers that packages really use, of the SPDX licence list.
const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-1.0-Perl",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSD-Source-Code",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "curl",
    "EPL-1.0",
    "EPL-2.0",
    "FSFAP",
    "FSFUL",
    "FSFULLR",
    "FTL",
    "GFDL-1.2-only",
    "GFDL-1.2-or-later",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "GPL-1.0-only",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "Libpng",
    "libtiff",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "NCSA",
    "OFL-1.1",
    "OLDAP-2.8",
    "OpenSSL",
    "PHP-3.01",
    "PostgreSQL",
    "PSF-2.0",
    "Python-2.0",
    "Python-2.0.1",
    "Ruby",
    "Sleepycat",
    "TCL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "UPL-1.0",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "Zlib",
    "zlib-acknowledgement",
    "ZPL-2.1",
    "GPL-2.0",
    "GPL-3.0",
    "LGPL-2.1",
    "LGPL-3.0",
    "AGPL-3.0",
    "GPL-2.0+",
    "GPL-3.0+",
];

const EXCEPTIONS: &[&str] = &[
    "Autoconf-exception-2.0",
    "Autoconf-exception-3.0",
    "Bison-exception-2.2",
    "Classpath-exception-2.0",
    "Font-exception-2.0",
    "GCC-exception-2.0",
    "GCC-exception-3.1",
    "LLVM-exception",
    "Linux-syscall-note",
    "OpenSSL-exception",
    "Libtool-exception",
];

/// The text, if it is an expression made of known licences.
pub(crate) fn expression(text: &str) -> Option<&str> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut depth, mut wants_operand, mut after_with) = (0i32, true, false);
    for word in spaced.split_whitespace() {
        match word {
            "(" if wants_operand && !after_with => depth += 1,
            ")" if !wants_operand && depth > 0 => depth -= 1,
            "AND" | "OR" if !wants_operand => wants_operand = true,
            "WITH" if !wants_operand => (wants_operand, after_with) = (true, true),
            word if wants_operand => {
                let list = if after_with { EXCEPTIONS } else { KNOWN };
                if !list.contains(&word) {
                    return None;
                }
                (wants_operand, after_with) = (false, false);
            }
            _ => return None,
        }
    }
    (depth == 0 && !wants_operand).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn only_known_licences_make_an_expression() {
        for good in
            ["MIT", "(MIT OR Apache-2.0) AND BSD-3-Clause", "Apache-2.0 WITH LLVM-exception"]
        {
            assert_eq!(expression(good), Some(good));
        }
        for bad in [
            "",
            "GPL",
            "MIT AND",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "OR MIT",
            "MIT WITH MIT",
            "MIT and ISC",
        ] {
            assert_eq!(expression(bad), None, "{bad}");
        }
    }
}
