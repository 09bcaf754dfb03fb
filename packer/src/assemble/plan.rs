//! The plan: which layers an environment becomes, and the fingerprint of each.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use cpack_discover::{CondaPackage, Distribution, Editable, Environment, FileKind};
use cpack_format::manifest::LayerKind;
use cpack_format::{Digest, SafePath};
use cpack_layer::content::transform::LayerFiles;

use super::interpreter;
use crate::cache::Fingerprint;

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub with_python: bool,
    pub level: i32,
}

#[derive(Debug)]
pub(crate) struct EnvironmentPlan<'a> {
    pub layers: Vec<LayerPlan<'a>>,
    /// Overlays of its editable projects.
    pub overlays: Vec<LayerPlan<'a>>,
}

/// A layer that the store should have.
#[derive(Debug)]
pub(crate) struct LayerPlan<'a> {
    pub kind: LayerKind,
    /// Normalised name of the distribution; for others a word for people.
    pub name: &'a str,
    pub version: &'a str,
    /// Top-level names that can be imported from it.
    pub imports: Vec<String>,
    /// Identifies its files by their stat data. `None` for a payload, which is packed each time.
    pub fingerprint: Option<Digest>,
    /// Bytes of its files: the largest layers are packed first.
    pub size: u64,
    pub content: LayerContent<'a>,
}

/// What a layer is packed from.
#[derive(Debug)]
pub(crate) enum LayerContent<'a> {
    /// Files of the environment, of its interpreter or of an editable project.
    Files(LayerFiles<'a>),
    /// A pickled function with its arguments.
    Payload(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error(
        "--with-python: {python} is not relocatable: make the environment with a uv-managed Python, or leave the option out",
        python = .0.display()
    )]
    NotRelocatable(PathBuf),
    #[error("cannot read the interpreter's {path}: {source}", path = path.display())]
    Interpreter { path: PathBuf, source: io::Error },
}

/// Plans the layers of `environment`.
pub(crate) fn plan<'a>(environment: &'a Environment, options: &Options) -> Result<EnvironmentPlan<'a>, AssembleError> {
    let planner = Planner { environment, level: options.level };
    let mut layers: Vec<_> = environment.distributions.iter().map(|d| planner.distribution(d)).collect();
    if !environment.unowned.is_empty() {
        let files = LayerFiles { files: Cow::Borrowed(&environment.unowned), ..LayerFiles::default() };
        layers.push(planner.layer(LayerKind::Unowned, "unowned", "", Vec::new(), files));
    }
    layers.extend(environment.packages.iter().map(|package| planner.package(package)));
    // Of a conda environment it is one of the packages.
    if options.with_python && !environment.is_whole_conda() {
        layers.push(planner.interpreter()?);
    }
    let overlays = environment.editables_in_turn().into_iter().map(|e| planner.overlay(e)).collect();
    Ok(EnvironmentPlan { layers, overlays })
}

impl LayerPlan<'static> {
    pub(crate) fn payload(bytes: Vec<u8>) -> Self {
        Self {
            kind: LayerKind::Payload,
            name: "payload",
            version: "",
            imports: Vec::new(),
            fingerprint: None,
            size: bytes.len() as u64,
            content: LayerContent::Payload(bytes),
        }
    }
}

struct Planner<'a> {
    environment: &'a Environment,
    level: i32,
}

