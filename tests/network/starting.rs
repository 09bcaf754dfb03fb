//! From an upload to Python on a node that has an empty cache and no configuration.

use std::fs;
use std::path::Path;

use cpack_test::hadoop::{Hdfs, USER};
use cpack_test::programs::{boot, cluster_pack, install_by_hand, installed, text, utf8};
use cpack_test::proxy::Proxy;
use cpack_test::seaweed::Seaweed;

use cpack_test::site::{PROBE, Site, environment, install_with_noise, whole};

/// Most bytes that a change costs beside the layer that changed.
const BESIDE: u64 = 200 * 1000;

/// Most memory that a start may have resident.
const MOST_MEMORY: usize = 256 << 20;

/// `upload`, `launcher` and `run`; a cold start, a warm one, and one after a change.
pub(crate) fn from_upload_to_python(site: &Site) {
    let env = environment(site);
    let report = site.pack(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    assert!(report["sent_bytes"].as_u64().expect("bytes") > 20 << 20, "{report}");
    let again = site.pack(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    assert_eq!((&again["sent_bytes"], &again["unchanged"]), (&0.into(), &true.into()), "{again}");

    let launcher = site.launcher(&env);
    assert_eq!(site.run("cold", &launcher, PROBE), whole());
    assert_eq!(site.run("cold", &launcher, PROBE), whole());

    let mut run = site.command(&["run", "--venv", utf8(&env), "--", "-c", PROBE]);
    let output = run.output().expect("starts");
    assert!(output.status.success() && text(&output.stdout) == whole(), "{}", text(&output.stderr));
    a_change_costs_its_layer_alone(site, &env);
}

/// The same by what goes over the wire, requests and answers included.
pub(crate) fn a_change_costs_little_on_the_wire(site: &Site, proxy: &Proxy) {
    let env = site.world.path("venv");
    install_by_hand(&env, "one", "1.0", "VALUE = 2 - 1\n");
    let before = proxy.bytes();
    let report = site.pack(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    let launcher = site.launcher(&env);
    assert_eq!(site.run("cold", &launcher, "import one; print(one.VALUE)"), "1\n");
    let after = proxy.bytes();
    let mut layers = report["layers"].as_array().expect("layers").iter();
    let layer = layers.find(|layer| layer["name"] == "one").and_then(|layer| layer["packed_bytes"].as_u64());
    let [up, down] = [after[0] - before[0], after[1] - before[1]];
    let most = layer.expect("bytes") + BESIDE;
    assert!(up > 0 && down > 0 && up <= most && down <= most, "{up} bytes up and {down} down, at most {most}");
}

/// What is sent and what is fetched: the layer that changed, and little more.
fn a_change_costs_its_layer_alone(site: &Site, env: &Path) {
    let lib = fs::read_dir(env.join("lib")).expect("lib").flatten().next().expect("a version").path();
    for entry in fs::read_dir(lib.join("site-packages")).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("two-") {
            fs::remove_dir_all(entry.path()).expect("uninstalls");
        }
    }
    install_by_hand(env, "two", "1.1", "VALUE = 22\n");
    let report = site.pack(&["upload", "--venv", utf8(env), "--name", "mine"]);
    let layers = report["layers"].as_array().expect("layers").iter();
    let sent: Vec<&serde_json::Value> = layers.filter(|layer| layer["sent"] == true).collect();
    assert!(sent.len() == 1 && sent[0]["name"] == "two", "{sent:?}");
    let layer = sent[0]["packed_bytes"].as_u64().expect("bytes");
    let sent = report["sent_bytes"].as_u64().expect("bytes");
    assert!(sent > layer && sent <= layer + BESIDE, "{report}");

    let launcher = site.launcher(env);
    assert!(site.on_node("cold", &launcher).args(["-c", PROBE]).output().expect("starts").status.success());
    let metrics = site.metrics("cold");
    let fetched = metrics["bytes"]["fetched"].as_u64().expect("bytes");
    assert!(fetched >= 1 && fetched <= layer + BESIDE, "{metrics}");
    let layers = report["layers"].as_array().expect("layers").iter();
    let packed: u64 = layers.map(|layer| layer["packed_bytes"].as_u64().expect("bytes")).sum();
    assert_eq!((&metrics["bytes"]["saved"], &metrics["retries"]), (&(packed - layer).into(), &0.into()));
}

/// A PEX that lies at a place of the user's choice: fetched once, and not by its length alone.
pub(crate) fn a_pex_starts_from_the_store(site: &Site) {
    let (env, pex) = (site.world.path("venv"), site.world.path("my.pex"));
    let upstream = installed("pex", &["pex"]).join("bin");
    let mut pack = site.world.command(cluster_pack());
    pack.env("PATH", format!("{}:{}", upstream.display(), std::env::var("PATH").unwrap_or_default()));
    let packed = pack.args(["pack", "--format", "pex", "--venv", utf8(&env), "-o", utf8(&pex)]).output();
    let packed = packed.expect("starts");
    assert!(packed.status.success(), "{}", text(&packed.stderr));
    let uri = format!("{}/envs/my.pex", site.uri);
    site.pack(&["publish", utf8(&pex), &uri]);
    let start = |uri: &str| {
        // A URI says nothing of the cluster: that comes from the node's configuration.
        let mut command = site.world.command(boot());
        command.envs(site.client.iter().map(|(name, value)| (*name, value))).env("CPACK_LOG", "1");
        command.args(["--cpack", "exec", uri, "-c", "import two; print(two.VALUE)"]).output().expect("starts")
    };
    for word in ["cold start", "warm start"] {
        let output = start(&uri);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).contains(word)), ("22\n", true));
    }
    let output = start(&format!("{}/envs/other.pex", site.uri));
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.lines().count() == 1 && said.contains("other.pex"), "{said}");
}

