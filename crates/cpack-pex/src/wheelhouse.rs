//! Wheelhouses: a directory or zip of wheels, as `pip download` and `pip wheel` write them, with or without a `requirements.txt`.
//!
//! A wheelhouse starts as a PEX of wheel files without code would; [`Pex::info`] is then the `PEX-INFO` that it stands for. The
//! wheels lie at its root or in one directory, `requirements.txt` beside them or at the root. Without `requirements.txt`
//! every project of the wheelhouse is required, and must be there in one version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use crate::error::PexFileError;
use crate::file::{Files, Pex, Source};
use crate::info::PexInfo;
use crate::requirement::Requirement;

const REQUIREMENTS: &str = "requirements.txt";

/// Options of pip that change nothing where there is no index.
const IGNORED: [&str; 9] = [
    "--no-index",
    "--find-links",
    "-f",
    "--index-url",
    "-i",
    "--extra-index-url",
    "--only-binary",
    "--prefer-binary",
    "--require-hashes",
];

/// What a wheelhouse has beside what a PEX has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wheelhouse {
    /// The directory of its wheels, below its root; empty for the root.
    pub(crate) directory: String,
    /// The source distributions beside the wheels. They cannot be installed.
    pub(crate) sdists: Vec<String>,
    /// Whether it has requirements. Otherwise it must have one version of each project.
    pub(crate) has_requirements: bool,
    /// The SHA-256 digests that `requirements.txt` allows, by project.
    hashes: BTreeMap<String, BTreeSet<String>>,
}

/// The files of a wheelhouse, by their paths in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    directory: String,
    wheels: Vec<String>,
    sdists: Vec<String>,
    pub(crate) requirements: Option<String>,
}

/// Finds the wheels among the paths of all files. `None` if there are none.
pub(crate) fn list<'a>(paths: impl Iterator<Item = &'a str>) -> Result<Option<Listing>, String> {
    let mut listing = Listing::default();
    let mut directories = BTreeSet::new();
    let (mut archives, mut requirements) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.starts_with('.') {
            continue;
        } else if name.ends_with(".whl") {
            directories.insert(directory);
            listing.wheels.push(name.to_owned());
        } else if name.ends_with(".tar.gz") || name.ends_with(".zip") {
            archives.push((directory, name));
        } else if name == REQUIREMENTS {
            requirements.insert(directory);
        }
    }
    let mut directories = directories.into_iter();
    let Some(directory) = directories.next() else { return Ok(None) };
    if let Some(other) = directories.next() {
        let shown = |directory: &str| if directory.is_empty() { "its root".into() } else { format!("{directory}/") };
        return Err(format!("it has wheels in {} and in {}: put them into one", shown(directory), shown(other)));
    }
    listing.directory = directory.to_owned();
    listing.sdists = archives.into_iter().filter(|(of, _)| *of == directory).map(|(_, name)| name.to_owned()).collect();
    listing.requirements = [directory, ""]
        .into_iter()
        .find(|place| requirements.contains(place))
        .map(|place| if place.is_empty() { REQUIREMENTS.to_owned() } else { format!("{place}/{REQUIREMENTS}") });
    Ok(Some(listing))
}

impl Wheelhouse {
    /// The wheelhouse of these files with the text of its `requirements.txt`, and the `PEX-INFO` that it stands for.
    pub(crate) fn new(listing: Listing, requirements: Option<&str>) -> Result<(Self, PexInfo), String> {
        let mut house = Self {
            directory: listing.directory,
            sdists: listing.sdists,
            has_requirements: requirements.is_some(),
            hashes: BTreeMap::new(),
        };
        let wanted = match requirements {
            Some(text) => house.required(text)?,
            None => {
                let all = listing.wheels.iter().chain(&house.sdists);
                all.map(|file| project(file)).collect::<BTreeSet<_>>().into_iter().collect()
            }
        };
        let info = PexInfo {
            deps_are_wheel_files: true,
            distributions: listing.wheels.into_iter().map(|wheel| (wheel, String::new())).collect(),
            requirements: wanted,
            venv: true,
            venv_hermetic_scripts: false,
            strip_pex_env: false,
            ..PexInfo::new()
        };
        Ok((house, info))
    }

