//! How a PEX starts: entry point, `__main__.py`, and the lines before the zip.

use cpack_discover::{EntryPoint, Environment};
use cpack_pex::info::{InheritPath, PexInfo};

use super::error::PexError;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// Python, with the arguments.
    #[default]
    Interpreter,
    /// `module` or `module:function`.
    EntryPoint(String),
    /// A script of a distribution.
    Script(String),
}

pub(super) fn set(info: &mut PexInfo, environment: &Environment, start: &Start) -> Result<(), PexError> {
    (info.entry_point, info.script) = match start {
        Start::Interpreter => (None, None),
        Start::EntryPoint(entry_point) => (Some(entry_point.clone()), None),
        Start::Script(name) => match find_entry_point(environment, name) {
            Some(entry_point) => (Some(entry_point), None),
            None if has_script(environment, name) => (None, Some(name.clone())),
            None => return Err(no_script(environment, name)),
        },
    };
    Ok(())
}

fn entry_points(environment: &Environment) -> impl Iterator<Item = &EntryPoint> {
    let installed = environment.distributions.iter().flat_map(|d| &d.entry_points);
    installed.chain(environment.editables.iter().flat_map(|e| &e.entry_points))
}

/// What a console script calls: `module:function`, without extras.
fn find_entry_point(environment: &Environment, name: &str) -> Option<String> {
    let found = entry_points(environment).find(|entry_point| entry_point.name == name)?;
    let value = found.value.split('[').next().unwrap_or_default();
    Some(value.chars().filter(|c| !c.is_whitespace()).collect())
}

fn has_script(environment: &Environment, name: &str) -> bool {
    let path = format!("bin/{name}");
    let mut files = environment.distributions.iter().flat_map(|d| &d.files);
    files.any(|file| file.path.as_bytes() == path.as_bytes())
}

fn no_script(environment: &Environment, script: &str) -> PexError {
    let mut names: Vec<&str> = entry_points(environment).map(|entry_point| entry_point.name.as_str()).collect();
    names.sort_unstable();
    let hint = if names.is_empty() { String::new() } else { format!("; there are {}", names.join(", ")) };
    PexError::NoScript { script: script.into(), environment: environment.prefix.clone(), hint }
}

/// `__main__.py` and `__pex__/__init__.py`: upstream's, with the arguments of its last call replaced by those of this PEX. `None`
/// if upstream's has an unknown form.
pub(super) fn boot_script(template: &str, info: &PexInfo) -> Option<String> {
    let call = template.rfind("boot(\n")?;
    let (before, call) = template.split_at_checked(call)?;
    let hermetic = if info.venv { info.venv_hermetic_scripts } else { info.inherit_path == InheritPath::False };
    let pex_hash = info.pex_hash.as_deref().unwrap_or_default();
    let mut replaced = 0;
    let mut out = before.to_owned();
    for line in call.split_inclusive('\n') {
        let value = match line.trim_start().split_once('=').map(|(name, _)| name) {
            Some("pex_hash") => Some(quote(pex_hash)),
            Some("pex_root") => info.pex_root.as_deref().map(quote),
            Some("hermetic_boot") => Some(python_bool(hermetic)),
            Some("has_interpreter_constraints") => Some(python_bool(!info.interpreter_constraints.is_empty())),
            Some("is_venv") => Some(python_bool(info.venv)),
            Some("pex_path") => Some(tuple(info.merged_paths())),
            Some("inject_python_args") => Some(tuple(info.inject_python_args.iter().map(String::as_str))),
            _ => None,
        };
        match (value, line.split_once('=')) {
            (Some(value), Some((name, _))) => {
                replaced += 1;
                out.push_str(&format!("{name}={value},\n"));
            }
            _ => out.push_str(line),
        }
    }
    // pex_hash and is_venv are the least that a runtime needs.
    (replaced >= 2).then_some(out)
}

fn python_bool(value: bool) -> String {
    (if value { "True" } else { "False" }).into()
}

/// A Python literal. JSON's escapes mean the same in Python, but for the halves of pairs, which are not written here.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn tuple<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: String = items.into_iter().map(|item| format!("{},", quote(item))).collect();
    format!("({items})")
}

/// The first bytes of a zipapp: a script for `sh`, which takes `cpack-boot` where it is at hand and else Python.
///
/// `sh` reads a script line by line, so it never sees the zip behind the last `exec`.
pub(super) fn head(python: &str) -> Vec<u8> {
    format!(
        r#"#!/bin/sh
# A PEX: a zip file that Python runs. cpack-boot starts it faster, where CPACK_BOOT names it (empty: never), or PATH, or beside it.
b=${{CPACK_BOOT-cpack-boot}}
d=${{0%/*}}
if [ -n "$b" ] && [ -z "${{PEX_TOOLS-}}" ]; then
  if command -v "$b" >/dev/null 2>&1; then exec "$b" --cpack exec "$0" "$@"; fi
  if [ -z "${{CPACK_BOOT-}}" ] && [ -x "$d/cpack-boot" ]; then exec "$d/cpack-boot" --cpack exec "$0" "$@"; fi
fi
for p in python{python} python3 python; do
  if command -v $p >/dev/null 2>&1; then exec $p "$0" "$@"; fi
done
echo "$0: no python{python}, python3 or python on PATH" >&2
exit 127
"#
    )
    .into_bytes()
}
