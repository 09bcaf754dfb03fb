//! Every kind of store against a real server: the same promises, kept through faults, and one line where they cannot be.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests report by panicking and printing")]

mod clouds;
mod networks;
mod web;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use cpack_store::{
    Deadlines, FileStore, Key, Put, S3Store, Source, Store, StoreErrorKind, StoreOptions, cluster_properties,
    conformance, open,
};
use cpack_test::hadoop::{self, Hdfs};
use cpack_test::proxy::{Fault, Proxy};
use cpack_test::seaweed::{self, Seaweed};
use cpack_test::{http, inside, noise};

use networks::{assert_refused, read_in_ranges, reads_survive, writes_survive};

fn variables(pairs: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

pub(crate) fn layer(bytes: &[u8]) -> Key {
    Key::layer(&Digest::of(bytes))
}

#[test]
fn directory_store_keeps_the_contract() {
    let directory = tempfile::tempdir().expect("a directory");
    conformance::check(&FileStore::new(directory.path()));
}

#[test]
fn s3_keeps_the_contract() {
    if !inside("s3_keeps_the_contract", &seaweed::credentials()) {
        return;
    }
    let seaweed = Seaweed::start();
    for prefix in ["", "a/prefix with ü"] {
        conformance::check(&*open(&seaweed.uri(prefix), &seaweed.options(seaweed.port)).expect("opens"));
    }
}

#[test]
fn s3_moves_large_objects_in_parts_and_lists_many() {
    if !inside("s3_moves_large_objects_in_parts_and_lists_many", &seaweed::credentials()) {
        return;
    }
    let seaweed = Seaweed::start();
    let store = open(&seaweed.uri("p"), &seaweed.options(seaweed.port)).expect("opens");
    let content = noise((21 << 20) + 5);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &content).expect("writes");
    let key = layer(&content);
    store.put(&key, Source::File(file.path()), Put::IfAbsent).expect("sends parts");
    read_in_ranges(&*store, &key, &content);
    let before = store.stat(&key).expect("stat").expect("it is there").modified;
    thread::sleep(Duration::from_millis(1100));
    store.refresh(&key).expect("refreshes");
    assert!(store.stat(&key).expect("stat").expect("it is there").modified > before);
    read_in_ranges(&*store, &key, &content);

    let concrete = S3Store::new(&seaweed.uri("p"), &seaweed.options(seaweed.port)).expect("opens");
    concrete.abandon(&layer(b"abandoned")).expect("starts an upload");
    sweep(&concrete);

    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|number| *number < 1100) {
                    let key = Key::name(&format!("n{number}"), "json").expect("a name");
                    store.put(&key, Source::Bytes(b"x"), Put::Replace).expect("writes");
                }
            });
        }
    });
    assert_eq!(store.list("names").expect("pages are followed").len(), 1100);
}

/// Takes the one thing that was left behind, once it is old.
pub(crate) fn sweep(store: &dyn Store) {
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep(SystemTime::now() - hour).expect("sweeps"), 0);
    assert_eq!(store.sweep(SystemTime::now() + hour).expect("sweeps"), 1);
    assert_eq!(store.sweep(SystemTime::now() + hour).expect("sweeps"), 0);
}

#[test]
fn s3_trusts_the_bundle_that_it_is_given() {
    let name = "s3_trusts_the_bundle_that_it_is_given";
    if !inside(name, &seaweed::credentials()) {
        return;
    }
    let seaweed = Seaweed::start();
    let mut options = seaweed::options(&format!("https://localhost:{}", seaweed.tls_port));
    let error = open(&seaweed.uri(""), &options).expect("opens").list("layers").expect_err("unknown authority");
    assert_eq!(error.kind, StoreErrorKind::Misconfigured, "{error}");
    assert!(error.reason.contains("AWS_CA_BUNDLE"), "{error}");
    options.environ.insert("AWS_CA_BUNDLE", seaweed.certificate.display().to_string());
    conformance::check(&*open(&seaweed.uri(""), &options).expect("opens"));
}

