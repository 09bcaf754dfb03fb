//! Assigns each file to a distribution, to the unowned files, or leaves it out. Pure except for [`Rules::read`].
//!
//! A file that one distribution lists belongs to it. A file that several list belongs to the first by name whose RECORD has
//! the file's hash; without any it is unowned. A file that none lists belongs to the distribution in whose metadata folder it
//! is, or to a distribution without a list whose modules have its name. Byte-code in `__pycache__` belongs to the owner of its
//! source. Byte-code of other interpreters or optimisation levels, or without source, is left out: importers ignore it, or
//! the packer compiles it again.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::record;

use super::installed::{Installed, Inventory};
use super::model::{Contested, FileStat, Finding, FindingKind};
use super::prefix_files::below;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The index of the distribution.
    Distribution(u32),
    Unowned,
    /// Not packed.
    LeftOut,
}

/// The inputs of [`assign`] beside files and metadata.
pub(super) struct Rules<'a> {
    /// Whether an unowned file is not packed because it is the virtual environment's own.
    pub(super) left_out: &'a dyn Fn(&FileStat) -> bool,
    /// Reads a file.
    pub(super) read: &'a dyn Fn(&FileStat) -> Option<Vec<u8>>,
    /// The part between name and `.pyc` in this interpreter's byte-code.
    pub(super) cache_tag: &'a str,
    /// Links to folders outside the environment, which are not missing files.
    pub(super) outside: &'a HashSet<&'a [u8]>,
}

/// The result of [`assign`].
#[derive(Debug, Default)]
pub(super) struct Assigned {
    /// One for each file.
    pub(super) owners: Vec<Owner>,
    pub(super) contested: Vec<Contested>,
    pub(super) findings: Vec<Finding>,
    /// The files of each distribution that its RECORD describes: the indexes of the file and of the claim.
    pub(super) described: Vec<Vec<(u32, u32)>>,
    /// Files of conda packages that pip installed, too: by who has them now, how many of them and the first.
    replaced: BTreeMap<(Option<u32>, Vec<u32>), (usize, String)>,
}

/// Assigns `files`, which are sorted by path.
pub(super) fn assign(files: &[FileStat], inventory: &Inventory, rules: &Rules<'_>) -> Assigned {
    let index: HashMap<&[u8], u32> = files.iter().map(|f| f.path.as_bytes()).zip(0u32..).collect();
    let mut assigned = Assigned { owners: vec![Owner::Unowned; files.len()], ..Assigned::default() };
    let contests = collect_claims(&index, inventory, rules.outside, &mut assigned);
    for (at, claimants) in &contests {
        if let Some(file) = files.get(*at as usize) {
            settle_contest((*at, file), claimants, inventory, rules, &mut assigned);
        }
    }
    let replaced = std::mem::take(&mut assigned.replaced);
    assigned.findings.extend(replaced.into_iter().map(|(who, files)| replaced_finding(inventory, who, files)));
    for described in &mut assigned.described {
        // The content of contested files was compared already.
        described.retain(|(file, _)| !contests.contains_key(file));
    }
    assign_territories(files, inventory, &mut assigned);
    for (i, file) in files.iter().enumerate() {
        let owner = assigned.owners.get(i).copied().unwrap_or(Owner::LeftOut);
        let owner = match cached_source(file.path.as_bytes(), rules.cache_tag) {
            Cached::No if owner == Owner::Unowned && (rules.left_out)(file) => Owner::LeftOut,
            Cached::No => owner,
            Cached::Ignored => Owner::LeftOut,
            Cached::Of(source) => match index.get(source.as_slice()) {
                Some(source) => source_owner(*source, files, &assigned, rules),
                None => Owner::LeftOut,
            },
        };
        if let Some(slot) = assigned.owners.get_mut(i) {
            *slot = owner;
        }
    }
    assigned
}

fn source_owner(source: u32, files: &[FileStat], assigned: &Assigned, rules: &Rules<'_>) -> Owner {
    let at = source as usize;
    match (assigned.owners.get(at), files.get(at)) {
        (Some(Owner::Unowned), Some(file)) if (rules.left_out)(file) => Owner::LeftOut,
        (Some(owner), _) => *owner,
        (None, _) => Owner::LeftOut,
    }
}

/// Files that several distributions list: the indexes of each distribution and of its claim.
type Contests = BTreeMap<u32, Vec<(u32, u32)>>;

