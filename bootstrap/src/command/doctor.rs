//! `doctor`: what a start on this node will need, one line each. It changes nothing and fetches no layer.

use cpack_format::check::Check;
use cpack_format::exit::Exit;
use cpack_format::human::bytes;
use cpack_format::manifest::Manifest;
use cpack_format::message::with_causes;
use cpack_node::building::in_order;
use cpack_node::cache::{PlaceKind, free_at, unusable};
use cpack_store::endings::{Holder, credentials};
use cpack_store::{Store, StoreUri, redact};

use crate::boot::{JobStart, probe_lazy};
use crate::error::BootError;
use crate::interpreter::{Search, choose, node_glibc, require_glibc, require_platform};
use crate::job::{self, FindError, FoundJob};
use crate::settings::{Settings, VARIABLES, exported};

pub(super) fn run(settings: &Settings) -> Vec<Check> {
    // A child tries it: before a store has threads of its own.
    let lazy = probe_lazy();
    let mut checks = Vec::new();
    let mut unpacked = 0;
    match job::find(settings) {
        Ok(found) => {
            checks.push(Check::good("job", format!("{} in {}", found.job.name, found.origin)));
            unpacked = of_job(&found, settings, &mut checks);
        }
        Err(FindError::None(_)) => checks.push(Check::note(
            "job",
            "none, so that store and interpreter are not looked at",
            "start this by a launcher, or set CPACK_JOB",
        )),
        Err(error) => checks.push(Check::bad("job", error.exit(), with_causes(&error), "")),
    }
    places(settings, unpacked, &mut checks);
    checks.push(match lazy {
        Ok(()) => Check::good("lazy start", "possible, by CPACK_START=lazy"),
        Err(reason) => Check::note("lazy start", reason, "starts are eager here"),
    });
    unknown_variables(&mut checks);
    checks
}

/// What the job needs. Returns the bytes that its environment takes, 0 if that is not known.
fn of_job(found: &FoundJob, settings: &Settings, checks: &mut Vec<Check>) -> u64 {
    let start = JobStart::new(found, settings, &[]);
    for name in found.job.pass.iter().filter(|name| std::env::var_os(name).is_none()) {
        let error = BootError::Variable(name.clone());
        checks.push(Check::bad("variable", error.exit(), error.to_string(), ""));
    }
    let asked = start.open_store().and_then(|store| {
        let (bytes, location) = start.manifest_bytes(&*store)?;
        let manifest = Manifest::parse(&bytes).map_err(|source| BootError::Manifest { location, source })?;
        let missing = missing_layers(&manifest, found, &*store)?;
        Ok((manifest, missing))
    });
    let kind = found.job.store.parse::<StoreUri>().ok().map(|uri| uri.scheme);
    let endings = |works| kind.into_iter().flat_map(move |kind| credentials(kind, Holder::Container, works));
    let (manifest, missing) = match asked.map_err(|error| error.of_store(&found.job.store)) {
        Ok(asked) => asked,
        Err(error) => {
            checks.push(Check::bad("store", error.exit(), with_causes(&error), ""));
            checks.extend(endings(false));
            return 0;
        }
    };
    checks.extend(endings(true));
    let layers = manifest.layers.len() + found.job.overlays.len();
    let store = redact(&found.job.store);
    checks.push(match missing.first() {
        None => Check::good("store", format!("{store} answers and has all {layers} layers")),
        Some(first) => Check::bad(
            "store",
            Exit::NotFound,
            format!("{store} lacks {} of {layers} layers, {first} among them", missing.len()),
            "run cluster-pack upload again",
        ),
    });
    interpreter(&manifest, &start, settings, checks);
    checks.push(match start.look() {
        Some((_, _, environment)) => {
            Check::good("environment", format!("ready in {}: starts are warm", environment.path.display()))
        }
        None => Check::note("environment", "not on this node yet", "the first start builds it, or --cpack prefetch"),
    });
    manifest.layers.iter().chain(&found.job.overlays).map(|layer| layer.archive.unpacked).sum()
}

/// The names of the layers that the store does not have in their length.
fn missing_layers(manifest: &Manifest, found: &FoundJob, store: &dyn Store) -> Result<Vec<String>, BootError> {
    let mut missing = Vec::new();
    for layer in in_order(manifest.layers.iter().chain(&found.job.overlays)) {
        if store.stat(&layer.key())?.is_none_or(|stat| stat.size != layer.archive.size) {
            missing.push(layer.name.clone());
        }
    }
    Ok(missing)
}

fn interpreter(manifest: &Manifest, start: &JobStart<'_>, settings: &Settings, checks: &mut Vec<Check>) {
    let bad = |error: &dyn std::error::Error| Check::bad("interpreter", Exit::Interpreter, error.to_string(), "");
    let needed = manifest.python.least_glibc.as_deref();
    if let Err(error) = require_platform(&manifest.python.platform) {
        checks.push(bad(&error));
        return;
    }
    let glibc = if start.job().interpreter.shipped {
        checks.push(Check::good(
            "interpreter",
            format!("Python {}, which the environment brings", manifest.python.version),
        ));
        node_glibc()
    } else {
        match choose(&Search::new(start.job(), settings)) {
            Ok(choice) => {
                let path = choice.identity.path.display().to_string();
                checks.push(Check::good("interpreter", format!("Python {} at {path}", choice.version)));
                choice.glibc
            }
            Err(error) => {
                checks.push(bad(&error));
                return;
            }
        }
    };
    checks.push(match (require_glibc(&glibc, needed), needed) {
        (Err(error), _) => Check::bad("glibc", Exit::Interpreter, error.to_string(), ""),
        (Ok(()), Some(needed)) => Check::good("glibc", format!("{glibc}, and the environment needs {needed}")),
        (Ok(()), None) => Check::good("glibc", format!("{glibc}, and the environment needs none")),
    });
}

/// Where the environment can be kept, and whether that outlives the container.
fn places(settings: &Settings, unpacked: u64, checks: &mut Vec<Check>) {
    let node = settings.node();
    let Some(place) = node.places.iter().find(|place| unusable(place).is_none()) else {
        let tried: Vec<String> = node.places.iter().map(|place| place.path.display().to_string()).collect();
        let found = format!("none of {} can be used", tried.join(", "));
        checks.push(Check::bad(
            "node cache",
            Exit::Disk,
            found,
            "--cpack status says why; name another by CPACK_CACHE_DIR",
        ));
        return;
    };
    let free = free_at(&place.path);
    let found = format!("{} ({}), {} free", place.path.display(), place.kind.word(), bytes(free));
    let advice = "CPACK_CACHE_DIR names a directory of the node that containers share";
    checks.push(if free < unpacked {
        let found = format!("{found}, and the environment takes {}", bytes(unpacked));
        Check::bad("node cache", Exit::Disk, found, "free space, or name another place by CPACK_CACHE_DIR")
    } else if place.kind == PlaceKind::Container {
        Check::note("node cache", format!("{found}: it may end with the container"), advice)
    } else {
        Check::good("node cache", found)
    });
}

/// Names that start as settings do and are none: a typing error changes nothing, in silence.
fn unknown_variables(checks: &mut Vec<Check>) {
    let exported = [exported::ADDED_PATH, exported::LAUNCHER, exported::BOOT, exported::ENVIRONMENT];
    let known = |name: &str| VARIABLES.iter().any(|(known, _)| *known == name) || exported.contains(&name);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with("CPACK_") && !known(name)).collect();
    unknown.sort();
    for name in unknown {
        checks.push(Check::note("variable", format!("{name} is no setting of cpack-boot"), "--cpack help lists them"));
    }
}