#[test]
fn s3_goes_through_a_proxy() {
    if !inside("s3_goes_through_a_proxy", &seaweed::credentials()) {
        return;
    }
    let seaweed = Seaweed::start();
    let mut options = seaweed::options("http://no-such-host.invalid");
    let proxy = Proxy::start(seaweed.port);
    proxy.inject(Fault::Shuffle(1), u64::MAX);
    options.environ.insert("HTTP_PROXY", format!("http://127.0.0.1:{}", proxy.port));
    // SeaweedFS takes the absolute form of requests that proxies get.
    let store = open(&seaweed.uri("x"), &options).expect("opens");
    assert_eq!(store.list("layers").expect("through the proxy"), []);
    assert!(proxy.faulty() > 0);
}

#[test]
fn s3_survives_what_networks_do() {
    if !inside("s3_survives_what_networks_do", &seaweed::credentials()) {
        return;
    }
    let seaweed = Seaweed::start();
    let content = noise(12 << 20);
    let key = layer(&content);
    open(&seaweed.uri("f"), &seaweed.options(seaweed.port))
        .expect("opens")
        .put(&key, Source::Bytes(&content), Put::IfAbsent)
        .expect("writes");
    let store = |port: u16, prefix: &str| open(&seaweed.uri(prefix), &seaweed.options(port)).expect("opens");
    reads_survive(seaweed.port, |port| store(port, "f"), &key, &content);
    writes_survive(seaweed.port, store, &key, &content);
}

#[test]
fn s3_says_in_one_line_what_is_wrong() {
    if !inside("s3_says_in_one_line_what_is_wrong", &seaweed::credentials()) {
        return;
    }
    let seaweed = Seaweed::start();
    let here = seaweed.options(seaweed.port);
    let check = |options: &StoreOptions, uri: &str, kind, needle: &str| {
        assert_refused(options, uri, kind, needle, seaweed::SECRET_KEY);
    };
    check(&here, "s3://no-such-bucket/x", StoreErrorKind::Misconfigured, "create it");
    let refused = seaweed::options(&format!("http://127.0.0.1:{}", cpack_test::free_port()));
    check(&refused, "s3://tests/x", StoreErrorKind::Transient, "check the endpoint");
    let unknown = seaweed::options("http://no-such-host.invalid");
    check(&unknown, "s3://tests/x", StoreErrorKind::Transient, "check the endpoint");
    let date = "Date: Mon, 06 Jan 2020 00:00:00 GMT";
    let error =
        |code: &str| format!("Content-Type: application/xml\n\n<Error><Code>{code}</Code><Message>m</Message></Error>");
    for (answer, kind, needle) in [
        (
            "HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>Welcome</html>".to_owned(),
            StoreErrorKind::Misconfigured,
            "web page",
        ),
        (
            "HTTP/1.1 404 Not Found\nContent-Type: text/html\n\n<html>".to_owned(),
            StoreErrorKind::Misconfigured,
            "web page",
        ),
        (
            format!("HTTP/1.1 403 Forbidden\n{date}\n{}", error("RequestTimeTooSkewed")),
            StoreErrorKind::Misconfigured,
            "set the clock",
        ),
        (
            format!("HTTP/1.1 403 Forbidden\n{date}\n{}", error("AccessDenied")),
            StoreErrorKind::Misconfigured,
            "set the clock",
        ),
        (
            format!("HTTP/1.1 301 Moved\nx-amz-bucket-region: eu-west-1\n{}", error("PermanentRedirect")),
            StoreErrorKind::Misconfigured,
            "AWS_REGION=eu-west-1",
        ),
        (format!("HTTP/1.1 400 Bad\n{}", error("ExpiredToken")), StoreErrorKind::Denied, "renew"),
        (format!("HTTP/1.1 403 Forbidden\n{}", error("AccessDenied")), StoreErrorKind::Denied, "policy"),
    ] {
        let options = seaweed::options(&format!("http://127.0.0.1:{}", http::always(&answer)));
        check(&options, "s3://tests/x", kind, needle);
    }
}