/// Assigns files that one distribution lists, and returns those that several list.
fn collect_claims(
    index: &HashMap<&[u8], u32>,
    inventory: &Inventory,
    outside: &HashSet<&[u8]>,
    assigned: &mut Assigned,
) -> Contests {
    let mut contests = Contests::new();
    let mut first_claim: HashMap<u32, u32> = HashMap::new();
    for (installed, d) in inventory.installed.iter().zip(0u32..) {
        let mut described = Vec::with_capacity(installed.claims.len());
        let mut missing: Vec<&[u8]> = Vec::new();
        for (claim, c) in installed.claims.iter().zip(0u32..) {
            let Some(&file) = index.get(claim.path.as_slice()) else {
                if !claim.path.ends_with(b".pyc") && !outside.contains(claim.path.as_slice()) {
                    missing.push(&claim.path);
                }
                continue;
            };
            match assigned.owners.get_mut(file as usize) {
                Some(Owner::Distribution(owner)) if *owner != d => {
                    let first = first_claim.get(&file).copied().unwrap_or(0);
                    contests.entry(file).or_insert_with(|| vec![(*owner, first)]).push((d, c));
                }
                Some(owner) => {
                    *owner = Owner::Distribution(d);
                    first_claim.insert(file, c);
                    described.push((file, c));
                }
                None => {}
            }
        }
        assigned.findings.extend(missing_files(installed, &missing));
        assigned.described.push(described);
    }
    contests
}

fn missing_files(installed: &Installed, missing: &[&[u8]]) -> Option<Finding> {
    let first = missing.first()?;
    let (list, remedy) = if installed.is_conda {
        ("of conda: its record", "pip or a person removed or replaced what it lists")
    } else {
        (": RECORD", "install it again")
    };
    let message = format!(
        "{} {}{}{list} lists {} that {} not there (first: {}); {remedy}",
        installed.headers.name,
        installed.headers.version,
        if installed.is_conda { " " } else { "" },
        if missing.len() == 1 { "a file".to_owned() } else { format!("{} files", missing.len()) },
        if missing.len() == 1 { "is" } else { "are" },
        String::from_utf8_lossy(first)
    );
    Some(Finding::new(FindingKind::MissingFiles, message))
}

/// Assigns a file that several distributions list.
fn settle_contest(
    (at, file): (u32, &FileStat),
    claimants: &[(u32, u32)],
    inventory: &Inventory,
    rules: &Rules<'_>,
    assigned: &mut Assigned,
) {
    if !matches!(cached_source(file.path.as_bytes(), rules.cache_tag), Cached::No) {
        return;
    }
    let bytes = (rules.read)(file);
    let matches = |(d, c): &(u32, u32)| {
        let claim = inventory.installed.get(*d as usize).and_then(|i| i.claims.get(*c as usize));
        let hash = claim.and_then(|claim| claim.hash.as_deref());
        bytes.as_deref().zip(hash).and_then(|(bytes, hash)| record::matches(hash, bytes)) == Some(true)
    };
    let matching: Vec<u32> = claimants.iter().filter(|claimant| matches(claimant)).map(|(d, _)| *d).collect();
    let name = |d: &u32| inventory.installed.get(*d as usize).map(|i| i.name.clone()).unwrap_or_default();
    let contested = Contested {
        path: file.path.clone(),
        matching: matching.iter().map(name).collect(),
        claimants: claimants.iter().map(|(d, _)| name(d)).collect(),
    };
    let owner = matching.first().map_or(Owner::Unowned, |d| Owner::Distribution(*d));
    if let Some(slot) = assigned.owners.get_mut(at as usize) {
        *slot = owner;
    }
    let is_conda = |d: &u32| inventory.installed.get(*d as usize).is_some_and(|installed| installed.is_conda);
    if claimants.iter().any(|(d, _)| is_conda(d)) {
        let winner = matching.first().copied();
        let others = claimants.iter().map(|(d, _)| *d).filter(|d| Some(*d) != winner).collect();
        assigned.replaced.entry((winner, others)).or_insert_with(|| (0, file.path.to_string())).0 += 1;
    } else {
        assigned.findings.extend(contest_finding(&contested));
    }
    assigned.contested.push(contested);
}

