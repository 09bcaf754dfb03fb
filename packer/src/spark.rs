//! The properties and arguments that Spark needs to run on an environment: a pure function of the kind of cluster and of the
//! user's arguments.
//!
//! Executors get the launcher as a file in their working directory and start it as `./env-python`. On YARN the properties name
//! the launcher's two parts by their URIs in the store, with the file names as fragments: each node then fetches the executable
//! once for all applications. Other clusters know no fragments: the driver serves one file that has the right name.

use std::collections::BTreeMap;

/// Options of `spark-submit` that have no value.
const SWITCHES: [&str; 7] = ["--verbose", "-v", "--supervise", "--help", "-h", "--usage-error", "--version"];

/// Where executors and the driver get a launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launcher<'a> {
    /// Its name in the working directory of an executor.
    pub name: &'a str,
    /// Its file on this machine, as a URI that ends in `name`.
    pub local: &'a str,
    /// Its two parts in a store that the cluster sees: URI and file name of each.
    pub remote: Option<[(&'a str, &'a str); 2]>,
    /// The interpreter on this machine, for a driver that runs here.
    pub driver: &'a str,
}

impl Launcher<'_> {
    /// The files that are shipped, separated by commas.
    fn files(&self, yarn: bool) -> String {
        match self.remote {
            Some(parts) if yarn => parts.map(|(uri, name)| format!("{uri}#{name}")).join(","),
            _ => self.local.to_owned(),
        }
    }

    fn python(&self) -> String {
        format!("./{}", self.name)
    }
}

/// The properties for a cluster, as `spark-defaults.conf` has them.
pub(crate) fn properties(launcher: &Launcher<'_>, master: &str, on_cluster: bool) -> BTreeMap<String, String> {
    let yarn = is_yarn(master);
    let files = if yarn { "spark.yarn.dist.files" } else { "spark.files" };
    let driver = if on_cluster { launcher.python() } else { launcher.driver.to_owned() };
    BTreeMap::from([
        (files.to_owned(), launcher.files(yarn)),
        ("spark.pyspark.python".to_owned(), launcher.python()),
        ("spark.pyspark.driver.python".to_owned(), driver),
    ])
}

/// The arguments of `spark-submit`, with the missing ones added. The user's interpreters stay; the launcher's files are added to
/// those that the user names.
pub(crate) fn arguments(launcher: &Launcher<'_>, given: &[String]) -> Vec<String> {
    let said = Said::read(given);
    let master = said.value("--master", "spark.master");
    let yarn = is_yarn(master.unwrap_or_default());
    let on_cluster = said.value("--deploy-mode", "spark.submit.deployMode") == Some("cluster");
    let mut added = Vec::new();
    for (property, value) in properties(launcher, master.unwrap_or_default(), on_cluster) {
        if !property.ends_with("files") && said.property(&property).is_none() {
            added.extend(["--conf".to_owned(), format!("{property}={value}")]);
        }
    }
    // The option wins over the properties, on every kind of cluster, so it must hold their files.
    let mut files: Vec<&str> = said.options("--files").flat_map(|list| list.split(',')).collect();
    if files.is_empty() {
        let listed = ["spark.files", "spark.yarn.dist.files"].into_iter().filter_map(|name| said.property(name));
        files.extend(listed.flat_map(|list| list.split(',')));
    }
    let own = launcher.files(yarn);
    files.push(&own);
    files.retain(|file| !file.is_empty());
    added.extend(["--files".to_owned(), files.join(",")]);
    let (options, rest) = given.split_at(said.end);
    let kept = without_files(options);
    kept.into_iter().chain(added).chain(rest.iter().cloned()).collect()
}

fn is_yarn(master: &str) -> bool {
    master.starts_with("yarn")
}

/// Whether the executors of this kind of cluster surely run on other machines.
pub(crate) fn is_of_machines(master: &str) -> bool {
    is_yarn(master) || master.starts_with("k8s")
}

/// The cluster that arguments of `spark-submit` name.
pub(crate) fn master(given: &[String]) -> Option<&str> {
    Said::read(given).value("--master", "spark.master")
}