#[test]
fn s3_without_valid_credentials_is_denied() {
    let name = "s3_without_valid_credentials_is_denied";
    let wrong = variables(&[("AWS_ACCESS_KEY_ID", "stranger"), ("AWS_SECRET_ACCESS_KEY", "wrong-secret")]);
    if !inside(name, &wrong) {
        return;
    }
    let seaweed = Seaweed::start();
    let store = open(&seaweed.uri("x"), &seaweed.options(seaweed.port)).expect("opens");
    for error in [
        store.put(&layer(b""), Source::Bytes(b""), Put::IfAbsent).expect_err("denied"),
        store.list("layers").expect_err("denied"),
    ] {
        println!("{error}");
        assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    }
}

#[test]
fn s3_without_credentials_says_where_they_go() {
    let nothing = "/dev/null";
    let none =
        [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_CONFIG_FILE", nothing), ("AWS_SHARED_CREDENTIALS_FILE", nothing)];
    if !inside("s3_without_credentials_says_where_they_go", &variables(&none)) {
        return;
    }
    let options = seaweed::options(&format!("http://127.0.0.1:{}", cpack_test::free_port()));
    let error = open(&"s3://b/x".parse().expect("a URI"), &options).expect("opens").list("layers").expect_err("denied");
    println!("{error}");
    assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    assert!(error.reason.contains("AWS_ACCESS_KEY_ID"), "{error}");
}

#[test]
fn hdfs_keeps_the_contract() {
    let mut hdfs = Hdfs::start(&[]);
    for uri in [hdfs.uri("plain"), hdfs.full_uri("full")] {
        conformance::check(&*open(&uri, &hdfs.options()).expect("opens"));
    }
    // What lies in the temporary directory was left by a writer that is gone.
    let inside = open(&hdfs.uri("plain/tmp"), &hdfs.options()).expect("opens");
    inside.put(&Key::name("left", "").expect("a name"), Source::Bytes(b"left"), Put::Replace).expect("writes");
    sweep(&*open(&hdfs.uri("plain"), &hdfs.options()).expect("opens"));
    let executor = executor(&hdfs, &hdfs.uri("plain").to_string());
    conformance::check(&*open(&hdfs.uri("executor"), &executor).expect("opens"));
    let viewfs = mounted(&hdfs);
    conformance::check(&*open(&"viewfs://c/home/v".parse().expect("a URI"), &viewfs).expect("opens"));
    large_objects(&mut hdfs);
}

/// The options of an executor without any configuration of its own, with what the job of a client at `uri` says.
fn executor(hdfs: &Hdfs, uri: &str) -> StoreOptions {
    let cluster = cluster_properties(&uri.parse().expect("a URI"), &hdfs.options()).expect("properties");
    StoreOptions {
        cluster,
        user: Some(hadoop::USER.to_owned()),
        deadlines: seaweed::short(),
        ..StoreOptions::default()
    }
}

fn mounted(hdfs: &Hdfs) -> StoreOptions {
    let mut options = hdfs.options();
    let target = format!("{}/user/{}", hdfs.property("fs.defaultFS"), hadoop::USER);
    options.cluster.insert("fs.viewfs.mounttable.c.link./home".to_owned(), target);
    options
}

/// Files of many blocks: read by ranges across them, also when a data node is gone or a replica is damaged.
fn large_objects(hdfs: &mut Hdfs) {
    let content = noise((9 << 20) + 5);
    let key = layer(&content);
    let store = open(&hdfs.uri("large"), &hdfs.options()).expect("opens");
    store.put(&key, Source::Bytes(&content), Put::IfAbsent).expect("writes");
    read_in_ranges(&*store, &key, &content);
    println!("damaged {} replicas", damage(&hdfs.path("dfs")));
    read_in_ranges(&*open(&hdfs.uri("large"), &hdfs.options()).expect("opens"), &key, &content);
    hdfs.command("stall-reads 2 60");
    read_in_ranges(&*open(&hdfs.uri("large"), &hdfs.options()).expect("opens"), &key, &content);
    hdfs.command("expect-stalled 2");
    hdfs.command("stop-datanode 1");
    store.put(&layer(b"later"), Source::Bytes(b"later"), Put::IfAbsent).expect("one data node is enough");
}

/// Flips a bit in one replica of every second block. Gives their number.
fn damage(directory: &std::path::Path) -> usize {
    let mut blocks: BTreeMap<String, std::path::PathBuf> = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else if name.starts_with("blk_") && !name.ends_with(".meta") {
                blocks.entry(name).or_insert(entry.path());
            }
        }
    }
    let damaged: Vec<_> = blocks
        .into_values()
        .step_by(2)
        .filter(|path| {
            let mut bytes = std::fs::read(path).expect("a replica");
            bytes.first_mut().map(|byte| *byte ^= 1).is_some_and(|()| std::fs::write(path, bytes).is_ok())
        })
        .collect();
    assert!(!damaged.is_empty(), "no replica was found");
    damaged.len()
}

