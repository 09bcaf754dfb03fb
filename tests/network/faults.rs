//! What networks and servers do to a start: what passes is waited out, what does not ends it at once, with one line.

use std::sync::atomic::Ordering;

use cpack_store::{Key, Put, Source};
use cpack_test::hadoop::{Hdfs, USER};
use cpack_test::programs::utf8;
use cpack_test::proxy::{Fault, Proxy};
use cpack_test::seaweed::Seaweed;
use cpack_test::{http, inside, seaweed};
use serde_json::Value;

use cpack_test::site::{LARGE, PROBE, Site, complaint, environment, whole};

/// The most requests without a retry: one for each range in flight, and the first.
const AT_ONCE: u64 = 10;

/// The key of the layer `name` of an upload.
fn layer_key(report: &Value, name: &str) -> Key {
    let layers = report["layers"].as_array().expect("layers");
    let layer = layers.iter().find(|layer| layer["name"] == name).expect("the layer");
    Key::layer(&layer["archive"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest"))
}

#[test]
fn transient_errors_are_waited_out() {
    let server = Seaweed::start();
    let mut site = Site::s3(&server, server.port);
    let env = environment(&site);
    site.launcher(&env);
    for (fault, connections) in [
        (Fault::Refuse, 3),
        (Fault::Busy, 6),
        (Fault::Cut(300_000), 6),
        (Fault::Stall(200_000), 2),
        (Fault::Slow(8 << 20), 4),
        // Two: a piece is read three times before it counts as damaged.
        (Fault::Swap, 2),
        (Fault::Shuffle(300), 8),
        (Fault::Flip(3_000_000), 2),
    ] {
        let proxy = Proxy::start(server.port);
        site.through(proxy.port);
        let launcher = site.launcher(&env);
        let before = proxy.bytes()[1];
        proxy.inject(fault, connections);
        assert_eq!(site.run(&format!("{fault:?}"), &launcher, PROBE), whole(), "{fault:?}");
        assert!(proxy.faulty() > 0, "{fault:?} did not happen");
        let retries = site.metrics(&format!("{fault:?}"))["retries"].as_u64().expect("a number");
        // What is slow or comes in parts is waited for.
        assert!(retries > 0 || matches!(fault, Fault::Slow(_) | Fault::Shuffle(_)), "{fault:?}: {retries} retries");
        if matches!(fault, Fault::Flip(_)) {
            let fetched = proxy.bytes()[1] - before;
            // A piece has 1 MiB, all that is not of the large layer far less than half of that.
            assert!(fetched > LARGE as u64 + (1 << 19), "a damaged piece was not fetched again: {fetched} bytes");
        }
    }
}

#[test]
fn permanent_errors_end_a_start_at_once() {
    if !inside("faults::permanent_errors_end_a_start_at_once", &seaweed::credentials()) {
        return;
    }
    let server = Seaweed::start();
    let mut site = Site::s3(&server, server.port);
    let env = environment(&site);
    let report = site.pack(&["upload", "--venv", utf8(&env)]);
    site.launcher(&env);
    let (one, large) = (layer_key(&report, "one"), layer_key(&report, "large"));

    // Damaged on the way, each time.
    let proxy = Proxy::start(server.port);
    site.through(proxy.port);
    site.launcher(&env);
    proxy.inject(Fault::Noise(1 << 20), u64::MAX);
    let said = complaint(&site.fails("noise"), 83);
    assert!(said.contains(&format!("{}/layers/", site.uri)) && said.contains("--repair"), "{said}");

    // Not let in, by a server that says so.
    for (answer, code, needle) in [
        ("HTTP/1.1 400 Bad\nContent-Type: application/xml\n\n<Error><Code>ExpiredToken</Code></Error>", 85, "renew"),
        ("HTTP/1.1 403 No\nContent-Type: application/xml\n\n<Error><Code>AccessDenied</Code></Error>", 85, "policy"),
        ("HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>Welcome</html>", 80, "web page"),
    ] {
        let (port, requests) = http::counted(answer);
        // A launcher that was right when it was made.
        let gate = Proxy::start(server.port);
        site.through(gate.port);
        site.launcher(&env);
        gate.lead_to(port);
        let said = complaint(&site.fails(needle), code);
        assert!(said.contains(&site.uri) && said.contains(needle), "{said}");
        let requests = requests.load(Ordering::SeqCst);
        assert!((1..=AT_ONCE).contains(&requests), "{requests} requests");
    }

    // Nothing there, other bytes there.
    let store = site.store(&server.options(server.port));
    site.through(server.port);
    site.launcher(&env);
    store.delete(&one).expect("deletes");
    let said = complaint(&site.fails("missing"), 84);
    assert!(said.contains(&format!("{}/{one}", site.uri)), "{said}");
    let size = store.stat(&large).expect("stat").expect("it is there").size as usize;
    store.put(&large, Source::Bytes(&vec![7; size]), Put::Replace).expect("damages");
    site.pack(&["upload", "--venv", utf8(&env)]);
    let said = complaint(&site.fails("damaged"), 83);
    assert!(said.contains(&format!("{}/{large}", site.uri)) && said.contains("--repair"), "{said}");
}

#[test]
fn start_passes_over_data_node_that_is_dead_or_stands_still() {
    let mut server = Hdfs::start(&[]);
    let site = Site::hdfs(&server, "store");
    let launcher = site.launcher(&environment(&site));
    server.command("stall-reads 2 60");
    assert_eq!(site.run("stalled", &launcher, PROBE), whole());
    server.command("expect-stalled 2");
    server.command("stop-datanode 1");
    assert_eq!(site.run("dead", &launcher, PROBE), whole());
    // Another user, which may not read it.
    server.command(&format!("forbid /user/{USER}/store"));
    let mut command = site.on_node("other", &launcher);
    let said = complaint(&command.env("HADOOP_USER_NAME", "bob").output().expect("starts"), 85);
    assert!(said.contains(&site.uri) && said.contains("user=bob"), "{said}");
}

#[test]
fn cancelled_token_ends_start_at_once() {
    let mut server = Hdfs::start(&["secure"]);
    let site = Site::secure(&server, &server.full_uri("store").to_string());
    site.launcher(&environment(&site));
    server.command("cancel-tokens");
    let said = complaint(&site.fails("expired"), 85);
    assert!(said.contains(&site.uri) && said.contains("submit again"), "{said}");
}
