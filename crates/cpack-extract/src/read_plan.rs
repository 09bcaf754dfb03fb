//! Reads and verifies the directory of a layer: what every use of a layer starts with.

use cpack_format::zip::{read_directory, read_end};

use crate::error::{ExtractError, refused, zip_error};
use crate::limits::{Limits, check_directory_size};
use crate::plan::{Layout, Plan, PlanError, plan_layer};
use crate::source::{PieceSource, verify};

/// Reads the directory of the layer `name` from `source`, verifies it, and plans the extraction, in spans of pieces that are joined to
/// at most `joined` bytes.
pub(crate) fn read_plan(
    source: &dyn PieceSource,
    name: &str,
    layout: &Layout<'_>,
    limits: &Limits,
    joined: u64,
) -> Result<Plan, ExtractError> {
    let archive = layout.archive();
    let refuse = |error| refused(name, error);
    check_directory_size(archive.size.saturating_sub(archive.directory)).map_err(refuse)?;
    let tail = read_pieces(source, name, layout, archive.directory)?;
    let end = read_end(&tail, archive.size).map_err(|e| zip_error(name, e))?;
    if end.directory_offset != archive.directory {
        let (expected, found) = (archive.directory, end.directory_offset);
        return Err(refuse(PlanError::Manifest { what: "as the offset of the directory", expected, found }));
    }
    let records = tail.get(..usize::try_from(end.directory_size).unwrap_or(usize::MAX)).unwrap_or_default();
    let entries = read_directory(records, &end).map_err(|e| zip_error(name, e))?;
    drop(tail);
    plan_layer(entries, layout, limits, joined).map_err(refuse)
}

/// Reads the archive from `start` on, where a piece starts, by one request, and verifies it.
pub(crate) fn read_pieces(
    source: &dyn PieceSource,
    name: &str,
    layout: &Layout<'_>,
    start: u64,
) -> Result<Vec<u8>, ExtractError> {
    let archive = layout.archive();
    let mut bytes = vec![0; usize::try_from(archive.size.saturating_sub(start)).unwrap_or(usize::MAX)];
    let event = cpack_events::span("fetch", || format!("{name} at {start}")).of(bytes.len() as u64);
    source.read(start, &mut bytes).map_err(|source| ExtractError::Read { archive: name.to_owned(), source })?;
    drop(event);
    verify_pieces(source, name, layout, start, &mut bytes)?;
    Ok(bytes)
}

/// Verifies whole pieces, which were read from `start` on.
pub(crate) fn verify_pieces(
    source: &dyn PieceSource,
    name: &str,
    layout: &Layout<'_>,
    start: u64,
    bytes: &mut [u8],
) -> Result<(), ExtractError> {
    let _event = cpack_events::span("verify", || format!("{name} at {start}")).of(bytes.len() as u64);
    let (mut rest, mut offset) = (bytes, start);
    while !rest.is_empty() {
        let piece = layout.piece_at(offset).and_then(|piece| layout.archive().pieces.get(piece));
        let whole = piece.and_then(|piece| Some((piece, rest.split_at_mut_checked(piece.size as usize)?)));
        let Some((piece, (bytes, others))) = whole else {
            let (archive, entry) = (name.to_owned(), "a piece".to_owned());
            return Err(ExtractError::Entry { archive, entry, reason: "is not in the manifest".to_owned() });
        };
        verify(source, name, offset, &piece.digest, bytes)?;
        rest = others;
        offset += u64::from(piece.size);
    }
    Ok(())
}
