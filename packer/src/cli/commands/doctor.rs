//! `cluster-pack doctor`: what a submission from this machine will need, one line each. It leaves nothing behind.

mod clock;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_discover::Environment;
use cpack_format::Digest;
use cpack_format::check::{self, Check};
use cpack_format::exit::Exit;
use cpack_format::message::with_causes;
use cpack_store::endings::{Holder, credentials};
use cpack_store::{Key, Put, Source, Store, StoreError};

use crate::cli::context::{Context, contents, variable};
use crate::cli::error::CommandError;

/// Says what was found and returns the exit code.
pub(in crate::cli) fn doctor(context: &Context) -> Result<u8, CommandError> {
    let mut checks = Vec::new();
    let environment = environment(context, &mut checks);
    store(context, &mut checks);
    cache(context, &mut checks);
    spark(environment.as_ref(), &mut checks);
    context.voice.answer(check::text(&checks).trim_end(), &check::document(&checks));
    Ok(check::exit(&checks))
}

fn failed(subject: &'static str, error: &CommandError) -> Check {
    Check::bad(subject, error.exit(), with_causes(error), "")
}

fn environment(context: &Context, checks: &mut Vec<Check>) -> Option<Environment> {
    match context.environment() {
        Ok(environment) => {
            let found = format!("{} with {}", environment.prefix.display(), contents(&environment));
            checks.push(Check::good("environment", found));
            let python = format!("Python {} on {}", environment.python.version, environment.python.platform);
            checks.push(Check::good("interpreter", python));
            Some(environment)
        }
        Err(error) => {
            checks.push(failed("environment", &error));
            None
        }
    }
}

/// The store, and whether executors can open it.
fn store(context: &Context, checks: &mut Vec<Check>) {
    let store = match context.store() {
        Ok(store) => store,
        Err(error) => return checks.push(failed("store", &error)),
    };
    checks.push(match context.boot(&*store) {
        Ok(_) => Check::good("cpack-boot", "is there, and opens this store"),
        Err(error) => failed("cpack-boot", &error),
    });
    let uri = store.uri();
    let before = SystemTime::now();
    let answer = match uri.as_directory() {
        Some(directory) => directory_takes_files(&directory),
        None => takes_objects(&*store).map_err(|error| (error.exit(), with_causes(&error))),
    };
    let works = answer.is_ok();
    match answer {
        Ok(written) => {
            checks.push(Check::good("store", format!("{uri} can be written to")));
            checks.extend(written.map(|written| clock::clock(written, before, SystemTime::now())));
        }
        Err((exit, found)) => {
            checks.push(Check::bad("store", exit, found, "see docs/stores.md for what each kind needs"));
        }
    }
    checks.extend(credentials(uri.scheme, Holder::Person, works));
    if variable("CPACK_STORE").is_none() && context.common.store.is_none() {
        let advice = "name one that they see by --store or CPACK_STORE";
        checks.push(Check::note("store", "none is named: the one of this machine's cache is for starts here", advice));
    }
}

/// Whether objects can be written, by one that is removed again. Returns when it was written, by the store's clock; `None` if another
/// doctor removed it meanwhile.
fn takes_objects(store: &dyn Store) -> Result<Option<SystemTime>, StoreError> {
    const OBJECT: &[u8] = b"cluster-pack doctor\n";
    let key = Key::content(&Digest::of(OBJECT));
    store.put(&key, Source::Bytes(OBJECT), Put::Replace)?;
    let stat = store.stat(&key);
    store.delete(&key)?;
    Ok(stat?.map(|stat| stat.modified))
}

/// The same of a directory, which may not be there yet.
fn directory_takes_files(directory: &Path) -> Result<Option<SystemTime>, (Exit, String)> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let tried = tempfile::Builder::new().prefix(".cpack-doctor-").tempfile_in(existing);
    let written = tried.and_then(|mut file| {
        file.write_all(b"{}")?;
        file.as_file().metadata()?.modified().map(Some)
    });
    written.map_err(|source| {
        let exit = if source.kind() == std::io::ErrorKind::PermissionDenied { Exit::Denied } else { Exit::Disk };
        (exit, format!("cannot write to {}: {source}", existing.display()))
    })
}

