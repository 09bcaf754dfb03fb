//! Publishing to stores on the network: what is published is whole at every instant, beside other clients and prunes.

use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use cpack_format::Digest;
use cpack_format::manifest::{MAX_JSON, Manifest};
use cpack_store::{Key, Put, Source, Store};
use cpack_test::hadoop::{Hdfs, USER};
use cpack_test::inside;
use cpack_test::programs::{install_by_hand, text, utf8};
use cpack_test::seaweed::{self, Seaweed};

use cpack_test::site::{PROBE, Site, environment, whole};

/// Publishers that are killed, on each kind of store.
const KILLS: u32 = 8;

/// Every manifest that the store shows, with layers that were read and found whole. How many there are.
fn check_all(store: &dyn Store) -> usize {
    let environments = store.list("environments").expect("lists");
    for listed in &environments {
        let bytes = store.read(&listed.key, MAX_JSON).expect("a manifest that is listed can be read");
        let manifest = Manifest::parse(&bytes).expect("a whole manifest");
        assert_eq!(listed.key, Key::environment(&Digest::of(&bytes)));
        for layer in &manifest.layers {
            let key = Key::layer(&layer.archive.digest);
            let found = store.read(&key, layer.archive.size).unwrap_or_else(|e| panic!("{}: {e}", listed.key));
            assert_eq!(Digest::of(&found), layer.archive.digest, "{key} of {}", listed.key);
        }
    }
    environments.len()
}

/// Checks that the store is found good before anything is there, and that nothing is left in it.
pub(super) fn doctor(site: &Site, store: &dyn Store, env: &Path) {
    let report = site.pack(&["doctor", "--venv", utf8(env)]);
    let checks = report["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| check["verdict"] == "good"), "{report}");
    assert_eq!(store.list("contents").expect("lists").len(), 0);
}

/// Damages what is stored and repairs it.
fn repair(site: &Site, store: &dyn Store) {
    let env = environment(site);
    doctor(site, store, &env);
    let report = site.pack(&["upload", "--venv", utf8(&env)]);
    let launcher = site.launcher(&env);
    let layers = store.list("layers").expect("lists");
    let large = layers.iter().max_by_key(|listed| listed.stat.size).expect("a layer");
    let mut bytes = store.read(&large.key, 1 << 30).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&large.key, Source::Bytes(&bytes), Put::Replace).expect("damages");
    let id: Digest = report["environment"].as_str().and_then(|id| id.parse().ok()).expect("a digest");
    let manifest = Key::environment(&id);
    let size = store.stat(&manifest).expect("stat").expect("it is there").size;
    store.put(&manifest, Source::Bytes(&vec![b' '; size as usize]), Put::Replace).expect("damages");
    let report = site.pack(&["upload", "--repair", "--venv", utf8(&env)]);
    let layers = report["layers"].as_array().expect("layers").iter();
    let sent: Vec<&str> =
        layers.filter(|layer| layer["sent"] == true).filter_map(|layer| layer["name"].as_str()).collect();
    assert_eq!(sent, ["large"]);
    assert_eq!(check_all(store), 1);
    assert_eq!(site.run("repaired", &launcher, PROBE), whole());
}

/// Two clients that know nothing of each other publish the same at once.
fn two_at_once(site: &Site, store: &dyn Store) {
    let env = site.world.path("venv");
    install_by_hand(&env, "two", "1.0", "VALUE = 1 + 1\n");
    install_by_hand(&env, "one", "1.0", "VALUE = 2 - 1\n");
    let upload = |cache: &str| {
        let cache = site.world.path(cache);
        site.pack(&["upload", "--venv", utf8(&env), "--name", "same", "--client-cache", utf8(&cache)])
    };
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(|| upload("other client"));
        (upload("one client"), other.join().expect("uploads"))
    });
    assert_eq!(first["environment"], second["environment"]);
    assert_eq!(check_all(store), 2);
}

