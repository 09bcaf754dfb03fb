//! Checks what [`Store`] promises against a real store of any kind.

#![expect(clippy::expect_used, reason = "a test suite reports by panicking")]

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use cpack_format::exit::Exit;

use crate::{Key, Put, Source, Store, StoreErrorKind, Written};

/// Runs the suite on an empty store. Panics where the store breaks its contract.
///
/// # Panics
/// On every broken promise, with what was expected.
pub fn check(store: &dyn Store) {
    empty(store);
    write_and_read(store);
    unread(store);
    ranges(store);
    names(store);
    concurrent(store);
    torn(store);
    listing_and_deleting(store);
    removing_what_is_old(store);
    erasing(store);
}

fn key(content: &[u8]) -> Key {
    Key::layer(&Digest::of(content))
}

fn empty(store: &dyn Store) {
    let key = key(b"nothing");
    assert_eq!(store.stat(&key).expect("stat of a missing object is no error"), None);
    let error = store.read(&key, 10).expect_err("a missing object cannot be read");
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    let error = store.read_range(&key, 0, &mut [0; 4]).expect_err("a missing object has no range");
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    let error = store.refresh(&key).expect_err("a missing object cannot be refreshed");
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    assert!(store.list("layers").expect("an empty store can be listed").is_empty());
    store.delete(&key).expect("deleting what is gone is no error");
}

fn write_and_read(store: &dyn Store) {
    for content in [&b""[..], b"small", &vec![7; 3 << 20]] {
        let key = key(content);
        let sent = store.put(&key, Source::Bytes(content), Put::IfAbsent).expect("writes");
        assert_eq!(sent, Written::Sent(content.len() as u64));
        let kept = store.put(&key, Source::Bytes(content), Put::IfAbsent).expect("writes again");
        assert_eq!(kept, Written::Kept);
        assert_eq!(store.read(&key, content.len() as u64).expect("reads"), content);
        assert_eq!(store.stat(&key).expect("stat").map(|s| s.size), Some(content.len() as u64));
        store.refresh(&key).expect("refreshes");
    }
    let error = store.read(&key(b"small"), 3).expect_err("the limit holds");
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
}

/// A file that cannot be read is no fault of the store.
fn unread(store: &dyn Store) {
    let missing = Path::new("/nonexistent/source");
    for put in [Put::Replace, Put::IfAbsent, Put::Once] {
        let error = store.put(&key(b"unread"), Source::File(missing), put).expect_err("there is none");
        assert_eq!((error.kind, error.exit()), (StoreErrorKind::Source, Exit::Disk), "{error}");
        let error = store.write(&key(b"unread"), Source::File(missing), put).expect_err("there is none");
        assert_eq!(error.kind, StoreErrorKind::Source, "{error}");
    }
}

fn ranges(store: &dyn Store) {
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 253) as u8).collect();
    let key = key(&content);
    store.put(&key, Source::Bytes(&content), Put::IfAbsent).expect("writes");
    for (offset, len) in [(0, 1), (0, 1_000_000), (999_999, 1), (65_536, 131_072), (5, 0)] {
        let mut buffer = vec![0; len];
        store.read_range(&key, offset as u64, &mut buffer).expect("a range inside the object");
        assert_eq!(buffer, content[offset..offset + len]);
    }
    for (offset, len) in [(999_999, 2), (1_000_000, 1), (5_000_000, 10)] {
        let error = store.read_range(&key, offset, &mut vec![0; len]).expect_err("a range past the end");
        assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
    }
}

fn names(store: &dyn Store) {
    let key = Key::name("a-name", "json").expect("a name");
    for content in [&b"one"[..], b"two, longer", b"3"] {
        store.put(&key, Source::Bytes(content), Put::Replace).expect("replaces");
        assert_eq!(store.read(&key, 100).expect("reads"), content);
    }
}

fn concurrent(store: &dyn Store) {
    let content = vec![9; 1 << 20];
    let shared = key(&content);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                store.put(&shared, Source::Bytes(&content), Put::IfAbsent).expect("two may publish at once");
                assert_eq!(store.read(&shared, 2 << 20).expect("whole at any time"), content);
            });
        }
    });
}

/// A put replaces an object whose length is wrong.
fn torn(store: &dyn Store) {
    let key = key(b"the whole object");
    store.put(&key, Source::Bytes(b"the whole"), Put::Replace).expect("writes");
    let sent = store.put(&key, Source::Bytes(b"the whole object"), Put::IfAbsent).expect("writes again");
    assert_eq!(sent, Written::Sent(16));
    assert_eq!(store.read(&key, 100).expect("reads"), b"the whole object");
}

fn listing_and_deleting(store: &dyn Store) {
    let gone = key(b"small");
    let listed = store.list("layers").expect("lists");
    assert!(listed.iter().any(|l| l.key == gone && l.stat.size == 5), "{listed:?}");
    assert!(listed.iter().all(|l| l.key.as_str().starts_with("layers/")), "{listed:?}");
    assert_eq!(store.list("names").expect("lists").len(), 1);
    assert_eq!(store.sweep(SystemTime::now()).expect("sweeps"), 0, "no writer was killed");
    assert_eq!(store.list("layers").expect("lists"), listed);
    store.delete(&gone).expect("deletes");
    assert_eq!(store.stat(&gone).expect("stat"), None);
    assert!(!store.list("layers").expect("lists").iter().any(|l| l.key == gone));
}

/// The coarsest clock of the stores counts seconds.
fn removing_what_is_old(store: &dyn Store) {
    let second = Duration::from_secs(1);
    let key = key(b"grows old");
    store.put(&key, Source::Bytes(b"grows old"), Put::IfAbsent).expect("writes");
    let written = store.stat(&key).expect("stat").expect("it is there").modified;
    assert!(!store.remove_old(&key, written).expect("looks"), "it is as old as the bound, not older");
    assert_eq!(store.read(&key, 100).expect("reads"), b"grows old");
    assert!(store.remove_old(&key, written + second).expect("removes"));
    assert_eq!(store.stat(&key).expect("stat"), None);
    assert!(!store.remove_old(&key, written + second).expect("looks"), "it is gone already");
    assert_eq!(store.sweep(SystemTime::now() + second * 3600).expect("sweeps"), 0, "nothing was left aside");
}

fn erasing(store: &dyn Store) {
    let directories = ["layers", "names"];
    let is_empty = |directory: &str| store.list(directory).expect("lists").is_empty();
    assert!(!directories.into_iter().any(is_empty), "what was written above is there");
    store.erase().expect("removes everything");
    assert!(directories.into_iter().all(is_empty));
    store.erase().expect("what is gone already is no error");
}
