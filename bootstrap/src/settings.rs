//! Every environment variable that `cpack-boot` reads: declared here, read once.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use cpack_format::job::{Job, Start};
use cpack_node::building::{FETCHES, Means};
use cpack_node::cache::Places;
use cpack_node::node::Node;
use cpack_node::stop::Stop;
use cpack_store::Store;

/// The variables that people set, with what `--cpack help` says of each.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("CPACK_JOB", "the job: a path or URI of a launcher or job file, or the JSON itself"),
    ("CPACK_ARTIFACT", "what to start where there is no job: a PEX, wheelhouse or archive, by path or URI"),
    ("CPACK_CACHE_DIR", "where to keep environments on this node, before all other places"),
    ("CPACK_CACHE_LIMIT", "size above which unused environments go, e.g. 20G (default 50G)"),
    (
        "CPACK_CACHE_RESERVE",
        "free space on the cache's disk below which unused environments go (default: a twentieth of the disk)",
    ),
    ("CPACK_THREADS", "threads that fetch and extract (default: the CPUs there are, at most 16)"),
    ("CPACK_PYTHON", "the interpreter to use, instead of looking for one"),
    ("CPACK_INTERPRETER", "1: act as Python, whatever the job's entry is"),
    ("CPACK_WRITABLE", "1: a private copy of the environment that may be written to"),
    (
        "CPACK_START",
        "lazy: run Python before the environment is built, where the node allows it; auto: where a trace says that it pays \
         (default: as the job says, or eager)",
    ),
    ("CPACK_FILL", "what a lazy start builds behind Python: off, idle (default), or full, which outlives the job"),
    (
        "CPACK_STALL_TIMEOUT",
        "seconds without progress of another process before its work is done here too (default 10)",
    ),
    ("CPACK_HTTP_HEADER_FILE", "a file of headers for the web server of an https: store"),
    ("CPACK_HTTP_PLAIN", "1: http: stores on other machines are read, too"),
    ("CPACK_METRICS", "a file that gets one line of JSON per start, and lazy starts' servers and fillers at their end"),
    ("CPACK_TRACE", "a file that gets every fetch, decode, write and wait, for Perfetto"),
    (
        "CPACK_RECORD",
        "a file to which a lazy start adds what is read first, for cluster-pack upload --trace-file; starts are lazy then",
    ),
    ("CPACK_LOG", "1: say on standard error where the time went"),
];

/// Variables that a start exports to Python.
pub(crate) mod exported {
    /// The entries of `PYTHONPATH` that a launcher of an older release added. A launcher that is started inside removes them.
    pub(crate) const ADDED_PATH: &str = "CPACK_ADDED_PATH";
    /// The absolute path of the launcher. Code inside can start another job with it.
    pub(crate) const LAUNCHER: &str = "CPACK_LAUNCHER";
    /// The absolute path of `cpack-boot`, if the launcher is a script that starts it.
    pub(crate) const BOOT: &str = "CPACK_LAUNCHER_BOOT";
    pub(crate) const ENVIRONMENT: &str = "CPACK_ENVIRONMENT";
}

/// What a lazy start builds in the node cache while Python runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Nothing.
    Off,
    /// The environment, with what the job leaves of the machine, until the job ends.
    Idle,
    /// The environment, as fast as it goes, and to the end.
    Full,
}

/// Default of `CPACK_CACHE_LIMIT`: seven environments of the size of torch's (6.4 GB).
const CACHE_LIMIT: u64 = 50 << 30;

/// Default of `CPACK_STALL_TIMEOUT`: a range of 8 MiB takes a tenth of a second where all is well.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A variable with a value that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}: expected {expected}")]
pub(crate) struct SettingError {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) expected: &'static str,
}

/// The variables that the user and the node set, by the names in [`Settings::read`]. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) job: Option<OsString>,
    pub(crate) artifact: Option<OsString>,
    pub(crate) cache_limit: u64,
    pub(crate) cache_reserve: Option<u64>,
    pub(crate) threads: Option<usize>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) interpreter: bool,
    pub(crate) writable: bool,
    /// When Python runs, if the node says it.
    pub(crate) start: Option<Start>,
    pub(crate) fill: Fill,
    pub(crate) stall_timeout: Duration,
    pub(crate) metrics: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
    /// Gets what programs read first.
    pub(crate) record: Option<PathBuf>,
    pub(crate) log: bool,
    pub(crate) places: Places,
    pub(crate) path: OsString,
}

impl Settings {
    pub(crate) fn node(&self) -> Node {
        Node::new(&self.places, self.cache_limit, self.cache_reserve)
    }

    /// What building needs: these settings, a store, and the request to stop.
    pub(crate) fn means<'a>(&self, store: &'a dyn Store, stop: &'a Stop) -> Means<'a> {
        Means { store, threads: self.threads(), fetches: FETCHES, stall_timeout: self.stall_timeout, stop }
    }

    pub(crate) fn from_process() -> Result<Self, SettingError> {
        Self::read(|name| std::env::var_os(name))
    }