#[test]
fn hdfs_says_in_one_line_what_is_wrong() {
    let mut hdfs = Hdfs::start(&[]);
    let options = hdfs.options();
    let options =
        StoreOptions { deadlines: Deadlines { call: Duration::from_secs(3), ..options.deadlines }, ..options };
    let uri = |path: &str| format!("{}{path}", hdfs.property("fs.defaultFS"));
    let forbidden = uri("/forbidden/store");
    let refused = format!("hdfs://127.0.0.1:{}/x", cpack_test::free_port());
    let page = format!("hdfs://127.0.0.1:{}/x", http::always("HTTP/1.1 200 OK\n\n<html>"));
    for (uri, kind, needle) in [
        (forbidden.as_str(), StoreErrorKind::Denied, "user=alice"),
        (&refused, StoreErrorKind::Transient, "check the address"),
        ("hdfs://no-such-host.invalid/x", StoreErrorKind::Transient, "check the address"),
        (&page, StoreErrorKind::Misconfigured, "the name node's RPC port"),
    ] {
        let store = open(&uri.parse().expect("a URI"), &options).expect("opens");
        let error = store.put(&layer(b""), Source::Bytes(b""), Put::IfAbsent).expect_err("cannot be written");
        println!("{error}");
        assert_eq!(error.kind, kind, "{error}");
        let line = error.to_string();
        assert!(line.contains(needle) && line.contains(uri) && !line.contains('\n') && line.len() < 600, "{line}");
    }
    hdfs.command("safe-mode on");
    let store = open(&hdfs.uri("safe"), &options).expect("opens");
    let error = store.put(&layer(b""), Source::Bytes(b""), Put::IfAbsent).expect_err("read-only");
    println!("{error}");
    assert!(error.is_transient() && error.reason.contains("safe mode"), "{error}");
}

#[test]
fn hdfs_survives_what_networks_do() {
    let hdfs = Hdfs::start(&[]);
    let name_node =
        hdfs.property("fs.defaultFS").rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let content = noise(5 << 20);
    let key = layer(&content);
    for fault in [
        Fault::Refuse,
        Fault::Cut(0),
        Fault::Cut(150),
        Fault::Stall(150),
        Fault::Flip(6),
        Fault::Flip(60),
        Fault::Slow(20_000),
    ] {
        let proxy = Proxy::start(name_node);
        let uri = format!("hdfs://127.0.0.1:{}/user/{}/{fault:?}", proxy.port, hadoop::USER).replace(['(', ')'], "-");
        proxy.inject(fault, 2);
        let store = open(&uri.parse().expect("a URI"), &hdfs.options()).expect("opens");
        store.put(&key, Source::Bytes(&content), Put::IfAbsent).expect("writes at last");
        proxy.inject(fault, 2);
        let store = open(&uri.parse().expect("a URI"), &hdfs.options()).expect("opens");
        read_in_ranges(&*store, &key, &content);
        assert!(proxy.faulty() > 0, "{fault:?} did not happen");
        println!("through {fault:?}: {} connections were hit", proxy.faulty());
    }
}

