//! Files at places that users name: `upload --package` and `publish`.
//!
//! Beside `DIRECTORY/name.pex` lies `DIRECTORY/name.json` with the metadata that users of cluster-pack know
//! (`package_installed`, `platform`, `python_version`) and the file's length and digest. By these it is told whether the
//! same file is there already: what is unchanged is not rewritten, since YARN fails containers whose source file changed.
//! The metadata is removed before the file is replaced and written after it, so that it never names another file than the
//! one that lies there, whenever the writer is killed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cpack_artifact::Digest;
use cpack_artifact::manifest::MAX_JSON;
use cpack_artifact::store::{Key, Put, Source, Store, StoreUri};
use serde::Serialize;
use serde_json::{Map, Value};

use super::CommandError;
use super::context::{Context, absolute};
use crate::cli::arguments::{Common, Publish};
use crate::publish::NameRecord;

/// The store of packages for which none is named: a directory beside them.
const STORE: &str = ".cluster-pack";

/// What `publish --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    uri: String,
    unchanged: bool,
}

/// The directory and the name of a file at `uri`.
fn split(uri: &str) -> Result<(String, String), CommandError> {
    let place: StoreUri = uri.parse()?;
    let whole = match place.as_directory() {
        Some(path) => StoreUri::directory(&absolute(&path)?).to_string(),
        None => place.to_string(),
    };
    match whole.rsplit_once('/') {
        Some((directory, name)) if !name.is_empty() && !directory.ends_with('/') => Ok((directory.into(), name.into())),
        _ => Err(CommandError::Usage(format!("{uri} names no file in a directory: write SCHEME://…/DIRECTORY/NAME"))),
    }
}

/// Names the store beside the package, and the environment after it, where nothing else is said.
pub(super) fn fill(common: &mut Common, package: &str) -> Result<(), CommandError> {
    let (directory, name) = split(package)?;
    common.store.get_or_insert_with(|| format!("{directory}/{STORE}"));
    common.name.get_or_insert_with(|| name.trim_end_matches(".zip").trim_end_matches(".pex").to_owned());
    Ok(())
}

/// Lays a file at a URI.
pub(super) fn publish(context: &Context, arguments: &Publish) -> Result<(), CommandError> {
    let metadata = serde_json::from_str(&arguments.metadata)
        .map_err(|error| CommandError::Usage(format!("--metadata is no JSON object: {error}")))?;
    let written = lay(context, &arguments.uri, Source::File(&arguments.file), metadata, arguments.force)?;
    let report = Report { uri: arguments.uri.clone(), unchanged: !written };
    context.voice.answer(report.uri.clone(), &report);
    Ok(())
}

/// Prints what lies beside the file at a URI.
pub(super) fn metadata(context: &Context, uri: &str) -> Result<(), CommandError> {
    let (directory, name) = split(uri)?;
    let store = context.open_store(&directory)?;
    let bytes = store.read(&beside(uri, &name)?, MAX_JSON)?;
    let found: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| CommandError::Damaged(format!("beside {uri}: {error}")))?;
    context.voice.answer(serde_json::to_string_pretty(&found).unwrap_or_default(), &found);
    Ok(())
}

fn key(uri: &str, name: &str) -> Result<Key, CommandError> {
    Key::beside(name).map_err(|error| CommandError::Usage(format!("{uri}: {error}")))
}

/// The metadata of the file `name`.
fn beside(uri: &str, name: &str) -> Result<Key, CommandError> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    key(uri, &format!("{stem}.json"))
}

/// The metadata of an uploaded environment.
pub(super) fn of_record(record: &NameRecord) -> Map<String, Value> {
    let value = |text: &str| Value::String(text.into());
    let packages = record.package_installed.iter().map(|package| value(package)).collect();
    Map::from_iter([
        ("package_installed".into(), Value::Array(packages)),
        ("platform".into(), value(&record.platform)),
        ("python_version".into(), value(&record.python_version)),
        ("environment".into(), value(&record.environment.to_hex())),
    ])
}

/// Lays `source` at `uri` with its metadata, unless the same is there or `force` is set. True: it was written.
pub(super) fn lay(
    context: &Context,
    uri: &str,
    source: Source<'_>,
    mut metadata: Map<String, Value>,
    force: bool,
) -> Result<bool, CommandError> {
    let (directory, name) = split(uri)?;
    let (file, beside) = (key(uri, &name)?, beside(uri, &name)?);
    let digest = digest_of(&source)?;
    let size = source.size().map_err(|source| io("read", Path::new(uri), source))?;
    metadata.insert("size".into(), size.into());
    metadata.insert("digest".into(), digest.to_hex().into());
    let store = context.open_store(&directory)?;
    if !force && is_there(store.as_ref(), &file, &beside, &metadata, size)? {
        return Ok(false);
    }
    store.delete(&beside)?;
    store.put(&file, source, Put::Replace)?;
    if let Some(path) = store.local_path(&file) {
        make_executable(&path).map_err(|source| io("write", &path, source))?;
    }
    let text = serde_json::to_vec_pretty(&metadata).unwrap_or_default();
    store.put(&beside, Source::Bytes(&text), Put::Replace)?;
    Ok(true)
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

/// Whoever may read it may run it.
fn make_executable(path: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, Permissions::from_mode(mode | (mode & 0o444) >> 2))
}

fn digest_of(source: &Source<'_>) -> Result<Digest, CommandError> {
    match source {
        Source::Bytes(bytes) => Ok(Digest::of(bytes)),
        Source::File(path) | Source::Consume(path) | Source::Watched(path, _) => {
            let mut hasher = blake3::Hasher::new();
            let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
            read.map_err(|source| io("read", path, source))?;
            hasher.finalize().to_hex().parse().map_err(|_| CommandError::Damaged("a digest that is none".into()))
        }
    }
}

fn io(verb: &'static str, path: &Path, source: std::io::Error) -> CommandError {
    CommandError::Io { verb, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_directory_and_a_name() {
        for (uri, directory, name) in [
            ("hdfs:///user/me/envs/a.pex", "hdfs:///user/me/envs", "a.pex"),
            ("s3://bucket/a.pex", "s3://bucket", "a.pex"),
            ("file:///tmp/a.pex.zip", "file:///tmp", "a.pex.zip"),
            ("/tmp/envs/a", "file:///tmp/envs", "a"),
        ] {
            let (found, file) = split(uri).expect(uri);
            assert_eq!((found.replace("file:/t", "file:///t"), file.as_str()), (directory.into(), name), "{uri}");
        }
        for bad in ["s3://bucket", "gs://b/x", ""] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_store_is_beside_the_package_unless_one_is_named() {
        let mut common = Common::default();
        fill(&mut common, "s3://bucket/envs/mine.pex.zip").expect("fills");
        assert_eq!(common.store.as_deref(), Some("s3://bucket/envs/.cluster-pack"));
        assert_eq!(common.name.as_deref(), Some("mine"));
        let mut common = Common { store: Some("/s".into()), name: Some("n".into()), ..Common::default() };
        fill(&mut common, "s3://bucket/envs/mine.pex").expect("fills");
        assert_eq!((common.store.as_deref(), common.name.as_deref()), (Some("/s"), Some("n")));
    }
}