/// The options before the program, without `--files`, which [`arguments`] writes anew.
fn without_files(options: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if option == "--files" {
            rest.next();
        } else if !option.starts_with("--files=") {
            kept.push(option.clone());
            if takes_value(option) {
                kept.extend(rest.next().cloned());
            }
        }
    }
    kept
}

fn takes_value(option: &str) -> bool {
    !option.contains('=') && !SWITCHES.contains(&option)
}

/// The user's arguments of `spark-submit`.
#[derive(Debug)]
struct Said<'a> {
    options: Vec<(&'a str, &'a str)>,
    /// Index of the program.
    end: usize,
}

impl<'a> Said<'a> {
    fn read(given: &'a [String]) -> Self {
        let mut options = Vec::new();
        let mut at = 0;
        while let Some(option) = given.get(at).filter(|option| option.starts_with('-')) {
            at += 1;
            if takes_value(option) {
                options.push((option.as_str(), given.get(at).map_or("", String::as_str)));
                at += 1;
            } else if let Some((name, value)) = option.split_once('=') {
                options.push((name, value));
            }
        }
        Self { options, end: at.min(given.len()) }
    }

    fn options(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.options.iter().filter(move |(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn property(&self, name: &str) -> Option<&'a str> {
        let set = self.options("--conf").chain(self.options("-c"));
        set.filter_map(|text| text.split_once('=')).filter(|(found, _)| *found == name).map(|(_, value)| value).last()
    }

    fn value(&self, option: &str, property: &str) -> Option<&'a str> {
        self.options(option).last().or_else(|| self.property(property))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAUNCHER: Launcher<'_> = Launcher {
        name: "env-python",
        local: "file:///c/env-python",
        remote: Some([("hdfs://nn/l/abc", "env-python"), ("hdfs://nn/b/def", "cpack-boot")]),
        driver: "/v/bin/python",
    };

    fn submit(line: &str) -> String {
        arguments(&LAUNCHER, &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn spark_submit_arguments_gain_what_is_missing_and_keep_what_was_given() {
        let client = "--conf spark.pyspark.driver.python=/v/bin/python --conf spark.pyspark.python=./env-python";
        let cluster = client.replace("/v/bin/python", "./env-python");
        let (far, near) = ("hdfs://nn/l/abc#env-python,hdfs://nn/b/def#cpack-boot", "file:///c/env-python");
        for (given, expected) in [
            ("job.py --files x", format!("{client} --files {near} job.py --files x")),
            ("--master yarn job.py", format!("--master yarn {client} --files {far} job.py")),
            (
                "--master yarn --deploy-mode cluster job.py",
                format!("--master yarn --deploy-mode cluster {cluster} --files {far} job.py"),
            ),
            (
                "--conf spark.master=yarn --files a,b -v job.py",
                format!("--conf spark.master=yarn -v {client} --files a,b,{far} job.py"),
            ),
            ("--conf spark.files=a job.py", format!("--conf spark.files=a {client} --files a,{near} job.py")),
            (
                "-c spark.pyspark.python=/p job.py",
                format!(
                    "-c spark.pyspark.python=/p --conf spark.pyspark.driver.python=/v/bin/python --files {near} job.py"
                ),
            ),
            ("--files=a --name n", format!("--name n {client} --files a,{near}")),
            ("--master", format!("--master {client} --files {near}")),
        ] {
            assert_eq!(submit(given), expected, "{given}");
        }
    }

    #[test]
    fn properties_follow_the_cluster() {
        let far = "hdfs://nn/l/abc#env-python,hdfs://nn/b/def#cpack-boot";
        for (master, on_cluster, files, driver) in [
            ("yarn", false, ("spark.yarn.dist.files", far), "/v/bin/python"),
            ("yarn", true, ("spark.yarn.dist.files", far), "./env-python"),
            ("spark://h:7077", false, ("spark.files", "file:///c/env-python"), "/v/bin/python"),
            ("k8s://h", true, ("spark.files", "file:///c/env-python"), "./env-python"),
        ] {
            let found = properties(&LAUNCHER, master, on_cluster);
            assert_eq!(found[files.0], files.1, "{master}");
            assert_eq!(found["spark.pyspark.driver.python"], driver, "{master}");
            assert_eq!(found["spark.pyspark.python"], "./env-python", "{master}");
        }
    }
}
