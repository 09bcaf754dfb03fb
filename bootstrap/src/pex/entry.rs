//! What runs in the environment of a PEX, as upstream's runtime would run it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use cpack_artifact::pex::Pex;
use cpack_artifact::pex_info::BinPath;
use cpack_artifact::script::is_for_python;

use super::SCRIPTS;
use super::reason::Reason;
use super::setup::{Inherit, Setup, Variables};
use crate::entry::EntryError;
use crate::error::BootError;
use crate::exec::Exec;

/// What a PEX starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Interpreter,
    Module(String),
    Function(String, String),
    Script(String),
}

/// What is started, and whether a variable decided it.
fn what(pex: &Pex, variables: &Variables) -> Result<(What, bool), Reason> {
    let of = |entry: &str| match entry.split_once(':') {
        Some((module, function)) => What::Function(module.trim().into(), function.trim().into()),
        None => What::Module(entry.into()),
    };
    match (variables.is_true("PEX_INTERPRETER"), variables.get("PEX_SCRIPT"), variables.get("PEX_MODULE")) {
        (_, Some(_), Some(_)) | (true, Some(_), _) | (true, _, Some(_)) => {
            Err(Reason::Variable("more than one of PEX_INTERPRETER, PEX_SCRIPT and PEX_MODULE".into()))
        }
        (true, None, None) => Ok((What::Interpreter, true)),
        (_, Some(script), _) => Ok((What::Script(script.into()), true)),
        (_, _, Some(module)) => Ok((of(module), true)),
        _ => Ok(match (&pex.info.script, &pex.info.entry_point) {
            (Some(script), _) => (What::Script(script.clone()), false),
            (_, Some(entry)) => (of(entry), false),
            _ => (What::Interpreter, false),
        }),
    }
}

/// Why what a variable asks for is left to upstream's runtime to refuse.
pub(super) fn refused(pex: &Pex, variables: &Variables) -> Option<Reason> {
    let bin = variables.get("PEX_VENV_BIN_PATH");
    if bin.is_some_and(|bin| !matches!(bin, "false" | "prepend" | "append")) {
        return Some(Reason::Variable("a PEX_VENV_BIN_PATH that is not known".into()));
    }
    what(pex, variables).err()
}

/// A start of a PEX in its environment.
pub(super) struct Start<'a> {
    pub(super) setup: &'a Setup,
    pub(super) variables: &'a Variables,
    pub(super) arguments: &'a [OsString],
    pub(super) prefix: &'a Path,
}

