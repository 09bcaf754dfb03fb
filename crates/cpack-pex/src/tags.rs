//! Tags of wheels (PEP 425, PEP 600): which a CPython on Linux can use, and which it prefers.
//!
//! The order is that of `packaging.tags.sys_tags()`.

/// What tags tell of an interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `11` of Python 3.11.
    pub minor: u32,
    /// Its ABI, `cp311` or `cp313t`.
    pub abi: String,
    /// The machine, `x86_64`.
    pub machine: String,
    /// The node's glibc, `(2, 36)`. `None` for another C library.
    pub glibc: Option<(u32, u32)>,
}

/// How well a wheel fits. The least rank is the best.
pub type Rank = (u32, u32, u32);

/// Older names of `manylinux` platforms, and the glibc that they mean.
const LEGACY: [(&str, u32); 3] = [("manylinux1", 5), ("manylinux2010", 12), ("manylinux2014", 17)];

/// The three parts of a wheel's tag: Python, ABI, platform.
pub fn parts(wheel: &str) -> Option<(&str, &str, &str)> {
    let mut parts = wheel.strip_suffix(".whl")?.rsplitn(4, '-');
    let (platform, abi, python) = (parts.next()?, parts.next()?, parts.next()?);
    Some((python, abi, platform))
}

impl Target {
    /// The target of an interpreter: its version, `SOABI` and glibc.
    pub fn new(minor: u32, soabi: &str, machine: &str, glibc: &str) -> Self {
        let abi = soabi.split('-').nth(1).map(|digits| format!("cp{digits}"));
        let glibc = glibc
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?)));
        Self { minor, abi: abi.unwrap_or_else(|| format!("cp3{minor}")), machine: machine.into(), glibc }
    }

    /// How well the wheel with this file name fits. `None` if this interpreter cannot use it.
    pub fn rank(&self, wheel: &str) -> Option<Rank> {
        let (python, abi, platform) = parts(wheel)?;
        let ranks = python.split('.').flat_map(|python| {
            abi.split('.').flat_map(move |abi| platform.split('.').map(move |platform| (python, abi, platform)))
        });
        ranks.filter_map(|(python, abi, platform)| self.rank_of(python, abi, platform)).min()
    }

    fn rank_of(&self, python: &str, abi: &str, platform: &str) -> Option<Rank> {
        let place = self.platform(platform);
        let free_threaded = self.abi.ends_with('t');
        let cpython = python.strip_prefix("cp3").and_then(|minor| minor.parse::<u32>().ok());
        match (cpython, abi, place) {
            (Some(minor), abi, Some(place)) if minor == self.minor && abi == self.abi => Some((0, 0, place)),
            (Some(minor), "abi3", Some(place)) if minor == self.minor && !free_threaded => Some((1, 0, place)),
            (Some(minor), "none", Some(place)) if minor == self.minor => Some((2, 0, place)),
            (Some(minor), "abi3", Some(place)) if minor < self.minor && minor >= 2 && !free_threaded => {
                Some((3, self.minor - minor, place))
            }
            (None, "none", Some(place)) => Some((4, self.generic(python)?, place)),
            (Some(minor), "none", None) if minor == self.minor && platform == "any" => Some((5, 0, 0)),
            (None, "none", None) if platform == "any" => Some((6, self.generic(python)?, 0)),
            _ => None,
        }
    }

    /// The position of `py311`, `py3`, `py310` and so on in the order of preference.
    fn generic(&self, python: &str) -> Option<u32> {
        let minor = python.strip_prefix("py3")?;
        if minor.is_empty() {
            return Some(1);
        }
        let minor: u32 = minor.parse().ok()?;
        match self.minor.checked_sub(minor)? {
            0 => Some(0),
            older => Some(older + 1),
        }
    }

    /// The position of a platform in the order of preference.
    fn platform(&self, platform: &str) -> Option<u32> {
        let rest = platform.strip_suffix(&self.machine)?.strip_suffix('_')?;
        if rest == "linux" {
            return Some(u32::MAX);
        }
        let (major, minor) = self.glibc?;
        let (needed, is_legacy) = match LEGACY.iter().find(|(name, _)| *name == rest) {
            Some((_, minor)) => ((2, *minor), 1),
            None => {
                let (major, minor) = rest.strip_prefix("manylinux_")?.split_once('_')?;
                ((major.parse().ok()?, minor.parse().ok()?), 0)
            }
        };
        (needed.0 == major && needed.1 <= minor).then(|| (minor - needed.1) * 2 + is_legacy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::new(11, "cpython-311-x86_64-linux-gnu", "x86_64", "2.36")
    }

    #[test]
    fn wheels_are_preferred_in_the_order_of_packaging() {
        let order = [
            "a-1-cp311-cp311-manylinux_2_36_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-manylinux2014_x86_64.whl",
            "a-1-cp311-cp311-manylinux1_x86_64.whl",
            "a-1-cp311-cp311-linux_x86_64.whl",
            "a-1-cp311-abi3-manylinux_2_17_x86_64.whl",
            "a-1-cp311-none-manylinux_2_17_x86_64.whl",
            "a-1-cp310-abi3-manylinux_2_17_x86_64.whl",
            "a-1-cp38-abi3-manylinux_2_36_x86_64.whl",
            "a-1-py311-none-linux_x86_64.whl",
            "a-1-py3-none-manylinux_2_17_x86_64.whl",
            "a-1-py310-none-linux_x86_64.whl",
            "a-1-cp311-none-any.whl",
            "a-1-py311-none-any.whl",
            "a-1-py2.py3-none-any.whl",
            "a-1-py39-none-any.whl",
        ];
        let ranks: Vec<_> = order.iter().map(|wheel| target().rank(wheel).expect(wheel)).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    #[test]
    fn wheels_for_other_interpreters_do_not_fit() {
        for wheel in [
            "a-1-cp310-cp310-manylinux_2_17_x86_64.whl",
            "a-1-cp312-abi3-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311t-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_aarch64.whl",
            "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
            "a-1-cp311-cp311-macosx_11_0_arm64.whl",
            "a-1-py2-none-any.whl",
            "a-1-py312-none-any.whl",
            "a.egg",
        ] {
            assert_eq!(target().rank(wheel), None, "{wheel}");
        }
        let threaded = Target::new(13, "cpython-313t-x86_64-linux-gnu", "x86_64", "2.36");
        assert!(threaded.rank("a-1-cp313-cp313t-linux_x86_64.whl").is_some());
        assert!(threaded.rank("a-1-cp313-cp313-linux_x86_64.whl").is_none());
        assert!(threaded.rank("a-1-cp39-abi3-linux_x86_64.whl").is_none());
        let musl = Target::new(11, "cpython-311-x86_64-linux-musl", "x86_64", "");
        assert!(musl.rank("a-1-cp311-cp311-manylinux_2_17_x86_64.whl").is_none());
    }
}
