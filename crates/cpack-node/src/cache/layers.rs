//! Layers in the node cache.

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_fault::point;
use cpack_format::Digest;
use cpack_format::manifest::Layer;
use cpack_store::unique_name;

use super::boot_id::{Mark, State};
use super::commit::{self, Committed};
use super::content::content_of;
use super::image;
use super::lease::Lease;
use super::own_directory::{Cache, LAYERS};
use super::staging::Staging;
use crate::listing::list;

const FILES: &str = "files";
const STATE: &str = "state";

/// A layer that a caller asks for: by its content, and by the archive that the caller would extract it from.
///
/// What an archive decodes to is not hashed again: its bytes were verified. So a layer of the cache is trusted by whoever names
/// the same archive; whoever names another one of the same content, or none, has the content checked first.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    content: Digest,
    archive: Option<Digest>,
}

impl From<&Layer> for Wanted {
    fn from(layer: &Layer) -> Self {
        Self { content: layer.content, archive: Some(layer.archive.digest) }
    }
}

impl Wanted {
    /// A layer with this content, wherever it came from.
    pub const fn with_content(content: Digest) -> Self {
        Self { content, archive: None }
    }
}

/// The result of [`Cache::layer_state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// It is there, and was written from the archive, or checked, under this boot.
    Ready,
    /// It is there, written under another boot of the node or from another archive: it must be checked before it is used.
    Unchecked,
    /// It is not there.
    Missing,
}

impl Cache {
    /// Where the files of a layer are.
    pub fn layer_files(&self, content: &Digest) -> PathBuf {
        self.layer(content).join(FILES)
    }

    pub(super) fn layer(&self, content: &Digest) -> PathBuf {
        self.directory(LAYERS).join(content.to_hex())
    }

    pub(super) fn layer_state_file(&self, content: &Digest) -> PathBuf {
        Self::state_file(&self.layer(content))
    }

    /// Where the state of the layer at `layer` is.
    pub(super) fn state_file(layer: &Path) -> PathBuf {
        layer.join(STATE)
    }

    /// Looks at a layer: two system calls.
    pub(crate) fn layer_state(&self, wanted: impl Into<Wanted>) -> LayerState {
        let wanted = wanted.into();
        match File::open(self.layer_state_file(&wanted.content)) {
            Ok(file) if State::read(&file).is_ok_and(|state| self.trusts(&state, wanted)) => LayerState::Ready,
            Ok(_) => LayerState::Unchecked,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.layer(&wanted.content).exists() => {
                LayerState::Missing
            }
            Err(_) => LayerState::Unchecked,
        }
    }

    /// Takes a lease on a layer that is ready.
    pub fn lease_layer(&self, wanted: impl Into<Wanted>) -> Option<Lease> {
        let wanted = wanted.into();
        let (lease, state) = Lease::take(&self.layer_state_file(&wanted.content))?;
        state.is_ok_and(|state| self.trusts(&state, wanted)).then_some(lease)
    }

    fn trusts(&self, state: &State, wanted: Wanted) -> bool {
        state.mark.is_trusted_by(self.boot())
            && state
                .archive
                .as_ref()
                .is_none_or(|archive| wanted.archive.is_some_and(|wanted| wanted.to_hex() == *archive))
    }

