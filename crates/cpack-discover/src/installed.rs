//! Reads the metadata that installers wrote: `.dist-info`, `.egg-info` and `.egg`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_format::SafePath;
use rayon::prelude::*;

use super::metadata::{self, Headers, normalise};
use super::model::{DirectUrl, EntryPoint, Finding, FindingKind};
use super::prefix_files::{PrefixFiles, Site, below};
use super::walk;
use crate::record::{self, Row};

/// A file that a distribution lists as its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// Relative to the environment.
    pub(super) path: Vec<u8>,
    /// `algorithm=digest`.
    pub(super) hash: Option<String>,
    pub(super) size: Option<u64>,
}

/// The metadata of one distribution.
#[derive(Debug)]
pub(super) struct Installed {
    /// Name as PEP 503 normalises it.
    pub(super) name: String,
    pub(super) headers: Headers,
    /// The directory or file of the metadata.
    pub(super) info: SafePath,
    /// The index of its site.
    pub(super) site: usize,
    pub(super) entry_points: Vec<EntryPoint>,
    pub(super) direct_url: Option<DirectUrl>,
    pub(super) tags: Vec<String>,
    pub(super) claims: Vec<Claim>,
    /// Folders and files that it owns unless another distribution lists them: its metadata and, if it has no list, its
    /// modules.
    pub(super) territory: Vec<Vec<u8>>,
    /// The time at which RECORD was written, in nanoseconds since 1970.
    pub(super) listed_ns: Option<i64>,
    /// Whether it is a conda package.
    pub(super) is_conda: bool,
}

/// All metadata in the sites.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// In the order of normalised names, each name once.
    pub(super) installed: Vec<Installed>,
    /// Folders and files of interrupted uninstallations and of hidden or older versions. They are not packed.
    pub(super) leftovers: Vec<Vec<u8>>,
    pub(super) findings: Vec<Finding>,
}

/// The location and the files of one metadata directory or file.
struct Info {
    path: Vec<u8>,
    site: usize,
    dir: PathBuf,
    files: Vec<Vec<u8>>,
    listed_ns: Option<i64>,
}

/// Reads the metadata of all distributions, in parallel.
pub(super) fn read(found: &PrefixFiles, prefix: &Path, sites: &[Site], at: &[u8]) -> Inventory {
    let (infos, mut inventory) = find(found, prefix, sites, at);
    let read: Vec<(Option<Installed>, Vec<Finding>)> =
        infos.par_iter().map(|info| read_one(info, sites.get(info.site), at)).collect();
    let mut installed: Vec<(Installed, usize)> = Vec::with_capacity(read.len());
    let index = found.index();
    for (distribution, findings) in read {
        inventory.findings.extend(findings);
        let Some(distribution) = distribution else { continue };
        let missing = distribution.claims.iter().filter(|c| !index.contains_key(c.path.as_slice())).count();
        installed.push((distribution, missing));
    }
    // Of two versions the one with fewer missing files is kept, then the one that was written last.
    installed.sort_by(|(a, a_missing), (b, b_missing)| {
        let key = |i: &Installed, missing| (i.name.clone(), i.site, missing, std::cmp::Reverse(i.listed_ns));
        key(a, *a_missing).cmp(&key(b, *b_missing)).then_with(|| b.info.cmp(&a.info))
    });
    for (found, _) in installed {
        match inventory.installed.last() {
            Some(kept) if kept.name == found.name => {
                if kept.site == found.site {
                    let message = format!(
                        "{} is installed twice: {} {} is packed, {} is left out; install it again",
                        found.name, kept.headers.name, kept.headers.version, found.info
                    );
                    inventory.findings.push(Finding::new(FindingKind::Duplicate, message));
                }
                inventory.leftovers.push(found.info.as_bytes().to_vec());
                if kept.site != found.site {
                    // The site that comes first on the path hides this one.
                    inventory.leftovers.extend(found.claims.into_iter().map(|claim| claim.path));
                }
            }
            _ => inventory.installed.push(found),
        }
    }
    inventory
}

