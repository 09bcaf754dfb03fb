//! `status`: the node caches and their contents.

use std::time::SystemTime;

use cpack_format::human;
use cpack_node::cache::{BootId, Cache, Place, PlaceError, free_at, read_description, unusable};
use serde_json::{Value, json};

use super::{Report, table};
use crate::boot::JobStart;
use crate::error::BootError;
use crate::job;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings) -> Result<Report, BootError> {
    let node = settings.node();
    let mut text = String::new();
    let mut found = Vec::new();
    let mut rows = vec![["place", "kind", "state", "free"].map(str::to_owned).to_vec()];
    for place in &node.places {
        let (state, cache) = state(place, &node.boot);
        let row = [
            place.path.display().to_string(),
            place.kind.word().into(),
            state.clone(),
            human::bytes(free_at(&place.path)),
        ];
        rows.push(row.to_vec());
        let mut json = json!({ "place": place.path, "kind": place.kind.word(), "state": state });
        if let Some(cache) = cache {
            let (lines, contents) = contents(&cache);
            text += &lines;
            json["cache"] = contents;
        }
        found.push(json);
    }
    let ready = job::find(settings).ok().map(|found| JobStart::new(&found, settings, &[]).look().map(|l| l.2.path));
    let answer = match &ready {
        Some(Some(path)) => format!("\nThe environment of this job is ready in {}.\n", path.display()),
        Some(None) => "\nThe environment of this job is not on this node yet.\n".into(),
        None => String::new(),
    };
    let json = json!({ "places": found, "limit": settings.cache_limit, "ready": ready.flatten() });
    Ok(Report { text: format!("{}{text}{answer}", table(&rows, &[3])), json })
}

fn state(place: &Place, boot: &BootId) -> (String, Option<Cache>) {
    match (Cache::open(place, boot), unusable(place)) {
        (Ok(cache), None) => ("in use".into(), Some(cache)),
        (Ok(cache), Some(reason)) => (reason, Some(cache)),
        (Err(error @ PlaceError::Refused { .. }), _) => (error.to_string(), None),
        (Err(PlaceError::Io { .. }), Some(reason)) => (reason, None),
        (Err(PlaceError::Io { source, .. }), None) if source.kind() == std::io::ErrorKind::NotFound => {
            ("nothing there yet".into(), None)
        }
        (Err(error), None) => (error.to_string(), None),
    }
}

/// The contents of one cache, for people and for programs.
fn contents(cache: &Cache) -> (String, Value) {
    let layers = cache.layers().unwrap_or_default();
    let bytes: u64 = layers.iter().map(|content| cache.layer_size(content)).sum();
    let mut rows = Vec::new();
    let mut environments = Vec::new();
    for key in cache.environments().unwrap_or_default() {
        let description = read_description(&cache.environment_path(&key)).ok();
        let name = description.as_ref().map_or("?", |d| &d.name);
        let version = description.as_ref().map_or("?", |d| &d.version);
        let age = cache.last_used(&key).and_then(|t| SystemTime::now().duration_since(t).ok()).map(|d| d.as_secs());
        let used = cache.is_leased(&key);
        environments.push(json!({ "key": key, "description": description, "idle_seconds": age, "in_use": used }));
        let state = if used { "in use".into() } else { age.map_or("?".into(), idle) };
        let short: String = key.chars().take(12).collect();
        rows.push(vec![format!("  {short}"), name.to_owned(), format!("Python {version}"), state]);
    }
    let jobs = cache.jobs().map_or(0, |jobs| jobs.len());
    let head = format!(
        "\n{}: {} environments, {} layers, {} job prefixes, {}\n",
        cache.root().display(),
        rows.len(),
        layers.len(),
        jobs,
        human::bytes(bytes)
    );
    let json = json!({ "path": cache.root(), "layers": layers.len(), "bytes": bytes, "environments": environments,
        "jobs": jobs });
    (head + &table(&rows, &[]), json)
}

fn idle(seconds: u64) -> String {
    match seconds {
        0..60 => "started just now".into(),
        60..3600 => format!("started {} min ago", seconds / 60),
        3600..86_400 => format!("started {} h ago", seconds / 3600),
        _ => format!("started {} days ago", seconds / 86_400),
    }
}
