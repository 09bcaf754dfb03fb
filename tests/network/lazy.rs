//! Lazy starts through a network. They need `/dev/fuse` and user namespaces.

use std::path::Path;
use std::process::{Child, Stdio};

use cpack_test::programs::{installed, succeeded, utf8};
use cpack_test::proxy::Proxy;
use cpack_test::site::Site;
use cpack_test::web::{Web, WebServer};

const IMPORT: &str = "import numpy; print(numpy.arange(10).sum())";

/// Starts numpy lazily on the node `node`.
fn lazily(site: &Site, node: &str, launcher: &Path, fill: &str) -> Child {
    let mut command = site.on_node(node, launcher);
    command.args(["-c", IMPORT]).env("CPACK_START", "lazy").env("CPACK_FILL", fill);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn finish(child: Child) {
    let output = child.wait_with_output().expect("ends");
    assert_eq!(succeeded(&output, "a lazy start"), "45\n");
}

#[test]
fn lazy_starts_of_a_node_share_what_they_fetch() {
    let site = Site::directory();
    let env = installed("numpy", &["numpy", "pytest", "hypothesis"]);
    site.pack(&["upload", "--venv", utf8(&env)]);
    let server = WebServer::start(site.uri.as_ref(), Web::default());
    let proxy = Proxy::start(server.port);
    // What fills must not be done before the servers have shared anything.
    proxy.limit(20_000_000);
    let site = Site { uri: format!("http://127.0.0.1:{}", proxy.port), ..site };
    let launcher = site.launcher(&env);

    finish(lazily(&site, "alone", &launcher, "off"));
    let alone = site.fetched("alone", "server", 1);
    // Nothing is left there, so that the next one fetches as much.
    finish(lazily(&site, "alone", &launcher, "off"));
    assert!(site.fetched("alone", "server", 2) > 2 * alone * 9 / 10, "{alone}");

    let starts: Vec<_> = (0..4).map(|_| lazily(&site, "together", &launcher, "idle")).collect();
    starts.into_iter().for_each(finish);
    let together = site.fetched("together", "server", 4);
    // Each fetches the directories of all archives by itself. Without sharing it would be four times as much.
    assert!(together < 2 * alone, "{together} beside {alone}");
}
