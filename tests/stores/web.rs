//! A store that a web server publishes.

use std::collections::BTreeMap;
use std::path::Path;

use cpack_store::{FileStore, Key, Put, Source, Store, StoreErrorKind, StoreOptions, cluster_properties, open};
use cpack_test::clouds::options;
use cpack_test::proxy::Proxy;
use cpack_test::web::{Web, WebServer};
use cpack_test::{http, noise};

use super::layer;
use super::networks::{read_in_ranges, reads_survive};

const TOKEN: &str = "Authorization: Bearer s3cr3t";

/// A directory store with one layer of `size` bytes, and its content.
fn published(root: &Path, size: usize) -> (Key, Vec<u8>) {
    let content = noise(size);
    let key = layer(&content);
    FileStore::new(root).put(&key, Source::Bytes(&content), Put::IfAbsent).expect("writes");
    (key, content)
}

fn store(uri: &str, options: &StoreOptions) -> Box<dyn Store> {
    open(&uri.parse().expect("a URI"), options).expect("opens")
}

#[test]
fn web_store_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, content) = published(&directory.path().join("a store"), 3_000_001);
    let server = WebServer::start(directory.path(), Web::default());
    let store = store(&format!("http://127.0.0.1:{}/a store", server.port), &options(&[]));
    read_in_ranges(&*store, &key, &content);
    assert_eq!(store.read(&key, content.len() as u64).expect("reads"), content);
    let (stat, there) = (store.stat(&key).expect("stat"), FileStore::new(&directory.path().join("a store")));
    assert_eq!(stat.map(|stat| stat.size), Some(content.len() as u64));
    let age = there.stat(&key).expect("stat").expect("it is there").modified;
    assert!(age.duration_since(stat.expect("it is there").modified).is_ok_and(|off| off.as_secs() < 1));
    store.refresh(&key).expect("it is there");
    store.read_range(&key, 5, &mut []).expect("nothing is asked");

    let missing = layer(b"missing");
    assert_eq!(store.stat(&missing).expect("stat"), None);
    for (error, kind) in [
        (store.read(&missing, 10).expect_err("missing"), StoreErrorKind::NotFound),
        (store.refresh(&missing).expect_err("missing"), StoreErrorKind::NotFound),
        (store.read(&key, 10).expect_err("too large"), StoreErrorKind::Damaged),
        (store.read_range(&key, 3_000_000, &mut [0; 2]).expect_err("past the end"), StoreErrorKind::Damaged),
        (store.read_range(&key, 4_000_000, &mut [0; 2]).expect_err("past the end"), StoreErrorKind::Damaged),
        (store.put(&missing, Source::Bytes(b"x"), Put::Replace).expect_err("read-only"), StoreErrorKind::Misconfigured),
        (store.list("layers").expect_err("read-only"), StoreErrorKind::Misconfigured),
        (store.delete(&key).expect_err("read-only"), StoreErrorKind::Misconfigured),
    ] {
        println!("{error}");
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn web_store_asks_with_tls_and_tokens() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, content) = published(directory.path(), 100_000);
    let server = WebServer::start(directory.path(), Web { tls: true, want: Some(TOKEN) });
    let uri = format!("https://localhost:{}", server.port);
    let bundle = ("SSL_CERT_FILE", server.certificate.display().to_string());
    let headers = |text: &str| ("CPACK_HTTP_HEADER_FILE", server.header_file(text).display().to_string());
    let with = options(&[bundle.clone(), headers(TOKEN)]);
    assert_eq!(store(&uri, &with).read(&key, 1 << 20).expect("reads"), content);
    assert_eq!(cluster_properties(&uri.parse().expect("a URI"), &with).expect("properties"), BTreeMap::new());

    let untrusted = store(&uri, &options(&[])).read(&key, 10).expect_err("unknown authority");
    assert_eq!(untrusted.kind, StoreErrorKind::Misconfigured, "{untrusted}");
    assert!(untrusted.reason.contains("SSL_CERT_FILE"), "{untrusted}");
    let denied = store(&uri, &options(&[bundle])).read(&key, 10).expect_err("no token");
    println!("{denied}");
    assert_eq!(denied.kind, StoreErrorKind::Denied, "{denied}");
    assert!(denied.reason.contains("CPACK_HTTP_HEADER_FILE"), "{denied}");
}

