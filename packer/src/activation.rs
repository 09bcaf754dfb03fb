//! What activating a conda environment does, found out when it is packed.
//!
//! `conda run` sets variables from `etc/conda/env_vars.d/*.json` and `conda-meta/state`, then sources `etc/conda/activate.d/*.sh`.
//! Most of these scripts set variables to paths of the environment. They are run here once, in a bash that knows nothing of this
//! machine, and what they changed travels in the job with a placeholder for the environment's path. If any of them asks the
//! machine for more, all are run by a shell at each start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_format::job::{Conda, PREFIX};
use cpack_format::prefix::substituted;
use cpack_layer::content::transform::spellings;
use cpack_unpack::{activation_scripts, declared_variables};

/// Variables of a shell itself.
const OF_SHELL: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];

/// Sources its arguments, and shows all variables.
const RUN: &str = "for script in \"$@\"; do . \"$script\" >&2; done; exec /usr/bin/env -0";

/// Beginnings of commands that only set variables or look at the environment's own files.
const HARMLESS: [&str; 10] = ["export ", "unset ", "[ ", "[[ ", "test ", "fi", ":", "true", "return", "local "];

/// Words before a command.
const KEYWORDS: [&str; 6] = ["if ", "then ", "elif ", "else ", "then", "else"];

/// What activation does.
#[derive(Debug, Default)]
pub(crate) struct Activation {
    pub conda: Conda,
    /// Scripts that are run at each start, and why.
    pub at_start: Vec<String>,
}

/// What activating the environment in `prefix` does.
pub(crate) fn activation(prefix: &Path, name: String) -> Activation {
    let mut conda = Conda { name, ..Conda::default() };
    let declared = declared_variables(prefix);
    for (name, value) in &declared {
        note(&mut conda, prefix, name, value.as_deref());
    }
    let scripts = activation_scripts(prefix);
    if scripts.is_empty() {
        return Activation { conda, at_start: Vec::new() };
    }
    let variables: Variables = declared.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let texts: Vec<String> = scripts
        .iter()
        .map(|path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
        .collect();
    let mut at_start = reasons(&scripts, &texts);
    if at_start.is_empty() {
        match run(prefix, &scripts, &variables) {
            Some((before, after)) => changes(&mut conda, prefix, &before, &after),
            None => at_start.push("etc/conda/activate.d (bash could not run them here)".into()),
        }
    }
    conda.scripts = !at_start.is_empty();
    Activation { conda, at_start }
}

/// Notes that a variable is set, or removed.
fn note(conda: &mut Conda, prefix: &Path, name: &str, value: Option<&str>) {
    conda.set.remove(name);
    conda.unset.retain(|unset| unset != name);
    match value {
        Some(value) => {
            let spelt = spellings(prefix);
            let portable = spelt
                .iter()
                .fold(value.as_bytes().to_vec(), |value, prefix| substituted(&value, prefix, PREFIX.as_bytes()));
            conda.set.insert(name.to_owned(), String::from_utf8_lossy(&portable).into_owned());
        }
        None => conda.unset.push(name.to_owned()),
    }
}

/// What the scripts changed.
fn changes(conda: &mut Conda, prefix: &Path, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    let is_of_shell = |name: &String| OF_SHELL.contains(&name.as_str());
    for (name, value) in after.iter().filter(|(name, value)| !is_of_shell(name) && before.get(*name) != Some(*value)) {
        note(conda, prefix, name, Some(value));
    }
    for name in before.keys().filter(|name| !is_of_shell(name) && !after.contains_key(*name)) {
        note(conda, prefix, name, None);
    }
}

type Variables = BTreeMap<String, String>;

/// Runs the scripts in a bash that has no variables but those of the environment. Returns these, and what they became.
fn run(prefix: &Path, scripts: &[PathBuf], variables: &Variables) -> Option<(Variables, Variables)> {
    let mut before = variables.clone();
    let text = prefix.to_str()?.to_owned();
    before.insert("PATH".into(), format!("{text}/bin:/usr/bin:/bin"));
    before.insert("CONDA_PREFIX".into(), text);
    before.insert("CONDA_SHLVL".into(), "1".into());
    let mut command = Command::new("bash");
    command.args(["--noprofile", "--norc", "-c", RUN, "bash"]).args(scripts);
    let output = command.env_clear().envs(&before).current_dir("/").stdin(Stdio::null()).output().ok()?;
    let lines = output.stdout.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
    let after =
        lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect();
    output.status.success().then_some((before, after))
}

/// The scripts that do more than set variables to what the environment itself says, each with what that is.
fn reasons(scripts: &[PathBuf], texts: &[String]) -> Vec<String> {
    let assigned: BTreeSet<&str> = texts.iter().flat_map(|text| assigned(text)).collect();
    let named = |path: &PathBuf| String::from_utf8_lossy(path.file_name().unwrap_or_default().as_bytes()).into_owned();
    let reason = |(path, text): (&PathBuf, &String)| {
        Some(format!("etc/conda/activate.d/{} ({})", named(path), asks(text, &assigned)?))
    };
    scripts.iter().zip(texts).filter_map(reason).collect()
}

/// Names that a script assigns.
fn assigned(text: &str) -> Vec<&str> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let ends = text.match_indices('=').map(|(at, _)| text.get(..at).unwrap_or_default());
    let names = ends.filter_map(|before| before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next());
    names.filter(|name| is_name(name)).collect()
}

