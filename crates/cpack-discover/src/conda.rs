//! Conda packages, as installers list them in `conda-meta/NAME-VERSION-BUILD.json`.
//!
//! conda, mamba, micromamba, pixi and rattler write one such record for each package. Few of its fields are needed, and a field
//! that is missing or unknown is no error: records of all releases are read. A record in a layer holds what describes the package
//! and nothing of where it was installed, from which cache, by which request, or with which credentials.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cpack_format::SafePath;
use cpack_format::prefix::Mode;
use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::installed::{Claim, Installed, Inventory};
use crate::metadata::{Headers, without_credentials};
use crate::model::{CondaPackage, Finding, FindingKind, Placeholder};
use crate::prefix_files::join_normalised;
use crate::record;

/// The folder of the records.
pub(super) const META: &str = "conda-meta";

/// Fields of a record that describe the package itself.
const KEPT: [&str; 19] = [
    "arch",
    "build",
    "build_number",
    "constrains",
    "depends",
    "features",
    "fn",
    "license",
    "license_family",
    "md5",
    "name",
    "noarch",
    "platform",
    "sha256",
    "size",
    "subdir",
    "timestamp",
    "track_features",
    "version",
];

/// Fields of a file in a record that do not depend on where it was installed.
const KEPT_OF_PATH: [&str; 6] = ["_path", "file_mode", "no_link", "path_type", "prefix_placeholder", "sha256"];

/// One record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) package: CondaPackage,
    /// Its files, byte-code included.
    claims: Vec<Claim>,
    /// When it was written, in nanoseconds since 1970.
    written_ns: i64,
}

/// Reads all records of `prefix`, in the order of the packages' names.
pub(super) fn read(prefix: &Path) -> (Vec<Record>, Vec<Finding>) {
    let files: Vec<PathBuf> =
        fs::read_dir(prefix.join(META)).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let is_record = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let read: Vec<Result<Record, Finding>> = files.par_iter().filter(is_record).map(|path| read_one(path)).collect();
    let (mut records, mut findings) = (Vec::new(), Vec::new());
    for record in read {
        match record {
            Ok(record) => records.push(record),
            Err(finding) => findings.push(finding),
        }
    }
    records.sort_by(|a, b| (&a.package.name, &a.package.record).cmp(&(&b.package.name, &b.package.record)));
    findings.sort();
    (records, findings)
}

fn read_one(path: &Path) -> Result<Record, Finding> {
    let failed = |reason: &str| {
        let message = format!(
            "{} cannot be read ({reason}): the files of its package are packed as files that no package owns; install it again",
            path.display()
        );
        Finding::new(FindingKind::DamagedMetadata, message)
    };
    let bytes = fs::read(path).map_err(|e| failed(&e.to_string()))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| failed(&e.to_string()))?;
    let written_ns = crate::walk::stat(path, b"x").map_or(i64::MAX, |stat| stat.mtime_ns);
    let name = path.file_name().unwrap_or_default().as_bytes();
    let at = SafePath::new(&[META.as_bytes(), b"/", name].concat()).map_err(|e| failed(&e.to_string()))?;
    parse(&value, at, written_ns).ok_or_else(|| failed("it has no name or version"))
}

/// `None` without name and version.
fn parse(value: &Value, at: SafePath, written_ns: i64) -> Option<Record> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let list = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
    let words = |key: &str| list(key).filter_map(Value::as_str);
    let entries = value.pointer("/paths_data/paths").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (mut claims, mut placeholders) = (BTreeMap::new(), HashMap::new());
    for path in words("files").filter_map(|path| join_normalised(b"", path.as_bytes())) {
        claims.insert(path.clone(), Claim { path, hash: None, size: None });
    }
    for entry in entries {
        let Some(path) = entry.get("_path").and_then(Value::as_str) else { continue };
        let Some(path) = join_normalised(b"", path.as_bytes()) else { continue };
        let (claim, placeholder) = parse_entry(entry, path.clone());
        placeholders.extend(SafePath::new(&path).ok().zip(placeholder));
        claims.insert(path, claim);
    }
    let package = CondaPackage {
        name: text("name")?.to_owned(),
        version: text("version")?.to_owned(),
        build: text("build").unwrap_or_default().to_owned(),
        depends: words("depends").filter_map(|spec| Some(spec.split_whitespace().next()?.to_owned())).collect(),
        unpacked: unpacked(value),
        record: at,
        record_bytes: serde_json::to_vec_pretty(&portable(value, entries)).unwrap_or_default(),
        placeholders,
        files: Vec::new(),
        entry_points: Vec::new(),
        import_names: Vec::new(),
        suspects: Vec::new(),
    };
    Some(Record { package, claims: claims.into_values().collect(), written_ns })
}

