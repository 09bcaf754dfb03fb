//! Templates: the arguments that a PEX injects may name variables.

/// Whether [`fill`] knows all fields of an injected argument.
pub(super) fn can_fill(text: &str) -> bool {
    fill(text, &|_| None).is_some()
}

/// Replaces the fields `{pex.env.NAME}` and `{pex.env[NAME]}` of an injected argument, as `str.format` does. `None` if it has
/// other fields.
pub(super) fn fill(text: &str, value: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        out += before;
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            out.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let (field, after) = from.strip_prefix('{')?.split_once('}')?;
        let name = field.strip_prefix("pex.env")?;
        let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = bracketed.or_else(|| name.strip_prefix('.'))?;
        if name.is_empty() || name.contains(['.', '[', '!', ':', '{']) {
            return None;
        }
        out += &value(name).unwrap_or_default();
        rest = after;
    }
    Some(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_injected_arguments_name_variables() {
        let value = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        for (text, expected) in [
            ("plain", Some("plain")),
            ("--x={pex.env.HOME}/{pex.env[HOME]}{pex.env.NONE}", Some("--x=/h//h")),
            ("{{}}", Some("{}")),
            ("{pex.env.HOME!r}", None),
            ("{0}", None),
            ("{", None),
            ("}", None),
        ] {
            assert_eq!(fill(text, &value).as_deref(), expected, "{text}");
        }
    }
}
