//! What a PEX starts in its environment, and how: as upstream's runtime does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use cpack_format::script::is_for_python;
use cpack_pex::Pex;
use cpack_pex::info::BinPath;

use super::SCRIPTS;
use super::reason::Reason;
use super::setup::{Inherit, Setup, Variables};
use super::templates::fill;
use crate::entry::EntryError;
use crate::error::BootError;
use crate::exec::Exec;
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

/// Why upstream's runtime must refuse what a variable asks for.
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
    /// Changes the start of the interpreter into the start of the PEX.
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
            line.extend(pex.info.inject_args.iter().filter_map(|text| fill(text, &value)).map(Into::into));
        }
        line.extend(self.arguments.iter().cloned());
        exec.arguments = line;
        Ok(exec)
    }

    /// The option that keeps the user's environment out, if upstream's runtime does so.
    fn isolation(&self, exec: &Exec, what: &What) -> Option<&'static str> {
        let (setup, info) = (self.setup, &self.setup.pex().info);
        let is_hermetic = setup.venv && info.venv_hermetic_scripts;
        let has_path = exec.environ.contains_key(OsStr::new("PYTHONPATH")) || setup.extra;
        let is_isolated = is_hermetic || (!setup.venv && setup.inherit == Inherit::Nothing && has_path);
        // An interpreter finds modules in the working directory even so.
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

    fn environ(&self, environ: &mut BTreeMap<OsString, OsString>) -> Result<(), BootError> {
        let (setup, info) = (self.setup, &self.setup.pex().info);
        if let Some(extra) = self.variables.get("PEX_EXTRA_SYS_PATH") {
            if setup.venv {
                environ.insert("__PEX_EXTRA_SYS_PATH__".into(), extra.into());
            } else {
                // For the processes that Python starts. The environment arranges its own path.
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
        if setup.pex().wheelhouse.is_none() {
            environ.insert("PEX".into(), setup.pex().path.clone().into());
        }
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

    /// The path of a resource file, for a variable that binds it.
    fn resource(&self, resource: &str) -> Result<PathBuf, BootError> {
        let libraries = fs::read_dir(self.prefix.join("lib")).into_iter().flatten().flatten();
        let safe = cpack_format::SafePath::new(resource.as_bytes()).ok();
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