/// What a script asks of the machine; `None` if it asks nothing.
fn asks(text: &str, assigned: &BTreeSet<&str>) -> Option<String> {
    if text.contains("$(") || text.contains('`') || text.contains("<(") {
        return Some("it runs programs".into());
    }
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        for command in line.replace("&&", ";").replace("||", ";").split(';').map(str::trim) {
            let command = KEYWORDS.iter().fold(command, |rest, word| rest.strip_prefix(word).unwrap_or(rest).trim());
            let is_assignment = command.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            });
            let is_harmless = command.is_empty() || HARMLESS.iter().any(|known| command.starts_with(known));
            if !is_assignment && !is_harmless || command.contains('|') {
                return Some(format!("it runs {:?}", command.chars().take(40).collect::<String>()));
            }
            let looks_outside = [" /", "\"/", "'/"].iter().any(|path| command.contains(path));
            if looks_outside && command.starts_with(['[', 't']) {
                return Some("it looks at files outside the environment".into());
            }
        }
        let is_known = |name: &&str| name.starts_with("CONDA_") || assigned.contains(name);
        if let Some(name) = referenced(line).find(|name| !is_known(name) || *name == "PATH") {
            return Some(format!("it reads the variable {name}"));
        }
    }
    None
}

/// Names of the variables that a line reads.
fn referenced(line: &str) -> impl Iterator<Item = &str> {
    line.split('$').skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        rest.get(..end).filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_only_set_variables_are_told_from_others() {
        let asked = |text: &str| asks(text, &assigned(text).into_iter().collect());
        for text in [
            "#!/bin/bash\n# $(comment is fine without parentheses)".split('\n').next().expect("a line"),
            "export GDAL_DATA=\"$CONDA_PREFIX/share/gdal\"\n",
            "if [[ -n \"$GDAL_DATA\" ]]; then\n  export _CONDA_SET_GDAL_DATA=$GDAL_DATA\nfi\nexport GDAL_DATA=$CONDA_PREFIX/x\n",
            "if [ -d \"${CONDA_PREFIX}/lib\" ]; then export A=1; else unset A; fi\n",
        ] {
            assert_eq!(asked(text), None, "{text}");
        }
        for (text, reason) in [
            ("export A=$(uname)", "programs"),
            ("export A=$HOME/x", "HOME"),
            ("export PATH=$CONDA_PREFIX/x:$PATH", "PATH"),
            ("mkdir -p $CONDA_PREFIX/var", "mkdir"),
            ("if [ -f /etc/x ]; then export A=1; fi", "outside"),
            (". $CONDA_PREFIX/x.sh", "x.sh"),
        ] {
            let found = asked(text).expect("asks");
            assert!(found.contains(reason), "{text}: {found}");
        }
    }
}
