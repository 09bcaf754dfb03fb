//! Google Cloud Storage and Azure Blob Storage, by servers that stand for them.

use std::thread;
use std::time::{Duration, SystemTime};

use cpack_store::{
    Key, Put, Source, StoreErrorKind, StoreOptions, Written, abandon, cluster_properties, conformance, open,
};
use cpack_test::clouds::{ACCOUNT_KEY, Cloud, Kind, options, shared_access};
use cpack_test::{http, noise};

use super::networks::{assert_refused, read_in_ranges, reads_survive, writes_survive};
use super::{layer, sweep};

const KINDS: [Kind; 2] = [Kind::Google, Kind::Azure];

#[test]
fn clouds_keep_the_contract() {
    for kind in KINDS {
        let cloud = Cloud::start(kind);
        for prefix in ["", "a/prefix with ü"] {
            conformance::check(&*open(&cloud.uri(prefix), &cloud.options(cloud.port)).expect("opens"));
        }
    }
}

#[test]
fn clouds_move_large_objects_in_parts_and_list_many() {
    for kind in KINDS {
        let cloud = Cloud::start(kind);
        let (uri, options) = (cloud.uri("p"), cloud.options(cloud.port));
        let store = open(&uri, &options).expect("opens");
        // More parts than Google composes at once.
        let content = noise((8 << 20) * 34 + 5);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &content).expect("writes");
        let key = layer(&content);
        store.put(&key, Source::File(file.path()), Put::IfAbsent).expect("sends parts");
        read_in_ranges(&*store, &key, &content);
        let before = store.stat(&key).expect("stat").expect("it is there").modified;
        thread::sleep(Duration::from_millis(1100));
        store.refresh(&key).expect("refreshes");
        assert!(store.stat(&key).expect("stat").expect("it is there").modified > before);
        read_in_ranges(&*store, &key, &content);
        assert_eq!(store.sweep(SystemTime::now() + Duration::from_secs(60)).expect("sweeps"), 0, "parts were removed");

        abandon(&uri, &options, &layer(b"abandoned")).expect("starts to write");
        match kind {
            Kind::Google => sweep(&*store),
            // The server drops blocks that belong to no blob.
            Kind::Azure => assert_eq!(store.stat(&layer(b"abandoned")).expect("stat"), None),
        }
        let numbers: Vec<usize> = (0..1100).collect();
        let written: Result<Vec<_>, _> = cpack_parallel::try_map(8, &numbers, |number| {
            let key = Key::name(&format!("n{number}"), "json").expect("a name");
            store.put(&key, Source::Bytes(b"x"), Put::Replace)
        });
        written.expect("writes");
        assert_eq!(store.list("names").expect("pages are followed").len(), 1100);
    }
}

#[test]
fn clouds_keep_what_came_first() {
    for kind in KINDS {
        let cloud = Cloud::start(kind);
        let store = open(&cloud.uri("once"), &cloud.options(cloud.port)).expect("opens");
        for size in [5, (17 << 20) + 1] {
            let content = noise(size);
            let key = layer(&content);
            let put = || store.write(&key, Source::Bytes(&content), Put::Once).expect("writes");
            assert_eq!(put(), Written::Sent(size as u64), "{kind:?}");
            let before = store.stat(&key).expect("stat");
            assert_eq!(put(), Written::Kept, "{kind:?}");
            assert_eq!(store.stat(&key).expect("stat"), before, "{kind:?}");
            // A torn one is replaced.
            store.write(&key, Source::Bytes(b"torn"), Put::Replace).expect("tears");
            assert_eq!(put(), Written::Sent(size as u64), "{kind:?}");
        }
    }
}

#[test]
fn clouds_are_found_by_executors() {
    for kind in KINDS {
        let cloud = Cloud::start(kind);
        let uri = cloud.uri("executor");
        let cluster = cluster_properties(&uri, &cloud.options(cloud.port)).expect("properties");
        assert!(!format!("{cluster:?}").contains(ACCOUNT_KEY), "{cluster:?}");
        let executor = StoreOptions { cluster, ..options(&cloud.credentials()) };
        conformance::check(&*open(&uri, &executor).expect("opens"));
    }
}

