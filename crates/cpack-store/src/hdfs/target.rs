//! Finds the name nodes of a URI in a configuration: a pure function.

use std::collections::BTreeMap;

use crate::hadoop::Configuration;
use crate::{Scheme, StoreUri};

/// The port of an address of a name node that has none.
const DEFAULT_PORT: u16 = 8020;

/// The mount table of a `viewfs:` URI without authority, unless the configuration names one.
const DEFAULT_MOUNT_TABLE: &str = "default";

/// Mounts that lead to mounts: deeper than this is a loop.
const MAX_MOUNTS: usize = 4;

/// The file system and directory behind a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) authority: Authority,
    /// The store's directory there, without a trailing slash.
    pub(super) path: String,
}

/// Who answers for a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Authority {
    /// One name node.
    Address { host: String, port: u16 },
    /// A name service, with the ids of its name nodes.
    Service { name: String, nodes: Vec<String> },
}

/// Finds the file system and directory of the store at `uri`. The error is one line for people.
pub(super) fn resolve(uri: &StoreUri, configuration: &Configuration) -> Result<Target, String> {
    let (mut scheme, mut authority, mut path) = (uri.scheme, uri.authority.clone(), uri.path.clone());
    for _ in 0..MAX_MOUNTS {
        if authority.is_empty() {
            authority = default_authority(scheme, configuration)?;
        }
        if scheme == Scheme::Hdfs {
            let path = path.trim_end_matches('/').to_owned();
            return Ok(Target { authority: name_nodes(&authority, configuration)?, path });
        }
        (scheme, authority, path) = follow_mount(&authority, &path, configuration)?;
    }
    Err(format!("its mounts lead to other mounts, {MAX_MOUNTS} times: check fs.viewfs.mounttable.*"))
}

/// The authority of the default file system, for a URI without one.
fn default_authority(scheme: Scheme, configuration: &Configuration) -> Result<String, String> {
    let Some(default) = configuration.get("fs.defaultFS").or_else(|| configuration.get("fs.default.name")) else {
        return match scheme {
            Scheme::ViewFs => Ok(mount_table_name(configuration).to_owned()),
            _ => Err("it names no name node, and fs.defaultFS is not set: \
                      write hdfs://HOST:PORT/PATH or set HADOOP_CONF_DIR"
                .to_owned()),
        };
    };
    match (scheme, default.split_once("://")) {
        (Scheme::Hdfs, Some(("hdfs", rest))) | (Scheme::ViewFs, Some(("viewfs", rest))) => {
            let authority = rest.split('/').next().unwrap_or_default();
            let unnamed = authority.is_empty() && scheme == Scheme::ViewFs;
            Ok(if unnamed { mount_table_name(configuration).to_owned() } else { authority.to_owned() })
        }
        (Scheme::ViewFs, _) => Ok(mount_table_name(configuration).to_owned()),
        _ => Err(format!("it names no name node, and fs.defaultFS is {default}: write hdfs://HOST:PORT/PATH")),
    }
}

fn mount_table_name(configuration: &Configuration) -> &str {
    configuration.get("fs.viewfs.mounttable.default.name.key").unwrap_or(DEFAULT_MOUNT_TABLE)
}

/// Follows the mount of the table `table` that `path` lies in.
fn follow_mount(table: &str, path: &str, configuration: &Configuration) -> Result<(Scheme, String, String), String> {
    let prefix = format!("fs.viewfs.mounttable.{table}.");
    let mut best: Option<(usize, String)> = None;
    for (name, target) in configuration.iter() {
        let Some(link) = name.strip_prefix(&prefix) else { continue };
        let mount = match link.strip_prefix("link.") {
            Some(mount) => mount.trim_end_matches('/'),
            None if matches!(link, "linkFallback" | "linkMergeSlash") => "",
            None => continue,
        };
        let inside = path.strip_prefix(mount).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some(rest) = inside.filter(|_| best.as_ref().is_none_or(|(len, _)| mount.len() >= *len)) {
            best = Some((mount.len(), format!("{}{rest}", target.trim().trim_end_matches('/'))));
        }
    }
    let Some((_, target)) = best else {
        return Err(format!("no mount of {prefix}link.* holds {path}: set HADOOP_CONF_DIR, or write the hdfs: URI"));
    };
    let uri: StoreUri = target.parse().map_err(|_| format!("its mount leads to {target}, which is no hdfs: URI"))?;
    match uri.scheme {
        Scheme::Hdfs | Scheme::ViewFs => Ok((uri.scheme, uri.authority, uri.path)),
        _ => Err(format!("its mount leads to {target}: use that URI itself")),
    }
}

