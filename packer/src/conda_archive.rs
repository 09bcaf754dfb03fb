//! What an archive of a conda environment has beside the files of its packages.
//!
//! ```text
//! bin/conda-unpack     writes the environment's path where it was unpacked to; `cpack-boot` does it by the same list
//! bin/activate         what `conda activate` does, for bash and zsh
//! conda-meta/history   by which conda knows an environment
//! conda-meta/state     the variables of `conda env config vars`
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::prefix::{Mode, Prefixes};
use cpack_format::script::relocatable;
use cpack_layer::PackError;
use cpack_layer::archive::{Body, Entry};
use cpack_unpack::declared_variables;

const UNPACK: &str = include_str!("conda_archive/unpack.py");

const ACTIVATE: &str = include_str!("conda_archive/activate.sh");

/// The script that mends an unpacked archive: conda-pack's has the same name, and a list in the same form.
const UNPACK_PATH: &str = "bin/conda-unpack";

/// What conda-pack's imports: an environment that it packed once has it still.
const OF_CONDA_PACK: &str = "bin/conda_unpack_progress.py";

/// Adds to `entries` of the environment in `prefix` what its archive needs. `prefixes` are the files that hold a placeholder.
pub(crate) fn add(
    entries: &mut BTreeMap<SafePath, Entry>,
    prefix: &Path,
    prefixes: &[Prefixes],
) -> Result<(), PackError> {
    let mut put = |path: &str, kind, bytes: Vec<u8>, instead: bool| -> Result<(), PackError> {
        let path = SafePath::new(path.as_bytes()).map_err(PackError::Path)?;
        if instead || !entries.contains_key(&path) {
            entries.insert(path.clone(), Entry { path, kind, body: Body::Bytes(bytes) });
        }
        Ok(())
    };
    put(UNPACK_PATH, Kind::Executable, conda_unpack(prefixes), true)?;
    put("bin/activate", Kind::File, activate(&declared_variables(prefix), prefix), false)?;
    put("conda-meta/history", Kind::File, Vec::new(), false)?;
    if let Ok(state) = fs::read(prefix.join("conda-meta/state")) {
        put("conda-meta/state", Kind::File, state, false)?;
    }
    if let Ok(path) = SafePath::new(OF_CONDA_PACK.as_bytes()) {
        entries.remove(&path);
    }
    Ok(())
}

/// The script with its list.
fn conda_unpack(prefixes: &[Prefixes]) -> Vec<u8> {
    let record = |held: &str, (path, mode): (&str, Mode)| {
        let mode = if mode == Mode::Text { "text" } else { "binary" };
        format!("({}, {}, '{mode}')", literal(path), literal(held))
    };
    let of_one = |held: &Prefixes| held.files().map(|file| record(&held.placeholder, file)).collect::<Vec<_>>();
    let records: Vec<String> = prefixes.iter().flat_map(of_one).collect();
    relocatable(b"", &[], UNPACK.replace("@RECORDS@", &records.join(",\n")).as_bytes())
}

/// A string of Python's.
fn literal(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            // Formatting into a string does not fail.
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "'"
}

/// The script with the variables that the environment declares; `None` removes one.
fn activate(variables: &BTreeMap<String, Option<String>>, prefix: &Path) -> Vec<u8> {
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let variables: Vec<_> = variables.iter().filter(|(name, _)| !name.is_empty() && is_name(name)).collect();
    let own = prefix.to_string_lossy();
    let line = |(name, value): &(&String, &Option<String>)| match value {
        Some(value) => {
            let quoted = value.replace('\'', r"'\''").replace(&*own, r#"'"$CONDA_PREFIX"'"#);
            format!("export {name}='{quoted}'")
        }
        None => format!("unset {name}"),
    };
    let lines: Vec<String> = variables.iter().map(line).collect();
    let names: String = variables.iter().map(|(name, _)| format!(" {name}")).collect();
    ACTIVATE.replace("@VARIABLES@\n", &(lines.join("\n") + "\n")).replace("@NAMES@", &names).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_conda_unpack_is_written_as_python_reads_it() {
        let mut prefixes = Vec::new();
        Prefixes::add(&mut prefixes, "/held", Mode::Binary, "lib/a.so".into());
        Prefixes::add(&mut prefixes, "/held", Mode::Text, "etc/it's\n\\".into());
        let script = String::from_utf8(conda_unpack(&prefixes)).expect("UTF-8");
        let list =
            "_prefix_records = [\n('etc/it\\'s\\x0a\\\\', '/held', 'text'),\n('lib/a.so', '/held', 'binary')\n]\n";
        assert!(script.contains(list), "{script}");
        assert!(script.starts_with("#!/bin/sh\n"), "{script}");
    }

    #[test]
    fn variables_of_activate_are_quoted_and_know_the_new_path() {
        let declared = [("A", Some("/p/env/x y")), ("B", Some("it's $HOME")), ("C", None), ("D;x", Some("1"))];
        let declared = declared.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into();
        let script = String::from_utf8(activate(&declared, Path::new("/p/env"))).expect("UTF-8");
        let lines = "export A=''\"$CONDA_PREFIX\"'/x y'\nexport B='it'\\''s $HOME'\nunset C\n";
        assert!(script.contains(lines) && script.contains(" A B C\n") && !script.contains('@'), "{script}");
        assert!(!script.contains("D;x"), "{script}");
    }
}