fn cache(context: &Context, checks: &mut Vec<Check>) {
    let root = context.cache.root();
    checks.push(match directory_takes_files(root) {
        Ok(_) => Check::good("client's cache", root.display().to_string()),
        Err((exit, found)) => Check::bad("client's cache", exit, found, "name another by --client-cache"),
    });
}

/// Spark's own version and settings, where a Spark is here.
fn spark(environment: Option<&Environment>, checks: &mut Vec<Check>) {
    let Some(home) = spark_home() else { return };
    let installed = spark_version(&home);
    let packed = environment.and_then(|environment| {
        environment.distributions.iter().find(|distribution| distribution.name == "pyspark").map(|found| &found.version)
    });
    let found = format!("{} at {}", installed.as_deref().unwrap_or("unknown version"), home.display());
    checks.push(match (packed, installed) {
        (Some(version), Some(installed)) if line_of(version) != line_of(&installed) => Check::note(
            "spark",
            format!("{found}, and the environment has pyspark {version}"),
            "executors import Spark's own pyspark: install that version",
        ),
        _ => Check::good("spark", found),
    });
    let directory = variable("SPARK_CONF_DIR").map_or_else(|| home.join("conf"), PathBuf::from);
    let defaults = directory.join("spark-defaults.conf");
    for setting in settings_of_python(&fs::read_to_string(&defaults).unwrap_or_default()) {
        checks.push(Check::note(
            "spark",
            format!("{} sets {setting}", defaults.display()),
            "it stays as it is: executors will not start the launcher",
        ));
    }
}

fn spark_home() -> Option<PathBuf> {
    if let Some(home) = variable("SPARK_HOME") {
        return Some(home.into());
    }
    let submit =
        std::env::split_paths(&variable("PATH")?).map(|place| place.join("spark-submit")).find(|p| p.is_file())?;
    let home = submit.canonicalize().ok()?.parent()?.parent()?.to_owned();
    // pip lays the script beside others; the rest is in the package.
    home.join("jars").is_dir().then_some(home)
}

/// `4.0.1` of `jars/spark-core_2.13-4.0.1.jar`.
fn spark_version(home: &Path) -> Option<String> {
    let names =
        fs::read_dir(home.join("jars")).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("spark-core_")).find_map(|name| {
        let version = name.split_once('-')?.1.split_once('-')?.1.strip_suffix(".jar")?;
        Some(version.to_owned())
    })
}

/// `4.0` of `4.0.1`.
fn line_of(version: &str) -> Vec<&str> {
    version.split('.').take(2).collect()
}

/// The properties in a `spark-defaults.conf` that name an interpreter.
fn settings_of_python(defaults: &str) -> impl Iterator<Item = &str> {
    let names = defaults.lines().filter_map(|line| line.trim().split([' ', '\t', '=']).next());
    names.filter(|name| ["spark.pyspark.python", "spark.pyspark.driver.python"].contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spark_s_version_is_that_of_its_jars() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(spark_version(home.path()), None);
        fs::create_dir(home.path().join("jars")).expect("creates");
        fs::write(home.path().join("jars/spark-core_2.13-4.0.1.jar"), "").expect("writes");
        assert_eq!(spark_version(home.path()).as_deref(), Some("4.0.1"));
        assert_eq!(line_of("4.0.1"), line_of("4.0.0"));
        assert_ne!(line_of("4.0.1"), line_of("4.1.0"));
    }

    #[test]
    fn settings_that_name_an_interpreter_are_found() {
        let defaults = "# spark.pyspark.python no\nspark.pyspark.python /usr/bin/python3\nspark.executor.memory 1g\n";
        assert_eq!(settings_of_python(defaults).collect::<Vec<_>>(), ["spark.pyspark.python"]);
    }

    #[test]
    fn directory_that_is_not_there_yet_is_written_to_where_it_will_be() {
        let place = tempfile::tempdir().expect("a directory");
        assert!(directory_takes_files(&place.path().join("store/of/me")).is_ok());
        assert_eq!(fs::read_dir(place.path()).expect("reads").count(), 0, "nothing is left");
    }
}
