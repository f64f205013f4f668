//! Where a name leads: mirrors, other locations, nowhere.

use image::{Repository, Tag};

use crate::hosts::{HostRule, Tls, authority, longest, rule_for, tls_of};
use crate::{Error, Result, Target};

/// Where the repositories below one prefix, or one image, are reached; what a `[[registry]]` of
/// registries.conf (version 2) says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// What the route is for: `registry.example:5000`, `registry.example/team`, `*.example`,
    /// `registry.example/team/app:tag`.
    pub prefix: String,
    /// What replaces the prefix in what is read: `mirror.example/proxied`. As with skopeo,
    /// writing goes to the name as it is.
    pub location: Option<String>,
    /// Whether certificates may be wrong and TLS missing there.
    pub insecure: bool,
    /// Tried in order before the registry itself, for reading only.
    pub mirrors: Vec<Mirror>,
    /// Every use is refused.
    pub blocked: bool,
    /// Who says so, for messages: a file and the place in it.
    pub said_by: String,
}

/// A place that has (some of) the content of another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mirror {
    /// What replaces the route's prefix: `mirror.example/proxied`.
    pub location: String,
    /// Whether certificates may be wrong and TLS missing there.
    pub insecure: bool,
    /// The reference to request.
    pub pull: MirrorPull,
}

/// What a mirror may serve (`pull-from-mirror`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MirrorPull {
    /// Everything.
    #[default]
    All,
    /// Only images that are named by digest.
    Digests,
    /// Only images that are named by tag.
    Tags,
}

/// What a place is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Use {
    Writing,
    /// Reading an image that the user named so.
    Image(Target),
    /// Reading something that has neither tag nor digest.
    Reading,
}

impl Use {
    /// The part of a name that routes go by and a repository does not have.
    fn suffix(&self) -> String {
        match self {
            Use::Image(target) => target.suffix(),
            Use::Writing | Use::Reading => String::new(),
        }
    }
}

impl Mirror {
    fn serves(&self, r#use: &Use) -> bool {
        match (r#use, self.pull) {
            (Use::Writing, _)
            | (Use::Image(Target::Tag(_)), MirrorPull::Digests)
            | (Use::Image(Target::Digest(_)), MirrorPull::Tags) => false,
            (Use::Reading, pull) => pull == MirrorPull::All,
            (Use::Image(_), _) => true,
        }
    }
}

/// A name without its tag or digest, and that.
pub(crate) fn split(name: &str) -> (&str, Option<Result<Target, image::Error>>) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository, Some(digest.parse().map(Target::Digest)));
    }
    match name.rsplit_once(':') {
        // What stands before the first slash is a port.
        Some((repository, tag)) if repository.contains('/') => {
            (repository, Some(tag.parse::<Tag>().map(Target::Tag)))
        }
        _ => (name, None),
    }
}

impl Route {
    /// `name` with the route's prefix replaced, and the reference of the image there.
    fn moved(&self, name: &str, location: &str) -> Result<(Repository, Option<Target>)> {
        let rest = match self.prefix.starts_with("*.") {
            true => name.find('/').map_or("", |slash| &name[slash..]),
            false => &name[self.prefix.len()..],
        };
        let moved = format!("{location}{rest}");
        let unusable = |reason: String| Error::Configuration {
            action: format!("finding where {name} is, by {}", self.said_by),
            reason,
        };
        let (repository, target) = split(&moved);
        let parts = repository.split_once('/');
        let (registry, path) =
            parts.ok_or_else(|| unusable(format!("{moved:?} is not a repository")))?;
        let unusable = |error: image::Error| unusable(error.to_string());
        let target = target.transpose().map_err(unusable)?;
        Ok((Repository::new(registry, path).map_err(unusable)?, target))
    }
}

/// Where a repository is reached, and what must be known to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositoryAddress {
    /// The name at that place; also what credentials are looked up by.
    pub(crate) repository: Repository,
    /// The API's host and optional port.
    pub(crate) authority: String,
    /// How TLS is used.
    pub(crate) tls: Tls,
    /// The rule with certificates, limits and chunk size.
    pub(crate) rule: Option<usize>,
    /// The reference of the named image there.
    pub(crate) image: Option<Target>,
    /// Whether it is at the registry that was named: credentials of a command line are for that.
    pub(crate) named: bool,
}

