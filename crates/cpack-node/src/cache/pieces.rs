//! Pieces of archives that lazy starts of this node share: what one server has fetched, the others read here, as do later
//! starts until the environment is built.
//!
//! A file is named by the digest of its piece, and believed only if its bytes have that digest. So nothing has to be renamed or
//! synced: one whose writer was killed, or whose bytes a power loss took, is a piece that is fetched again.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cpack_format::Digest;
use cpack_format::manifest::{Layer, Piece};

use super::own_directory::{Cache, PIECES, make_directory};
use super::{flock, unused};

/// A process that fetches a piece is waited for so long: it may stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two looks at its work.
const INTERVAL: Duration = Duration::from_millis(2);

/// A piece that was not used for so long goes, when a server ends or by a clean-up.
pub(super) const UNUSED: Duration = Duration::from_secs(24 * 3600);

impl Cache {
    /// The bytes of `piece` that another process has left here, or else what `fetch` gets, which is left here for others. Of several
    /// processes that want the same at once, one fetches it.
    pub fn shared_piece<E>(&self, piece: &Piece, fetch: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        // If the file cannot be made, on a full disk for example, this process fetches for itself.
        let Ok(file) = self.open_piece(piece) else { return fetch() };
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(bytes) = read(&file, piece) {
                return Ok(bytes);
            }
            match flock::exclusive(&file) {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(INTERVAL),
                Err(_) => return fetch(),
            }
        }
        // Another process may have written it between the look and the lock.
        if let Some(bytes) = read(&file, piece) {
            return Ok(bytes);
        }
        let bytes = fetch()?;
        if file.write_all_at(&bytes, 0).is_err() {
            // On a full disk half a piece only takes space.
            let _ = file.set_len(0);
        }
        Ok(bytes)
    }

    /// Removes what is shared of layers that are in the cache by now.
    pub fn remove_shared_pieces(&self, layers: &[Layer]) {
        let directory = self.directory(PIECES);
        for piece in layers.iter().flat_map(|layer| &layer.archive.pieces) {
            match fs::remove_file(directory.join(piece.digest.to_hex())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => return,
                _ => {}
            }
        }
    }

    /// Removes the shared pieces that no process has used for a day.
    pub fn remove_unused_pieces(&self) {
        unused::remove(&self.directory(PIECES), UNUSED, None);
    }

    fn open_piece(&self, piece: &Piece) -> io::Result<File> {
        let directory = self.directory(PIECES);
        let path = directory.join(piece.digest.to_hex());
        // `open` does not truncate: another process may be reading the file.
        let open = || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        open().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => make_directory(&directory).and_then(|()| open()),
            _ => Err(error),
        })
    }
}

/// The bytes of `piece`, if they are all there and are the right ones.
fn read(file: &File, piece: &Piece) -> Option<Vec<u8>> {
    let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == u64::from(piece.size));
    let mut bytes = vec![0; if is_whole { piece.size as usize } else { 0 }];
    (is_whole && file.read_exact_at(&mut bytes, 0).is_ok() && Digest::of(&bytes) == piece.digest).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cpack_format::manifest::{Archive, LayerKind};

    use super::super::{BootId, Place, PlaceKind};
    use super::*;

    const BYTES: &[u8] = b"bytes of a piece";

    fn cache(place: &Path) -> Cache {
        let place = Place { path: place.into(), kind: PlaceKind::Temporary };
        Cache::create(&place, &BootId::new("b")).expect("makes it")
    }

    fn piece() -> Piece {
        Piece { size: BYTES.len() as u32, digest: Digest::of(BYTES) }
    }

    fn fetched() -> Result<Vec<u8>, &'static str> {
        Ok(BYTES.to_vec())
    }

    #[test]
    fn piece_is_fetched_once_and_again_where_what_is_there_is_wrong() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        assert_eq!(cache.shared_piece(&piece(), || Err("no store")), Err("no store"));
        assert_eq!(cache.shared_piece(&piece(), fetched), fetched());
        assert_eq!(cache.shared_piece(&piece(), || Err("no store")), fetched());
        let file = cache.directory(PIECES).join(piece().digest.to_hex());
        for wrong in [&BYTES[1..], b"bytes of no piece", &[0; BYTES.len()], b""] {
            fs::write(&file, wrong).expect("writes");
            assert_eq!(cache.shared_piece(&piece(), || Err("no store")), Err("no store"), "{wrong:?}");
            assert_eq!(cache.shared_piece(&piece(), fetched), fetched());
        }
    }

    #[test]
    fn piece_that_finds_no_room_is_fetched_all_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        assert_eq!(cache.shared_piece(&piece(), fetched), fetched());
        let file = cache.directory(PIECES).join(piece().digest.to_hex());
        fs::remove_file(&file).expect("removes");
        // Whatever is written there finds a full disk.
        std::os::unix::fs::symlink("/dev/full", &file).expect("links");
        assert_eq!(cache.shared_piece(&piece(), fetched), fetched());
        assert_eq!(cache.shared_piece(&piece(), || Err("no store")), Err("no store"));
    }

    #[test]
    fn piece_is_fetched_by_one_of_many() {
        let directory = tempfile::tempdir().expect("a directory");
        let (cache, fetches, together) = (cache(directory.path()), AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    let bytes = cache.shared_piece(&piece(), || {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(20));
                        fetched()
                    });
                    assert_eq!(bytes, fetched());
                });
            }
        });
        assert_eq!(fetches.into_inner(), 1);
    }

    #[test]
    fn piece_goes_with_its_layer_and_by_age() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let archive = Archive { pieces: vec![piece()], ..Archive::named(Digest::of(b"archive")) };
        let layers = [Layer::new(LayerKind::Distribution, "a".into(), Digest::of(b"content"), archive)];
        cache.remove_shared_pieces(&layers);
        cache.remove_unused_pieces();
        let path = cache.directory(PIECES).join(piece().digest.to_hex());
        for removes in [true, false] {
            assert_eq!(cache.shared_piece(&piece(), fetched), fetched());
            if removes {
                cache.remove_shared_pieces(&layers);
            } else {
                cache.remove_unused_pieces();
            }
            assert_eq!(path.exists(), !removes);
        }
        let long_ago = std::time::SystemTime::now() - UNUSED - Duration::from_secs(60);
        let times = fs::FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
        File::open(&path).and_then(|file| file.set_times(times)).expect("sets the times");
        cache.remove_unused_pieces();
        assert!(!path.exists());
    }
}