#[test]
fn tokens_do_not_follow_redirects() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, content) = published(directory.path(), 100_000);
    let server = WebServer::start(directory.path(), Web::default());
    let headers = ("CPACK_HTTP_HEADER_FILE", server.header_file(TOKEN).display().to_string());
    // To where the objects are.
    let (port, first) = http::redirecting(&format!("http://127.0.0.1:{}", server.port));
    let away = store(&format!("http://127.0.0.1:{port}"), &options(std::slice::from_ref(&headers)));
    read_in_ranges(&*away, &key, &content);
    assert!(
        first.lock().expect("no panic").iter().all(|head| head.contains("s3cr3t")),
        "its own server gets the token"
    );
    // To who writes down what it gets.
    let (other, heads) = http::echoing(403, "AccessDenied");
    let (port, _) = http::redirecting(&format!("http://localhost:{other}"));
    let error = store(&format!("http://127.0.0.1:{port}"), &options(std::slice::from_ref(&headers))).read(&key, 10);
    let line = error.expect_err("refused").to_string();
    println!("{line}");
    let heads = heads.lock().expect("no panic");
    assert!(!heads.is_empty() && !heads.iter().any(|head| head.contains("s3cr3t")), "{heads:?}");
    assert!(!line.contains("s3cr3t"), "{line}");
    // For ever, to nowhere, and to a machine that may not be asked plainly.
    let this = cpack_test::free_port();
    for (to, needle) in [
        (format!("http://127.0.0.1:{this}"), "nothing answers"),
        ("http://example.invalid/x?sig=s3cr3t".to_owned(), "not protected"),
        ("ftp://example.invalid/x".to_owned(), "not protected"),
    ] {
        let (port, _) = http::redirecting(&to);
        let error = store(&format!("http://127.0.0.1:{port}"), &options(&[])).read(&key, 10).expect_err("goes nowhere");
        println!("{error}");
        assert!(error.reason.contains(needle) && !error.reason.contains("s3cr3t"), "{error}");
    }
    let circle = http::redirecting("");
    let error = store(&format!("http://127.0.0.1:{}", circle.0), &options(&[])).read(&key, 10).expect_err("a circle");
    assert!(error.reason.contains("more than 5 times"), "{error}");
}

#[test]
fn web_store_survives_what_networks_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, content) = published(directory.path(), 12 << 20);
    let server = WebServer::start(directory.path(), Web::default());
    let at = |port: u16| store(&format!("http://127.0.0.1:{port}"), &options(&[]));
    reads_survive(server.port, at, &key, &content);
    // As a proxy of HTTP.
    let proxy = Proxy::start(server.port);
    let variables = [("HTTP_PROXY", format!("http://127.0.0.1:{}", proxy.port)), ("CPACK_HTTP_PLAIN", "1".to_owned())];
    let store = store("http://no-such-host.invalid", &options(&variables));
    assert_eq!(store.stat(&key).expect("through the proxy").map(|stat| stat.size), Some(12 << 20));
    assert!(proxy.bytes()[0] > 0);
}

#[test]
fn web_servers_that_cannot_be_used_are_told_in_one_line() {
    let key = layer(b"");
    let page = "Content-Type: text/html\n\n<html>Welcome</html>";
    let plain = "Content-Type: application/octet-stream\n\n0123456789";
    for (answer, kind, needle) in [
        (format!("HTTP/1.1 200 OK\n{page}"), StoreErrorKind::Misconfigured, "web page"),
        (format!("HTTP/1.1 404 Not Found\n{page}"), StoreErrorKind::Misconfigured, "web page"),
        (format!("HTTP/1.1 200 OK\n{plain}"), StoreErrorKind::Misconfigured, "does not support ranges"),
        ("HTTP/1.1 403 Forbidden\n\n".to_owned(), StoreErrorKind::Denied, "CPACK_HTTP_HEADER_FILE"),
        ("HTTP/1.1 302 Found\n\n".to_owned(), StoreErrorKind::Misconfigured, "no URL"),
    ] {
        let uri = format!("http://127.0.0.1:{}/x", http::always(&answer));
        let error = store(&uri, &options(&[])).read_range(&key, 3, &mut [0; 2]).expect_err("cannot be read");
        println!("{error}");
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.reason.contains(needle) && error.location.starts_with(&uri), "{error}");
    }
    let refused = open(&"http://example.org/x".parse().expect("a URI"), &options(&[])).expect_err("not protected");
    println!("{refused}");
    assert!(refused.reason.contains("CPACK_HTTP_PLAIN") && refused.kind == StoreErrorKind::Misconfigured, "{refused}");
}