/// Kills publishers at moments spread over the time that one takes, each with a store of its own.
fn killed_publishers(site: &mut Site, open: &dyn Fn(&Site) -> Box<dyn Store>) {
    let env = site.world.path("venv");
    let base = site.uri.clone();
    let mut time = None;
    let mut killed = 0;
    for round in 0..=KILLS {
        site.uri = format!("{base}/killed-{round}");
        let cache = site.world.path(&format!("client {round}"));
        let start = Instant::now();
        let mut command = site.command(&["upload", "--venv", utf8(&env), "--client-cache", utf8(&cache)]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let Some(time) = time else {
            let output = child.wait_with_output().expect("ends");
            assert!(output.status.success(), "{}", text(&output.stderr));
            time = Some(start.elapsed());
            continue;
        };
        thread::sleep(Duration::mul_f64(time, f64::from(round) / f64::from(KILLS + 1)));
        let _ = child.kill();
        killed += u32::from(!child.wait_with_output().expect("ends").status.success());
        let store = open(site);
        check_all(&*store);
        // The next client finishes what was begun.
        site.pack(&["upload", "--venv", utf8(&env), "--client-cache", utf8(&cache)]);
        assert_eq!(check_all(&*store), 1);
    }
    assert!(killed > 0, "no publisher was killed");
    site.uri = base;
}

/// A name that moved on: what only its old environment needed goes, and only when that is asked for.
fn prune_what_nothing_names(site: &Site, store: &dyn Store) {
    let env = site.world.path("venv");
    let kept = |report: &serde_json::Value| report["kept_objects"].as_u64().expect("a number");
    site.pack(&["upload", "--venv", utf8(&env), "--name", "same"]);
    install_by_hand(&env, "two", "1.0", "VALUE = 2 + 0\n");
    site.pack(&["upload", "--venv", utf8(&env), "--name", "same"]);
    site.pack(&["upload", "--venv", utf8(&env), "--name", "venv"]);
    let launcher = site.launcher(&env);
    let nothing = site.pack(&["prune"]);
    assert_eq!((&nothing["removed_objects"], &nothing["deleted"]), (&0.into(), &false.into()), "{nothing}");
    // The clocks of some stores have whole seconds.
    thread::sleep(Duration::from_secs(2));
    let shown = site.pack(&["prune", "--grace", "0s"]);
    let before = check_all(store);
    assert!(shown["removed_objects"].as_u64() > Some(0) && shown["deleted"] == false, "{shown}");
    let done = site.pack(&["prune", "--grace", "0s", "--delete"]);
    assert_eq!((&done["removed"], kept(&done)), (&shown["removed"], kept(&shown)));
    assert!(check_all(store) < before);
    assert_eq!(site.run("after a prune", &launcher, "import two; print(two.VALUE)"), "2\n");
    assert_eq!(site.pack(&["prune", "--grace", "0s", "--delete"])["removed_objects"], 0);
}

#[test]
fn upload_publishes_to_s3() {
    if !inside("publishing::upload_publishes_to_s3", &seaweed::credentials()) {
        return;
    }
    let server = Seaweed::start();
    let mut site = Site::s3(&server, server.port);
    let open = |site: &Site| site.store(&server.options(server.port));
    let store = open(&site);
    repair(&site, &*store);
    two_at_once(&site, &*store);
    prune_what_nothing_names(&site, &*store);
    killed_publishers(&mut site, &open);
}

#[test]
fn upload_publishes_to_hdfs() {
    let mut server = Hdfs::start(&[]);
    let mut site = Site::hdfs(&server, "store");
    let options = server.options();
    let open = |site: &Site| site.store(&options);
    let store = open(&site);
    repair(&site, &*store);
    two_at_once(&site, &*store);
    prune_what_nothing_names(&site, &*store);
    beside_a_prune(&site, &*store, &mut server);
    killed_publishers(&mut site, &open);
}

/// Everything is old and nothing has a name while it is published again: the prune and the publication race for it.
fn beside_a_prune(site: &Site, store: &dyn Store, server: &mut Hdfs) {
    let env = site.world.path("venv");
    let cache = site.world.path("client of the race");
    for round in 0..4 {
        for listed in store.list("names").expect("lists") {
            store.delete(&listed.key).expect("deletes");
        }
        server.command(&format!("age /user/{USER}/store 100"));
        let report = thread::scope(|scope| {
            let prune = scope.spawn(|| site.pack(&["prune", "--delete"]));
            let report = site.pack(&["upload", "--venv", utf8(&env), "--name", "race", "--client-cache", utf8(&cache)]);
            let pruned = prune.join().expect("prunes");
            println!("round {round}: {} objects removed beside a publication", pruned["removed_objects"]);
            report
        });
        let id: Digest = report["environment"].as_str().and_then(|id| id.parse().ok()).expect("a digest");
        let keys = ["launcher", "boot"].map(|part| {
            let uri = report[part].as_str().expect("a URI");
            let at = uri.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
            Key::from_listing(&uri[at..]).expect("a key")
        });
        for key in keys.iter().chain([&Key::environment(&id)]) {
            assert!(store.stat(key).expect("stat").is_some(), "{key}, which was published, is gone");
        }
        check_all(store);
    }
}