#[test]
fn azure_takes_a_shared_access_signature() {
    let cloud = Cloud::start(Kind::Azure);
    let endpoint = format!("http://127.0.0.1:{}/{}", cloud.port, cpack_test::clouds::ACCOUNT);
    let with = |expiry: &str| {
        let token = shared_access(expiry);
        (options(&[("AZURE_STORAGE_ENDPOINT", endpoint.clone()), ("AZURE_STORAGE_SAS_TOKEN", token.clone())]), token)
    };
    let (valid, _) = with("2100-01-01T00:00:00Z");
    conformance::check(&*open(&cloud.uri("sas"), &valid).expect("opens"));
    let (expired, token) = with("2020-01-01T00:00:00Z");
    let signature = token.rsplit("sig=").next().expect("a signature");
    let error = open(&cloud.uri("sas"), &expired).expect("opens").list("layers").expect_err("expired");
    println!("{error}");
    assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
    assert!(!error.to_string().contains(signature), "{error}");
}

#[test]
fn clouds_survive_what_networks_do() {
    let content = noise(20 << 20);
    let key = layer(&content);
    for kind in KINDS {
        let cloud = Cloud::start(kind);
        let direct = open(&cloud.uri("f"), &cloud.options(cloud.port)).expect("opens");
        direct.put(&key, Source::Bytes(&content), Put::IfAbsent).expect("writes");
        let store = |port: u16, prefix: &str| open(&cloud.uri(prefix), &cloud.options(port)).expect("opens");
        reads_survive(cloud.port, |port| store(port, "f"), &key, &content);
        writes_survive(cloud.port, store, &key, &content);
    }
}

#[test]
fn clouds_say_in_one_line_what_is_wrong() {
    use StoreErrorKind as Expected;
    for kind in KINDS {
        let cloud = Cloud::start(kind);
        let check = |options: &StoreOptions, uri: &str, kind, needle: &str| {
            assert_refused(options, uri, kind, needle, ACCOUNT_KEY);
        };
        let uri = |bucket: &str| cloud.uri("x").to_string().replacen("tests", bucket, 1);
        let here = uri("tests");
        check(&cloud.options(cloud.port), &uri("no-such-bucket"), Expected::Misconfigured, "create it");
        check(&cloud.options(cpack_test::free_port()), &here, Expected::Transient, "check the endpoint");
        let date = "Date: Mon, 06 Jan 2020 00:00:00 GMT";
        let page = "Content-Type: text/html\n\n<html>Welcome</html>";
        let mut cases = vec![
            (format!("HTTP/1.1 200 OK\n{page}"), Expected::Misconfigured, "web page"),
            (format!("HTTP/1.1 404 Not Found\n{page}"), Expected::Misconfigured, "web page"),
            (format!("HTTP/1.1 403 Forbidden\n{date}\n\n"), Expected::Misconfigured, "set the clock"),
        ];
        cases.extend(match kind {
            Kind::Google => {
                let json = |status: u16, reason: &str, message: &str| {
                    format!(
                        "HTTP/1.1 {status} No\nContent-Type: application/json\n\n\
                         {{\"error\":{{\"code\":{status},\"message\":\"{message}\",\"errors\":[{{\"reason\":\"{reason}\"}}]}}}}"
                    )
                };
                vec![
                    (json(401, "authError", "Invalid Credentials"), Expected::Denied, "renew"),
                    (json(401, "required", "Anonymous caller does not have access"), Expected::Denied, "GOOGLE_"),
                    (json(403, "forbidden", "no storage.objects.get"), Expected::Denied, "list objects"),
                    (json(404, "notFound", "The specified bucket does not exist."), Expected::Misconfigured, "create it"),
                ]
            }
            Kind::Azure => {
                let xml = |status: u16, code: &str, detail: &str| {
                    format!(
                        "HTTP/1.1 {status} No\nContent-Type: application/xml\nx-ms-error-code: {code}\n\n\
                         <Error><Code>{code}</Code><Message>m</Message>\
                         <AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
                    )
                };
                vec![
                    (
                        xml(403, "AuthenticationFailed", "Signature not valid in the specified time frame"),
                        Expected::Denied,
                        "new one",
                    ),
                    (xml(403, "AuthenticationFailed", "The MAC signature is wrong"), Expected::Denied, "its key"),
                    (xml(403, "AuthorizationPermissionMismatch", ""), Expected::Denied, "the role"),
                    (xml(404, "ContainerNotFound", ""), Expected::Misconfigured, "create it"),
                ]
            }
        });
        for (answer, expected, needle) in cases {
            check(&cloud.options(http::always(&answer)), &here, expected, needle);
        }
    }
}