fn name_nodes(authority: &str, configuration: &Configuration) -> Result<Authority, String> {
    if let Some(nodes) = configuration.get(&format!("dfs.ha.namenodes.{authority}")) {
        let nodes: Vec<String> = nodes.split(',').map(|node| node.trim().to_owned()).collect();
        let unknown = nodes.iter().find(|node| configuration.get(&rpc_address(authority, node)).is_none());
        return match unknown {
            Some(node) => Err(format!("{} is not set: check hdfs-site.xml", rpc_address(authority, node))),
            None => Ok(Authority::Service { name: authority.to_owned(), nodes }),
        };
    }
    // A name service of a single name node has its address under its own name.
    let single = configuration.get(&format!("dfs.namenode.rpc-address.{authority}"));
    address(single.unwrap_or(authority))
}

/// The property that holds the address of a name node of a service.
pub(super) fn rpc_address(service: &str, node: &str) -> String {
    format!("dfs.namenode.rpc-address.{service}.{node}")
}

fn address(text: &str) -> Result<Authority, String> {
    let text = text.trim_start_matches("hdfs://").trim_end_matches('/');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map_or(Ok(DEFAULT_PORT), str::parse);
    match port {
        Ok(port) if !host.is_empty() => Ok(Authority::Address { host: host.to_owned(), port }),
        _ => Err(format!("{text:?} is no address of a name node: write HOST:PORT")),
    }
}

