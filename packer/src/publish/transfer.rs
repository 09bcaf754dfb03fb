//! Layers that another store has, copied as they are: for a launcher that is published elsewhere.

use std::fs::File;
use std::io::{self, Write as _};

use cpack_artifact::Digest;
use cpack_artifact::manifest::Layer;
use cpack_artifact::store::{Store, StoreError, StoreErrorKind};
use rayon::prelude::*;

use super::layers::{Publisher, Temporary, archive_key};
use super::{PublishError, step};
use crate::cache::{Facts, Packed};

impl Publisher<'_> {
    /// Makes sure that the store has the archives of `layers`, each of which is copied from `from` where it is missing, piece
    /// by piece, verified on the way. Returns the bytes that were sent.
    pub fn transfer(&self, from: &dyn Store, layers: &[&Layer]) -> Result<u64, PublishError> {
        let sent = layers.par_iter().with_max_len(1).map(|layer| self.transfer_one(from, layer));
        sent.try_reduce(|| 0, |a, b| Ok(a + b))
    }

    fn transfer_one(&self, from: &dyn Store, layer: &Layer) -> Result<u64, PublishError> {
        if self.is_whole(layer.kind, &layer.archive)? {
            return Ok(0);
        }
        let temporary = Temporary::new(self.store, self.cache)?;
        let failed = |source| PublishError::Local { path: temporary.path.clone(), source };
        let mut file = io::BufWriter::new(File::create(&temporary.path).map_err(failed)?);
        let key = archive_key(layer.kind, &layer.archive.digest);
        let mut offset = 0;
        for piece in &layer.archive.pieces {
            let mut buffer = vec![0; piece.size as usize];
            from.read_range(&key, offset, &mut buffer)?;
            if Digest::of(&buffer) != piece.digest {
                return Err(damaged(from, key.as_str()).into());
            }
            file.write_all(&buffer).map_err(failed)?;
            offset += u64::from(piece.size);
        }
        file.into_inner().map_err(|error| failed(error.into_error()))?;
        step("publish.transferred")?;
        let packed = Packed { content: layer.content, archive: layer.archive.clone(), facts: Facts::default() };
        Ok(self.send(layer.kind, &packed, &temporary.path)?.unwrap_or_default())
    }
}

fn damaged(from: &dyn Store, key: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Damaged,
        operation: "cannot use",
        location: from.uri().join(key),
        reason: "its digest is not the one that the manifest names: upload the environment again with --repair".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cpack_artifact::SafePath;
    use cpack_artifact::content::Kind;
    use cpack_artifact::manifest::LayerKind;
    use cpack_artifact::store::{FileStore, Key, Watcher};

    use super::*;
    use crate::cache::ClientCache;
    use crate::layer::{Body, Entry};
    use crate::publish::Planned;

    fn planned(kind: LayerKind, name: &str, bytes: &'static [u8]) -> Planned<'static> {
        let entries = move || {
            let path = SafePath::new(b"a.py").expect("safe");
            Ok((vec![Entry { path, kind: Kind::File, body: Body::Bytes(bytes.to_vec()) }], Facts::default()))
        };
        let (name, version) = (name.to_owned(), "1".to_owned());
        Planned { kind, name, version, imports: Vec::new(), fingerprint: None, size: 1, entries: Box::new(entries) }
    }

    #[test]
    fn transfer_copies_what_is_missing_and_refuses_what_is_damaged() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ClientCache::new(directory.path().join("cache"));
        let (from, to) = ["from", "to"].map(|name| FileStore::new(&directory.path().join(name))).into();
        let publisher = |store| Publisher { store, cache: &cache, level: 1, repair: false, sending: Watcher(&|_| {}) };
        let all = [planned(LayerKind::Distribution, "one", b"1"), planned(LayerKind::Overlay, "own", b"2")];
        let outcomes = publisher(&from).publish(&all, &|_| {}).expect("publishes");
        let layers: Vec<&Layer> = outcomes.iter().map(|outcome| &outcome.layer).collect();
        let size: u64 = layers.iter().map(|layer| layer.archive.size).sum();
        assert_eq!(publisher(&to).transfer(&from, &layers).expect("copies"), size);
        for layer in &layers {
            let key = archive_key(layer.kind, &layer.archive.digest);
            let both = [&from, &to].map(|store| store.read(&key, 1 << 20).expect("there"));
            assert_eq!(both[0], both[1]);
        }
        // A client that packs the same there finds it by its content.
        assert!(to.stat(&Key::content(&layers[0].content)).expect("asks").is_some());
        assert_eq!(publisher(&to).transfer(&from, &layers).expect("looks"), 0);

        let key = archive_key(LayerKind::Distribution, &layers[0].archive.digest);
        to.delete(&key).expect("deletes");
        let path = from.local_path(&key).expect("a file");
        let size = usize::try_from(layers[0].archive.size).expect("small");
        fs::remove_file(&path).and_then(|()| fs::write(&path, vec![0; size])).expect("damages");
        let error = publisher(&to).transfer(&from, &layers).expect_err("damaged").to_string();
        assert!(error.contains("/from/layers/") && error.contains("--repair"), "{error}");
        from.delete(&key).expect("deletes");
        let error = publisher(&to).transfer(&from, &layers).expect_err("gone");
        assert!(matches!(&error, PublishError::Store(error) if error.is_not_found()), "{error}");
        assert!(to.stat(&key).expect("asks").is_none());
    }
}