fn parse_entry(entry: &Value, path: Vec<u8>) -> (Claim, Option<Placeholder>) {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let hash = |key: &str| text(key).and_then(record_hash);
    let is_file = text("path_type").is_none_or(|kind| kind == "hardlink");
    let placeholder = text("prefix_placeholder").filter(|text| !text.is_empty()).map(|placeholder| Placeholder {
        placeholder: placeholder.to_owned(),
        mode: if text("file_mode") == Some("binary") { Mode::Binary } else { Mode::Text },
        hash: hash("sha256"),
    });
    // Some installers note the length before, some the one after they wrote the prefix.
    let size = entry.get("size_in_bytes").and_then(Value::as_u64).filter(|_| is_file && placeholder.is_none());
    let installed = hash("sha256_in_prefix").or_else(|| hash("sha256")).filter(|_| is_file);
    (Claim { path, hash: installed, size }, placeholder)
}

/// A digest as `RECORD` has it.
fn record_hash(hex: &str) -> Option<String> {
    let digits = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    let bytes: Vec<u8> = digits.collect::<Option<_>>()?;
    (bytes.len() == 32).then(|| format!("sha256={}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// The package's directory in the installer's cache, where its files are as they were built.
fn unpacked(value: &Value) -> Option<PathBuf> {
    let named = value.get("extracted_package_dir").or(value.pointer("/link/source")).and_then(Value::as_str);
    named.filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// The record without what belongs to one installation.
fn portable(value: &Value, entries: &[Value]) -> Value {
    let pick = |value: &Value, keys: &[&str]| -> Map<String, Value> {
        let kept = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone())));
        kept.filter(|(_, value)| !value.is_null()).collect()
    };
    let mut kept = pick(value, &KEPT);
    for key in ["channel", "url"] {
        if let Some(url) = value.get(key).and_then(Value::as_str).and_then(public_url) {
            kept.insert(key.to_owned(), url.into());
        }
    }
    let paths: Vec<Value> = entries.iter().map(|entry| portable_entry(pick(entry, &KEPT_OF_PATH))).collect();
    kept.insert("files".into(), value.get("files").cloned().unwrap_or_default());
    kept.insert("link".into(), serde_json::json!({ "source": "", "type": 1 }));
    kept.insert("paths_data".into(), serde_json::json!({ "paths": paths, "paths_version": 1 }));
    Value::Object(kept)
}

/// The digest of what an installer made itself, a script or byte-code, is that of one installation.
fn portable_entry(mut entry: Map<String, Value>) -> Value {
    if entry.get("path_type").is_some_and(|kind| kind != "hardlink") {
        entry.remove("sha256");
    }
    Value::Object(entry)
}

/// A URL without user, password and token (`/t/TOKEN/`); `None` for a path of this machine.
fn public_url(url: &str) -> Option<String> {
    if url.starts_with('/') || url.starts_with("file:") {
        return None;
    }
    let url = without_credentials(url);
    let Some((before, rest)) = url.split_once("/t/") else { return Some(url) };
    Some(format!("{before}/{}", rest.split_once('/').map_or("", |(_, rest)| rest)))
}

/// Adds the conda packages to what pip installed. Distributions that came with a conda package are no longer listed by
/// themselves: the package has their files, and gets their entry points. Returns where the packages begin, and each package.
pub(super) fn join(records: Vec<Record>, inventory: &mut Inventory, prefix: &Path) -> (usize, Vec<CondaPackage>) {
    let mut packages = Vec::with_capacity(records.len());
    let mut joined = Vec::with_capacity(records.len());
    let mut owners: HashMap<Vec<u8>, (usize, Option<String>)> = HashMap::new();
    for (at, Record { package, claims, written_ns }) in records.into_iter().enumerate() {
        for claim in &claims {
            owners.insert(claim.path.clone(), (at, claim.hash.clone()));
        }
        joined.push(as_installed(&package, claims, written_ns));
        packages.push(package);
    }
    inventory.installed.retain(|distribution| {
        let Some(at) = came_with(distribution, &owners, prefix) else { return true };
        if let Some(package) = packages.get_mut(at) {
            package.entry_points.extend(distribution.entry_points.iter().cloned());
        }
        false
    });
    let first = inventory.installed.len();
    inventory.installed.append(&mut joined);
    (first, packages)
}

/// The package that brought a distribution. After pip installed another one in its place, `RECORD` is pip's.
fn came_with(
    distribution: &Installed,
    owners: &HashMap<Vec<u8>, (usize, Option<String>)>,
    prefix: &Path,
) -> Option<usize> {
    let in_info = |name: &str| [distribution.info.as_bytes(), b"/", name.as_bytes()].concat();
    for name in ["RECORD", "METADATA", "PKG-INFO"] {
        let path = in_info(name);
        let Some((at, hash)) = owners.get(&path) else { continue };
        let bytes = fs::read(prefix.join(Path::new(std::ffi::OsStr::from_bytes(&path)))).ok()?;
        let differs = hash.as_deref().is_some_and(|hash| record::matches(hash, &bytes) == Some(false));
        return (!differs).then_some(*at);
    }
    owners.get(distribution.info.as_bytes()).map(|(at, _)| *at)
}

fn as_installed(package: &CondaPackage, claims: Vec<Claim>, written_ns: i64) -> Installed {
    let headers = Headers { name: package.name.clone(), version: package.version.clone(), requires: Vec::new() };
    Installed {
        name: format!("conda:{}", package.name),
        headers,
        info: package.record.clone(),
        site: 0,
        entry_points: Vec::new(),
        direct_url: None,
        tags: Vec::new(),
        claims,
        territory: Vec::new(),
        listed_ns: Some(written_ns),
        is_conda: true,
    }
}

/// The top-level names of hidden folders that packages have files in; `None` without packages.
pub(super) fn hidden_folders(records: &[Record]) -> Option<HashSet<Vec<u8>>> {
    if records.is_empty() {
        return None;
    }
    let claims = records.iter().flat_map(|record| &record.claims).filter(|claim| claim.path.first() == Some(&b'.'));
    Some(claims.filter_map(|claim| claim.path.split(|byte| *byte == b'/').next().map(<[u8]>::to_vec)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_records_have_nothing_of_an_installation() {
        let value = serde_json::json!({
            "name": "x", "version": "1", "build": "0", "depends": ["python >=3.11", "zlib"],
            "url": "https://user:pass@conda.example/t/to-ken/main/noarch/x-1-0.conda", "channel": "file:///home/a/channel",
            "extracted_package_dir": "/home/a/pkgs/x-1-0", "requested_spec": "x", "license": null,
            "files": ["bin/x", "../out"],
            "paths_data": { "paths": [{
                "_path": "bin/x", "path_type": "hardlink", "prefix_placeholder": "/ph", "file_mode": "text",
                "sha256": "00".repeat(32), "sha256_in_prefix": "11".repeat(32), "size_in_bytes": 7
            }]}
        });
        let at = SafePath::new(b"conda-meta/x-1-0.json").expect("safe");
        let Record { package, claims, .. } = parse(&value, at.clone(), 0).expect("a record");
        let text = String::from_utf8(package.record_bytes.clone()).expect("utf-8");
        assert!(
            ["home", "user", "pass", "to-ken", "requested", "1111"].iter().all(|word| !text.contains(word)),
            "{text}"
        );
        assert!(text.contains("https://conda.example/main/noarch/x-1-0.conda") && text.contains("/ph"), "{text}");
        assert_eq!(package.depends, ["python", "zlib"]);
        assert_eq!(package.unpacked.as_deref(), Some(Path::new("/home/a/pkgs/x-1-0")));
        let [claim] = &claims[..] else { panic!("{claims:?}") };
        assert_eq!((claim.hash.clone(), claim.size), (record_hash(&"11".repeat(32)), None));
        // Where they are installed from an archive, they are read again, and give the same.
        let again = serde_json::from_slice(&package.record_bytes).expect("JSON");
        let again = parse(&again, at, 0).expect("a record").package;
        assert_eq!((&again.version, &again.record_bytes), (&package.version, &package.record_bytes));
        let (path, placeholder) = package.placeholders.iter().next().expect("one");
        assert_eq!((path.as_bytes(), placeholder.mode), (&b"bin/x"[..], Mode::Text));
    }

    #[test]
    fn digests_of_records_are_those_of_wheels() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(record_hash(empty), Some(record::hash(b"")));
        assert_eq!((record_hash("12"), record_hash("zz")), (None, None));
    }
}
