//! Profiles as Docker writes them, which say what holds for which capabilities and machines.
//!
//! A profile of the runtime-spec is one without conditions, and is read as well.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The default profile of containers: Docker's rules, with the changes in the comments of
/// `default.json`.
const DEFAULT: &str = include_str!("default.json");

/// No profile is larger.
const MAX_PROFILE: usize = 4 << 20;

/// A system call filter in Docker's format. Fields that are not known are refused: they might
/// forbid something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeccompProfile {
    default_action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architectures: Option<Vec<Arch>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arch_map: Option<Vec<Family>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

/// An architecture, and the older ones its kernel runs too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Family {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    includes: Option<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    excludes: Option<Condition>,
}

/// Which containers and machines a rule is for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caps: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arches: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_kernel: Option<String>,
}

/// What the conditions of a profile are compared with.
pub(crate) struct Machine<'a> {
    /// The container's capabilities, without `CAP_`.
    pub(crate) capabilities: &'a BTreeSet<&'a str>,
    /// The kernel's version: major, minor.
    pub(crate) kernel: (u32, u32),
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::invalid("seccomp profile", reason)
}

impl SeccompProfile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it is none, or says something that is not understood.
    pub fn parse(text: &str) -> Result<SeccompProfile> {
        if text.len() > MAX_PROFILE {
            return Err(wrong("it is larger than 4 MiB"));
        }
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
    }

    /// The profile of containers that ask for none.
    ///
    /// # Errors
    /// None that a test would not have found.
    pub(crate) fn standard() -> Result<SeccompProfile> {
        SeccompProfile::parse(DEFAULT)
    }

    /// The rules that hold for a container.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a profile that contradicts itself.
    pub(crate) fn resolve(&self, machine: &Machine<'_>) -> Result<LinuxSeccomp> {
        let rules = self.syscalls.iter().map(|rule| rule.resolve(machine));
        let rules: Vec<LinuxSyscall> =
            rules.filter_map(Result::transpose).collect::<Result<_>>()?;
        let mut profile = LinuxSeccompBuilder::default()
            .default_action(self.default_action)
            .architectures(self.conventions()?)
            .syscalls(rules)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        profile.set_default_errno_ret(self.default_errno_ret).set_flags(self.flags.clone());
        Ok(profile)
    }

    fn conventions(&self) -> Result<Vec<Arch>> {
        let native = super::native();
        match (&self.architectures, &self.arch_map) {
            (Some(listed), Some(map)) if !listed.is_empty() && !map.is_empty() => {
                Err(wrong("architectures and archMap cannot be combined"))
            }
            (Some(listed), _) if !listed.is_empty() => Ok(listed.clone()),
            (_, map) => {
                let own = map.iter().flatten().find(|family| family.architecture == native);
                let older = own.and_then(|family| family.sub_architectures.clone());
                Ok(std::iter::once(native).chain(older.unwrap_or_default()).collect())
            }
        }
    }
}

impl Rule {
    fn resolve(&self, machine: &Machine<'_>) -> Result<Option<LinuxSyscall>> {
        let (none, includes) = (Condition::default(), self.includes.as_ref());
        let excluded = self.excludes.as_ref().unwrap_or(&none).any(machine)?;
        if excluded || !includes.unwrap_or(&none).all(machine)? {
            return Ok(None);
        }
        let names: Vec<String> = match (&self.name, self.names.as_slice()) {
            (None, []) => return Err(wrong("a rule has no name")),
            (Some(_), [_, ..]) => return Err(wrong("name and names cannot be combined")),
            (Some(name), []) => vec![name.clone()],
            (None, names) => names.to_vec(),
        };
        let mut rule = LinuxSyscallBuilder::default()
            .names(names)
            .action(self.action)
            .args(self.args.clone().unwrap_or_default())
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        rule.set_errno_ret(self.errno_ret);
        Ok(Some(rule))
    }
}

impl Condition {
    /// Whether everything it names is so.
    fn all(&self, machine: &Machine<'_>) -> Result<bool> {
        let old = match &self.min_kernel {
            Some(version) => machine.kernel < kernel(version)?,
            None => false,
        };
        Ok(!old
            && self.caps.iter().flatten().all(|name| machine.has(name))
            && self.arches.iter().all(|list| list.is_empty() || is_listed(list)))
    }

