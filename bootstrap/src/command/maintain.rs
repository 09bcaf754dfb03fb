//! `prefetch` and `gc`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::time::Duration;

use cpack_format::human::bytes;
use cpack_format::job::Start;
use cpack_node::cache::{Cleaned, Cleaning, RECENT, clean};
use cpack_node::timing::Timing;
use serde_json::json;

use super::{Report, manifest_of, usage};
use crate::archive;
use crate::boot::JobStart;
use crate::error::BootError;
use crate::job;
use crate::settings::{Settings, parse_size};

/// Longer than any clean-up takes: the user can stop it.
const NO_HURRY: Duration = Duration::from_secs(24 * 3600);

/// Makes the job's environment ready and syncs it, so that a start after a reboot trusts it.
pub(super) fn prefetch(settings: &Settings, mut timing: Timing) -> Result<Report, BootError> {
    let found = job::find(settings)?;
    let ready = JobStart::new(&found, settings, &[]).prepare(Start::Eager, &mut timing)?;
    let failed = |source| BootError::Io { path: ready.cache.root().into(), source };
    let directory = File::open(ready.cache.root()).map_err(failed)?;
    nix::unistd::syncfs(&directory).map_err(|e| failed(e.into()))?;
    let manifest = manifest_of(&found, settings)?;
    // What is read-only was not written by this boot of the node, nor lost by it.
    if !ready.cache.is_read_only() {
        for layer in manifest.layers.iter().chain(&found.job.overlays) {
            ready.cache.mark_layer_durable(&layer.content).map_err(failed)?;
        }
        if let Some(key) = &ready.key {
            ready.cache.mark_environment_durable(key).map_err(failed)?;
        }
        if let Some(name) = &ready.job {
            ready.cache.mark_job_durable(name).map_err(failed)?;
        }
    }
    let milliseconds = timing.total().as_secs_f64() * 1e3;
    let json = json!({ "environment": ready.prefix, "counts": timing.counts, "total_ms": milliseconds });
    Ok(Report { text: format!("{}\n", ready.prefix.display()), json })
}

pub(super) fn gc(settings: &Settings, arguments: &[OsString]) -> Result<Report, BootError> {
    let limit = limit(settings, arguments)?;
    // `--all` removes layers that were just used, too. A process that builds from them begins again.
    let recent = if limit == 0 { Duration::ZERO } else { RECENT };
    let mut total = Cleaned::default();
    for cache in settings.node().caches() {
        let reserve = settings.cache_reserve;
        let cleaned = clean(&cache, &Cleaning { limit, recent, time: NO_HURRY, keep: None, reserve })
            .map_err(|source| BootError::Io { path: cache.root().into(), source })?;
        total.environments += cleaned.environments;
        total.jobs += cleaned.jobs;
        total.layers += cleaned.layers;
        total.abandoned += cleaned.abandoned + archive::remove_stale(&cache);
        total.cached_files += cleaned.cached_files;
        total.bytes += cleaned.bytes;
        total.in_use += cleaned.in_use;
        total.fixed += cleaned.fixed;
    }
    let mut text = format!(
        "removed {} environments, {} layers ({}), {} job prefixes and {} left-over directories; {} environments are in use\n",
        total.environments,
        total.layers,
        bytes(total.bytes),
        total.jobs,
        total.abandoned,
        total.in_use
    );
    if total.cached_files > 0 {
        let _ = writeln!(text, "removed {} files that programs cached and did not use for long", total.cached_files);
    }
    if total.fixed > 0 {
        let _ = writeln!(
            text,
            "{} environments and layers cannot be removed here: they came with the container's image",
            total.fixed
        );
    }
    let json = json!({ "environments": total.environments, "jobs": total.jobs, "layers": total.layers, "bytes": total.bytes,
        "abandoned": total.abandoned, "cached_files": total.cached_files, "in_use": total.in_use, "fixed": total.fixed });
    Ok(Report { text, json })
}

fn limit(settings: &Settings, arguments: &[OsString]) -> Result<u64, BootError> {
    match arguments {
        [] => Ok(settings.cache_limit),
        [all] if all == "--all" => Ok(0),
        [flag, value] if flag == "--limit" => {
            parse_size(&value.to_string_lossy()).ok_or_else(|| usage("--limit takes a size such as 500M or 20G"))
        }
        _ => Err(usage("gc takes --all or --limit SIZE")),
    }
}