impl<'a> Planner<'a> {
    fn distribution(&self, distribution: &'a Distribution) -> LayerPlan<'a> {
        let Distribution { name, version, import_names, .. } = distribution;
        let files = LayerFiles {
            files: Cow::Borrowed(&distribution.files),
            info: Some(Cow::Borrowed(&distribution.info)),
            shared: self.environment.shared_files(distribution),
            suspects: &distribution.suspects,
            package: None,
            is_overlay: false,
        };
        self.layer(LayerKind::Distribution, name, version, import_names.clone(), files)
    }

    fn package(&self, package: &'a CondaPackage) -> LayerPlan<'a> {
        let CondaPackage { name, version, import_names, .. } = package;
        let files = LayerFiles {
            files: Cow::Borrowed(&package.files),
            suspects: &package.suspects,
            package: Some(package),
            ..LayerFiles::default()
        };
        self.layer(LayerKind::Conda, name, version, import_names.clone(), files)
    }

    fn interpreter(&self) -> Result<LayerPlan<'a>, AssembleError> {
        let python = &self.environment.python;
        if !python.ships_relocatable_interpreter {
            return Err(AssembleError::NotRelocatable(python.base_executable.clone()));
        }
        let failed = |source| AssembleError::Interpreter { path: python.base_prefix.clone(), source };
        let files = Cow::Owned(interpreter::files(python).map_err(failed)?);
        let files = LayerFiles { files, ..LayerFiles::default() };
        Ok(self.layer(LayerKind::Interpreter, "python", &python.version, Vec::new(), files))
    }

    fn overlay(&self, editable: &'a Editable) -> LayerPlan<'a> {
        let imports = editable.sources.iter().map(|source| source.name.clone()).collect();
        let tops = editable.files.iter().filter_map(|file| file.path.components().next());
        let info = tops.filter(|top| top.ends_with(b".dist-info")).find_map(|top| SafePath::new(top).ok());
        let files = LayerFiles {
            files: Cow::Borrowed(&editable.files),
            info: info.map(Cow::Owned),
            is_overlay: true,
            ..LayerFiles::default()
        };
        self.layer(LayerKind::Overlay, &editable.name, &editable.version, imports, files)
    }

    fn layer(
        &self,
        kind: LayerKind,
        name: &'a str,
        version: &'a str,
        imports: Vec<String>,
        files: LayerFiles<'a>,
    ) -> LayerPlan<'a> {
        let fingerprint = Some(self.fingerprint(kind, name, version, &files));
        let size = files.files.iter().map(|file| file.size).sum();
        LayerPlan { kind, name, version, imports, fingerprint, size, content: LayerContent::Files(files) }
    }

    /// Covers the stat data of the files and all else that the layer depends on: the byte-code of the interpreter, and where
    /// the environment is, since scripts and `RECORD` may name it.
    fn fingerprint(&self, kind: LayerKind, name: &str, version: &str, layer: &LayerFiles<'_>) -> Digest {
        let python = &self.environment.python;
        let mut fingerprint = Fingerprint::new(self.level);
        fingerprint.text(python.magic).text(&python.cache_tag).text(&python.lib_name);
        fingerprint.text(self.environment.prefix.as_os_str().as_encoded_bytes());
        fingerprint.numbers(&[kind as u64]).text(name).text(version);
        if layer.is_overlay {
            // Changes with what an overlay is made of besides its files.
            fingerprint.text("overlay 2");
        }
        if let Some(package) = layer.package {
            fingerprint.text("conda 1").text(&package.record_bytes);
        } else if self.environment.is_whole_conda() {
            fingerprint.text("in conda 1");
        }
        fingerprint.numbers(&[layer.files.len() as u64]);
        for file in layer.files.iter().chain(&layer.shared) {
            let (kind, target) = match &file.kind {
                FileKind::File => (0, None),
                FileKind::Executable => (1, None),
                FileKind::Link(target) => (2, Some(target)),
            };
            fingerprint.text(file.path.as_bytes());
            if let Some(source) = &file.source {
                fingerprint.text(source.as_os_str().as_encoded_bytes());
            }
            let [mtime, ctime] = [file.mtime_ns, file.ctime_ns].map(i64::cast_unsigned);
            fingerprint.numbers(&[kind, file.size, mtime, ctime, file.ino]);
            if let Some(target) = target {
                fingerprint.text(target);
            }
        }
        fingerprint.finish()
    }
}