/// The part of the client's configuration that an executor needs to find the file system of `uri` and be let in.
pub(super) fn properties(uri: &StoreUri, configuration: &Configuration) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> = configuration
        .iter()
        .filter(|(name, value)| !value.is_empty() && travels(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if uri.authority.is_empty() {
        let default = configuration.get("fs.defaultFS").or_else(|| configuration.get("fs.default.name"));
        wanted.extend(default.map(|default| ("fs.defaultFS".to_owned(), default.to_owned())));
    }
    wanted
}

/// Whether clients need a property that is the same on all machines of a cluster.
fn travels(name: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "dfs.ha.namenodes.",
        "dfs.namenode.rpc-address.",
        "dfs.client.failover.proxy.provider.",
        "dfs.client.failover.resolve-needed.",
        "dfs.client.failover.resolver.useFQDN.",
        "fs.viewfs.mounttable.",
    ];
    const NAMES: [&str; 9] = [
        "dfs.nameservices",
        "dfs.namenode.rpc-address",
        "dfs.client.use.datanode.hostname",
        "dfs.data.transfer.protection",
        "dfs.encrypt.data.transfer",
        "dfs.namenode.kerberos.principal",
        "hadoop.rpc.protection",
        "hadoop.security.authentication",
        "hadoop.security.token.service.use_ip",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HA: [(&str, &str); 8] = [
        ("fs.defaultFS", "hdfs://prod"),
        ("dfs.nameservices", "prod,solo"),
        ("dfs.ha.namenodes.prod", "nn1, nn2"),
        ("dfs.namenode.rpc-address.prod.nn1", "a:8020"),
        ("dfs.namenode.rpc-address.prod.nn2", "b:8020"),
        ("dfs.namenode.rpc-address.solo", "c:9000"),
        ("dfs.ha.namenodes.broken", "nn1"),
        ("hadoop.security.authentication", "kerberos"),
    ];

    fn service() -> Authority {
        Authority::Service { name: "prod".into(), nodes: vec!["nn1".into(), "nn2".into()] }
    }

    fn single(host: &str, port: u16) -> Authority {
        Authority::Address { host: host.into(), port }
    }

    fn resolved(uri: &str, configuration: &Configuration) -> Result<Target, String> {
        resolve(&uri.parse().expect("a URI"), configuration)
    }

    #[test]
    fn authorities_are_addresses_or_services() {
        let configuration = Configuration::from(HA);
        for (uri, authority, path) in [
            ("hdfs://nn:9000/user/x", single("nn", 9000), "/user/x"),
            ("hdfs://nn/user/x", single("nn", 8020), "/user/x"),
            ("hdfs://prod/x", service(), "/x"),
            ("hdfs:///x/y", service(), "/x/y"),
            ("hdfs:/x", service(), "/x"),
            ("hdfs://solo/x", single("c", 9000), "/x"),
            ("hdfs://[::1]:9000/x", single("[::1]", 9000), "/x"),
        ] {
            assert_eq!(resolved(uri, &configuration), Ok(Target { authority, path: path.into() }), "{uri}");
        }
    }

    #[test]
    fn mounts_are_followed_the_longest_first() {
        let configuration = Configuration::from([
            ("fs.viewfs.mounttable.c.link./", "hdfs://root:1/r"),
            ("fs.viewfs.mounttable.c.link./user", "hdfs://nn:9000/home/"),
            ("fs.viewfs.mounttable.c.link./user/big", "viewfs://d/in"),
            ("fs.viewfs.mounttable.d.linkFallback", "hdfs://far:9000/deep"),
            ("fs.viewfs.mounttable.c.homedir", "/user"),
            ("fs.viewfs.mounttable.loop.linkFallback", "viewfs://loop/x"),
            ("fs.viewfs.mounttable.s3.linkFallback", "s3://bucket/x"),
            ("fs.viewfs.mounttable.default.linkFallback", "hdfs://default:1/"),
        ]);
        for (uri, authority, path) in [
            ("viewfs://c/user/me", single("nn", 9000), "/home/me"),
            ("viewfs://c/user", single("nn", 9000), "/home"),
            ("viewfs://c/users/me", single("root", 1), "/r/users/me"),
            ("viewfs://c/user/big/x", single("far", 9000), "/deep/in/x"),
            ("viewfs:///x", single("default", 1), "/x"),
        ] {
            assert_eq!(resolved(uri, &configuration), Ok(Target { authority, path: path.into() }), "{uri}");
        }
        for (uri, needle) in [
            ("viewfs://loop/x", "other mounts"),
            ("viewfs://s3/x", "s3://bucket/x"),
            ("viewfs://none/x", "no mount"),
            ("hdfs:///x", "fs.defaultFS"),
        ] {
            let error = resolved(uri, &configuration).expect_err(uri);
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = resolved("hdfs://broken/x", &Configuration::from(HA)).expect_err("no address");
        assert!(error.contains("dfs.namenode.rpc-address.broken.nn1"), "{error}");
        let error = resolved("hdfs://nn:port/x", &Configuration::from(HA)).expect_err("no port");
        assert!(error.contains("HOST:PORT"), "{error}");
    }

    #[test]
    fn executor_finds_the_same_place_with_the_job_s_properties_alone() {
        let client = Configuration::from(HA);
        let uri: StoreUri = "hdfs:///x".parse().expect("a URI");
        let job = properties(&uri, &client);
        assert_eq!(job.get("hadoop.security.authentication").map(String::as_str), Some("kerberos"));
        let pairs: Vec<(&str, &str)> = job.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let executor = Configuration::from(<[(&str, &str); 8]>::try_from(pairs).expect("all of them"));
        assert_eq!(resolve(&uri, &executor), resolve(&uri, &client));
    }
}