#[test]
fn wrong_accounts_are_told_in_one_line() {
    let cloud = Cloud::start(Kind::Azure);
    let endpoint = |account: &str| format!("http://127.0.0.1:{}/{account}", cloud.port);
    let other =
        options(&[("AZURE_STORAGE_ENDPOINT", endpoint("stranger")), ("AZURE_STORAGE_KEY", ACCOUNT_KEY.to_owned())]);
    let wrong_key = options(&[
        ("AZURE_STORAGE_ENDPOINT", endpoint(cpack_test::clouds::ACCOUNT)),
        ("AZURE_STORAGE_KEY", "d3Jvbmcga2V5".to_owned()),
    ]);
    for (options, uri) in
        [(other, "abfss://tests@stranger.dfs.core.windows.net/x".to_owned()), (wrong_key, cloud.uri("x").to_string())]
    {
        let store = open(&uri.parse().expect("a URI"), &options).expect("opens");
        let error = store.list("layers").expect_err("denied");
        println!("{error}");
        assert!(matches!(error.kind, StoreErrorKind::Denied | StoreErrorKind::Misconfigured), "{error}");
        assert!(error.reason.contains("account"), "{error}");
    }
    for (uri, variable) in [
        ("gs://b/x", ("STORAGE_EMULATOR_HOST", "127.0.0.1:1")),
        ("abfss://c@a.dfs.core.windows.net/x", ("AZURE_STORAGE_ENDPOINT", "127.0.0.1:1")),
    ] {
        let options = options(&[(variable.0, variable.1.to_owned())]);
        let error = open(&uri.parse().expect("a URI"), &options).expect_err("no scheme");
        println!("{error}");
        assert_eq!(error.kind, StoreErrorKind::Misconfigured, "{error}");
        assert!(error.reason.contains(variable.0) && error.reason.contains("write http://"), "{error}");
    }
}

#[test]
fn clouds_without_credentials_say_where_they_go() {
    // Nothing answers where a machine of a cloud has its metadata service.
    let nowhere = format!("http://127.0.0.1:{}", cpack_test::free_port());
    let home = tempfile::tempdir().expect("a directory");
    let variables = [
        ("GCE_METADATA_HOST", nowhere[7..].to_owned()),
        ("GCE_METADATA_IP", nowhere[7..].to_owned()),
        ("IDENTITY_ENDPOINT", format!("{nowhere}/token")),
        ("HOME", home.path().display().to_string()),
    ];
    if !cpack_test::inside("clouds::clouds_without_credentials_say_where_they_go", &variables) {
        return;
    }
    let variables = ["IDENTITY_ENDPOINT"].map(|name| (name, std::env::var(name).expect("a variable")));
    for (uri, needle) in
        [("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS"), ("abfss://c@a.dfs.core.windows.net/x", "AZURE_STORAGE_KEY")]
    {
        let mut options = options(&variables);
        options.deadlines.attempt = Duration::from_secs(20);
        let error = open(&uri.parse().expect("a URI"), &options).expect("opens").list("layers").expect_err("denied");
        println!("{error}");
        assert_eq!(error.kind, StoreErrorKind::Denied, "{error}");
        assert!(error.reason.contains(needle), "{error}");
    }
}
