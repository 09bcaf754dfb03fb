//! `cluster-pack share`: man pages and completions, for the wheel.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::arguments::Cli;
use crate::cli::error::CommandError;

const PROGRAM: &str = "cluster-pack";

/// Where each shell looks below `/usr/share`.
const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "cluster-pack"),
    (Shell::Zsh, "zsh/site-functions", "_cluster-pack"),
    (Shell::Fish, "fish/vendor_completions.d", "cluster-pack.fish"),
];

/// Writes all below `directory`, which stands for `/usr/share`.
pub(in crate::cli) fn share(directory: &Path) -> Result<(), CommandError> {
    let folder = |name: &str| -> Result<_, CommandError> {
        let path = directory.join(name);
        fs::create_dir_all(&path).map_err(CommandError::io("create", &path))?;
        Ok(path)
    };
    for (shell, place, name) in COMPLETIONS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
        let path = folder(place)?.join(name);
        fs::write(&path, script).map_err(CommandError::io("write", &path))?;
    }
    let pages = folder("man/man1")?;
    let command = Cli::command().name(PROGRAM).disable_help_subcommand(true);
    clap_mangen::generate_to(command, &pages).map_err(CommandError::io("write", &pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_has_a_page_for_each_command_and_a_script_for_each_shell() {
        let place = tempfile::tempdir().expect("a directory");
        share(place.path()).expect("writes");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let path = place.path().join(format!("man/man1/cluster-pack-{}.1", command.get_name()));
            let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(!place.path().join("man/man1/cluster-pack-share.1").exists(), "it is for building the wheel");
        for (_, folder, name) in COMPLETIONS {
            let script = fs::read_to_string(place.path().join(folder).join(name)).expect("reads");
            assert!(script.contains("spark-submit") && script.contains("venv"), "{name}");
        }
    }
}
