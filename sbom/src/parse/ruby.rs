//! What RubyGems and Bundler write of gems. Both files are read as text: no Ruby runs.

use crate::package::field;
use crate::{Ecosystem, Package};

/// A gem; `platform` is empty or `ruby` where it runs on any.
fn gem(name: &str, version: &str, platform: &str) -> Option<Package> {
    let mut package = Package::new(Ecosystem::Gem, name, version)?;
    package.architecture = field(Some(platform)).filter(|platform| platform != "ruby");
    Some(package)
}

/// The first text in quotes.
fn quoted(text: &str) -> Option<&str> {
    let start = text.find(['"', '\''])?;
    let (quote, rest) = text[start..].split_at(1);
    rest.split_once(quote).map(|(text, _)| text)
}

/// `specifications/*.gemspec`, as RubyGems writes it when it installs a gem: a comment
/// `# stub: NAME VERSION PLATFORM PATHS`, then one assignment per line.
pub(crate) fn gemspec(text: &str) -> Option<Package> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (_, field) = line.trim_start().split_once('.')?;
            let value = field.strip_prefix(name)?.trim_start().strip_prefix('=')?;
            quoted(value)
        })
    };
    let stub = text.lines().take(5).find_map(|line| line.strip_prefix("# stub: "));
    let mut stub = stub.unwrap_or_default().split_whitespace();
    let mut package = match (stub.next(), stub.next(), stub.next()) {
        (Some(name), Some(version), platform) => gem(name, version, platform.unwrap_or_default())?,
        _ => gem(value("name")?, value("version")?, value("platform").unwrap_or_default())?,
    };
    package.license = field(value("licenses").or_else(|| value("license")));
    package.supplier = field(value("authors").or_else(|| value("author")));
    package.homepage = field(value("homepage"));
    Some(package)
}

/// `Gemfile.lock`: below each `specs:`, gems stand behind four spaces and what they need behind six.
pub(crate) fn gemfile_lock(text: &str) -> Vec<Package> {
    let mut in_specs = false;
    let mut packages = Vec::new();
    for line in text.lines() {
        if !line.starts_with("    ") {
            in_specs = line.trim_end() == "  specs:";
        } else if in_specs && !line.starts_with("     ") {
            packages.extend(locked(line.trim()));
        }
    }
    packages
}

/// `NAME (VERSION)` or `NAME (VERSION-PLATFORM)`.
fn locked(line: &str) -> Option<Package> {
    let (name, version) = line.strip_suffix(')')?.split_once(" (")?;
    let (version, platform) = version.split_once('-').unwrap_or((version, ""));
    gem(name, version, platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAKE: &str = r##"# -*- encoding: utf-8 -*-
# stub: rake 13.0.6 ruby lib

Gem::Specification.new do |s|
  s.name = "rake".freeze
  s.version = "13.0.6"
  s.require_paths = ["lib".freeze]
  s.authors = ["Hiroshi SHIBATA".freeze, "Eric Hodel".freeze]
  s.homepage = "https://github.com/ruby/rake".freeze
  s.licenses = ["MIT".freeze]
  if s.respond_to? :specification_version then
    s.name = "other"
  end
end
"##;

    #[test]
    fn installed_gems_are_read_without_ruby() {
        let rake = gemspec(RAKE).unwrap();
        assert_eq!((&*rake.name, &*rake.version), ("rake", "13.0.6"));
        assert_eq!((rake.architecture.as_deref(), rake.license.as_deref()), (None, Some("MIT")));
        assert_eq!(rake.supplier.as_deref(), Some("Hiroshi SHIBATA"));
        let without_stub: String =
            RAKE.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert_eq!(gemspec(&without_stub), Some(rake));
        let native = gemspec("# stub: nokogiri 1.16.0 x86_64-linux lib\n").unwrap();
        assert_eq!(
            native.purl(&crate::Release::default()),
            "pkg:gem/nokogiri@1.16.0?platform=x86_64-linux"
        );
        for bad in ["", "# stub: x", "s.name = \"x", "s.name = NAME\ns.version = V"] {
            assert_eq!(gemspec(bad), None, "{bad}");
        }
    }

    #[test]
    fn gemfile_lock_lists_gems_and_not_what_they_need() {
        let text = "GIT\n  remote: https://example.org/a.git\n  revision: 1\n  specs:\n    a (0.1)\n\n\
            GEM\n  remote: https://rubygems.org/\n  specs:\n    nokogiri (1.16.0-x86_64-linux)\n      racc (~> 1.4)\n    \
            racc (1.7.3)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  a!\n  nokogiri (>= 1)\n\nCHECKSUMS\n  racc (1.7.3) sha256=x\n\n\
            BUNDLED WITH\n   2.4.10\n";
        let found = gemfile_lock(text);
        let found: Vec<_> = found
            .iter()
            .map(|gem| (&*gem.name, &*gem.version, gem.architecture.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("a", "0.1", None),
                ("nokogiri", "1.16.0", Some("x86_64-linux")),
                ("racc", "1.7.3", None)
            ]
        );
        assert!(gemfile_lock("    a (1)\n").is_empty());
    }
}
