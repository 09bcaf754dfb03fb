//! Hadoop's configuration: `core-site.xml` and `hdfs-site.xml`, and the properties of a job on top of them.
//!
//! Values may refer to others (`${name}`, `${env.NAME}`, with defaults `${env.NAME:-default}`), and files may include
//! others (`<xi:include href="…"/>`), as in Hadoop's own `Configuration`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{StoreError, StoreOptions, StoreUri};

/// The files of a configuration directory. The later one wins.
const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];

/// Includes within includes: deeper than this is a loop.
const MAX_INCLUDES: usize = 10;

/// References within references, as many as Hadoop follows (`Configuration.MAX_SUBST`).
const MAX_REFERENCES: usize = 20;

/// Hadoop properties, references resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    properties: BTreeMap<String, String>,
}

impl Configuration {
    /// The configuration for the store at `uri`: this machine's, with the job's cluster properties over it.
    pub(super) fn of(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::load(options).map_err(|reason| StoreError::misconfigured(uri, reason))
    }

    /// The error is one line for people.
    fn load(options: &StoreOptions) -> Result<Self, String> {
        let mut properties = BTreeMap::new();
        if let Some(directory) = directory(options) {
            for file in FILES {
                let path = directory.join(file);
                match fs::read_to_string(&path) {
                    Ok(text) => collect(&text, &directory, 0, &mut properties)
                        .map_err(|reason| format!("{} cannot be understood: {reason}", path.display()))?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
                }
            }
        }
        properties.extend(options.cluster.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(Self::resolved(&properties, |name| options.variable(name)))
    }

    /// These properties with their references resolved.
    fn resolved<'a>(properties: &BTreeMap<String, String>, variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        let resolve = |(name, value): (&String, &String)| (name.clone(), expand(value, properties, &variable));
        Self { properties: properties.iter().map(resolve).collect() }
    }

    /// A property that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    #[cfg(feature = "hdfs")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Configuration {
    fn from(properties: [(&str, &str); N]) -> Self {
        Self { properties: properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

fn directory(options: &StoreOptions) -> Option<PathBuf> {
    let home = || options.variable("HADOOP_HOME").map(|home| Path::new(home).join("etc/hadoop"));
    options.variable("HADOOP_CONF_DIR").map(PathBuf::from).or_else(home)
}

/// Adds the properties of one file to `into`. `depth` counts the includes around it.
fn collect(text: &str, directory: &Path, depth: usize, into: &mut BTreeMap<String, String>) -> Result<(), String> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(text, options).map_err(|error| error.to_string())?;
    for element in document.root_element().children().filter(roxmltree::Node::is_element) {
        let child = |name| element.children().find(|c| c.has_tag_name(name)).and_then(|c| c.text());
        match element.tag_name().name() {
            "property" => {
                if let Some(name) = child("name").map(str::trim).filter(|name| !name.is_empty()) {
                    into.insert(name.to_owned(), child("value").unwrap_or_default().to_owned());
                }
            }
            "include" if depth < MAX_INCLUDES => {
                let Some(href) = element.attribute("href") else { continue };
                let path = directory.join(href.strip_prefix("file://").unwrap_or(href));
                let fallback = element.children().any(|c| c.tag_name().name() == "fallback");
                match fs::read_to_string(&path) {
                    Ok(text) => collect(&text, path.parent().unwrap_or(directory), depth + 1, into)?,
                    Err(_) if fallback => {}
                    Err(error) => return Err(format!("its include {} cannot be read: {error}", path.display())),
                }
            }
            "include" => return Err(format!("it includes files {MAX_INCLUDES} deep: they include each other")),
            _ => {}
        }
    }
    Ok(())
}

/// `value` with its references resolved. A reference to what is not set stays as it is.
fn expand<'a>(
    value: &str,
    properties: &BTreeMap<String, String>,
    variable: &impl Fn(&str) -> Option<&'a str>,
) -> String {
    let mut text = value.to_owned();
    for _ in 0..MAX_REFERENCES {
        let found = references(&text).find_map(|(start, end)| {
            let replacement = lookup(text.get(start + 2..end)?, properties, variable)?;
            Some((start, end, replacement))
        });
        match found {
            Some((start, end, replacement)) => text.replace_range(start..=end, &replacement),
            None => break,
        }
    }
    text
}

/// The positions of `${` and `}` of every reference in `text` that has no other inside.
fn references(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.match_indices("${").filter_map(|(start, _)| {
        let end = start + text.get(start..)?.find('}')?;
        let inner = text.get(start + 2..end)?;
        (!inner.contains("${")).then_some((start, end))
    })
}

fn lookup<'a>(
    reference: &str,
    properties: &BTreeMap<String, String>,
    variable: &impl Fn(&str) -> Option<&'a str>,
) -> Option<String> {
    let Some(name) = reference.strip_prefix("env.") else {
        return properties.get(reference).cloned();
    };
    match name.split_once(":-").or_else(|| name.split_once('-')) {
        Some((name, default)) => Some(variable(name).unwrap_or(default).to_owned()),
        None => variable(name).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path) -> StoreOptions {
        let directory = directory.display().to_string();
        StoreOptions::new(BTreeMap::new(), |name| match name {
            "HADOOP_CONF_DIR" => Some(directory.clone()),
            "USER" => Some("me".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn files_includes_references_and_the_job_are_merged() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("writes");
        write(
            "core-site.xml",
            r#"<?xml version="1.0"?><configuration xmlns:xi="http://www.w3.org/2001/XInclude">
            <property><name>host</name><value>nn1</value></property>
            <property> <name> fs.defaultFS </name> <value>hdfs://${host}:${port}</value> <final>true</final></property>
            <property><name>home</name><value>/user/${env.USER}/${env.NONE:-x}/${unknown}</value></property>
            <xi:include href="more.xml"/>
            <xi:include href="missing.xml"><xi:fallback/></xi:include></configuration>"#,
        );
        write("more.xml", "<configuration><property><name>port</name><value>8020</value></property></configuration>");
        write("hdfs-site.xml", "<configuration><property><name>a</name><value>1</value></property></configuration>");
        let mut options = options(directory.path());
        options.cluster.insert("a".into(), "2".into());
        let configuration = Configuration::load(&options).expect("loads");
        assert_eq!(configuration.get("fs.defaultFS"), Some("hdfs://nn1:8020"));
        assert_eq!(configuration.get("home"), Some("/user/me/x/${unknown}"));
        assert_eq!(configuration.get("a"), Some("2"));
    }

    #[test]
    fn bad_files_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("core-site.xml");
        for (text, needle) in [
            ("<configuration>", "cannot be understood"),
            (r#"<configuration><include href="core-site.xml"/></configuration>"#, "include each other"),
            (r#"<configuration><include href="gone.xml"/></configuration>"#, "gone.xml"),
        ] {
            fs::write(&path, text).expect("writes");
            let error = Configuration::load(&options(directory.path())).expect_err(text);
            assert!(error.contains(needle) && error.contains("core-site.xml"), "{error}");
        }
    }

    #[test]
    fn reference_to_itself_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = "<configuration><property><name>a</name><value>${a}x</value></property></configuration>";
        fs::write(directory.path().join("core-site.xml"), text).expect("writes");
        let configuration = Configuration::load(&options(directory.path())).expect("loads");
        assert!(configuration.get("a").is_some_and(|value| value.starts_with("${a}xx")));
    }
}
