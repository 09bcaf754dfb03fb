//! What the trace of a job is used for on a node: the order in which layers are built, and whether a lazy start pays.
//!
//! The third use, fetching ahead, is the server's ([`cpack_lazy::Manner`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use cpack_format::human::bytes;
use cpack_format::manifest::Layer;
use cpack_format::trace::TracedPiece;
use cpack_lazy::Record;

/// `CPACK_START=auto` is lazy where the trace needs at most this part of the bytes that an eager start would fetch. A scientific
/// environment whose larger half is imported is not done sooner by a lazy start (docs/lazy.md).
const SHARE: u64 = 3;

/// Ranks layers that `trace` has before all others, in its order.
pub(super) fn rank(layers: &mut [Layer], trace: &[TracedPiece]) {
    let mut order = HashMap::new();
    for piece in trace {
        let next = order.len();
        order.entry(piece.0).or_insert(next);
    }
    for (index, layer) in (0..).zip(layers) {
        let later = || layer.rank.saturating_add(u32::try_from(order.len()).unwrap_or(u32::MAX));
        layer.rank = order.get(&index).map_or_else(later, |rank| u32::try_from(*rank).unwrap_or(u32::MAX));
    }
}

/// Whether a lazy start pays. `is_there` says which layers need not be fetched. The error is the reason for an eager start.
pub(super) fn pays(layers: &[Layer], trace: &[TracedPiece], is_there: impl Fn(&Layer) -> bool) -> Result<(), String> {
    let missing: Vec<bool> = layers.iter().map(|layer| !is_there(layer)).collect();
    let is_missing = |index: u32| missing.get(index as usize).copied().unwrap_or(false);
    let needed: u64 = trace.iter().filter(|piece| is_missing(piece.0)).map(|piece| piece.size(layers)).sum();
    let all: u64 =
        layers.iter().zip(&missing).filter(|(_, missing)| **missing).map(|(layer, _)| layer.archive.size).sum();
    if needed.saturating_mul(SHARE) <= all {
        return Ok(());
    }
    Err(format!("the trace needs {} of {}, more than a third", bytes(needed), bytes(all)))
}

/// Appends to the file at `path` what is read first.
pub(super) fn recorder(path: &Path) -> Result<Record, String> {
    let opened = File::options().append(true).create(true).open(path);
    let file = opened.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    // One call for each line: those of several starts do not mix. A full disk costs the trace, not the job.
    Ok(Box::new(move |touch| drop((&file).write_all(&touch.to_line()))))
}

#[cfg(test)]
mod tests {
    use cpack_format::Digest;
    use cpack_format::manifest::{Archive, LayerKind, Piece};

    use super::*;

    /// A layer of pieces of 10 bytes.
    fn layer(name: &str, rank: u32, pieces: u64) -> Layer {
        let digest = Digest::of(name.as_bytes());
        let list = vec![Piece { size: 10, digest }; pieces as usize];
        Layer {
            rank,
            ..Layer::new(
                LayerKind::Distribution,
                name.into(),
                digest,
                Archive { size: 10 * pieces, pieces: list, ..Archive::named(digest) },
            )
        }
    }

    #[test]
    fn rank_puts_layers_of_the_trace_first_in_its_order() {
        let mut layers = [layer("a", 0, 1), layer("b", 0, 1), layer("c", 5, 1), layer("d", 1, 1)];
        rank(&mut layers, &[TracedPiece(2, 0), TracedPiece(1, 0), TracedPiece(2, 1)]);
        assert_eq!(layers.each_ref().map(|layer| layer.rank), [2, 1, 0, 3]);
    }

    #[test]
    fn pays_where_a_third_of_what_is_missing_is_needed() {
        let layers = [layer("large", 0, 9), layer("small", 0, 3)];
        let trace: Vec<_> = (0..4).map(|number| TracedPiece(0, number)).collect();
        assert_eq!(pays(&layers, &trace, |_| false), Ok(()));
        let more = [&trace[..], &[TracedPiece(1, 0)]].concat();
        assert_eq!(pays(&layers, &more, |_| false), Err("the trace needs 50 B of 120 B, more than a third".into()));
        // What is there costs neither.
        assert_eq!(pays(&layers, &more, |layer| layer.name == "large"), Ok(()));
        assert!(pays(&layers, &trace, |layer| layer.name == "small").is_err());
    }
}
