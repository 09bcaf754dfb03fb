//! Layers that another store has, copied as they are: for a launcher that is published elsewhere.

use std::fs::File;
use std::io::{self, Write as _};

use cpack_format::Digest;
use cpack_format::manifest::Layer;
use cpack_layer::content::facts::Facts;
use cpack_store::{Store, StoreError, StoreErrorKind};
use rayon::prelude::*;

use super::error::{PublishError, step};
use super::layers::Publisher;
use crate::cache::PackedLayer;

impl Publisher<'_> {
    /// Makes sure that the store has the archives of `layers`, each of which is copied from `from` where it is missing, piece
    /// by piece, verified on the way. Returns the bytes that were sent.
    pub(crate) fn transfer(&self, from: &dyn Store, layers: &[&Layer]) -> Result<u64, PublishError> {
        let sent = layers.par_iter().with_max_len(1).map(|layer| self.transfer_one(from, layer));
        sent.try_reduce(|| 0, |a, b| Ok(a + b))
    }

    fn transfer_one(&self, from: &dyn Store, layer: &Layer) -> Result<u64, PublishError> {
        if self.is_whole(layer.kind, &layer.archive)? {
            return Ok(0);
        }
        let temporary = self.new_archive()?;
        let failed = |source| PublishError::Local { path: temporary.to_path_buf(), source };
        let mut file = io::BufWriter::new(File::create(&temporary).map_err(failed)?);
        let key = layer.key();
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
        let packed = PackedLayer { content: layer.content, archive: layer.archive.clone(), facts: Facts::default() };
        Ok(self.put(layer.kind, &packed, &temporary)?.unwrap_or_default())
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

    use cpack_format::SafePath;
    use cpack_format::content::Kind;
    use cpack_format::manifest::LayerKind;
    use cpack_store::{FileStore, Key, Watcher};

    use super::*;
    use crate::cache::ClientCache;
    use cpack_layer::archive::{Body, Entry, write_layer};

    /// Packs one file and sends it.
    fn published(publisher: &Publisher<'_>, kind: LayerKind, name: &str, bytes: &[u8]) -> Layer {
        let path = SafePath::new(b"a.py").expect("safe");
        let entries = vec![Entry { path, kind: Kind::File, body: Body::Bytes(bytes.to_vec()) }];
        let file = publisher.new_archive().expect("a file");
        let written = write_layer(name, entries, &file, 1, &|_| {}).expect("packs");
        let packed = PackedLayer { content: written.content, archive: written.archive, facts: Facts::default() };
        publisher.put(kind, &packed, &file).expect("sends");
        let PackedLayer { content, archive, .. } = packed;
        Layer { version: "1".to_owned(), ..Layer::new(kind, name.to_owned(), content, archive) }
    }

    #[test]
    fn transfer_copies_what_is_missing_and_refuses_what_is_damaged() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ClientCache::new(directory.path().join("cache"));
        let (from, to) = ["from", "to"].map(|name| FileStore::new(&directory.path().join(name))).into();
        let publisher = |store| Publisher { store, cache: &cache, repair: false, sending: Watcher(&|_| {}) };
        let all = [(LayerKind::Distribution, "one", b"1"), (LayerKind::Overlay, "own", b"2")]
            .map(|(kind, name, bytes)| published(&publisher(&from), kind, name, bytes));
        let layers: Vec<&Layer> = all.iter().collect();
        let size: u64 = layers.iter().map(|layer| layer.archive.size).sum();
        assert_eq!(publisher(&to).transfer(&from, &layers).expect("copies"), size);
        for layer in &layers {
            let key = layer.key();
            let both = [&from, &to].map(|store| store.read(&key, 1 << 20).expect("there"));
            assert_eq!(both[0], both[1]);
        }
        // A client that packs the same there finds it by its content.
        assert!(to.stat(&Key::content(&layers[0].content)).expect("asks").is_some());
        assert_eq!(publisher(&to).transfer(&from, &layers).expect("looks"), 0);

        let key = layers[0].key();
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