/// `bench` on the store: three containers fetch what one does, and each fetch is told.
fn store_is_measured(site: &Site, kind: &str) {
    let env = site.world.path("venv");
    let report =
        site.pack(&["bench", "--venv", utf8(&env), "--runs", "1", "--containers", "3", "--", "-c", "import two"]);
    assert_eq!(report["store"], kind);
    let packed = report["environment"]["packed"].as_u64().expect("bytes");
    for start in ["cold", "together"] {
        assert_eq!(report[start]["fetched"].as_u64(), Some(packed), "{start}: {}", report[start]);
    }
    let layers = report["environment"]["layers"].as_array().expect("layers");
    let fetches = |layer: &serde_json::Value| {
        let work = layer["work"].as_array().expect("work");
        work.iter().any(|kind| kind[0] == "fetch" && kind[1].as_f64() > Some(0.0))
    };
    assert!(layers.len() > 2 && layers.iter().all(fetches), "{layers:?}");
}

/// A layer that is larger than the memory that a start may take.
pub(crate) fn memory_is_bounded(site: &Site) {
    let env = site.world.path("venv");
    install_with_noise(&env, "larger", MOST_MEMORY + (64 << 20));
    let launcher = site.launcher(&env);
    // The kernel keeps the most that a process had through its execs. The shell forks: a child of this process begins with
    // what this one has.
    let code = "import resource, larger; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, larger.SIZE)";
    let mut start = site.on_node("small", Path::new("sh"));
    let output = start.args(["-c", "\"$@\"; exit $?", "sh", utf8(&launcher), "-c", code]).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let figures: Vec<usize> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[kibibytes, size] = figures.as_slice() else { panic!("{printed}") };
    let fetched = site.metrics("small")["bytes"]["fetched"].as_u64().expect("bytes");
    assert!(size > MOST_MEMORY && fetched > MOST_MEMORY as u64 && kibibytes << 10 <= MOST_MEMORY, "{printed}{fetched}");
}

#[test]
fn launcher_starts_from_s3() {
    let server = Seaweed::start();
    let proxy = Proxy::start(server.port);
    let site = Site::s3(&server, proxy.port);
    from_upload_to_python(&site);
    a_pex_starts_from_the_store(&site);
    a_change_costs_little_on_the_wire(&site, &proxy);
    store_is_measured(&site, "s3");
    memory_is_bounded(&site);
    // What is in the node's cache needs no store.
    let launcher = site.world.path("env-python");
    drop(server);
    assert_eq!(site.run("small", &launcher, "import two; print(two.VALUE)"), "22\n");
}

#[test]
fn launcher_starts_from_hdfs() {
    let mut server = Hdfs::start(&[]);
    let site = Site::hdfs(&server, "store");
    from_upload_to_python(&site);
    a_pex_starts_from_the_store(&site);
    store_is_measured(&site, "hdfs");
    let left = server.shell(&["-ls", "-C", &format!("/user/{USER}/store")]).output().expect("starts");
    let left = text(&left.stdout);
    assert!(left.contains("/layers") && !left.contains("bench"), "the bench removes what it made: {left}");
    memory_is_bounded(&site);
    // As many copies as asked for, of what every executor reads; ten unless told otherwise.
    server.command(&format!("expect-replication /user/{USER}/store/layers 10"));
    server.command(&format!("expect-replication /user/{USER}/store/environments 10"));
    let few = Site { uri: server.uri("few").to_string(), ..site };
    few.pack(&["--replication", "2", "upload", "--venv", utf8(&few.world.path("venv"))]);
    server.command(&format!("expect-replication /user/{USER}/few/layers 2"));
}

#[test]
fn launcher_starts_from_hdfs_of_two_name_nodes() {
    let mut server = Hdfs::start(&["ha"]);
    let site = Site::hdfs(&server, "store");
    from_upload_to_python(&site);
    server.command("failover");
    assert_eq!(site.run("after the failover", &site.world.path("env-python"), "import two; print(two.VALUE)"), "22\n");
}

#[test]
fn launcher_starts_from_hdfs_with_delegation_tokens() {
    let server = Hdfs::start(&["secure"]);
    from_upload_to_python(&Site::secure(&server, &server.full_uri("store").to_string()));
}
