//! Makes and configures the HDFS client.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::time::Duration;

use hdfs_native::{Client, ClientBuilder, HdfsError};
use tokio::runtime::Handle;

use super::target::{Authority, Target};
use crate::StoreOptions;
use crate::hadoop::Configuration;

/// No wait for a data node is longer than an attempt divided by this, so that the client asks the next replica within the
/// same attempt.
const SOCKET_SHARE: u32 = 3;

/// Whether clients of this cluster must prove who they are.
pub(super) fn is_secure(configuration: &Configuration) -> bool {
    configuration.get("hadoop.security.authentication").is_some_and(|value| !value.eq_ignore_ascii_case("simple"))
}

/// Makes a client for `target`. It asks the name nodes of a service in an order that starts `rotation` further on. Only an
/// error makes a client move on to the next, so without this each new client would first ask a node that never answers.
pub(super) fn connect(
    target: &Target,
    configuration: &Configuration,
    options: &StoreOptions,
    rotation: usize,
    runtime: &Handle,
) -> Result<Client, HdfsError> {
    let (url, service) = match &target.authority {
        Authority::Address { host, port } => {
            (format!("hdfs://{}:{port}", by_address(host, *port, configuration, options)), None)
        }
        Authority::Service { name, nodes } => (format!("hdfs://{name}"), Some((name, nodes))),
    };
    let mut builder = ClientBuilder::new()
        .with_url(url)
        // The client's own reader of configuration files knows no references and no includes: `with_config` has everything.
        .with_config_dir("/dev/null")
        .with_config(properties(configuration, service, options.deadlines.attempt, rotation))
        .with_io_runtime(runtime.clone());
    if !is_secure(configuration) {
        builder = builder.with_user(user(options));
    }
    builder.build()
}

/// The cluster's properties, and time-outs that make the client fail early enough for the store to try again.
fn properties(
    configuration: &Configuration,
    service: Option<(&String, &Vec<String>)>,
    attempt: Duration,
    rotation: usize,
) -> HashMap<String, String> {
    let mut properties: HashMap<String, String> =
        configuration.iter().map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let others = service.map_or(0, |(_, nodes)| nodes.len().saturating_sub(1));
    properties.insert("dfs.client.failover.max.attempts".to_owned(), others.to_string());
    let socket = (attempt / SOCKET_SHARE).as_millis().max(1);
    properties.insert("dfs.client.socket-timeout".to_owned(), socket.to_string());
    if let Some((name, nodes)) = service {
        let mut nodes = nodes.clone();
        let by = rotation % nodes.len().max(1);
        nodes.rotate_left(by);
        properties.insert(format!("dfs.ha.namenodes.{name}"), nodes.join(","));
    }
    properties
}

/// `host` as its delegation token names it. Hadoop writes the address into tokens unless configured otherwise, and the client
/// compares literally.
fn by_address(host: &str, port: u16, configuration: &Configuration, options: &StoreOptions) -> String {
    let tokens = is_secure(configuration) && options.variable("HADOOP_TOKEN_FILE_LOCATION").is_some();
    if !tokens || configuration.get("hadoop.security.token.service.use_ip") == Some("false") {
        return host.to_owned();
    }
    let found = (host, port).to_socket_addrs().ok();
    let address = found.into_iter().flatten().map(|a| a.ip()).min_by_key(|address| !address.is_ipv4());
    match address {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        None => host.to_owned(),
    }
}

/// The user to act as, for a cluster that believes the client.
fn user(options: &StoreOptions) -> String {
    let uid = nix::unistd::geteuid();
    let account = || nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    // Users that only a directory service knows have no name in a static program.
    let login = || options.variable("USER").map(str::to_owned);
    options.user.clone().or_else(account).or_else(login).unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_node_is_asked_first_in_its_turn() {
        let nodes = vec!["nn1".to_owned(), "nn2".to_owned()];
        let name = "prod".to_owned();
        let configuration = Configuration::from([("dfs.client.socket-timeout", "600000")]);
        for (rotation, order) in [(0, "nn1,nn2"), (1, "nn2,nn1"), (2, "nn1,nn2")] {
            let made = properties(&configuration, Some((&name, &nodes)), Duration::from_secs(30), rotation);
            assert_eq!(made.get("dfs.ha.namenodes.prod").map(String::as_str), Some(order));
            assert_eq!(made.get("dfs.client.failover.max.attempts").map(String::as_str), Some("1"));
            assert_eq!(made.get("dfs.client.socket-timeout").map(String::as_str), Some("10000"));
        }
    }

    #[test]
    fn names_become_addresses_where_tokens_are_used() {
        let secure = Configuration::from([("hadoop.security.authentication", "kerberos")]);
        let tokens = StoreOptions::new(Default::default(), |name| {
            (name == "HADOOP_TOKEN_FILE_LOCATION").then(|| "/tokens".to_owned())
        });
        assert_eq!(by_address("localhost", 1, &secure, &tokens), "127.0.0.1");
        assert_eq!(by_address("localhost", 1, &secure, &StoreOptions::default()), "localhost");
        assert_eq!(by_address("localhost", 1, &Configuration::default(), &tokens), "localhost");
        assert_eq!(by_address("no-such-host.invalid", 1, &secure, &tokens), "no-such-host.invalid");
    }
}