    /// Tells clean-up that a layer was just used.
    pub(crate) fn touch_layer(&self, content: &Digest) {
        if let Ok(file) = File::open(self.layer_state_file(content)) {
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
    }

    /// Makes a directory in `staging` for the files of a layer, which [`Cache::commit_layer`] takes.
    ///
    /// The archive of `wanted` is what its files are decoded from, verified; without one, the caller verifies their content.
    pub fn stage_layer(staging: &Staging, wanted: impl Into<Wanted>) -> io::Result<StagedLayer> {
        let wanted = wanted.into();
        let path = staging.subdirectory(&format!("{}-{}", wanted.content, unique_name()))?;
        let files = path.join(FILES);
        fs::create_dir(&files)?;
        point("layer.staged")?;
        Ok(StagedLayer { path, files, wanted })
    }

    /// Renames a staged layer into its place, unless there is one. Its directories must be read-only. `size` is what its files take on disk.
    pub fn commit_layer(&self, staged: &StagedLayer, size: u64) -> io::Result<Committed> {
        let Wanted { content, archive } = staged.wanted;
        point("layer.sealed")?;
        fs::write(staged.path.join(STATE), State::of_layer(self.boot(), size, archive))?;
        point("layer.state")?;
        let committed = commit::commit(&staged.path, &self.layer(&content))?;
        point("layer.published")?;
        Ok(committed)
    }

    /// Compares a layer's content with its name. A good layer is trusted from then on, a bad one is moved into `staging`.
    /// Returns whether it is good. The caller should hold the layer's claim.
    pub fn check_layer(
        &self,
        content: &Digest,
        threads: usize,
        progress: &(dyn Fn() + Sync),
        staging: &Staging,
    ) -> io::Result<bool> {
        let good = match content_of(&self.layer_files(content), threads, progress) {
            Ok(found) => found == *content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e),
        };
        point("layer.checked")?;
        if good && self.trust_layer(content).is_ok() {
            point("layer.trusted")?;
            return Ok(true);
        }
        self.discard_layer(content, staging)?;
        Ok(false)
    }

    /// Notes that the content of a layer was found good under this boot, wherever it came from, and its size again if a power
    /// loss took it.
    fn trust_layer(&self, content: &Digest) -> io::Result<()> {
        let size = match self.layer_size(content) {
            0 => size_of(&self.layer_files(content))?,
            size => size,
        };
        // Others have it open and locked, so it is overwritten in one piece.
        let file = File::options().write(true).open(self.layer_state_file(content))?;
        let mut state = State::of_layer(self.boot(), size, None);
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(State::MAX);
        state.resize(state.len().max(len), b' ');
        file.write_all_at(&state, 0)
    }

    /// Removes a layer from its place, so that it can be built again. Trees that link its files keep them.
    pub fn discard_layer(&self, content: &Digest, staging: &Staging) -> io::Result<()> {
        match self.move_layer(content, staging) {
            Err(e) if image::is_immovable(&e) => image::remove_layer(&self.layer(content)),
            result => result.map(drop),
        }
    }

    /// Moves a layer into `staging` and returns where to; `None` if it was gone.
    pub(super) fn move_layer(&self, content: &Digest, staging: &Staging) -> io::Result<Option<PathBuf>> {
        let aside = staging.path().join(format!("layer-{}", unique_name()));
        match point("move").and_then(|()| fs::rename(self.layer(content), &aside)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        }
        point("layer.discarded")?;
        Ok(Some(aside))
    }

    /// Marks a layer that was synced to disk.
    pub fn mark_layer_durable(&self, content: &Digest) -> io::Result<()> {
        Mark::Durable.overwrite(&self.layer_state_file(content))
    }

    /// The content digests of all layers in the cache.
    pub fn layers(&self) -> io::Result<Vec<Digest>> {
        let entries = self.list(LAYERS)?;
        Ok(entries.into_iter().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// What a layer's files take on disk.
    pub fn layer_size(&self, content: &Digest) -> u64 {
        let text = fs::read_to_string(self.layer_state_file(content)).unwrap_or_default();
        text.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0)
    }
}

/// A layer that this process is building.
#[derive(Debug)]
pub struct StagedLayer {
    path: PathBuf,
    files: PathBuf,
    wanted: Wanted,
}

impl StagedLayer {
    /// The directory for its files.
    pub fn files(&self) -> &Path {
        &self.files
    }
}

/// The length of all files below `path`.
pub fn size_of(path: &Path) -> io::Result<u64> {
    list(path)?.iter().try_fold(0, |sum, (name, kind)| {
        let inside = path.join(name);
        Ok(sum + if kind.is_dir() { size_of(&inside)? } else { fs::symlink_metadata(inside)?.len() })
    })
}

/// Takes the permission to write from all directories of a tree, the deepest first.
pub fn seal_directories(path: &Path) -> io::Result<()> {
    for (name, _) in list(path)?.iter().filter(|(_, kind)| kind.is_dir()) {
        seal_directories(&path.join(name))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o555))
}

#[cfg(test)]
mod tests {
    use super::super::own_directory::STAGING;
    use super::super::{BootId, Place, PlaceKind};
    use super::*;

