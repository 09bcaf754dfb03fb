//! The layer that ships the interpreter: the prefix of a relocatable Python without what executors have no use for.

use std::path::Path;

use cpack_discover::{FileStat, walk_tree};
use cpack_format::manifest::LayerKind;

use super::{AssembleError, INTERPRETER, Packer, files, start};
use crate::publish::Planned;

/// Directories of an interpreter's prefix that are not shipped: headers, manuals, its own tests, and packages that were
/// installed beside it.
const LEFT_OUT: [&str; 7] = ["include", "share/man", "share/doc", "lib/pkgconfig", "site-packages", "test", "idlelib"];

/// Plans the interpreter's layer.
pub(super) fn layer<'a>(packer: &'a Packer<'a>, level: i32) -> Result<Planned<'a>, AssembleError> {
    let python = &packer.environment.python;
    if !python.ships_relocatable_interpreter {
        return Err(AssembleError::NotRelocatable(python.base_executable.clone()));
    }
    let failed = |source| AssembleError::Interpreter { path: python.base_prefix.clone(), source };
    let lib = format!("lib/{}/", python.lib_name);
    let skip = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        let inner = path.strip_prefix(&lib).unwrap_or(&path);
        LEFT_OUT.contains(&inner)
    };
    let mut found = walk_tree(&python.base_prefix, &skip).map_err(failed)?;
    found.retain(|file| is_shipped(file, &python.lib_name));
    for file in &mut found {
        file.source = Some(python.base_prefix.join(&file.path).into());
    }
    let mut fingerprint = start(packer.environment, level);
    fingerprint.text("interpreter").text(&python.version);
    Ok(Planned {
        kind: LayerKind::Interpreter,
        name: INTERPRETER.into(),
        version: python.version.clone(),
        imports: Vec::new(),
        fingerprint: Some(files(fingerprint, &found)),
        size: found.iter().map(|f| f.size).sum(),
        entries: Box::new(move || packer.files(&found)),
    })
}

/// `bin` holds the interpreter and scripts that name the place where it was installed: only the former is shipped.
fn is_shipped(file: &FileStat, lib_name: &str) -> bool {
    let path = file.path.as_path();
    if !path.starts_with("bin") {
        return path.starts_with("lib") || path.starts_with("share") || path.starts_with("etc");
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path == Path::new("bin").join(lib_name) || matches!(name.as_str(), "python" | "python3") || name == lib_name
}