#[test]
fn hdfs_follows_the_active_name_node() {
    let mut hdfs = Hdfs::start(&["ha"]);
    let client = open(&hdfs.uri("ha"), &hdfs.options()).expect("opens");
    conformance::check(&*client);
    let executor = executor(&hdfs, &hdfs.uri("ha").to_string());
    let executor = open(&hdfs.uri("ha"), &executor).expect("opens");
    let content = noise(3 << 20);
    let key = layer(&content);
    client.put(&key, Source::Bytes(&content), Put::IfAbsent).expect("writes");
    hdfs.command("failover");
    read_in_ranges(&*executor, &key, &content);
    client.put(&layer(b"after"), Source::Bytes(b"after"), Put::IfAbsent).expect("writes after a failover");
    hdfs.command("stop-namenode 0");
    assert_eq!(executor.read(&layer(b"after"), 10).expect("reads from the other one"), b"after");
    let fresh = open(&hdfs.uri("ha"), &hdfs.options()).expect("opens");
    read_in_ranges(&*fresh, &key, &content);
}

#[test]
fn hdfs_lets_in_whoever_has_a_token() {
    let name = "hdfs_lets_in_whoever_has_a_token";
    // One server for all, started outside: the processes inside only differ in what they may show.
    const DIRECTORY: &str = "CPACK_TEST_HDFS";
    if std::env::var(DIRECTORY).is_ok() {
        secure_client(std::env::var("CPACK_TEST_CASE").expect("a case").as_str());
        return;
    }
    let hdfs = Hdfs::start(&["secure"]);
    let path = |name: &str| hdfs.path(name).display().to_string();
    for case in ["token", "kerberos", "nothing", "simple"] {
        let mut variables = variables(&[
            (DIRECTORY, &path("")),
            ("CPACK_TEST_CASE", case),
            ("KRB5_CONFIG", &path("krb5.conf")),
            ("KRB5CCNAME", "MEMORY:none"),
            ("CPACK_TEST_URI", &hdfs.full_uri(case).to_string()),
        ]);
        match case {
            "token" => variables.push(("HADOOP_TOKEN_FILE_LOCATION", path("tokens"))),
            "kerberos" => variables.push(("KRB5_CLIENT_KTNAME", path("user.keytab"))),
            _ => {}
        }
        assert!(!inside(name, &variables));
    }
}

fn secure_client(case: &str) {
    let variable = |name: &str| std::env::var(name).ok();
    let directory = std::env::var("CPACK_TEST_HDFS").expect("a directory");
    let uri = std::env::var("CPACK_TEST_URI").expect("a URI").parse().expect("a URI");
    let client = StoreOptions::new(BTreeMap::new(), |name| match name {
        "HADOOP_CONF_DIR" => Some(format!("{directory}/conf")),
        name => variable(name),
    });
    // An executor has no configuration of its own.
    let cluster = cluster_properties(&uri, &client).expect("properties");
    let options = StoreOptions { deadlines: seaweed::short(), ..StoreOptions::new(cluster, variable) };
    match case {
        "token" | "kerberos" => conformance::check(&*open(&uri, &options).expect("opens")),
        "nothing" => denied(&uri, &options, "kinit"),
        _ => denied(
            &uri,
            &StoreOptions { cluster: BTreeMap::new(), user: Some("alice".to_owned()), ..options },
            "hadoop.security.authentication",
        ),
    }
}

fn denied(uri: &cpack_store::StoreUri, options: &StoreOptions, needle: &str) {
    let error = open(uri, options).expect("opens").list("layers").expect_err("denied");
    println!("{error}");
    assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    assert!(error.reason.contains(needle), "{error}");
}
