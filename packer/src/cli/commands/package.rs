//! Files at URIs that users name: `upload --package` and `publish`.
//!
//! Beside `DIRECTORY/name.pex` lies `DIRECTORY/name.json` with the metadata that users of cluster-pack know
//! (`package_installed`, `platform`, `python_version`) and the file's length and digest. [`lay`] compares these with the new
//! file and rewrites nothing if they are equal, because YARN fails containers whose source file changed. [`lay`] removes the
//! metadata, replaces the file, then writes the new metadata: if it is killed at any step, the metadata is missing or
//! describes the file that is there.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cpack_format::Digest;
use cpack_format::manifest::MAX_JSON;
use cpack_store::{FileOrObject, Key, ObjectUri, Put, Source, Store, Written};
use serde_json::{Map, Value};

use crate::cli::arguments::Common;
use crate::cli::context::{Context, absolute};
use crate::cli::error::CommandError;
use crate::publish::NameRecord;

/// Without `--store`, the store is this directory beside the package.
const STORE: &str = ".cluster-pack";

/// Parses a URI or a path, which is made absolute.
fn object(uri: &str) -> Result<ObjectUri, CommandError> {
    match FileOrObject::read(uri.as_ref())? {
        FileOrObject::Object(object) => Ok(object),
        FileOrObject::File(path) => Ok(ObjectUri::of_file(&absolute(&path)?)?),
    }
}

/// Sets the store to the directory beside the package and the name to the package's, unless `common` has them.
pub(in crate::cli) fn fill(common: &mut Common, package: &str) -> Result<(), CommandError> {
    let ObjectUri { store, key } = object(package)?;
    common.store.get_or_insert_with(|| store.join(STORE));
    common.name.get_or_insert_with(|| key.as_str().trim_end_matches(".zip").trim_end_matches(".pex").to_owned());
    Ok(())
}

/// Prints the metadata beside the file at `uri`.
pub(in crate::cli) fn metadata(context: &Context, uri: &str) -> Result<(), CommandError> {
    let object = object(uri)?;
    let store = context.open_uri(object.store.clone())?;
    let bytes = store.read(&beside(&object)?, MAX_JSON)?;
    let found: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| CommandError::Damaged(format!("beside {uri}: {error}")))?;
    context.voice.answer(serde_json::to_string_pretty(&found).unwrap_or_default(), &found);
    Ok(())
}

/// The key of a file's metadata.
fn beside(file: &ObjectUri) -> Result<Key, CommandError> {
    let name = file.key.as_str();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    Key::beside(&format!("{stem}.json")).map_err(|error| CommandError::Usage(format!("{file}: {error}")))
}

pub(in crate::cli) fn of_record(record: &NameRecord) -> Map<String, Value> {
    let value = |text: &str| Value::String(text.into());
    let packages = record.package_installed.iter().map(|package| value(package)).collect();
    Map::from_iter([
        ("package_installed".into(), Value::Array(packages)),
        ("platform".into(), value(&record.platform)),
        ("python_version".into(), value(&record.python_version)),
        ("environment".into(), value(&record.environment.to_hex())),
    ])
}

/// Writes `source` and its metadata to `uri`. Without `force`, nothing is written if the same file is there.
pub(in crate::cli) fn lay(
    context: &Context,
    uri: &str,
    source: Source<'_>,
    mut metadata: Map<String, Value>,
    force: bool,
) -> Result<Written, CommandError> {
    let object = object(uri)?;
    let (file, beside) = (&object.key, beside(&object)?);
    let digest = digest_of(&source)?;
    let size = source.size().map_err(CommandError::io("read", uri))?;
    metadata.insert("size".into(), size.into());
    metadata.insert("digest".into(), digest.to_hex().into());
    let store = context.open_uri(object.store.clone())?;
    if !force && is_there(store.as_ref(), file, &beside, &metadata, size)? {
        return Ok(Written::Kept);
    }
    store.delete(&beside)?;
    let written = store.put(file, source, Put::Replace)?;
    if let Some(path) = store.local_path(file) {
        make_executable(&path).map_err(CommandError::io("write", &path))?;
    }
    let text = serde_json::to_vec_pretty(&metadata).unwrap_or_default();
    Ok(written.and(store.put(&beside, Source::Bytes(&text), Put::Replace)?))
}

fn is_there(
    store: &dyn Store,
    file: &Key,
    beside: &Key,
    metadata: &Map<String, Value>,
    size: u64,
) -> Result<bool, CommandError> {
    if store.stat(file)?.is_none_or(|stat| stat.size != size) {
        return Ok(false);
    }
    match store.read(beside, MAX_JSON) {
        Ok(bytes) => Ok(serde_json::from_slice::<Map<String, Value>>(&bytes).is_ok_and(|found| found == *metadata)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the permission to execute to all users that may read.
fn make_executable(path: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, Permissions::from_mode(mode | (mode & 0o444) >> 2))
}

fn digest_of(source: &Source<'_>) -> Result<Digest, CommandError> {
    match source {
        Source::Bytes(bytes) => Ok(Digest::of(bytes)),
        Source::File(path) | Source::Watched(path, _) => {
            let mut hasher = blake3::Hasher::new();
            let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
            read.map_err(CommandError::io("read", *path))?;
            Ok(hasher.finalize().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_the_store_beside_it() {
        let mut common = Common::default();
        fill(&mut common, "s3://bucket/envs/mine.pex.zip").expect("fills");
        assert_eq!(common.store.as_deref(), Some("s3://bucket/envs/.cluster-pack"));
        assert_eq!(common.name.as_deref(), Some("mine"));
        let mut common = Common { store: Some("/s".into()), name: Some("n".into()), ..Common::default() };
        fill(&mut common, "s3://bucket/envs/mine.pex").expect("fills");
        assert_eq!((common.store.as_deref(), common.name.as_deref()), (Some("/s"), Some("n")));
    }
}
