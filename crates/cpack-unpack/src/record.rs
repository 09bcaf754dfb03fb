//! Keeps each `RECORD` true after scripts were mended.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::mend::replace_file;

/// Scripts that were mended: the name of each in `bin`, and its new content.
type Mended = BTreeMap<String, Vec<u8>>;

/// Gives each `RECORD` in `site_packages` the digests and lengths of the scripts that it names.
pub(crate) fn rewrite_records(site_packages: &Path, mended: &Mended) -> io::Result<()> {
    if mended.is_empty() {
        return Ok(());
    }
    for entry in fs::read_dir(site_packages)? {
        let directory = entry?.path();
        if directory.extension().is_none_or(|extension| extension != "dist-info") {
            continue;
        }
        let path = directory.join("RECORD");
        // A distribution need not have one.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let rewritten = rewritten(&text, mended);
        if rewritten != text {
            replace_file(&path, rewritten.as_bytes(), false)?;
        }
    }
    Ok(())
}

fn rewritten(text: &str, mended: &Mended) -> String {
    text.split_inclusive('\n').map(|line| new_row(line, mended).unwrap_or_else(|| line.to_owned())).collect()
}

/// The row of a script that was mended; `None` for any other.
fn new_row(line: &str, mended: &Mended) -> Option<String> {
    let (path, _) = line.split_once(',')?;
    let content = mended.get(path.strip_prefix("../../../bin/")?)?;
    let digest = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(content));
    let end = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
    Some(format!("{path},sha256={digest},{}{end}", content.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_mended_scripts_get_their_digest_and_others_stay() {
        let text = "../../../bin/tool,sha256=old,1\r\n../../../bin/other,sha256=x,2\r\na/tool,,\r\n";
        let mended = Mended::from([("tool".into(), b"text".to_vec())]);
        let digest = "mC2ePrmW9VnmM_TRlN7zdh2Qn1o7ZH0ahR_q1nwyydE";
        let rest = text.split_once('\n').expect("lines").1;
        assert_eq!(rewritten(text, &mended), format!("../../../bin/tool,sha256={digest},4\r\n{rest}"));
    }
}