    /// Reads the settings; `lookup` returns the value of a variable. An empty value counts as none.
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingError> {
        let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| value(name).map(PathBuf::from);
        let places = |name: &str| value(name).map(|v| split_commas(&v)).unwrap_or_default();
        let flag = |name| value(name).map_or(Ok(false), |v| parse(name, &v, "1 or 0", parse_flag));
        let size =
            |name| value(name).map(|v| parse(name, &v, "a size such as 500M, 20G or 1T", parse_size)).transpose();
        Ok(Self {
            job: value("CPACK_JOB"),
            artifact: value("CPACK_ARTIFACT"),
            cache_limit: size("CPACK_CACHE_LIMIT")?.unwrap_or(CACHE_LIMIT),
            cache_reserve: size("CPACK_CACHE_RESERVE")?,
            threads: value("CPACK_THREADS")
                .map(|v| parse("CPACK_THREADS", &v, "a number from 1 to 256", parse_threads))
                .transpose()?,
            python: path("CPACK_PYTHON"),
            interpreter: flag("CPACK_INTERPRETER")?,
            writable: flag("CPACK_WRITABLE")?,
            start: value("CPACK_START")
                .map(|v| parse("CPACK_START", &v, "eager, lazy or auto", parse_start))
                .transpose()?,
            fill: value("CPACK_FILL")
                .map_or(Ok(Fill::Idle), |v| parse("CPACK_FILL", &v, "off, idle or full", parse_fill))?,
            stall_timeout: value("CPACK_STALL_TIMEOUT").map_or(Ok(STALL_TIMEOUT), |v| {
                parse("CPACK_STALL_TIMEOUT", &v, "a number of seconds from 0.1 to 86400", parse_seconds)
            })?,
            metrics: path("CPACK_METRICS"),
            trace: path("CPACK_TRACE"),
            record: path("CPACK_RECORD"),
            log: flag("CPACK_LOG")?,
            places: Places {
                cache_dir: path("CPACK_CACHE_DIR"),
                local_user_dirs: places("LOCAL_USER_DIRS"),
                local_dirs: places("LOCAL_DIRS"),
                spark_local_dirs: places("SPARK_LOCAL_DIRS"),
                xdg_cache_home: path("XDG_CACHE_HOME"),
                home: path("HOME"),
                temporary: ["TMPDIR", "TEMP", "TMP"].into_iter().filter_map(path).collect(),
            },
            path: value("PATH").unwrap_or_default(),
        })
    }

    /// When the Python of `job` runs.
    pub(crate) fn start_of(&self, job: &Job) -> Start {
        match (&self.record, self.start) {
            (Some(_), _) => Start::Lazy,
            (None, set) => set.unwrap_or(job.start),
        }
    }

    /// The threads to use: `CPACK_THREADS`, or else the CPUs that affinity and cgroup allow, at most 16. More do not help: a
    /// local disk is the limit long before.
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from).min(16))
    }
}

fn parse<T>(
    name: &'static str,
    value: &OsStr,
    expected: &'static str,
    parser: impl Fn(&str) -> Option<T>,
) -> Result<T, SettingError> {
    let text = value.to_string_lossy();
    let shown = || text.chars().take(80).collect();
    parser(text.trim()).ok_or_else(|| SettingError { name, value: shown(), expected })
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn parse_start(text: &str) -> Option<Start> {
    match text {
        "eager" => Some(Start::Eager),
        "lazy" => Some(Start::Lazy),
        "auto" => Some(Start::Auto),
        _ => None,
    }
}

fn parse_fill(text: &str) -> Option<Fill> {
    match text {
        "off" => Some(Fill::Off),
        "idle" => Some(Fill::Idle),
        "full" => Some(Fill::Full),
        _ => None,
    }
}

/// A size in bytes, with an optional binary unit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let number: f64 = digits.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    let bytes = number * (1u64 << shift) as f64;
    (bytes < 1e18).then_some(bytes as u64)
}

fn parse_threads(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n| (1..=256).contains(n))
}

fn parse_seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    (0.1..=86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// YARN and Spark separate directories by commas.
fn split_commas(value: &OsStr) -> Vec<PathBuf> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
        .map(|part| PathBuf::from(OsStr::from_bytes(part)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingError> {
        Settings::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn settings_without_variables_are_the_defaults() {
        let settings = read(&[]).expect("reads");
        assert_eq!((settings.cache_limit, settings.stall_timeout), (CACHE_LIMIT, STALL_TIMEOUT));
        assert!(settings.job.is_none() && !settings.interpreter && settings.threads() >= 1);
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("0", 0), ("1024", 1024), ("2K", 2048), ("1.5G", 3 << 29), ("20GiB", 20 << 30), ("1tb", 1 << 40)]
        {
            assert_eq!(read(&[("CPACK_CACHE_LIMIT", text)]).map(|s| s.cache_limit), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn settings_name_the_variable_that_cannot_be_understood() {
        for (name, value) in [
            ("CPACK_CACHE_LIMIT", "much"),
            ("CPACK_CACHE_LIMIT", "-1"),
            ("CPACK_CACHE_RESERVE", "some"),
            ("CPACK_THREADS", "0"),
            ("CPACK_STALL_TIMEOUT", "nan"),
            ("CPACK_WRITABLE", "maybe"),
            ("CPACK_START", "later"),
            ("CPACK_FILL", "half"),
        ] {
            let error = read(&[(name, value)]).expect_err(value);
            assert!(error.to_string().contains(name) && error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn directories_come_in_comma_lists() {
        let settings = read(&[("LOCAL_DIRS", "/a, /b,,")]).expect("reads");
        assert_eq!(settings.places.local_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }
}