    /// Reads the lines of a `requirements.txt`.
    fn required(&mut self, text: &str) -> Result<Vec<String>, String> {
        let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
        let mut wanted = Vec::new();
        for line in joined.lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let option = line.split([' ', '=']).next().unwrap_or_default();
            if line.is_empty() || line.starts_with('#') || IGNORED.contains(&option) {
                continue;
            }
            let (text, hashes) = line.split_at(line.find(" --hash").unwrap_or(line.len()));
            let requirement = Requirement::parse(text).filter(|_| !line.starts_with('-')).ok_or_else(|| {
                format!(
                    "its {REQUIREMENTS} has {line:?}; in a wheelhouse a line is a project with versions, extras and markers"
                )
            })?;
            let known = self.hashes.entry(requirement.name.to_string()).or_default();
            for hash in hashes.split("--hash").map(|hash| hash.trim_matches([' ', '=', '\t'])).filter(|h| !h.is_empty())
            {
                let digest = hash.strip_prefix("sha256:").ok_or_else(|| {
                    format!("its {REQUIREMENTS} has the hash {hash} for {}; only sha256 is known", requirement.name)
                })?;
                known.insert(digest.to_ascii_lowercase());
            }
            wanted.push(text.trim().to_owned());
        }
        Ok(wanted)
    }

    /// Adds to a requirement that no wheel meets the source distributions that there are of its project.
    pub(crate) fn explain(&self, unmet: String) -> String {
        let end = unmet.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c)).unwrap_or(unmet.len());
        let wanted = project(&format!("{}-", unmet.get(..end).unwrap_or_default()));
        match self.sdists.iter().find(|sdist| project(sdist) == wanted) {
            Some(sdist) => format!("{unmet}; {sdist} must be built first: `pip wheel --no-deps {sdist}`"),
            None => unmet,
        }
    }

    /// The digests that a wheel may have. `None` if any will do.
    fn allowed(&self, wheel: &str) -> Option<&BTreeSet<String>> {
        self.hashes.get(&project(wheel)).filter(|allowed| !allowed.is_empty())
    }
}

/// The normalised name (PEP 503) of the project of a wheel or source distribution.
pub(crate) fn project(file: &str) -> String {
    let name = if file.ends_with(".whl") {
        file.split('-').next().unwrap_or(file)
    } else {
        // The version is behind the last hyphen.
        file.rsplit_once('-').map_or(file, |(name, _)| name)
    };
    let mut parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| name + "-" + part).to_ascii_lowercase()
}

/// Verifies the wheels that are active against the hashes in the `requirements.txt` of their wheelhouse.
pub fn verify(pexes: &[Pex], source: &Source, resolved: &[Vec<String>]) -> Result<(), PexFileError> {
    let each = pexes.iter().zip(&source.files).zip(resolved);
    each.into_iter().try_for_each(|((pex, files), active)| verify_one(pex, files, active))
}

fn verify_one(pex: &Pex, files: &Files, active: &[String]) -> Result<(), PexFileError> {
    let Some(house) = &pex.wheelhouse else { return Ok(()) };
    for wheel in active {
        let Some(allowed) = house.allowed(wheel) else { continue };
        let Some(zip) = files.zips.iter().find(|zip| pex.wheel_of(&zip.prefix).is_some_and(|(name, _)| name == wheel))
        else {
            continue;
        };
        let unreadable = |source| PexFileError::Read { path: zip.path.clone(), source };
        let file = File::open(&zip.path).map_err(unreadable)?;
        let digest = sha256(&file, zip.start, zip.size).map_err(unreadable)?;
        if !allowed.contains(&digest) {
            let reason = format!("{wheel} has the SHA-256 {digest}, which its {REQUIREMENTS} does not have");
            return Err(PexFileError::Wheelhouse { path: pex.path.clone(), reason });
        }
    }
    Ok(())
}

