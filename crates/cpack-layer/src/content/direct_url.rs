//! `direct_url.json` (PEP 610) without what it tells about the machine and the user that installed.
//!
//! The origin of a distribution is kept where it means something elsewhere: repositories and archives, with revision
//! and hashes. A local path is not kept: `file:///home/a/wheels/x-1.0-py3-none-any.whl` becomes `file:///x-1.0-py3-none-any.whl`,
//! a local directory or repository becomes `file:///`. Names and passwords are taken out of the URL (except `git@`, which names
//! no user, and `${VARIABLE}`, which PEP 610 allows), and so is its query, in which stores put signatures and tokens.
//! The result is compact JSON with sorted keys.

use serde_json::Value;

/// Why a `direct_url.json` cannot be shipped.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum DirectUrlError {
    #[error("direct_url.json is not valid JSON")]
    Json(#[from] serde_json::Error),
    #[error("direct_url.json is not an object with a string \"url\"")]
    Url,
}

/// The text of a `direct_url.json` as it is shipped.
pub fn reduce(text: &[u8]) -> Result<Vec<u8>, DirectUrlError> {
    let mut document: Value = serde_json::from_slice(text)?;
    let is_archive = document.get("archive_info").is_some();
    match document.get_mut("url") {
        Some(Value::String(url)) => *url = reduce_url(url, is_archive),
        _ => return Err(DirectUrlError::Url),
    }
    // The order of an object's keys is a feature flag of `serde_json`, which any other crate may set.
    document.sort_all_objects();
    Ok(serde_json::to_vec(&document)?)
}

fn reduce_url(url: &str, is_archive: bool) -> String {
    let (address, fragment) = url.split_once('#').map_or((url, None), |(address, fragment)| (address, Some(fragment)));
    let address = address.split_once('?').map_or(address, |(address, _query)| address);
    let Some((scheme, rest)) = address.split_once("://") else { return reduce_plain(address, is_archive) };
    if scheme.to_ascii_lowercase().ends_with("file") {
        return local(rest, is_archive);
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let mut reduced = format!("{scheme}://{}{path}", without_user(authority));
    if let Some(fragment) = fragment {
        reduced.push('#');
        reduced.push_str(fragment);
    }
    reduced
}

/// Reduces an address without a scheme: a path, or a repository in `scp`'s form (`git@host:group/project.git`).
fn reduce_plain(address: &str, is_archive: bool) -> String {
    match address.split_once(':') {
        Some((authority, path)) if authority.len() > 1 && authority != "file" && !authority.contains('/') => {
            format!("{}:{path}", without_user(authority))
        }
        _ => local(address, is_archive),
    }
}

/// Keeps of a local path only the file name of an archive, which names its content.
fn local(path: &str, is_archive: bool) -> String {
    let name = path.rsplit(['/', '\\']).next().filter(|_| is_archive).unwrap_or_default();
    format!("file:///{name}")
}

fn without_user(authority: &str) -> String {
    let Some((user, host)) = authority.rsplit_once('@') else { return authority.to_owned() };
    let is_variable = |part: &str| part.starts_with("${") && part.ends_with('}');
    if user == "git" || user.split(':').all(is_variable) { authority.to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_what_means_something_elsewhere() {
        for (url, archive, expected) in [
            ("file:///home/a/w/x-1.0-py3-none-any.whl", true, "file:///x-1.0-py3-none-any.whl"),
            ("file://host/share/x-1.0.tar.gz#sha256=ab", true, "file:///x-1.0.tar.gz"),
            ("FILE:///C:/Users/a/x.whl", true, "file:///x.whl"),
            ("file:///home/a/project", false, "file:///"),
            ("file:///home/a/project/", true, "file:///"),
            ("git+file:///home/a/project", false, "file:///"),
            ("file:/home/a/project", false, "file:///"),
            ("/home/a/project", false, "file:///"),
            ("../project", false, "file:///"),
            ("C:\\Users\\a\\x.whl", true, "file:///x.whl"),
            ("https://host/x.whl", true, "https://host/x.whl"),
            ("https://a:secret@host:8443/x.whl#subdirectory=b", true, "https://host:8443/x.whl#subdirectory=b"),
            ("https://token@host", true, "https://host"),
            ("https://a@b:c@host/x", true, "https://host/x"),
            ("https://bucket/x.whl?X-Amz-Signature=abc&Expires=1#sha256=ab", true, "https://bucket/x.whl#sha256=ab"),
            ("https://${USER}:${TOKEN}@host/x.whl", true, "https://${USER}:${TOKEN}@host/x.whl"),
            ("https://${USER}:secret@host/x.whl", true, "https://host/x.whl"),
            ("ssh://git@host/group/x.git", false, "ssh://git@host/group/x.git"),
            ("ssh://git:secret@host/x.git", false, "ssh://host/x.git"),
            ("git@host:group/x.git", false, "git@host:group/x.git"),
            ("alice@host:group/x.git", false, "host:group/x.git"),
        ] {
            assert_eq!(reduce_url(url, archive), expected, "{url}");
        }
    }

    #[test]
    fn the_rest_is_kept_in_one_order() {
        let one = br#"{"url": "file:///home/a/p", "dir_info": {"editable": true, "a": [{"z": 1, "b": null}]}}"#;
        let other = br#"{"dir_info":{"a":[{"b":null,"z":1}],"editable":true},"url":"file:///mnt/b/q"}"#;
        let expected = r#"{"dir_info":{"a":[{"b":null,"z":1}],"editable":true},"url":"file:///"}"#;
        assert_eq!(reduce(one).expect("reduces"), expected.as_bytes());
        assert_eq!(reduce(other).expect("reduces"), expected.as_bytes());
        let git =
            br#"{"url":"https://t:s@h/r.git","vcs_info":{"vcs":"git","commit_id":"c","requested_revision":"main"}}"#;
        let expected =
            r#"{"url":"https://h/r.git","vcs_info":{"commit_id":"c","requested_revision":"main","vcs":"git"}}"#;
        assert_eq!(reduce(git).expect("reduces"), expected.as_bytes());
    }

    #[test]
    fn direct_url_without_address_is_refused() {
        for bad in [&b""[..], b"{", b"[]", b"{}", b"{\"url\": 1}", b"\"file:///home/a\""] {
            assert!(reduce(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