    /// Whether anything it names is so.
    fn any(&self, machine: &Machine<'_>) -> Result<bool> {
        let recent = match &self.min_kernel {
            Some(version) => machine.kernel >= kernel(version)?,
            None => false,
        };
        Ok(recent
            || self.caps.iter().flatten().any(|name| machine.has(name))
            || self.arches.iter().any(|list| is_listed(list)))
    }
}

impl Machine<'_> {
    fn has(&self, capability: &str) -> bool {
        self.capabilities.contains(capability.strip_prefix("CAP_").unwrap_or(capability))
    }
}

/// Whether a list of architectures, by Docker's names, has this one.
fn is_listed(list: &[String]) -> bool {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    list.iter().any(|name| name == own)
}

/// The first two numbers of a kernel's version.
pub(crate) fn kernel(version: &str) -> Result<(u32, u32)> {
    let numbers = version.split(['.', '-', '+']).map(|part| part.parse().ok());
    let numbers: Vec<Option<u32>> = numbers.take(2).collect();
    match numbers.as_slice() {
        [Some(major), Some(minor)] => Ok((*major, *minor)),
        _ => Err(wrong(format!("{version:?} is not the version of a kernel"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(rule: &str, capabilities: &[&str]) -> Result<Option<Vec<String>>> {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rule}]}}"#);
        let capabilities = capabilities.iter().copied().collect();
        let machine = Machine { capabilities: &capabilities, kernel: (6, 1) };
        let profile = SeccompProfile::parse(&text)?.resolve(&machine)?;
        Ok(profile.syscalls().iter().flatten().next().map(|rule| rule.names().clone()))
    }

    #[test]
    fn conditions_are_dockers() {
        let rule =
            |rest: &str| format!(r#"{{"names": ["bpf"], "action": "SCMP_ACT_ALLOW"{rest}}}"#);
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        for (rest, caps, expected) in [
            (String::new(), &[][..], true),
            (r#", "includes": {"caps": ["CAP_BPF"]}"#.into(), &[], false),
            (r#", "includes": {"caps": ["CAP_BPF"]}"#.into(), &["BPF"], true),
            (r#", "includes": {"caps": ["CAP_BPF", "CAP_CHOWN"]}"#.into(), &["BPF"], false),
            (r#", "excludes": {"caps": ["CAP_BPF", "CAP_CHOWN"]}"#.into(), &["BPF"], false),
            (r#", "excludes": {"caps": ["CAP_BPF"]}"#.into(), &["CHOWN"], true),
            (format!(r#", "includes": {{"arches": ["s390x", "{own}"]}}"#), &[], true),
            (r#", "includes": {"arches": ["s390x"]}"#.into(), &[], false),
            (format!(r#", "excludes": {{"arches": ["{own}"]}}"#), &[], false),
            (r#", "includes": {"minKernel": "4.8"}"#.into(), &[], true),
            (r#", "includes": {"minKernel": "6.2"}"#.into(), &[], false),
            (r#", "includes": {}, "excludes": {}, "args": null, "comment": "c""#.into(), &[], true),
        ] {
            let got = resolved(&rule(&rest), caps).unwrap();
            assert_eq!(got.is_some(), expected, "{rest} {caps:?}");
        }
        let one = r#"{"name": "bpf", "action": "SCMP_ACT_ALLOW"}"#;
        assert_eq!(resolved(one, &[]).unwrap(), Some(vec!["bpf".to_owned()]));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for rule in [
            r#"{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "onlyFor": "me"}"#,
            r#"{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"users": ["me"]}}"#,
            r#"{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}"#,
            r#"{"names": ["bpf"], "name": "bpf", "action": "SCMP_ACT_ALLOW"}"#,
            r#"{"action": "SCMP_ACT_ALLOW"}"#,
            r#"{"names": ["bpf"], "action": "SCMP_ACT_FLY"}"#,
        ] {
            assert!(matches!(resolved(rule, &[]), Err(Error::Invalid { .. })), "{rule}");
        }
        assert!(SeccompProfile::parse(&" ".repeat(MAX_PROFILE + 1)).is_err());
    }
}