impl Start<'_> {
    /// Turns the start of an interpreter into that of the PEX.
    pub(super) fn adapt(&self, mut exec: Exec) -> Result<Exec, BootError> {
        let pex = self.setup.pex();
        let (what, is_override) = what(pex, self.variables).map_err(|reason| BootError::Usage(reason.to_string()))?;
        let flag = self.isolation(&exec, &what);
        self.environ(&mut exec.environ)?;
        let mut line = vec![exec.program.clone().into_os_string()];
        line.extend(pex.info.inject_python_args.iter().map(Into::into));
        line.extend(flag.map(Into::into));
        let injects =
            what != What::Interpreter && !is_override && !(self.setup.venv && matches!(what, What::Script(_)));
        match what {
            What::Interpreter => {}
            What::Module(module) => line.extend(["-c".into(), module_code(&pex.shown, &module).into()]),
            What::Function(module, function) => {
                line.extend(["-c".into(), function_code(&pex.shown, &module, &function).into()]);
            }
            What::Script(name) => self.script(&name, &mut line, &mut exec.program)?,
        }
        if injects {
            let value =
                |name: &str| exec.environ.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned());
            line.extend(pex.info.inject_args.iter().filter_map(|text| format(text, &value)).map(Into::into));
        }
        line.extend(self.arguments.iter().cloned());
        exec.arguments = line;
        Ok(exec)
    }

    /// The option that keeps the user's environment out, where upstream's runtime does.
    fn isolation(&self, exec: &Exec, what: &What) -> Option<&'static str> {
        let (setup, info) = (self.setup, &self.setup.pex().info);
        let is_hermetic = setup.venv && info.venv_hermetic_scripts;
        let has_path = exec.environ.contains_key(OsStr::new("PYTHONPATH")) || setup.extra;
        let is_isolated = is_hermetic || (!setup.venv && setup.inherit == Inherit::Nothing && has_path);
        // An interpreter finds modules in the working directory all the same.
        is_isolated.then_some(if *what == What::Interpreter { "-sE" } else { "-I" })
    }

    /// The command line of a script of a distribution.
    fn script(&self, name: &str, line: &mut Vec<OsString>, program: &mut PathBuf) -> Result<(), BootError> {
        let shown = &self.setup.pex().shown;
        if let (false, Some(target)) = (self.setup.venv, self.console_script(name)) {
            let (module, function) = target.split_once(':').unwrap_or((&target, ""));
            let (module, function) = (module.trim(), function.trim());
            let code =
                if function.is_empty() { module_code(shown, module) } else { function_code(shown, module, function) };
            line.extend(["-c".into(), code.into()]);
            return Ok(());
        }
        let script = self.prefix.join("bin").join(name);
        let bytes = match fs::read(&script) {
            Ok(bytes) if !name.contains('/') => bytes,
            _ => return Err(EntryError::Script(name.into()).into()),
        };
        if !is_for_python(&bytes) {
            *line = vec![script.clone().into_os_string()];
            *program = script;
        } else if self.setup.venv {
            line.push(script.into_os_string());
        } else {
            line.extend(["-c".into(), script_code(&script, name).into()]);
        }
        Ok(())
    }

    fn console_script(&self, name: &str) -> Option<String> {
        let text = fs::read(self.prefix.join(SCRIPTS)).ok()?;
        serde_json::from_slice::<BTreeMap<String, String>>(&text).ok()?.remove(name)
    }

    /// The environment variables.
    fn environ(&self, environ: &mut BTreeMap<OsString, OsString>) -> Result<(), BootError> {
        let (setup, info) = (self.setup, &self.setup.pex().info);
        if let Some(extra) = self.variables.get("PEX_EXTRA_SYS_PATH") {
            if setup.venv {
                environ.insert("__PEX_EXTRA_SYS_PATH__".into(), extra.into());
            } else {
                // For the processes that it starts. Its own path is arranged by the environment.
                let before =
                    environ.get(OsStr::new("PYTHONPATH")).filter(|_| setup.inherit != Inherit::Nothing).cloned();
                let all: Vec<OsString> = before.into_iter().chain([extra.into()]).collect();
                environ.insert("PYTHONPATH".into(), all.join(OsStr::new(":")));
                environ.insert("__PEX_EXTRA_SYS_PATH__".into(), extra.into());
            }
        }
        if info.strip_pex_env {
            environ.retain(|name, _| !name.as_encoded_bytes().starts_with(b"PEX_"));
        }
        for (name, value) in &info.inject_env {
            environ.entry(name.into()).or_insert_with(|| value.into());
        }
        for (name, resource) in &info.bind_resource_paths {
            environ.insert(name.into(), self.resource(resource)?.into_os_string());
        }
        environ.insert("PEX".into(), setup.pex().path.clone().into());
        if !setup.venv {
            return Ok(());
        }
        environ.insert("VIRTUAL_ENV".into(), self.prefix.as_os_str().to_owned());
        let bin_path = match self.variables.get("PEX_VENV_BIN_PATH") {
            Some("prepend") => BinPath::Prepend,
            Some("append") => BinPath::Append,
            Some(_) => BinPath::False,
            None => info.venv_bin_path,
        };
        if bin_path != BinPath::False {
            let old = environ.get(OsStr::new("PATH")).cloned().unwrap_or_default();
            let bin = self.prefix.join("bin").into_os_string();
            let pair = if bin_path == BinPath::Prepend { [bin, old] } else { [old, bin] };
            environ.insert("PATH".into(), pair.join(OsStr::new(":")));
        }
        Ok(())
    }

    /// Where a resource lies that a variable is to name.
    fn resource(&self, resource: &str) -> Result<PathBuf, BootError> {
        let libraries = fs::read_dir(self.prefix.join("lib")).into_iter().flatten().flatten();
        let safe = cpack_artifact::SafePath::new(resource.as_bytes()).ok();
        let found =
            libraries.filter_map(|library| Some(library.path().join("site-packages").join(safe.as_ref()?.as_path())));
        let mut found = found.filter(|path| path.is_file());
        found.next().ok_or_else(|| BootError::Usage(format!("the PEX has no resource file {resource}")))
    }
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

fn script_code(script: &Path, name: &str) -> String {
    let (path, name) = (quote(&script.to_string_lossy()), quote(name));
    format!(
        "{PREAMBLE}sys.argv[0] = {name}\n__file__ = {path}\n\
         exec(compile(open({path}, 'rb').read(), {path}, 'exec'))\n"
    )
}

/// A Python literal: JSON's escapes mean the same there.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether an argument that is injected has no fields but those that name variables.
pub(super) fn can_format(text: &str) -> bool {
    format(text, &|_| None).is_some()
}

/// An argument with its fields (`{pex.env.NAME}` or `{pex.env[NAME]}`) replaced, as `str.format` does. None: other fields.
fn format(text: &str, value: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        out += before;
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            out.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let (field, after) = from.strip_prefix('{')?.split_once('}')?;
        let name = field.strip_prefix("pex.env")?;
        let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = bracketed.or_else(|| name.strip_prefix('.'))?;
        if name.is_empty() || name.contains(['.', '[', '!', ':', '{']) {
            return None;
        }
        out += &value(name).unwrap_or_default();
        rest = after;
    }
    Some(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_injected_arguments_name_variables() {
        let value = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        for (text, expected) in [
            ("plain", Some("plain")),
            ("--x={pex.env.HOME}/{pex.env[HOME]}{pex.env.NONE}", Some("--x=/h//h")),
            ("{{}}", Some("{}")),
            ("{pex.env.HOME!r}", None),
            ("{0}", None),
            ("{", None),
            ("}", None),
        ] {
            assert_eq!(format(text, &value).as_deref(), expected, "{text}");
        }
    }
}
