//! Lazy starts through a network. They need `/dev/fuse` and user namespaces.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use cpack_test::process::wait_until;
use cpack_test::programs::{World, installed, succeeded, utf8};
use cpack_test::proxy::Proxy;
use cpack_test::site::Site;
use cpack_test::web::{Web, WebServer};

const IMPORT: &str = "import numpy; print(numpy.arange(10).sum())";

/// Starts numpy lazily on the node `node`.
fn lazily(site: &Site, node: &str, launcher: &Path, fill: &str) -> Child {
    let mut command: Command = site.on_node(node, launcher);
    command.args(["-c", IMPORT]).env("CPACK_START", "lazy").env("CPACK_FILL", fill);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn finish(child: Child) {
    let output = child.wait_with_output().expect("ends");
    assert_eq!(succeeded(&output, "a lazy start"), "45\n");
}

/// The bytes that so many servers on a node have fetched, all together.
fn fetched(site: &Site, node: &str, servers: usize) -> u64 {
    let mut found: Vec<u64> = Vec::new();
    wait_until("the servers have noted what they fetched", || {
        let text = std::fs::read_to_string(site.world.path(&format!("{node}.metrics"))).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        found = lines
            .filter(|line| line["start"] == "server")
            .filter_map(|line| line["bytes"]["fetched"].as_u64())
            .collect();
        found.len() == servers
    });
    found.iter().sum()
}

#[test]
fn lazy_starts_of_a_node_share_what_they_fetch() {
    let world = World::new();
    let site = Site { uri: world.path("store").display().to_string(), world, client: Vec::new(), node: Vec::new() };
    let env = installed("numpy", &["numpy", "pytest", "hypothesis"]);
    site.pack(&["upload", "--venv", utf8(&env)]);
    let server = WebServer::start(site.uri.as_ref(), Web::default());
    let proxy = Proxy::start(server.port);
    // What fills must not be done before the servers have shared anything.
    proxy.limit(20_000_000);
    let site = Site { uri: format!("http://127.0.0.1:{}", proxy.port), ..site };
    let launcher = site.launcher(&env);

    finish(lazily(&site, "alone", &launcher, "off"));
    let alone = fetched(&site, "alone", 1);
    // Nothing is left there, so that the next one fetches as much.
    finish(lazily(&site, "alone", &launcher, "off"));
    assert!(fetched(&site, "alone", 2) > 2 * alone * 9 / 10, "{alone}");

    let starts: Vec<_> = (0..4).map(|_| lazily(&site, "together", &launcher, "idle")).collect();
    starts.into_iter().for_each(finish);
    let together = fetched(&site, "together", 4);
    // Each fetches the directories of all archives by itself, and what it follows for itself alone.
    assert!(together < 2 * alone, "{together} beside {alone}");
}