/// Finds metadata and leftovers among the files of the sites.
fn find(found: &PrefixFiles, prefix: &Path, sites: &[Site], at: &[u8]) -> (Vec<Info>, Inventory) {
    let mut infos: BTreeMap<Vec<u8>, Info> = BTreeMap::new();
    let mut inventory = Inventory::default();
    let start = found.files.partition_point(|f| f.path.as_bytes() < at);
    for file in found.files.iter().skip(start) {
        let Some(rest) = below(file.path.as_bytes(), at) else {
            if file.path.as_bytes().starts_with(at) { continue } else { break }
        };
        let (top, inner) = split(rest);
        if top.first() == Some(&b'~') {
            let path = walk::join(at, top);
            if inventory.leftovers.last() != Some(&path) {
                inventory.findings.push(leftover(&path));
                inventory.leftovers.push(path);
            }
            continue;
        }
        let (folder, inner) = match extension(top) {
            Some(b"dist-info" | b"egg-info") => (top.to_vec(), inner),
            Some(b"egg") => match inner.and_then(|inner| below(inner, b"EGG-INFO")) {
                Some(inner) => (walk::join(top, b"EGG-INFO"), Some(inner)),
                None => continue,
            },
            _ => continue,
        };
        let info = infos.entry(folder).or_insert_with_key(|folder| {
            let source = file.on_disk(prefix);
            let site = sites.iter().position(|s| source.starts_with(&s.dir)).unwrap_or(0);
            let dir = sites.get(site).map(|s| s.dir.as_path()).unwrap_or(prefix);
            let dir = dir.join(OsStr::from_bytes(folder));
            Info { path: walk::join(at, folder), site, dir, files: Vec::new(), listed_ns: None }
        });
        if let Some(inner) = inner {
            if inner == b"RECORD" {
                info.listed_ns = Some(file.mtime_ns);
            }
            info.files.push(inner.to_vec());
        }
    }
    (infos.into_values().collect(), inventory)
}

fn leftover(path: &[u8]) -> Finding {
    let message =
        format!("{} is left out: an interrupted `pip uninstall` left it; delete it", String::from_utf8_lossy(path));
    Finding::new(FindingKind::Leftover, message)
}

/// Splits a path after its first component.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|b| *b == b'/') {
        Some(at) => (path.get(..at).unwrap_or(path), path.get(at + 1..)),
        None => (path, None),
    }
}

fn extension(name: &[u8]) -> Option<&[u8]> {
    name.rsplit(|b| *b == b'.').next().filter(|extension| extension.len() < name.len())
}