    fn cache(directory: &Path, boot: &str) -> Cache {
        let place = Place { path: directory.into(), kind: PlaceKind::Temporary };
        Cache::create(&place, &BootId::new(boot)).expect("a cache")
    }

    /// Commits a layer with one file and returns its content digest.
    fn layer(cache: &Cache, text: &str) -> Digest {
        let scratch = tempfile::tempdir().expect("a directory");
        fs::write(scratch.path().join("file"), text).expect("writes");
        let content = content_of(scratch.path(), 1, &|| {}).expect("reads");
        commit(cache, Wanted::with_content(content), text);
        content
    }

    fn commit(cache: &Cache, wanted: Wanted, text: &str) {
        let staging = cache.staging().expect("staging");
        let staged = Cache::stage_layer(&staging, wanted).expect("stages");
        fs::write(staged.files().join("file"), text).expect("writes");
        seal_directories(staged.files()).expect("seals");
        cache.commit_layer(&staged, 17).expect("commits");
    }

    #[test]
    fn committed_layer_is_ready_and_the_second_of_its_kind_is_discarded() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path(), "b");
        assert_eq!(cache.layer_state(Wanted::with_content(Digest::of(b""))), LayerState::Missing);
        let content = layer(&cache, "text");
        assert_eq!(layer(&cache, "text"), content);
        assert_eq!(cache.layer_state(Wanted::with_content(content)), LayerState::Ready);
        assert_eq!(cache.layers().expect("lists"), [content]);
        assert_eq!(cache.layer_size(&content), 17);
        assert_eq!(fs::read_dir(cache.directory(STAGING)).expect("lists").count(), 0);
    }

    #[test]
    fn after_a_reboot_a_layer_is_checked_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (content, torn) = {
            let before = cache(directory.path(), "before");
            (layer(&before, "text"), layer(&before, "other"))
        };
        let cache = cache(directory.path(), "after");
        assert_eq!(cache.layer_state(Wanted::with_content(content)), LayerState::Unchecked);
        assert!(cache.lease_layer(Wanted::with_content(content)).is_none());
        let staging = cache.staging().expect("staging");
        assert!(cache.check_layer(&content, 1, &|| {}, &staging).expect("checks"));
        assert_eq!(cache.layer_state(Wanted::with_content(content)), LayerState::Ready);
        assert!(cache.lease_layer(Wanted::with_content(content)).is_some());
        fs::write(cache.layer_files(&torn).join("file"), "").expect("tears");
        assert!(!cache.check_layer(&torn, 1, &|| {}, &staging).expect("checks"));
        assert_eq!(cache.layer_state(Wanted::with_content(torn)), LayerState::Missing);
    }

    #[test]
    fn layer_of_another_archive_is_checked_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path(), "b");
        let staging = cache.staging().expect("staging");
        let content = layer(&cache, "text");
        cache.discard_layer(&content, &staging).expect("discards");
        let [one, other] = [b"one", b"two"].map(|name| Wanted { content, archive: Some(Digest::of(name)) });
        for (text, is_good) in [("text", true), ("lies", false)] {
            commit(&cache, one, text);
            assert_eq!(cache.layer_state(one), LayerState::Ready);
            assert!(cache.lease_layer(one).is_some() && cache.lease_layer(other).is_none());
            for wanted in [other, Wanted::with_content(content)] {
                assert_eq!(cache.layer_state(wanted), LayerState::Unchecked);
            }
            assert_eq!(cache.check_layer(&content, 1, &|| {}, &staging).expect("checks"), is_good);
            let state = if is_good { LayerState::Ready } else { LayerState::Missing };
            for wanted in [one, other, Wanted::with_content(content)] {
                assert_eq!(cache.layer_state(wanted), state);
            }
            assert_eq!(cache.layer_size(&content), if is_good { 17 } else { 0 });
            cache.discard_layer(&content, &staging).expect("discards");
        }
    }

    #[test]
    fn layer_that_was_marked_durable_needs_no_check_after_reboot() {
        let directory = tempfile::tempdir().expect("a directory");
        let before = cache(directory.path(), "before");
        let content = layer(&before, "text");
        before.mark_layer_durable(&content).expect("marks");
        assert_eq!(cache(directory.path(), "after").layer_state(Wanted::with_content(content)), LayerState::Ready);
    }
}
