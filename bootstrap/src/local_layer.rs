//! Layers that a start makes from local files instead of fetching them: those of a PEX or of an archive.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cpack_format::Digest;
use cpack_node::building::Means;
use cpack_node::cache::{Cache, Staging, Wanted, content_of, seal_directories, size_of};
use cpack_node::listing::list;

/// How often a process that extracts notes progress in its claim.
pub(crate) const BEAT: Duration = Duration::from_millis(500);

const BYTE_CODE: &str = "__pycache__";

/// Moves the files of a layer into the cache, under the digest of their content.
pub(crate) fn commit(files: &Path, cache: &Cache, staging: &Staging, means: &Means<'_>) -> io::Result<Digest> {
    let content = content_of(files, means.threads, &|| {})?;
    let layer = Wanted::with_content(content);
    if cache.lease_layer(layer).is_none() {
        // One of another boot may be there, and damaged: nothing could fetch it again.
        cache.check_layer(&content, means.threads, &|| {}, staging)?;
    }
    let staged = Cache::stage_layer(staging, layer)?;
    fs::remove_dir(staged.files())?;
    fs::rename(files, staged.files())?;
    seal_directories(staged.files())?;
    cache.commit_layer(&staged, size_of(staged.files())?)?;
    Ok(content)
}

/// Makes a `__pycache__` in each directory that has modules and no byte-code.
pub(crate) fn byte_code_directories(directory: &Path) -> io::Result<()> {
    let entries = match list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut has_modules = false;
    for (name, kind) in entries {
        if kind.is_dir() {
            byte_code_directories(&directory.join(name))?;
        } else {
            has_modules |= Path::new(&name).extension().is_some_and(|extension| extension == "py");
        }
    }
    let cache = directory.join(BYTE_CODE);
    if has_modules && !cache.exists() { fs::create_dir(cache) } else { Ok(()) }
}

/// Lets Python write byte-code into the empty `__pycache__` directories of a tree: it writes each file beside its place and
/// renames it.
pub(crate) fn open_byte_code(directory: &Path) -> io::Result<()> {
    for (name, _) in list(directory)?.iter().filter(|(_, kind)| kind.is_dir()) {
        let path = directory.join(name);
        if name == BYTE_CODE && fs::read_dir(&path)?.next().is_none() {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        } else {
            open_byte_code(&path)?;
        }
    }
    Ok(())
}
