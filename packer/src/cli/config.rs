//! The configuration file. A flag or a variable overrides it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::arguments::{Common, SystemSitePackages};

/// The keys of the file: the flags that are the same for every command.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    venv: Option<PathBuf>,
    store: Option<String>,
    name: Option<String>,
    boot: Option<PathBuf>,
    replication: Option<u32>,
    level: Option<i32>,
    client_cache: Option<PathBuf>,
    index_url: Option<String>,
    #[serde(default)]
    extra_index_url: Vec<String>,
    #[serde(default)]
    find_links: Vec<String>,
    #[serde(default)]
    ignore: Vec<String>,
    system_site_packages: Option<SystemSitePackages>,
    #[serde(default)]
    with_python: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration {path} is wrong: {reason}", path = path.display())]
    Parse { path: PathBuf, reason: String },
}

/// Fills what `common` leaves open from the file that `CPACK_CONFIG` names, otherwise from
/// `~/.config/cluster-pack/config.toml` if that exists.
pub(super) fn fill_from_process(common: &mut Common) -> Result<(), ConfigError> {
    fill(common, |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(Into::into))
}

fn fill(common: &mut Common, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<(), ConfigError> {
    let usual = || {
        let base = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
        Some(base.join("cluster-pack/config.toml"))
    };
    let (path, named) = match variable("CPACK_CONFIG") {
        Some(path) => (path, true),
        None => match usual() {
            Some(path) => (path, false),
            None => return Ok(()),
        },
    };
    match fs::read_to_string(&path) {
        Ok(text) => apply(common, parse(&path, &text)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !named => {}
        Err(source) => return Err(ConfigError::Read { path, source }),
    }
    Ok(())
}

fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let reason = format!("{place}{}", error.message().replace('\n', " "));
        ConfigError::Parse { path: path.to_owned(), reason }
    })
}

fn apply(common: &mut Common, config: Config) {
    common.venv = common.venv.take().or(config.venv);
    common.store = common.store.take().or(config.store);
    common.name = common.name.take().or(config.name);
    common.boot = common.boot.take().or(config.boot);
    common.replication = common.replication.take().or(config.replication);
    common.level = common.level.take().or(config.level);
    common.client_cache = common.client_cache.take().or(config.client_cache);
    common.system_site_packages = common.system_site_packages.take().or(config.system_site_packages);
    common.resolution.index_url = common.resolution.index_url.take().or(config.index_url);
    common.resolution.extra_index_url.extend(config.extra_index_url);
    common.resolution.find_links.extend(config.find_links);
    common.ignore.extend(config.ignore);
    common.with_python |= config.with_python;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<Common, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.toml");
        fs::write(&path, text).expect("writes");
        let mut common = Common { name: Some("flag".into()), ..Common::default() };
        fill(&mut common, |name| (name == "CPACK_CONFIG").then(|| path.clone())).map(|()| common)
    }

    #[test]
    fn flags_win_over_the_config_file() {
        let common = filled("store = \"s3://b\"\nname = \"file\"\nwith-python = true\n").expect("reads");
        assert_eq!((common.store.as_deref(), common.name.as_deref()), (Some("s3://b"), Some("flag")));
        assert!(common.with_python);
    }

    #[test]
    fn config_error_names_line_and_key() {
        let error = filled("level = 3\nstoer = \"x\"\n").expect_err("unknown key").to_string();
        assert!(error.contains("line 2") && error.contains("stoer"), "{error}");
    }

    #[test]
    fn named_config_file_must_exist() {
        let mut common = Common::default();
        let result = fill(&mut common, |name| (name == "CPACK_CONFIG").then(|| PathBuf::from("/nowhere.toml")));
        assert!(matches!(result, Err(ConfigError::Read { .. })));
        assert!(fill(&mut common, |name| (name == "HOME").then(|| PathBuf::from("/nowhere"))).is_ok());
    }
}
