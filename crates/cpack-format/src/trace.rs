//! What a run of an environment reads first. A lazy start records it, and later ones fetch it ahead.
//!
//! **As a file** a trace is lines of JSON, one [`Touch`] each, in the order of a run. A line counts once it is ended: a start may be
//! killed while it writes. Several starts may append to one file, which then has what any of them needed.
//!
//! **In a job** a trace is the numbers of pieces ([`TracedPiece`]), since pieces are what is fetched: some kilobytes for the largest
//! environments. It is in the job, not in the manifest, for two reasons. The digest of the manifest is the environment's id, so
//! two jobs with different traces would each have a tree of their own on every node, although they read the same files. And a job
//! travels with every start, in whichever way, while a file beside it would be one more fetch before Python.
//!
//! A layer that is another one since the trace was recorded has another archive. What was recorded of the old one is left out.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::manifest::{DocumentError, Layer, parse_document};

/// The format that this release writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The first read of a part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// The version of this format.
    pub format: u32,
    /// The name of the layer, for people.
    pub layer: String,
    /// The digest of the layer's archive.
    pub archive: Digest,
    /// The file in the layer, for people.
    pub path: String,
    /// Where the part begins in the file.
    pub offset: u64,
    /// The number of the archive's piece that the part is in.
    pub piece: u32,
}

/// A piece of an archive of an environment: the layer's index in the manifest, and the number of the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TracedPiece(pub u32, pub u32);

impl TracedPiece {
    /// The length of the piece; 0 if `layers` have no such piece.
    pub fn size(self, layers: &[Layer]) -> u64 {
        let layer = layers.get(self.0 as usize);
        layer.and_then(|layer| layer.archive.pieces.get(self.1 as usize)).map_or(0, |piece| piece.size.into())
    }
}

/// What a trace says of an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    /// The pieces, each once, in the order in which they were touched.
    pub pieces: Vec<TracedPiece>,
    /// Names of layers in the trace that the environment does not have, or has with another archive.
    pub others: Vec<String>,
}

impl Touch {
    /// The line of a file, ended.
    pub fn to_line(&self) -> Vec<u8> {
        // Serialising strings and integers to memory has no way to fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Parses a file.
pub fn parse(bytes: &[u8]) -> Result<Vec<Touch>, DocumentError> {
    let ended = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    ended.filter(|line| !line.is_empty()).map(|line| parse_document("trace", FORMAT, line)).collect()
}

/// The pieces of an environment with these layers that a trace has.
pub fn pieces(touches: &[Touch], layers: &[Layer]) -> Traced {
    let (mut traced, mut seen) = (Traced::default(), HashSet::new());
    for touch in touches {
        let known = (0..).zip(layers).find(|(_, layer)| layer.archive.digest == touch.archive);
        match known {
            Some((index, layer)) if (touch.piece as usize) < layer.archive.pieces.len() => {
                let piece = TracedPiece(index, touch.piece);
                if seen.insert(piece) {
                    traced.pieces.push(piece);
                }
            }
            _ if traced.others.contains(&touch.layer) => {}
            _ => traced.others.push(touch.layer.clone()),
        }
    }
    traced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Archive, LayerKind, Piece};

    fn layer(name: &str, pieces: usize) -> Layer {
        let digest = Digest::of(name.as_bytes());
        let pieces = vec![Piece { size: 7, digest }; pieces];
        Layer::new(LayerKind::Distribution, name.into(), digest, Archive { pieces, ..Archive::named(digest) })
    }

    fn touch(layer: &str, piece: u32) -> Touch {
        let archive = Digest::of(layer.as_bytes());
        Touch { format: FORMAT, layer: layer.into(), archive, path: "lib/x.py".into(), offset: 0, piece }
    }

    #[test]
    fn trace_of_a_killed_start_has_its_whole_lines() {
        let touches = [touch("a", 1), touch("b", 0)];
        let mut bytes: Vec<u8> = touches.iter().flat_map(Touch::to_line).collect();
        assert_eq!(parse(&bytes), Ok(touches.to_vec()));
        bytes.extend(&touch("c", 0).to_line()[..20]);
        assert_eq!(parse(&bytes), Ok(touches.to_vec()));
        bytes.push(b'\n');
        assert!(parse(&bytes).is_err());
        let newer = b"{\"format\":2,\"form\":\"other\"}\n";
        assert!(parse(newer).is_err_and(|error| error.to_string().contains("upgrade")));
    }

    #[test]
    fn trace_has_each_piece_once_in_its_order_and_leaves_other_layers_out() {
        let layers = [layer("a", 2), layer("b", 1)];
        let touches = [("b", 0), ("a", 1), ("gone", 0), ("b", 0), ("a", 0), ("gone", 1), ("a", 2)];
        let traced = pieces(&touches.map(|(name, piece)| touch(name, piece)), &layers);
        assert_eq!(traced.pieces, [TracedPiece(1, 0), TracedPiece(0, 1), TracedPiece(0, 0)]);
        assert_eq!(traced.others, ["gone", "a"]);
        assert_eq!(traced.pieces[0].size(&layers) + TracedPiece(9, 0).size(&layers), 7);
    }
}