/// The mirrors of a repository that serve this use, in the order they are tried, and the registry
/// itself. What is written goes by routes of the repository, not by those of one image.
pub(crate) fn places(
    (routes, rules): (&[Route], &[HostRule]),
    repository: &Repository,
    r#use: &Use,
) -> Result<(Vec<RepositoryAddress>, RepositoryAddress)> {
    let name = format!("{repository}{}", r#use.suffix());
    let Some((_, route)) = longest(routes, |route| &route.prefix, &name) else {
        return Ok((Vec::new(), place(rules, repository, (repository.clone(), None), false)));
    };
    if route.blocked {
        return Err(Error::Blocked { name, by: route.said_by.clone() });
    }
    let mut mirrors = Vec::new();
    for mirror in route.mirrors.iter().filter(|mirror| mirror.serves(r#use)) {
        let moved = route.moved(&name, &mirror.location)?;
        mirrors.push(place(rules, repository, moved, mirror.insecure));
    }
    let own = match &route.location {
        Some(location) if *r#use != Use::Writing => route.moved(&name, location)?,
        _ => (repository.clone(), None),
    };
    Ok((mirrors, place(rules, repository, own, route.insecure)))
}

/// What the flags say of TLS wins over the route.
fn place(
    rules: &[HostRule],
    asked: &Repository,
    (repository, image): (Repository, Option<Target>),
    insecure: bool,
) -> RepositoryAddress {
    let rule = rule_for(rules, &repository.to_string());
    let authority = authority(repository.registry()).to_owned();
    let own = rule.map(|(_, rule)| rule);
    let tls = match own.and_then(|rule| rule.tls) {
        None if insecure => Tls::Optional,
        _ => tls_of(own, &authority),
    };
    let named = repository.registry() == asked.registry();
    RepositoryAddress {
        repository,
        authority,
        tls,
        rule: rule.map(|(index, _)| index),
        image,
        named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str) -> Route {
        Route { prefix: prefix.to_owned(), ..Route::default() }
    }

    fn by_tag(tag: &str) -> Use {
        Use::Image(Target::Tag(tag.parse().unwrap()))
    }

    fn by_digest() -> Use {
        Use::Image(Target::Digest(format!("sha256:{}", "a".repeat(64)).parse().unwrap()))
    }

    fn mirror(location: &str, pull: MirrorPull) -> Mirror {
        Mirror { location: location.to_owned(), insecure: false, pull }
    }

    #[test]
    fn mirrors_come_first_for_reading_only() {
        let routes = [Route {
            mirrors: vec![
                mirror("127.0.0.1:5000/hub", MirrorPull::All),
                Mirror { insecure: true, ..mirror("m.example", MirrorPull::Digests) },
                mirror("t.example", MirrorPull::Tags),
            ],
            ..route("docker.io")
        }];
        let debian = Repository::new("docker.io", "library/debian").unwrap();
        let names = |r#use| {
            let (mut places, own) = places((&routes, &[]), &debian, &r#use).unwrap();
            places.push(own);
            let names = places
                .iter()
                .map(|p| format!("{} {} {:?}", p.authority, p.repository.path(), p.tls));
            names.collect::<Vec<_>>()
        };
        let own = "registry-1.docker.io library/debian Verify";
        let local = "127.0.0.1:5000 hub/library/debian Optional";
        assert_eq!(names(Use::Writing), [own]);
        assert_eq!(names(Use::Reading), [local, own]);
        assert_eq!(names(by_tag("12")), [local, "t.example library/debian Verify", own]);
        assert_eq!(names(by_digest()), [local, "m.example library/debian Optional", own]);
    }

    #[test]
    fn what_a_command_asks_of_tls_wins() {
        let app = Repository::new("a.example", "app").unwrap();
        let insecure = Route { insecure: true, ..route("a.example") };
        let rule = |tls| HostRule { prefix: "*".into(), tls, ..HostRule::default() };
        let tls = |rule: HostRule| {
            places((std::slice::from_ref(&insecure), &[rule]), &app, &Use::Reading).unwrap().1.tls
        };
        assert_eq!(tls(rule(None)), Tls::Optional);
        assert_eq!(tls(rule(Some(Tls::Verify))), Tls::Verify);
        let strict = HostRule { strict_loopback: true, ..rule(None) };
        assert_eq!(tls(strict.clone()), Tls::Optional);
        let here = Repository::new("localhost:5000", "app").unwrap();
        let tls = |rule: HostRule| places((&[], &[rule]), &here, &Use::Writing).unwrap().1.tls;
        assert_eq!((tls(rule(None)), tls(strict)), (Tls::Optional, Tls::Verify));
    }

    #[test]
    fn blocked_and_moved() {
        let app = Repository::new("a.example", "team/app").unwrap();
        let place = |routes: &[Route]| places((routes, &[]), &app, &by_tag("1"));
        let blocked = Route { blocked: true, said_by: "x.conf".into(), ..route("a.example/team") };
        let error = place(&[blocked]).unwrap_err();
        assert!(error.to_string().contains("x.conf"), "{error}");
        let to = |prefix: &str, location: &str| {
            let route = Route { location: Some(location.into()), ..route(prefix) };
            place(&[route]).map(|(_, own)| own.repository.to_string())
        };
        assert_eq!(to("a.example/team", "b.example/x").unwrap(), "b.example/x/app");
        assert_eq!(to("*.example", "b.example").unwrap(), "b.example/team/app");
        assert!(to("a.example/team/app", "b.example").is_err());
        let moved = Route { location: Some("b.example".into()), ..route("a.example") };
        let (_, own) = places((&[moved], &[]), &app, &Use::Writing).unwrap();
        assert_eq!(own.repository, app);
    }

    #[test]
    fn the_most_specific_route_decides_alone() {
        let app = Repository::new("a.example", "team/app").unwrap();
        let routes = [
            Route { blocked: true, ..route("*.example") },
            Route { blocked: true, ..route("a.example") },
            route("a.example/team"),
        ];
        assert!(places((&routes, &[]), &app, &Use::Reading).is_ok());
    }

    #[test]
    fn one_image_has_a_route_of_its_own() {
        let app = Repository::new("a.example", "team/app").unwrap();
        let Use::Image(pinned) = by_digest() else { panic!("an image") };
        let suffix = pinned.suffix();
        let routes = [
            Route { blocked: true, ..route("a.example/team/app:2") },
            Route {
                location: Some("b.example/app:one".into()),
                mirrors: vec![mirror(&format!("m.example/x{suffix}"), MirrorPull::All)],
                ..route("a.example/team/app:1")
            },
            Route {
                location: Some(format!("c.example/y{suffix}")),
                ..route(&format!("a.example/team/app{suffix}"))
            },
            Route { location: Some("d.example".into()), ..route("a.example") },
        ];
        let names = |r#use: &Use| {
            let (mut places, own) = places((&routes, &[]), &app, r#use)?;
            places.push(own);
            let name = |p: &RepositoryAddress| {
                format!(
                    "{}{}",
                    p.repository,
                    p.image.as_ref().map_or_else(String::new, Target::suffix)
                )
            };
            Ok::<_, Error>(places.iter().map(name).collect::<Vec<_>>())
        };
        let one = [format!("m.example/x{suffix}"), "b.example/app:one".to_owned()];
        assert_eq!(names(&by_tag("1")).unwrap(), one);
        assert!(matches!(names(&by_tag("2")), Err(Error::Blocked { .. })));
        assert_eq!(names(&by_digest()).unwrap(), [format!("c.example/y{suffix}")]);
        // Of the host, with the tag as it is: `1.1` and `11` are other tags, and a port is no tag.
        for tag in ["1.1", "11", "3"] {
            assert_eq!(names(&by_tag(tag)).unwrap(), [format!("d.example/team/app:{tag}")]);
        }
        assert_eq!(names(&Use::Reading).unwrap(), ["d.example/team/app"]);
        assert_eq!(names(&Use::Writing).unwrap(), ["a.example/team/app"]);
        let elsewhere = Repository::new("a.example:1", "team/app").unwrap();
        let (_, own) = places((&routes, &[]), &elsewhere, &by_tag("1")).unwrap();
        assert_eq!(own.repository, elsewhere);
    }
}
