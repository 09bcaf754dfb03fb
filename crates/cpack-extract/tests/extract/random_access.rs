//! Parts of a layer in any order.

use cpack_extract::{BytesSource, ExtractError, LayerArchive, Limits};
use cpack_format::content::Kind;
use cpack_format::manifest::Archive;
use cpack_test::archives::{Node, Nodes};

use crate::{METHODS, maker, nodes};

fn open<'a>(bytes: &'a [u8], archive: &'a Archive) -> Result<LayerArchive<'a>, ExtractError> {
    LayerArchive::open("layer test".into(), archive, Box::new(BytesSource(bytes)), &Limits::default())
}

/// The content of a file, its last block first.
fn content(layer: &LayerArchive<'_>, number: u32) -> Result<Vec<u8>, ExtractError> {
    let file = layer.file(number).expect("a file");
    let blocks = u32::try_from(file.size.div_ceil(file.block)).expect("few");
    let mut parts = Vec::new();
    // Buffers are used again, whatever is in them.
    let (mut piece, mut used) = (vec![1; 10], vec![2; 100_000]);
    for block in (0..blocks).rev() {
        piece = layer.read_piece(layer.piece_of(number, block)?, |_| piece)?;
        used = layer.decode((number, block), &piece, |_| used)?;
        parts.push(used.clone());
    }
    parts.reverse();
    Ok(parts.concat())
}

#[test]
fn layer_archive_reads_every_block_as_an_extraction_writes_it() {
    let nodes = nodes();
    for (piece, frame) in [(1, 1024), (5000, 4096), (1 << 20, 1 << 16), (1 << 22, 1 << 20)] {
        let (bytes, archive, _) = maker(&nodes, piece, frame, &METHODS).layer();
        let layer = open(&bytes, &archive).expect("opens");
        let mut found = Nodes::new();
        for (number, file) in (0..).zip(layer.files()) {
            let content = content(&layer, number).unwrap_or_else(|e| panic!("{} of {piece}, {frame}: {e}", file.path));
            assert_eq!(content.len() as u64, file.size, "{}", file.path);
            let node = match file.kind {
                Kind::File => Node::File(content),
                Kind::Executable => Node::Executable(content),
                Kind::Link => Node::Link(content),
                Kind::Directory => Node::Directory,
            };
            found.insert(file.path.to_string(), node);
        }
        assert!(found == nodes, "piece {piece}, frame {frame}: {:?}", found.keys());
    }
}

#[test]
fn layer_archive_gives_the_right_bytes_or_an_error_whichever_bit_is_flipped() {
    let nodes = nodes();
    let (bytes, archive, _) = maker(&nodes, 5000, 4096, &METHODS).layer();
    let sound = open(&bytes, &archive).expect("opens");
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(24_989) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let Ok(layer) = open(&damaged, &archive) else {
            assert!(at as u64 >= archive.directory, "a flipped bit at {at} is in no directory");
            continue;
        };
        for (number, _) in (0..).zip(layer.files()) {
            match content(&layer, number) {
                Ok(found) => assert!(found == content(&sound, number).expect("reads"), "bit {at}, file {number}"),
                Err(error) => {
                    assert!(matches!(error, ExtractError::Piece { .. }), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn layer_archive_that_is_cut_short_is_refused_or_says_so() {
    let (bytes, archive, _) = maker(&nodes(), 5000, 4096, &METHODS).layer();
    for left in [0, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = open(&bytes[..left], &archive).map(|_| ()).expect_err("refuses");
        assert!(matches!(error, ExtractError::Read { .. }), "{error}");
    }
    let layer = open(&bytes, &archive).expect("opens");
    assert!(
        layer.file(9999).is_none()
            && layer.piece_of(0, 99).is_err()
            && layer.read_piece(9999, Vec::with_capacity).is_err()
    );
    let piece = layer.read_piece(layer.piece_of(1, 0).expect("a piece"), Vec::with_capacity).expect("reads");
    assert!(layer.decode((1, 0), &piece[..10], Vec::with_capacity).is_err());
}
