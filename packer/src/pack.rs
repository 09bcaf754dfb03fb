//! Packs one layer: the second of the three steps plan, pack and send.

use std::path::Path;

use cpack_discover::Environment;
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::job::PAYLOAD_NAME;
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
    transformer: Transformer<'a>,
    level: i32,
}

impl<'a> Packer<'a> {
    /// Packs layers of `environment` at the zstd `level`. `compilers` run its interpreter.
    pub(crate) fn new(environment: &'a Environment, compilers: &'a Compilers, level: i32) -> Self {
        Self { transformer: Transformer::new(environment, compilers), level }
    }

    /// Packs the layer of `plan` into the new file `path`. Calls `progress` with the bytes of files that each step packed.
    pub(crate) fn pack(
        &self,
        plan: &LayerPlan<'_>,
        path: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PackedLayer, PackError> {
        let _event = cpack_events::span("pack", || plan.name.to_owned()).of(plan.size);
        let (entries, facts) = match &plan.content {
            LayerContent::Files(files) => self.transformer.transform(files)?,
            LayerContent::Payload(bytes) => {
                let path = SafePath::new(PAYLOAD_NAME.as_bytes()).map_err(PackError::Path)?;
                (vec![Entry { path, kind: Kind::File, body: Body::Bytes(bytes.clone()) }], Facts::default())
            }
        };
        let WrittenArchive { content, archive } = write_layer(plan.name, entries, path, self.level, progress)?;
        Ok(PackedLayer { content, archive, facts })
    }
}
