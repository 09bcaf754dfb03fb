//! Platforms to pack for, by the names that uv gives them.

use cpack_discover::PythonInfo;

use super::error::RequirementsError;

/// A Linux that environments are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    /// As the user wrote it, and as uv takes it.
    name: String,
    arch: String,
    libc: Libc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Libc {
    /// glibc, at least of this version where one is known.
    Gnu(Option<(u32, u32)>),
    Musl,
}

/// The oldest glibc that wheels are tagged for.
const OLDEST_GLIBC: u32 = 5;

/// The version assumed for a glibc without one. uv assumes manylinux_2_28 too.
const USUAL_GLIBC: (u32, u32) = (2, 28);

impl Platform {
    /// Parses a name such as `x86_64-manylinux_2_28`, `aarch64-unknown-linux-gnu` or `linux`.
    pub(crate) fn parse(name: &str) -> Result<Self, RequirementsError> {
        let (arch, rest) =
            if name == "linux" { ("x86_64", "linux") } else { name.split_once('-').unwrap_or((name, "")) };
        let glibc = |version: &str| {
            let (major, minor) = version.split_once('_')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let libc = match rest.strip_prefix("manylinux") {
            Some("1") => Libc::Gnu(Some((2, 5))),
            Some("2010") => Libc::Gnu(Some((2, 12))),
            Some("2014") => Libc::Gnu(Some((2, 17))),
            Some(version) => match version.strip_prefix('_').and_then(glibc) {
                Some(version) => Libc::Gnu(Some(version)),
                None => return Err(RequirementsError::Platform(name.to_owned())),
            },
            None if rest.contains("musl") => Libc::Musl,
            None if rest.contains("linux") => Libc::Gnu(None),
            None => return Err(RequirementsError::Platform(name.to_owned())),
        };
        Ok(Self { name: name.to_owned(), arch: arch.to_owned(), libc })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tags of wheels that work on the platform, as pip takes them, newest first.
    pub(super) fn pip_tags(&self) -> Vec<String> {
        let arch = &self.arch;
        let mut tags = Vec::new();
        match self.libc {
            Libc::Musl => tags.extend((1..=2).rev().map(|minor| format!("musllinux_1_{minor}_{arch}"))),
            Libc::Gnu(version) => {
                let (major, newest) = version.unwrap_or(USUAL_GLIBC);
                for minor in (OLDEST_GLIBC..=newest).rev() {
                    tags.push(format!("manylinux_{major}_{minor}_{arch}"));
                    let older = [(17, "2014"), (12, "2010"), (5, "1")].into_iter().find(|(m, _)| *m == minor);
                    tags.extend(older.map(|(_, name)| format!("manylinux{name}_{arch}")));
                }
            }
        }
        tags.push(format!("linux_{arch}"));
        tags
    }

    /// Whether a wheel with this tag (`cp311-cp311-manylinux_2_17_x86_64`) may work on the platform.
    pub(super) fn accepts(&self, tag: &str) -> bool {
        let platform = tag.rsplit('-').next().unwrap_or(tag);
        platform.split('.').any(|platform| {
            let is_linux = ["linux", "manylinux", "musllinux"].iter().any(|name| platform.starts_with(name));
            platform == "any" || is_linux && platform.ends_with(&format!("_{}", self.arch))
        })
    }

    /// The facts of an interpreter of the same version on the platform.
    pub(crate) fn python(&self, here: &PythonInfo) -> PythonInfo {
        let implementation: Vec<&str> = here.soabi.split('-').take(2).collect();
        let (libc, glibc) = match self.libc {
            Libc::Gnu(version) => ("gnu", version.map(|(major, minor)| format!("{major}.{minor}"))),
            Libc::Musl => ("musl", None),
        };
        PythonInfo {
            soabi: format!("{}-{}-linux-{libc}", implementation.join("-"), self.arch),
            platform: format!("linux-{}", self.arch),
            glibc,
            ..here.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_linux_are_understood() {
        for (name, arch, libc) in [
            ("linux", "x86_64", Libc::Gnu(None)),
            ("x86_64-unknown-linux-gnu", "x86_64", Libc::Gnu(None)),
            ("aarch64-unknown-linux-musl", "aarch64", Libc::Musl),
            ("x86_64-manylinux2014", "x86_64", Libc::Gnu(Some((2, 17)))),
            ("aarch64-manylinux_2_31", "aarch64", Libc::Gnu(Some((2, 31)))),
        ] {
            let found = Platform::parse(name).expect(name);
            assert_eq!((found.arch.as_str(), found.libc), (arch, libc), "{name}");
        }
        for name in ["windows", "macos", "aarch64-apple-darwin", "x86_64-manylinux_x", "x86_64"] {
            let error = Platform::parse(name).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains("x86_64-manylinux_2_28"), "{error}");
        }
    }

    #[test]
    fn wheels_are_judged_by_their_tags() {
        let platform = Platform::parse("x86_64-manylinux_2_17").expect("known");
        for (tag, accepted) in [
            ("py3-none-any", true),
            ("cp311-cp311-manylinux_2_17_x86_64", true),
            ("cp311-cp311-linux_x86_64", true),
            ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", true),
            ("cp311-cp311-macosx_11_0_arm64", false),
            ("cp311-cp311-manylinux_2_17_aarch64", false),
        ] {
            assert_eq!(platform.accepts(tag), accepted, "{tag}");
        }
        let tags = platform.pip_tags();
        assert_eq!(tags.first().map(String::as_str), Some("manylinux_2_17_x86_64"));
        assert!(tags.iter().any(|t| t == "manylinux2014_x86_64") && tags.iter().any(|t| t == "manylinux1_x86_64"));
    }
}
