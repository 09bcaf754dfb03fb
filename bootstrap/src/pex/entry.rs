//! What runs in the environment of a PEX, as upstream's runtime would run it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use cpack_artifact::pex_info::BinPath;

use crate::error::BootError;
use crate::exec::Exec;

use super::file::Pex;

/// The variables of upstream's runtime that are set.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    /// By name; those that are not UTF-8 as well as they can be shown.
    pub(super) all: BTreeMap<String, String>,
}

impl Variables {
    /// Those of this process.
    pub(super) fn from_process() -> Self {
        let ours = std::env::vars_os().filter(|(name, value)| {
            (name == "PEX" || name.as_encoded_bytes().starts_with(b"PEX_")) && !value.is_empty()
        });
        let text = |text: OsString| text.to_string_lossy().into_owned();
        Self { all: ours.map(|(name, value)| (text(name), text(value))).collect() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }
}

/// What a PEX starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What<'a> {
    Interpreter,
    Module(&'a str),
    Function(&'a str, &'a str),
    Script(&'a str),
}

fn what<'a>(pex: &'a Pex, variables: &'a Variables) -> What<'a> {
    let of = |entry: &'a str| match entry.split_once(':') {
        Some((module, function)) => What::Function(module, function),
        None => What::Module(entry),
    };
    let interpreter = matches!(variables.get("PEX_INTERPRETER"), Some("1" | "true" | "True" | "TRUE"));
    match (interpreter, variables.get("PEX_SCRIPT"), variables.get("PEX_MODULE")) {
        (true, _, _) => What::Interpreter,
        (_, Some(script), _) => What::Script(script),
        (_, _, Some(module)) => of(module),
        _ => match (&pex.info.script, &pex.info.entry_point) {
            (Some(script), _) => What::Script(script),
            (_, Some(entry)) => of(entry),
            _ => What::Interpreter,
        },
    }
}

/// Turns the start of an interpreter into that of the PEX.
pub(super) fn adapt(
    mut exec: Exec,
    pex: &Pex,
    variables: &Variables,
    arguments: &[OsString],
    prefix: &Path,
) -> Result<Exec, BootError> {
    let what = what(pex, variables);
    let python = exec.program.clone().into_os_string();
    let mut line = vec![python];
    line.extend(pex.info.inject_python_args.iter().map(Into::into));
    if exec.environ.contains_key(OsStr::new("PYTHONPATH")) {
        // As upstream does: what others put on the path is not for this PEX.
        line.push("-I".into());
    }
    match what {
        What::Interpreter => {}
        What::Module(module) => line.extend(["-c".into(), module_code(&pex.shown, module).into()]),
        What::Function(module, function) => {
            line.extend(["-c".into(), function_code(&pex.shown, module, function).into()]);
        }
        What::Script(name) => {
            let script = prefix.join("bin").join(name);
            if name.contains('/') || !script.is_file() {
                return Err(crate::entry::EntryError::Script(name.into()).into());
            }
            line.push(script.into_os_string());
        }
    }
    line.extend(pex.info.inject_args.iter().map(Into::into));
    line.extend(arguments.iter().cloned());
    exec.arguments = line;
    if pex.info.strip_pex_env {
        exec.environ.retain(|name, _| !name.as_encoded_bytes().starts_with(b"PEX_"));
    }
    for (name, value) in &pex.info.inject_env {
        exec.environ.entry(name.into()).or_insert_with(|| value.into());
    }
    exec.environ.insert("PEX".into(), pex.path.clone().into());
    if pex.info.venv_bin_path != BinPath::False {
        let old = exec.environ.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let bin = prefix.join("bin").into_os_string();
        let pair = if pex.info.venv_bin_path == BinPath::Prepend { [bin, old] } else { [old, bin] };
        exec.environ.insert("PATH".into(), pair.join(OsStr::new(":")));
    }
    Ok(exec)
}

/// `-c` puts the working directory on the path, which upstream does not.
const PREAMBLE: &str = "import sys\nif sys.path and sys.path[0] == '': del sys.path[0]\n";

fn module_code(pex: &OsStr, module: &str) -> String {
    let (pex, module) = (quote(&pex.to_string_lossy()), quote(module));
    format!(
        "{PREAMBLE}sys.argv[0] = {pex}\nimport runpy\nrunpy.run_module({module}, run_name='__main__', alter_sys=True)\n"
    )
}

fn function_code(pex: &OsStr, module: &str, function: &str) -> String {
    let (pex, module, function) = (quote(&pex.to_string_lossy()), quote(module), quote(function));
    format!(
        "{PREAMBLE}sys.argv[0] = {pex}\nimport functools, importlib\n\
         sys.exit(functools.reduce(getattr, {function}.split('.'), importlib.import_module({module}))())\n"
    )
}

/// A Python literal: JSON's escapes mean the same there.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