fn read_one(info: &Info, site: Option<&Site>, at: &[u8]) -> (Option<Installed>, Vec<Finding>) {
    let (Some(site), Ok(path)) = (site, SafePath::new(&info.path)) else { return (None, Vec::new()) };
    let shown = String::from_utf8_lossy(&info.path).into_owned();
    let file = |name: &str| {
        let there = info.files.iter().any(|f| f == name.as_bytes());
        there.then(|| fs::read(info.dir.join(name)).ok()).flatten()
    };
    let text = |name: &str| file(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let is_dist_info = info.path.ends_with(b".dist-info");
    let header_bytes = match (is_dist_info, info.files.is_empty()) {
        (true, _) => file("METADATA"),
        (false, false) => file("PKG-INFO"),
        (false, true) => fs::read(&info.dir).ok(),
    };
    let headers = header_bytes.as_deref().and_then(Headers::parse);
    let (listed, outside) = list(info, site, at, &file);
    if is_dist_info && headers.is_none() && listed.is_none() {
        let message = format!(
            "{shown} has neither METADATA nor RECORD: its files are packed as files that no distribution owns; delete it or install it again"
        );
        return (None, vec![Finding::new(FindingKind::DamagedMetadata, message)]);
    }
    let damage = damage(&shown, is_dist_info, headers.is_some(), listed.is_some());
    let findings = damage.into_iter().chain(outside).collect();
    let headers = headers.unwrap_or_else(|| Headers::from_file_name(&stem(&info.path)));
    let name = normalise(&headers.name);
    let territory = territory(info, at, &name, listed.is_some(), text("top_level.txt").as_deref());
    let mut headers = headers;
    if let (false, Some(requires)) = (is_dist_info, text("requires.txt")) {
        headers.requires = metadata::egg_requires(&requires);
    }
    let installed = Installed {
        name,
        headers,
        info: path,
        site: info.site,
        entry_points: text("entry_points.txt").map(|t| metadata::entry_points(&t)).unwrap_or_default(),
        direct_url: file("direct_url.json").and_then(|bytes| metadata::direct_url(&bytes)),
        tags: file("WHEEL").map(|bytes| metadata::wheel_tags(&bytes)).unwrap_or_default(),
        claims: listed.unwrap_or_default(),
        territory,
        listed_ns: info.listed_ns,
        is_conda: false,
    };
    (Some(installed), findings)
}

fn damage(shown: &str, is_dist_info: bool, headers: bool, listed: bool) -> Option<Finding> {
    let message = match (is_dist_info, headers, listed) {
        (_, false, _) => format!("{shown} has no readable metadata: its name is taken from the path; install it again"),
        (true, true, false) => {
            format!(
                "{shown} has no readable RECORD: its files are guessed by its name and top_level.txt; install it again"
            )
        }
        _ => return None,
    };
    Some(Finding::new(FindingKind::DamagedMetadata, message))
}

/// The name of the metadata, or of the egg, without its extension.
fn stem(path: &[u8]) -> String {
    let path = path.strip_suffix(b"/EGG-INFO").unwrap_or(path);
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let name = String::from_utf8_lossy(name);
    name.rsplit_once('.').map_or_else(|| name.to_string(), |(stem, _)| stem.to_owned())
}

/// The claims of RECORD or `installed-files.txt`, `None` without either, and a warning if they list files outside the
/// environment.
fn list(
    info: &Info,
    site: &Site,
    at: &[u8],
    file: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> (Option<Vec<Claim>>, Option<Finding>) {
    // That of an egg is of the wheel that it was made of, whose metadata was elsewhere; all that is in the egg is its own.
    let is_egg = info.path.ends_with(b"/EGG-INFO");
    let rows = file("RECORD").filter(|_| !is_egg).and_then(|bytes| record::parse(&bytes).ok());
    let (base, lines) = if let Some(rows) = rows {
        (&b""[..], rows)
    } else if let Some(bytes) = file("installed-files.txt") {
        let lines = bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = |path: &[u8]| Row { path: path.to_vec(), hash: None, size: None };
        let lines = lines.filter(|path| !path.is_empty()).map(line).collect();
        (below(&info.path, at).unwrap_or_default(), lines)
    } else {
        return (None, None);
    };
    let mut claims = Vec::with_capacity(lines.len());
    let mut outside = Vec::new();
    for line in lines {
        match site.resolve(at, base, &line.path) {
            Some(path) => claims.push(Claim { path, hash: line.hash, size: line.size }),
            None => outside.push(line.path),
        }
    }
    let finding = outside.first().map(|path| {
        let message = format!(
            "{} lists {} outside the environment, left out (first: {})",
            String::from_utf8_lossy(&info.path),
            if outside.len() == 1 { "a file".to_owned() } else { format!("{} files", outside.len()) },
            String::from_utf8_lossy(path)
        );
        Finding::new(FindingKind::Outside, message)
    });
    (Some(claims), finding)
}

/// The whole egg; otherwise the metadata and, without a list of files, the modules in `top_level.txt` or of the
/// distribution's own name.
fn territory(info: &Info, at: &[u8], name: &str, listed: bool, top_level: Option<&str>) -> Vec<Vec<u8>> {
    if let Some(egg) = info.path.strip_suffix(b"/EGG-INFO") {
        return vec![egg.to_vec()];
    }
    let mut territory = vec![info.path.clone()];
    if !listed {
        let own = name.replace('-', "_");
        let names: Vec<&str> = match top_level {
            Some(text) => text.lines().map(str::trim).filter(|line| !line.is_empty()).collect(),
            None => vec![own.as_str()],
        };
        territory.extend(names.into_iter().map(|name| walk::join(at, name.as_bytes())));
    }
    territory
}
