//! What every store on a network is held by: faults of the way, and refusals in one line.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cpack_store::{Key, Put, Source, Store, StoreErrorKind, StoreOptions, open};
use cpack_test::proxy::{Fault, Proxy};

use super::layer;

/// Reads an object by ranges of 1 MiB, several at once, and checks each.
pub(super) fn read_in_ranges(store: &dyn Store, key: &Key, content: &[u8]) {
    const RANGE: usize = 1 << 20;
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            let start = next.fetch_add(1, Ordering::SeqCst) * RANGE;
            if start >= content.len() {
                break;
            }
            let expected = &content[start..content.len().min(start + RANGE)];
            let mut buffer = vec![0; expected.len()];
            store.read_range(key, start as u64, &mut buffer).expect("a range");
            assert!(buffer == expected, "the range at {start} differs");
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(worker))));
}

/// Reads `content` through each fault of the way to the server at `server`, by the store that `store` opens at a port.
pub(super) fn reads_survive(server: u16, store: impl Fn(u16) -> Box<dyn Store>, key: &Key, content: &[u8]) {
    for (fault, connections) in [
        (Fault::Refuse, 3),
        (Fault::Busy, 6),
        (Fault::Cut(300_000), 6),
        (Fault::Cut(100), 6),
        (Fault::Stall(200_000), 2),
        (Fault::Slow(8 << 20), 4),
        (Fault::Swap, 4),
        (Fault::Shuffle(300), 8),
    ] {
        let proxy = Proxy::start(server);
        let store = store(proxy.port);
        proxy.inject(fault, connections);
        read_in_ranges(&*store, key, content);
        assert!(proxy.faulty() > 0, "{fault:?} did not happen");
        println!("{}: read through {fault:?}: {} connections were hit", store.uri(), proxy.faulty());
    }
}

/// Writes `content` through each fault, by the store that `store` opens at a port and a prefix.
pub(super) fn writes_survive(server: u16, store: impl Fn(u16, &str) -> Box<dyn Store>, key: &Key, content: &[u8]) {
    for fault in [Fault::Refuse, Fault::Cut(0), Fault::Cut(20), Fault::Stall(0)] {
        let proxy = Proxy::start(server);
        let store = store(proxy.port, &format!("{fault:?}"));
        proxy.inject(fault, 4);
        store.put(key, Source::Bytes(content), Put::IfAbsent).expect("writes at last");
        assert!(proxy.faulty() > 0, "{fault:?} did not happen");
        read_in_ranges(&*store, key, content);
        println!("{}: written through {fault:?}: {} connections were hit", store.uri(), proxy.faulty());
    }
}

/// Reading from the store at `uri` and writing to it end in one line of `kind`, without `secret`.
pub(super) fn assert_refused(options: &StoreOptions, uri: &str, kind: StoreErrorKind, needle: &str, secret: &str) {
    let key = layer(b"");
    let store = open(&uri.parse().expect("a URI"), options).expect("opens");
    for error in [
        store.read(&key, 10).expect_err("cannot be read"),
        store.put(&key, Source::Bytes(b""), Put::Replace).expect_err("cannot be written"),
    ] {
        let line = error.to_string();
        println!("{line}");
        assert_eq!(error.kind, kind, "{line}");
        assert!(line.contains(needle) && line.contains(uri) && !line.contains('\n'), "{line}");
        assert!(line.len() < 600 && !line.contains(secret), "{line}");
    }
}
