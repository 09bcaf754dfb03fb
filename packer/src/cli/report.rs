//! Reports on a submission: what `upload --json`, `pack --json` and `spark conf --json` print, and the lines that every
//! publication says on standard error.

use std::path::Path;

use cpack_format::manifest::LayerKind;
use cpack_layer::content::facts::Facts;
use cpack_layer::content::{prefix_text, script};
use cpack_store::{StoreUri, Written};
use serde::Serialize;

use super::output::{Voice, bytes, count};
use crate::publish::PublishedLayer;
use crate::submit::Submission;

/// What `upload --json` and `pack --json` print.
#[derive(Debug, Serialize)]
pub(super) struct SubmissionReport {
    /// The file that a job fetches and runs as `./name`: by itself if it lies at a package, otherwise beside `boot`.
    pub(super) uri: String,
    /// The job file that builders ship. It never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) launcher: Option<String>,
    /// The executable that goes with `launcher`, to be named `cpack-boot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<String>,
    /// The metadata under the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<String>,
    environment: String,
    /// Every distribution as `name==version`.
    pub(super) packages: Vec<String>,
    store: String,
    unchanged: bool,
    /// Layers, overlays, launchers, and the file under the name or at the package. Manifests are not counted.
    sent_bytes: u64,
    pub(super) packed_bytes: u64,
    pub(super) unpacked_bytes: u64,
    pub(super) seconds: f64,
    layers: Vec<LayerReport>,
}

impl SubmissionReport {
    /// `shipped` says what happened to the launcher that builders ship, `named` what happened under the name or at the
    /// package.
    pub(super) fn new(
        submission: &Submission,
        store: &StoreUri,
        uri: String,
        shipped: Written,
        named: Written,
    ) -> Self {
        let layers = LayerReport::all(submission);
        let sent: u64 = outcomes(submission).filter_map(|o| o.sent).sum();
        Self {
            uri,
            launcher: None,
            boot: None,
            metadata: None,
            environment: submission.id.to_hex(),
            packages: Vec::new(),
            store: store.to_string(),
            unchanged: named == Written::Kept,
            sent_bytes: sent + shipped.and(named).bytes(),
            packed_bytes: layers.iter().map(|l| l.packed_bytes).sum(),
            unpacked_bytes: layers.iter().map(|l| l.unpacked_bytes).sum(),
            seconds: submission.elapsed.as_secs_f64(),
            layers,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    kind: LayerKind,
    name: String,
    version: String,
    archive: String,
    packed_bytes: u64,
    unpacked_bytes: u64,
    sent: bool,
}

impl LayerReport {
    /// The layers of the environment, then the overlays of the job.
    pub(super) fn all(submission: &Submission) -> Vec<Self> {
        let report = |outcome: &PublishedLayer| {
            let layer = &outcome.layer;
            Self {
                kind: layer.kind,
                name: layer.name.clone(),
                version: layer.version.clone(),
                archive: layer.archive.digest.to_hex(),
                packed_bytes: layer.archive.size,
                unpacked_bytes: layer.archive.unpacked,
                sent: outcome.sent.is_some(),
            }
        };
        outcomes(submission).map(report).collect()
    }
}

/// Says what was sent, and warns of layers of the environment in `prefix` that are not as they were installed.
pub(super) fn say(voice: Voice, submission: &Submission, store: &StoreUri, prefix: &Path) {
    for outcome in outcomes(submission) {
        let what = title(outcome);
        match outcome.sent {
            Some(sent) => voice.detail(format!("  sent {what} ({})", bytes(sent))),
            None if outcome.packed => voice.detail(format!("  in the store already {what}")),
            None => {}
        }
    }
    warn_of(voice, outcomes(submission).map(|outcome| (title(outcome), &outcome.facts)), prefix);
    let sent: Vec<u64> = outcomes(submission).filter_map(|o| o.sent).collect();
    let total = outcomes(submission).count();
    let kept: u64 = outcomes(submission).filter(|o| o.sent.is_none()).map(|o| o.layer.archive.size).sum();
    voice.say(format!(
        "sent {} of {} ({}), {} in {store} already ({})",
        sent.len(),
        count(total, "layer"),
        bytes(sent.iter().sum()),
        total - sent.len(),
        bytes(kept),
    ));
}

/// Warns of layers of the environment in `prefix` that are not as they were installed, each with its name and version.
pub(super) fn warn_of<'a>(voice: Voice, layers: impl Iterator<Item = (String, &'a Facts)>, prefix: &Path) {
    let (mut strangers, mut prefixed) = (Vec::new(), Vec::new());
    for (what, facts) in layers {
        let modified = &facts.modified;
        if let Some(first) = modified.first() {
            let more = if modified.len() > 1 { format!(" and {} more", modified.len() - 1) } else { String::new() };
            voice.warn(format!("{what} was changed after it was installed: {first}{more}; packed as it is"));
        }
        for file in &facts.left_out {
            voice.warn(format!("{what} is packed without {file}"));
        }
        for file in &facts.not_compiled {
            voice.detail(format!("  no byte-code for {file}"));
        }
        strangers.extend_from_slice(&facts.strangers);
        prefixed.extend_from_slice(&facts.prefixed);
    }
    prefix_text::warning(&prefixed, prefix).iter().for_each(|warning| voice.warn(warning));
    script::warning(&strangers).iter().for_each(|warning| voice.warn(warning));
}

/// Name and version of a layer, for messages.
fn title(outcome: &PublishedLayer) -> String {
    format!("{} {}", outcome.layer.name, outcome.layer.version)
}

fn outcomes(submission: &Submission) -> impl Iterator<Item = &PublishedLayer> {
    submission.layers.iter().chain(&submission.overlays)
}