/// What the user should know of files that conda and pip both installed: one line for all that have changed hands alike.
fn replaced_finding(
    inventory: &Inventory,
    (winner, others): (Option<u32>, Vec<u32>),
    (count, first): (usize, String),
) -> Finding {
    let named = |d: u32| {
        let installed = inventory.installed.get(d as usize);
        installed.map_or_else(String::new, |installed| {
            let by = if installed.is_conda { "conda" } else { "pip" };
            format!("{} {} of {by}", installed.headers.name, installed.headers.version)
        })
    };
    let files = if count == 1 { "a file".to_owned() } else { format!("{count} files") };
    let others: Vec<String> = others.into_iter().map(named).collect();
    let others = others.join(", ");
    let message = match winner {
        Some(winner) => {
            format!("{} has {files} that {others} lists, too (first: {first}): packed with it", named(winner))
        }
        None => format!(
            "{files} of {others} (first: {first}) have the content of none: packed as files that no package owns"
        ),
    };
    Finding::new(FindingKind::Contested, message)
}

fn contest_finding(contested: &Contested) -> Option<Finding> {
    let claimants = contested.claimants.join(", ");
    let message = match contested.matching.as_slice() {
        matching if matching.len() == contested.claimants.len() => return None,
        [] => format!(
            "{}: claimed by {claimants}, with the content of none; packed as a file that no distribution owns",
            contested.path
        ),
        [winner, ..] => {
            format!("{}: claimed by {claimants}, with the content of {winner}; the others may not work", contested.path)
        }
    };
    Some(Finding::new(FindingKind::Contested, message))
}

/// Assigns files that none lists to the distribution in whose territory they are, and leaves leftovers out.
fn assign_territories(files: &[FileStat], inventory: &Inventory, assigned: &mut Assigned) {
    let owned = inventory.installed.iter().zip(0u32..);
    let territories = owned.flat_map(|(i, d)| i.territory.iter().map(move |t| (t, Owner::Distribution(d))));
    let leftovers = inventory.leftovers.iter().map(|t| (t, Owner::LeftOut));
    for (territory, owner) in territories.chain(leftovers) {
        let start = files.partition_point(|f| f.path.as_bytes() < territory.as_slice());
        for (at, file) in files.iter().enumerate().skip(start) {
            let path = file.path.as_bytes();
            if !path.starts_with(territory) {
                break;
            }
            let rest = path.get(territory.len()..).unwrap_or_default();
            let inside = rest.is_empty() || below(path, territory).is_some();
            let module = rest.first() == Some(&b'.') && !rest.contains(&b'/');
            if let Some(slot @ Owner::Unowned) = assigned.owners.get_mut(at)
                && (inside || module)
            {
                *slot = owner;
            }
        }
    }
}

/// Whether a path is byte-code in `__pycache__`.
#[derive(Debug, PartialEq, Eq)]
enum Cached {
    /// Not in a `__pycache__`.
    No,
    /// Byte-code of this interpreter, of the source at this path.
    Of(Vec<u8>),
    /// Byte-code of another interpreter or optimisation level.
    Ignored,
}

fn cached_source(path: &[u8], cache_tag: &str) -> Cached {
    let mut parts = path.rsplitn(3, |b| *b == b'/');
    let (Some(name), Some(b"__pycache__")) = (parts.next(), parts.next()) else { return Cached::No };
    let Some(stem) = name.strip_suffix(b".pyc") else { return Cached::No };
    let module = stem.strip_suffix(cache_tag.as_bytes()).and_then(|stem| stem.strip_suffix(b"."));
    let Some(module) = module else { return Cached::Ignored };
    let source = [module, b".py"].concat();
    Cached::Of(match parts.next() {
        Some(folder) => [folder, b"/", &source].concat(),
        None => source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_source_of_byte_code() {
        for (path, expected) in [
            ("a/__pycache__/b.cpython-311.pyc", Cached::Of(b"a/b.py".to_vec())),
            ("__pycache__/b.c.cpython-311.pyc", Cached::Of(b"b.c.py".to_vec())),
            ("a/__pycache__/b.cpython-310.pyc", Cached::Ignored),
            ("a/__pycache__/b.cpython-311.opt-1.pyc", Cached::Ignored),
            ("a/__pycache__/data.bin", Cached::No),
            ("a/b.pyc", Cached::No),
        ] {
            assert_eq!(cached_source(path.as_bytes(), "cpython-311"), expected, "{path}");
        }
    }
}