/// The SHA-256 of `size` bytes of a file, in hexadecimal.
fn sha256(file: &File, mut at: u64, size: u64) -> io::Result<String> {
    let (mut hasher, mut left) = (Sha256::new(), size);
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let chunk = buffer.get_mut(..usize::try_from(left).unwrap_or(usize::MAX).min(1 << 20)).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        hasher.update(&*chunk);
        at += chunk.len() as u64;
        left -= chunk.len() as u64;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheelhouse(paths: &[&str], requirements: Option<&str>) -> Result<(Wheelhouse, PexInfo), String> {
        let listing = list(paths.iter().copied())?.ok_or("no wheels")?;
        Wheelhouse::new(listing, requirements)
    }

    const A: &str = "A.b_c-1.0-py3-none-any.whl";

    #[test]
    fn wheelhouse_without_requirements_requires_every_project() {
        let paths =
            ["w/d_e-2-py3-none-any.whl", &format!("w/{A}"), "w/._x-1-py3-none-any.whl", "w/f-g-1.tar.gz", "README"];
        let (house, info) = wheelhouse(&paths, None).expect("reads");
        assert_eq!((house.directory.as_str(), house.has_requirements), ("w", false));
        assert_eq!(info.requirements, ["a-b-c", "d-e", "f-g"]);
        assert_eq!(info.distributions.keys().collect::<Vec<_>>(), [A, "d_e-2-py3-none-any.whl"]);
        assert_eq!(house.sdists, ["f-g-1.tar.gz"]);
    }

    #[test]
    fn wheelhouse_takes_lines_of_requirements_and_their_hashes() {
        let text = "# pins\n--no-index\n-f wheels/\n\nA_b.c[x] >= 1.0 ; python_version > '3.8'  # why\n\
                    d==2 \\\n    --hash=sha256:AA \\\r\n    --hash sha256:bb\n";
        let (house, info) = wheelhouse(&[A, "requirements.txt"], Some(text)).expect("reads");
        assert_eq!(info.requirements, ["A_b.c[x] >= 1.0 ; python_version > '3.8'", "d==2"]);
        assert_eq!(house.allowed(A), None);
        let allowed: BTreeSet<String> = ["aa", "bb"].map(str::to_owned).into();
        assert_eq!(house.allowed("D-2-py3-none-any.whl"), Some(&allowed));
    }

    #[test]
    fn wheelhouse_names_the_line_that_it_cannot_use() {
        for line in ["-r more.txt", "-c pins.txt", "-e .", "./x.whl", "a b", "a --hash=md5:1"] {
            let reason = wheelhouse(&[A], Some(line)).expect_err(line);
            assert!(
                reason.contains("requirements.txt") && reason.contains(line.rsplit('=').next().expect("text")),
                "{reason}"
            );
        }
        let reason = wheelhouse(&[A, "x/b-1-py3-none-any.whl"], None).expect_err("two directories");
        assert_eq!(reason, "it has wheels in its root and in x/: put them into one");
        assert_eq!(list(["a.txt", "requirements.txt"].into_iter()), Ok(None));
    }

    #[test]
    fn wheelhouse_tells_that_an_sdist_must_be_built() {
        let (house, _) = wheelhouse(&[A, "f-g-1.tar.gz"], None).expect("reads");
        let told = house.explain("F_g[x]>=1 of b-1-py3-none-any.whl".into());
        assert!(told.ends_with("; f-g-1.tar.gz must be built first: `pip wheel --no-deps f-g-1.tar.gz`"), "{told}");
        assert_eq!(house.explain("f>1".into()), "f>1");
    }

    #[test]
    fn wheelhouse_finds_requirements_beside_the_wheels_or_at_the_root() {
        for (paths, expected) in [
            (["w/a-1-py3-none-any.whl", "w/requirements.txt", "requirements.txt"], Some("w/requirements.txt")),
            (["w/a-1-py3-none-any.whl", "v/requirements.txt", "requirements.txt"], Some("requirements.txt")),
            (["w/a-1-py3-none-any.whl", "v/requirements.txt", "x"], None),
        ] {
            let listing = list(paths.into_iter()).expect("one directory").expect("wheels");
            assert_eq!(listing.requirements.as_deref(), expected, "{paths:?}");
        }
    }
}
