//! Settings, and what answers mean.

use super::*;

fn options(variables: &[(&str, &str)]) -> StoreOptions {
    let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    StoreOptions::new(BTreeMap::new(), find)
}

fn settings(uri: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    Settings::new(&uri.parse().expect("a URI"), &options(variables))
}

#[test]
fn accounts_and_endpoints_are_found() {
    const CONNECTION: &str = "AZURE_STORAGE_CONNECTION_STRING";
    for (uri, variables, account, endpoint) in [
        ("abfss://c@a.dfs.core.windows.net/p", &[][..], "a", "https://a.blob.core.windows.net"),
        ("wasbs://c@a.blob.core.windows.net/p", &[], "a", "https://a.blob.core.windows.net"),
        ("abfss://c@a.dfs.core.chinacloudapi.cn/p", &[], "a", "https://a.blob.core.chinacloudapi.cn"),
        ("az://c/p", &[("AZURE_STORAGE_ACCOUNT", "b")], "b", "https://b.blob.core.windows.net"),
        (
            "az://c/p",
            &[(CONNECTION, "UseDevelopmentStorage=true")],
            "devstoreaccount1",
            "http://127.0.0.1:10000/devstoreaccount1",
        ),
        (
            "az://c/p",
            &[(CONNECTION, "AccountName=b;AccountKey=k==;BlobEndpoint=http://127.0.0.1:1/b;")],
            "b",
            "http://127.0.0.1:1/b",
        ),
        (
            "az://c/p",
            &[(
                CONNECTION,
                "DefaultEndpointsProtocol=https;AccountName=b;AccountKey=k;EndpointSuffix=core.windows.net",
            )],
            "b",
            "https://b.blob.core.windows.net",
        ),
        (
            "abfss://c@a.dfs.core.windows.net/p",
            &[("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/a/")],
            "a",
            "http://127.0.0.1:1/a",
        ),
    ] {
        let found = settings(uri, variables).expect(uri);
        assert_eq!(
            (found.account.as_str(), found.container.as_str(), found.endpoint.as_str()),
            (account, "c", endpoint)
        );
        let executor = StoreOptions { cluster: found.properties(), ..options(&[]) };
        let there = Settings::new(&uri.parse().expect("a URI"), &executor).expect("an executor");
        assert_eq!((there.account, there.endpoint), (found.account, found.endpoint), "{uri} {variables:?}");
    }
}

#[test]
fn wrong_settings_are_named_without_secrets() {
    for (uri, variables, needle) in [
        ("az://c/p", &[][..], "AZURE_STORAGE_ACCOUNT"),
        ("abfss://c@a.dfs.core.windows.net/p", &[("AZURE_STORAGE_ENDPOINT", "127.0.0.1:1")], "http://"),
        (
            "abfss://c@a.dfs.core.windows.net/p",
            &[("AZURE_STORAGE_CONNECTION_STRING", "AccountName=b;AccountKey=s3cr3t")],
            "\"b\"",
        ),
        ("az://c/p", &[("AZURE_STORAGE_CONNECTION_STRING", "s3cr3t")], "NAME=VALUE"),
    ] {
        let error = settings(uri, variables).expect_err(uri);
        assert!(error.contains(needle) && !error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn every_refusal_has_a_kind_and_says_what_to_do() {
    use StoreErrorKind as Kind;
    let answer = |status, code: &str, message: &str| Answer {
        status: Some(status),
        code: code.into(),
        message: message.into(),
        ..Answer::default()
    };
    let late = Answer { skew: std::time::Duration::from_secs(7200), ..answer(403, "AuthenticationFailed", "") };
    for (answer, kind, needle) in [
        (answer(404, "BlobNotFound", ""), Kind::NotFound, "no such object"),
        (answer(404, "ContainerNotFound", ""), Kind::Misconfigured, "create it"),
        (
            answer(403, "AuthenticationFailed", "Signature not valid in the specified time frame"),
            Kind::Denied,
            "new one",
        ),
        (answer(403, "AuthenticationFailed", "The MAC signature is wrong"), Kind::Denied, "key"),
        (late, Kind::Misconfigured, "120 minutes"),
        (answer(403, "AuthorizationPermissionMismatch", ""), Kind::Denied, "role"),
        (answer(409, "PublicAccessNotPermitted", ""), Kind::Denied, "AZURE_STORAGE_KEY"),
        (answer(503, "ServerBusy", ""), Kind::Transient, "503"),
        (answer(416, "InvalidRange", ""), Kind::Damaged, "ends before"),
        (answer(412, "ConditionNotMet", ""), Kind::Transient, "ConditionNotMet"),
    ] {
        let verdict = answer.verdict(&AZURE);
        assert_eq!(verdict.kind, kind, "{answer:?}");
        assert!(verdict.reason.contains(needle), "{verdict:?}");
    }
}

#[test]
fn what_was_signed_is_not_repeated() {
    let body = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Wrong.\nRequestId:1</Message>\
                <AuthenticationErrorDetail>The MAC signature 's3cr3t' is not</AuthenticationErrorDetail></Error>";
    assert_eq!(Azure::parse(&HeaderMap::new(), body), ("AuthenticationFailed".to_owned(), "Wrong.".to_owned()));
}

#[test]
fn listing_is_read() {
    let page = "\u{feff}<?xml version=\"1.0\"?><EnumerationResults><Blobs><Blob><Name>p/layers/a.zip</Name><Properties>\
                <Last-Modified>Sun, 29 Nov 2026 01:43:37 GMT</Last-Modified><Content-Length>5</Content-Length>\
                </Properties></Blob></Blobs><NextMarker>m</NextMarker></EnumerationResults>";
    let page = Azure::page(page.as_bytes()).expect("a page");
    assert_eq!(
        (page.objects[0].0.as_str(), page.objects[0].1.size, page.next.as_deref()),
        ("p/layers/a.zip", 5, Some("m"))
    );
    assert!(Azure::page(b"<html/>").is_none());
}
