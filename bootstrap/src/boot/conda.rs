//! Conda environments: their own names on a node, and what activating one does.
//!
//! Files of such an environment hold its path, so that a tree is right at one path only. A cache that containers see at
//! several paths gets a tree for each of them.

use std::collections::BTreeMap;
use std::env::{join_paths, split_paths};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::job::{Conda, PREFIX};
use cpack_format::prefix::substituted;
use cpack_node::cache::Cache;

use super::JobStart;
use crate::exec::Exec;
use crate::message::say;

/// Runs the activation scripts, then what the arguments name. Standard output belongs to Python, and so does standard input.
const ACTIVATE: &str = "for script in \"$CONDA_PREFIX\"/etc/conda/activate.d/*.sh; do \
    if [ -f \"$script\" ]; then . \"$script\" >&2 </dev/null; fi; done; exec \"$0\" \"$@\"";

/// Where shells are looked for. Activation scripts are written for bash; most do with any.
const SHELLS: [&str; 4] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh"];

impl JobStart<'_> {
    /// The name in `cache` of the environment that is called `key` where its path is no matter.
    pub(super) fn key_in(&self, key: &str, cache: &Cache) -> String {
        match &self.job().conda {
            Some(_) => placed_key(key, cache.root()),
            None => key.to_owned(),
        }
    }
}

/// `key` with another digest at its end, one that stands for the directory of the cache too.
fn placed_key(key: &str, root: &Path) -> String {
    let digest = Digest::of(&[key.as_bytes(), b"\n", root.as_os_str().as_bytes()].concat()).to_hex();
    let (environment, _) = key.rsplit_once('-').unwrap_or((key, ""));
    format!("{environment}-{}", digest.get(..16).unwrap_or(&digest))
}

/// Sets what `conda run` sets in the environment at `prefix`.
pub(super) fn set_variables(conda: &Conda, prefix: &Path, environ: &mut BTreeMap<OsString, OsString>) {
    let bin = prefix.join("bin");
    let path = environ.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    // An empty entry would be the working directory.
    let others = split_paths(&path).filter(|directory| *directory != bin && !directory.as_os_str().is_empty());
    if let Ok(path) = join_paths(std::iter::once(bin.clone()).chain(others)) {
        environ.insert("PATH".into(), path);
    }
    environ.insert("CONDA_PREFIX".into(), prefix.into());
    environ.insert("CONDA_DEFAULT_ENV".into(), conda.name.clone().into());
    environ.insert("CONDA_SHLVL".into(), "1".into());
    for name in &conda.unset {
        environ.remove(OsStr::new(name));
    }
    for (name, value) in &conda.set {
        let value = substituted(value.as_bytes(), PREFIX.as_bytes(), prefix.as_os_str().as_bytes());
        environ.insert(name.into(), OsString::from_vec(value));
    }
}

/// Lets a shell run the activation scripts first, where a job says that they must run. Without a shell they are left out, which one
/// line says.
pub(super) fn through_shell(conda: &Conda, prefix: &Path, exec: Exec) -> Exec {
    let own = prefix.join("bin/bash");
    let shells = std::iter::once(own).chain(SHELLS.map(PathBuf::from));
    if !conda.scripts {
        return exec;
    }
    let Some(shell) = shells.into_iter().find(|path| path.is_file()) else {
        say("the scripts in etc/conda/activate.d of this environment were not run: there is no bash and no /bin/sh");
        return exec;
    };
    let mut arguments: Vec<OsString> = vec![shell.clone().into(), "-c".into(), ACTIVATE.into()];
    arguments.extend(exec.arguments);
    Exec { program: shell, arguments, ..exec }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activated(conda: &Conda, before: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut environ = before.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        set_variables(conda, Path::new("/n/env"), &mut environ);
        let text = |text: OsString| text.into_string().expect("UTF-8");
        environ.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn set_variables_are_those_of_an_activated_environment() {
        let set = [("DATA", "{CONDA_PREFIX}/share:{CONDA_PREFIX}"), ("MODE", "fast")];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let conda = Conda { name: "work".into(), set, unset: vec!["OLD".into()], scripts: false };
        let environ = activated(&conda, &[("PATH", "/usr/bin:/n/env/bin:/bin"), ("OLD", "1"), ("HOME", "/h")]);
        let expected = [
            ("CONDA_DEFAULT_ENV", "work"),
            ("CONDA_PREFIX", "/n/env"),
            ("CONDA_SHLVL", "1"),
            ("DATA", "/n/env/share:/n/env"),
            ("HOME", "/h"),
            ("MODE", "fast"),
            ("PATH", "/n/env/bin:/usr/bin:/bin"),
        ];
        assert_eq!(environ, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let empty = activated(&Conda::default(), &[]);
        assert_eq!(empty["PATH"], "/n/env/bin");
    }

    #[test]
    fn placed_key_is_another_for_each_directory() {
        let key = placed_key("abc-0123456789abcdef", Path::new("/a"));
        assert!(key.starts_with("abc-") && key.len() == 20 && key != "abc-0123456789abcdef", "{key}");
        assert_ne!(key, placed_key("abc-0123456789abcdef", Path::new("/b")));
    }
}
