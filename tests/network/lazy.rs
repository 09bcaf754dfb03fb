//! Lazy starts through a network. They need `/dev/fuse` and user namespaces.

use std::path::Path;
use std::process::{Child, Stdio};

use cpack_test::programs::{installed, succeeded, usual_interpreter, utf8, venv_without_pip};
use cpack_test::proxy::Proxy;
use cpack_test::site::{Site, install_with_noise};
use cpack_test::web::{Web, WebServer};

const IMPORT: &str = "import numpy; print(numpy.arange(10).sum())";

/// Runs `code` lazily on the node `node`.
fn lazily(site: &Site, node: &str, launcher: &Path, fill: &str, code: &str) -> Child {
    let mut command = site.on_node(node, launcher);
    command.args(["-c", code]).env("CPACK_START", "lazy").env("CPACK_FILL", fill);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn finish(child: Child) {
    let output = child.wait_with_output().expect("ends");
    assert_eq!(succeeded(&output, "a lazy start"), "45\n");
}

/// Publishes the environment at `env` by a web server that is so slow that what fills is never done before a program is.
fn behind_a_network(site: Site, env: &Path) -> (Site, WebServer) {
    site.pack(&["upload", "--venv", utf8(env)]);
    let server = WebServer::start(site.uri.as_ref(), Web::default());
    let proxy = Proxy::start(server.port);
    proxy.limit(20_000_000);
    (Site { uri: format!("http://127.0.0.1:{}", proxy.port), ..site }, server)
}

#[test]
fn lazy_starts_of_a_node_share_what_they_fetch() {
    let env = installed("numpy", &["numpy", "pytest", "hypothesis"]);
    let (site, _server) = behind_a_network(Site::directory(), &env);
    let launcher = site.launcher(&env);
    finish(lazily(&site, "alone", &launcher, "off", IMPORT));
    let alone = site.fetched("alone", "server", 1);
    // Nothing is left there, so that the next one fetches as much.
    finish(lazily(&site, "alone", &launcher, "off", IMPORT));
    assert!(site.fetched("alone", "server", 2) > 2 * alone * 9 / 10, "{alone}");

    let starts: Vec<_> = (0..4).map(|_| lazily(&site, "together", &launcher, "idle", IMPORT)).collect();
    starts.into_iter().for_each(finish);
    let together = site.fetched("together", "server", 4);
    // Each fetches the directories of all archives by itself. Without sharing it would be four times as much.
    assert!(together < 2 * alone, "{together} beside {alone}");
}

#[test]
fn lazy_start_fetches_a_piece_once_though_a_program_comes_back_for_its_rest() {
    let site = Site::directory();
    let env = site.world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    // More than the server keeps.
    install_with_noise(&env, "big", 48 << 20);
    let (site, _server) = behind_a_network(site, &env);
    let launcher = site.launcher(&env);
    let code = "
import big, os
f = os.open(os.path.dirname(big.__file__) + '/big.bin', os.O_RDONLY)
for start in 0, 400_000, 800_000:
    for block in range(48):
        assert len(os.pread(f, 4096, (block << 20) + start)) == 4096
print(45)";
    finish(lazily(&site, "sharing", &launcher, "idle", code));
    finish(lazily(&site, "alone", &launcher, "off", code));
    let (sharing, alone) = (site.fetched("sharing", "server", 1), site.fetched("alone", "server", 1));
    assert!(sharing < 50 << 20 && alone > 2 * sharing, "{sharing} beside {alone}");
}

#[test]
fn lazy_start_fetches_ahead_what_its_trace_names() {
    let site = Site::directory();
    let env = site.world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    install_with_noise(&env, "big", 24 << 20);
    let (site, _server) = behind_a_network(site, &env);
    let launcher = site.launcher(&env);
    // Backwards, which is no sequence that would be followed without a trace.
    let code = "
import big, os
f = os.open(os.path.dirname(big.__file__) + '/big.bin', os.O_RDONLY)
for block in reversed(range(24)):
    assert len(os.pread(f, 4096, block << 20)) == 4096
print(45)";
    let (trace, traced) = (site.world.path("trace"), site.world.path("traced-python"));
    let mut recorded = site.on_node("recorded", &launcher);
    let recorded = recorded.args(["-c", code]).env("CPACK_RECORD", &trace).env("CPACK_FILL", "off").output();
    assert_eq!(succeeded(&recorded.expect("starts"), "a run that records"), "45\n");
    site.pack(&["launcher", "--venv", utf8(&env), "--trace-file", utf8(&trace), "-o", utf8(&traced)]);
    finish(lazily(&site, "traced", &traced, "off", code));
    let fetched = site.fetched("traced", "server", 1);
    let ahead = site.metrics("traced")["bytes"]["ahead"].as_u64().expect("bytes");
    // What a program waits for already is not fetched ahead, and nothing is fetched twice.
    assert!(ahead > 1 << 20 && (24 << 20..28 << 20).contains(&fetched), "{ahead} of {fetched}");
}
