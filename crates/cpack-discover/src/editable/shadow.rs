//! Finds names that an editable project and another part of the environment provide.
//!
//! Overlays come after the standard library and the environment on `sys.path`, as editable projects do in a virtual
//! environment. A module or package of these hides the overlays' modules with its name. A part of a namespace package, which has
//! no `__init__`, is hidden by any package of its name with an `__init__`.

use std::collections::BTreeSet;

use super::super::model::{Editable, Environment, Finding, FindingKind};
use super::super::names;
use super::super::prefix_files::below;

/// Warns of names of a project that the standard library, a distribution or another project has too.
pub(super) fn shadows(environment: &Environment, editable: &Editable) -> Vec<Finding> {
    let names: BTreeSet<&str> = editable.files.iter().filter_map(|f| names::import_name(f.path.as_bytes())).collect();
    let in_turn = environment.editables_in_turn();
    let mut findings = Vec::new();
    let mut say = |message: String| findings.push(Finding::new(FindingKind::Shadow, message));
    let site = environment.site_packages.as_bytes();
    for name in names {
        let whole = is_whole(name, editable.files.iter().map(|f| f.path.as_bytes()));
        if environment.python.stdlib.iter().any(|s| s == name) {
            say(format!(
                "{}: {name} is hidden by the module of that name in the standard library; rename it",
                editable.name
            ));
        }
        for other in environment.distributions.iter().filter(|d| d.import_names.iter().any(|n| n == name)) {
            let others = other.files.iter().filter_map(|f| below(f.path.as_bytes(), site));
            match (whole, is_whole(name, others)) {
                (true, false) => {
                    say(format!("{}: {name} hides that of {} {}", editable.name, other.display_name, other.version))
                }
                (true, true) => say(format!(
                    "{}: {name} is hidden by that of {} {}",
                    editable.name, other.display_name, other.version
                )),
                (false, true) => say(format!(
                    "{}: {name} is hidden by that of {} {}, which has an __init__.py",
                    editable.name, other.display_name, other.version
                )),
                (false, false) => {}
            }
        }
        let earlier = in_turn.iter().take_while(|e| e.name != editable.name);
        for other in earlier.filter(|e| is_whole(name, e.files.iter().map(|f| f.path.as_bytes()))) {
            say(format!("{}: {name} is hidden by that of the editable project {}", editable.name, other.name));
        }
    }
    findings
}

/// Whether a name is a module or a package with an `__init__`, not a part of a namespace package.
fn is_whole<'a>(name: &str, mut paths: impl Iterator<Item = &'a [u8]>) -> bool {
    paths.any(|path| match below(path, name.as_bytes()) {
        Some(rest) => !rest.contains(&b'/') && names::module_name(rest) == Some("__init__"),
        None => !path.contains(&b'/') && names::import_name(path) == Some(name),
    })
}
