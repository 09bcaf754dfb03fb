//! Made by hand; `tests/content` does the same with code from real interpreters.

use proptest::prelude::*;

use super::graph::FLAG_REF;
use super::*;

const OLD: &str = "/home/a/m.py";
const NEW: &str = "lib/m.py";

/// Marks an object with `FLAG_REF`.
fn flagged(mut object: Vec<u8>) -> Vec<u8> {
    object[0] |= FLAG_REF;
    object
}

fn reference(number: u8) -> Vec<u8> {
    vec![b'r', number, 0, 0, 0]
}

fn short(kind: u8, text: &str) -> Vec<u8> {
    [&[kind, text.len() as u8], text.as_bytes()].concat()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [b"s", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn tuple(parts: &[Vec<u8>]) -> Vec<u8> {
    [&[b')', parts.len() as u8][..], &parts.concat()].concat()
}

fn frozen(parts: &[Vec<u8>]) -> Vec<u8> {
    [b">", &(parts.len() as u32).to_le_bytes()[..], &parts.concat()].concat()
}

/// A code object of 3.11 and later.
fn code(consts: Vec<u8>, file_name: Vec<u8>, name: Vec<u8>) -> Vec<u8> {
    let parts = [
        bytes(b"ops"),
        consts,
        tuple(&[]),
        tuple(&[]),
        bytes(b""),
        file_name,
        name.clone(),
        name,
        vec![7, 0, 0, 0],
        bytes(b"lines"),
        bytes(b"exceptions"),
    ];
    [&b"c"[..], &[1; 20], &parts.concat()].concat()
}

/// A code object of 3.9 and 3.10.
fn old_code(consts: Vec<u8>, file_name: Vec<u8>, name: Vec<u8>) -> Vec<u8> {
    let parts = [
        bytes(b"ops"),
        consts,
        tuple(&[]),
        tuple(&[]),
        tuple(&[]),
        tuple(&[]),
        file_name,
        name,
        vec![7, 0, 0, 0],
        bytes(b"lines"),
    ];
    [&b"c"[..], &[1; 24], &parts.concat()].concat()
}

fn relocated(code: &[u8]) -> Vec<u8> {
    relocate(code, Layout::LocalsPlus, NEW.as_bytes()).expect("well-formed")
}

/// As CPython writes what [`code`] makes, with `NEW`: the equal parts of a code object refer to each other.
fn canonical(consts: Vec<u8>, empty_tuple: Vec<u8>, file_name: Vec<u8>, name: Vec<u8>, again: Vec<u8>) -> Vec<u8> {
    let parts = [
        bytes(b"ops"),
        consts,
        flagged(tuple(&[])),
        empty_tuple,
        bytes(b""),
        file_name,
        name,
        again,
        vec![7, 0, 0, 0],
        bytes(b"lines"),
        bytes(b"exceptions"),
    ];
    [&b"c"[..], &[1; 20], &parts.concat()].concat()
}

#[test]
fn flags_sharing_and_order_of_sets_become_canonical() {
    let (a, b) = (|| short(b'z', "aa"), || short(b'z', "bb"));
    let plain = code(tuple(&[a(), a(), frozen(&[a(), b()])]), short(b'z', OLD), short(b'Z', "m"));
    let with_flags = flagged(code(
        flagged(tuple(&[flagged(a()), reference(2), flagged(frozen(&[flagged(b()), reference(2)]))])),
        flagged(short(b'z', "/elsewhere/m.py")),
        short(b'Z', "m"),
    ));
    let expected = canonical(
        tuple(&[flagged(a()), reference(0), frozen(&[reference(0), b()])]),
        reference(1),
        short(b'z', NEW),
        flagged(short(b'Z', "m")),
        reference(2),
    );
    assert_eq!(relocated(&plain), expected);
    assert_eq!(relocated(&with_flags), expected);
    assert_eq!(relocated(&expected), expected);
}

#[test]
fn constant_that_equals_the_path_stays_what_it_is() {
    // The same object as the path, first seen as constant; the same, first seen as path of an inner function; equal to the
    // new path.
    let inner = || code(tuple(&[]), flagged(short(b'z', OLD)), short(b'Z', "f"));
    for (consts, file_name, kept) in [
        (tuple(&[flagged(short(b'z', OLD))]), reference(0), OLD),
        (tuple(&[inner(), reference(0)]), reference(0), OLD),
        (tuple(&[short(b'z', NEW)]), short(b'z', OLD), NEW),
    ] {
        let out = relocated(&code(consts, file_name, short(b'Z', "m")));
        let graph = Graph::read(&out, Layout::LocalsPlus).expect("well-formed");
        let consts = &graph.nodes[graph.parts(&graph.nodes[0])[1] as usize];
        let last = &graph.nodes[*graph.parts(consts).last().expect("a constant") as usize];
        assert_eq!(last.payload, kept.as_bytes());
        for node in graph.nodes.iter().filter(|node| node.shape == graph::Shape::Code) {
            assert_eq!(graph.nodes[graph.parts(node)[5] as usize].payload, NEW.as_bytes());
        }
    }
}

#[test]
fn both_layouts_and_slices_are_read() {
    let slice = || [b":".to_vec(), b"N".to_vec(), vec![b'i', 3, 0, 0, 0], b"N".to_vec()].concat();
    let out = relocated(&code(tuple(&[slice(), slice()]), short(b'z', OLD), short(b'Z', "m")));
    let twice = tuple(&[flagged(slice()), reference(0)]);
    let name = flagged(short(b'Z', "m"));
    assert_eq!(out, canonical(twice, reference(1), short(b'z', NEW), name, reference(2)));

    let old = old_code(tuple(&[b"N".to_vec()]), short(b'z', OLD), short(b'Z', "m"));
    let out = relocate(&old, Layout::ThreeTuples, NEW.as_bytes()).expect("well-formed");
    let shows = |text: &str| out.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(shows(NEW) && !shows(OLD));
    assert!(relocate(&old, Layout::LocalsPlus, NEW.as_bytes()).is_err());
}

#[test]
fn any_path_can_be_embedded() {
    for (path, text) in [
        (&b"a/b.py"[..], short(b'z', "a/b.py")),
        ("é.py".as_bytes(), [b"u\x05\0\0\0", "é.py".as_bytes()].concat()),
        (b"\xff\x80.py", b"u\x09\0\0\0\xed\xb3\xbf\xed\xb2\x80.py".to_vec()),
    ] {
        let out = relocate(&code(tuple(&[]), short(b'z', OLD), short(b'Z', "m")), Layout::LocalsPlus, path);
        let out = out.expect("well-formed");
        assert!(out.windows(text.len()).any(|window| window == text), "{path:?}");
    }
    let long = "d/".repeat(200);
    let out = relocate(&code(tuple(&[]), short(b'z', OLD), short(b'Z', "m")), Layout::LocalsPlus, long.as_bytes());
    let text = [b"a\x90\x01\0\0", long.as_bytes()].concat();
    assert!(out.expect("well-formed").windows(text.len()).any(|window| window == text));
}

#[test]
fn malformed_code_is_refused() {
    let good = code(tuple(&[short(b'z', "x")]), short(b'z', OLD), short(b'Z', "m"));
    for length in 0..good.len() {
        assert!(matches!(relocate(&good[..length], Layout::LocalsPlus, b"m"), Err(MarshalError::Truncated { .. })));
    }
    let with = |constant: Vec<u8>| code(tuple(&[constant]), short(b'z', OLD), short(b'Z', "m"));
    let at_end = [&good[..], b"N"].concat();
    let itself = flagged(tuple(&[reference(0)]));
    let deep = [[b')', 1].repeat(2000), vec![b'N']].concat();
    // Each set holds the one before twice over in tuples: written out, 2^60 bytes.
    let mut laughs = vec![flagged(tuple(&[short(b'z', "ha"), short(b'z', "ha")]))];
    laughs.extend((0..60).map(|n| flagged(tuple(&[reference(n), reference(n)]))));
    laughs.push(frozen(&[reference(60)]));
    for (bad, expected) in [
        (at_end, MarshalError::Trailing { at: good.len() }),
        (with(itself), MarshalError::Reference { at: 0 }),
        (with(reference(9)), MarshalError::Reference { at: 0 }),
        (with(b"[\0\0\0\0".to_vec()), MarshalError::Type { kind: b'[', at: 0 }),
        (with(vec![b'z', 1, 0xff]), MarshalError::Type { kind: b'z', at: 0 }),
        (with(b"s\xff\xff\xff\xff".to_vec()), MarshalError::Truncated { at: 0 }),
        (with(b"(\xff\xff\xff\x7f".to_vec()), MarshalError::Type { kind: 7, at: 0 }),
        (with(deep), MarshalError::Depth { at: 0 }),
        (with(tuple(&laughs)), MarshalError::Size),
        (tuple(&[]), MarshalError::Type { kind: b')', at: 0 }),
        (reference(0), MarshalError::Reference { at: 0 }),
    ] {
        let found = relocate(&bad, Layout::LocalsPlus, b"m").expect_err("malformed");
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&expected), "{found}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0_usize..200, value in any::<u8>(), cut in 0_usize..400) {
        let inner = code(tuple(&[short(b'z', "x"), reference(0)]), reference(1), short(b'Z', "f"));
        let set = frozen(&[short(b'z', "y"), short(b'z', "x")]);
        let mut bytes = flagged(code(tuple(&[inner, set]), flagged(short(b'z', OLD)), short(b'Z', "m")));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        bytes.truncate(cut);
        for layout in [Layout::LocalsPlus, Layout::ThreeTuples] {
            if let Ok(out) = relocate(&bytes, layout, b"m") {
                prop_assert_eq!(&relocate(&out, layout, b"m").expect("canonical"), &out);
            }
        }
    }
}
