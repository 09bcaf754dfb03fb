//! Verifies wheels against the hashes that a wheelhouse's `requirements.txt` allows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use crate::error::PexFileError;
use crate::file::{Files, Pex, Source};
use crate::wheelhouse::REQUIREMENTS;

/// Verifies the wheels that are active against the hashes in the `requirements.txt` of their wheelhouse.
pub fn verify(pexes: &[Pex], source: &Source, resolved: &[Vec<String>]) -> Result<(), PexFileError> {
    let each = pexes.iter().zip(&source.files).zip(resolved);
    each.into_iter().try_for_each(|((pex, files), active)| verify_one(pex, files, active))
}

fn verify_one(pex: &Pex, files: &Files, active: &[String]) -> Result<(), PexFileError> {
    let Some(house) = &pex.wheelhouse else { return Ok(()) };
    for wheel in active {
        let Some(allowed) = house.allowed(wheel) else { continue };
        let Some(zip) = files.zips.iter().find(|zip| pex.wheel_of(&zip.prefix).is_some_and(|(name, _)| name == wheel))
        else {
            continue;
        };
        let unreadable = |source| PexFileError::Read { path: zip.path.clone(), source };
        let file = File::open(&zip.path).map_err(unreadable)?;
        let digest = sha256(&file, zip.start, zip.size).map_err(unreadable)?;
        if !allowed.contains(&digest) {
            let reason = format!("{wheel} has the SHA-256 {digest}, which its {REQUIREMENTS} does not have");
            return Err(PexFileError::Wheelhouse { path: pex.path.clone(), reason });
        }
    }
    Ok(())
}

/// The SHA-256 of `size` bytes of a file, in hexadecimal.
fn sha256(file: &File, mut at: u64, size: u64) -> io::Result<String> {
    let (mut hasher, mut left) = (Sha256::new(), size);
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let chunk = buffer.get_mut(..usize::try_from(left).unwrap_or(usize::MAX).min(1 << 20)).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        hasher.update(&*chunk);
        at += chunk.len() as u64;
        left -= chunk.len() as u64;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
