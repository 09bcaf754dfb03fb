//! Packs one layer: the second of the three steps plan, pack and send.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cpack_discover::Environment;
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::job::PAYLOAD_NAME;
use cpack_format::manifest::LayerKind;
use cpack_layer::PackError;
use cpack_layer::archive::{Body, Entry, WrittenArchive, write_layer};
use cpack_layer::content::compile::Compilers;
use cpack_layer::content::facts::Facts;
use cpack_layer::content::transform::Transformer;

use crate::assemble::{LayerContent, LayerPlan};
use crate::cache::PackedLayer;

/// Packs layers of one environment.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    environment: &'a Environment,
    transformer: Transformer<'a>,
    level: i32,
}

impl<'a> Packer<'a> {
    /// Packs layers of `environment` at the zstd `level`. `compilers` run its interpreter.
    pub(crate) fn new(environment: &'a Environment, compilers: &'a Compilers, level: i32) -> Self {
        Self { environment, transformer: Transformer::new(environment, compilers), level }
    }

    /// Packs the layer of `plan` into the new file `path`. Calls `progress` with the bytes of files that each step packed.
    pub(crate) fn pack(
        &self,
        plan: &LayerPlan<'_>,
        path: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PackedLayer, PackError> {
        let _event = cpack_events::span("pack", || plan.name.to_owned()).of(plan.size);
        let (entries, facts) = self.entries(plan)?;
        let WrittenArchive { content, archive } = write_layer(plan.name, entries, path, self.level, progress)?;
        Ok(PackedLayer { content, archive, facts })
    }

    /// What the layer of `plan` holds, in the order of the paths.
    pub(crate) fn entries(&self, plan: &LayerPlan<'_>) -> Result<(Vec<Entry>, Facts), PackError> {
        match &plan.content {
            LayerContent::Files(files) => {
                let (mut entries, facts) = self.transformer.transform(files)?;
                if plan.kind == LayerKind::Unowned {
                    entries.iter_mut().for_each(|entry| self.remove_projects(entry));
                }
                Ok((entries, facts))
            }
            LayerContent::Payload(bytes) => {
                let path = SafePath::new(PAYLOAD_NAME.as_bytes()).map_err(PackError::Path)?;
                Ok((vec![Entry { path, kind: Kind::File, body: Body::Bytes(bytes.clone()) }], Facts::default()))
            }
        }
    }

    /// Removes the folders of projects that are overlays from `easy-install.pth`, which lists eggs, too.
    fn remove_projects(&self, entry: &mut Entry) {
        let site = self.environment.site_packages.as_bytes();
        let is_list = entry.path.as_bytes().strip_prefix(site) == Some(b"/easy-install.pth");
        let Body::File { path, .. } = &entry.body else { return };
        let Some(text) = is_list.then(|| fs::read(path).ok()).flatten() else { return };
        let is_project = |line: &&[u8]| {
            let folder = Path::new(OsStr::from_bytes(line.trim_ascii()));
            folder.is_absolute() && self.environment.editables.iter().any(|editable| editable.is_at(folder))
        };
        let kept: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_project(line)).collect();
        entry.body = Body::Bytes(kept.concat());
    }
}
