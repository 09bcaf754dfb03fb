//! What people and clusters get wrong: one line each, which names the URI without its secrets and says what to do.

use std::process::Command;

use cpack_test::hadoop::Hdfs;
use cpack_test::programs::utf8;
use cpack_test::seaweed::Seaweed;
use cpack_test::{hadoop, http, inside, seaweed};

use cpack_test::site::{Site, complaint, environment};

const SECRET: &str = "s3cr3t";

/// A wrong command: the store, further variables, the exit code, what the line names.
struct Case<'a> {
    store: String,
    variables: Vec<(&'static str, String)>,
    code: i32,
    needles: &'a [&'a str],
}

fn case<'a>(store: &str, variables: &[(&'static str, String)], code: i32, needles: &'a [&'a str]) -> Case<'a> {
    Case { store: store.to_owned(), variables: variables.to_vec(), code, needles }
}

fn check(site: &Site, command: &mut Command, case: &Case<'_>) {
    command.envs(site.client.iter().map(|(name, value)| (*name, value)));
    command.envs(case.variables.iter().map(|(name, value)| (*name, value)));
    let said = complaint(&command.output().expect("starts"), case.code);
    for needle in case.needles {
        assert!(said.contains(needle), "{:?} is not in: {said}", needle);
    }
    assert!(!said.contains(SECRET) && !said.contains(seaweed::SECRET_KEY), "{said}");
}

/// URIs that are refused before any server is asked.
fn wrong_uris() -> Vec<Case<'static>> {
    vec![
        case("s3://", &[], 80, &["s3://", "bucket"]),
        case("s3:///path", &[], 80, &["s3:///path", "bucket"]),
        case("gs://", &[], 80, &["gs://", "bucket"]),
        case("abfss:///x", &[], 80, &["abfss:///x", "CONTAINER@ACCOUNT"]),
        case("az://container/x", &[], 80, &["container/x", "AZURE_STORAGE_ACCOUNT"]),
        case(
            "gs://bucket/x",
            &[("STORAGE_EMULATOR_HOST", "127.0.0.1:1".to_owned())],
            80,
            &["gs://bucket/x", "write http://"],
        ),
        case(&format!("https://host/x?sig={SECRET}"), &[], 80, &["https://host/x?***", "credentials"]),
        case("https://example.org/x", &[], 80, &["https://example.org/x", "can only be read"]),
        case("http://example.org/x", &[], 80, &["http://example.org/x", "CPACK_HTTP_PLAIN"]),
        case(&format!("s3://me:{SECRET}@bucket/x"), &[], 80, &["***@bucket/x", "credentials"]),
        case(&format!("ftp://me:{SECRET}@host/x?sig={SECRET}"), &[], 80, &["***@host/x?***", "unknown scheme"]),
        case("hdfs://name-node", &[], 80, &["hdfs://name-node", "no path"]),
        case("viewfs://none/x", &[], 80, &["viewfs://none/x", "mount"]),
    ]
}

#[test]
fn stores_that_cannot_be_used_are_told_in_one_line() {
    let s3 = Seaweed::start();
    let hdfs = Hdfs::start(&[]);
    let mut site = Site::s3(&s3, s3.port);
    let env = environment(&site);
    site.client.extend(Site::hdfs(&hdfs, "x").client);
    let endpoint = |answer: &str| vec![("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", http::always(answer)))];
    let error = |status: &str, headers: &str, code: &str| {
        let xml = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        endpoint(&format!("HTTP/1.1 {status}\n{headers}Content-Type: application/xml\n\n{xml}"))
    };
    let refused = format!("http://127.0.0.1:{}", cpack_test::free_port());
    let forbidden = format!("{}/forbidden/store", hdfs.property("fs.defaultFS"));
    let page = http::always("HTTP/1.1 400 Bad\nContent-Type: text/html\n\n<html>Hi</html>");
    let wrong_key = [("AWS_SECRET_ACCESS_KEY", SECRET.to_owned())];
    let no_keys: Vec<(&'static str, String)> = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        .map(|name| (name, String::new()))
        .into_iter()
        .chain([("AWS_EC2_METADATA_DISABLED", "true".to_owned())])
        .collect();
    for case in wrong_uris().into_iter().chain([
        case("s3://no-such-bucket/x", &[], 80, &["s3://no-such-bucket/x", "create it"]),
        case("s3://tests/x", &wrong_key, 85, &["s3://tests/x", "credentials"]),
        case("s3://tests/x", &no_keys, 85, &["s3://tests/x", "AWS_ACCESS_KEY_ID"]),
        case("s3://tests/x", &[("AWS_ENDPOINT_URL", refused)], 86, &["s3://tests/x", "endpoint"]),
        case(
            "s3://tests/x",
            &endpoint("HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>Hi</html>"),
            80,
            &["web page"],
        ),
        case(
            "s3://tests/x",
            &error("403 Forbidden", "Date: Mon, 06 Jan 2020 00:00:00 GMT\n", "RequestTimeTooSkewed"),
            80,
            &["s3://tests/x", "set the clock"],
        ),
        case(
            "s3://tests/x",
            &error("301 Moved", "x-amz-bucket-region: eu-west-1\n", "PermanentRedirect"),
            80,
            &["s3://tests/x", "AWS_REGION=eu-west-1"],
        ),
        case("s3://tests/x", &error("403 Forbidden", "", "AccessDenied"), 85, &["s3://tests/x", "policy"]),
        case("s3://tests/x", &error("400 Bad", "", "ExpiredToken"), 85, &["s3://tests/x", "renew"]),
        case(&forbidden, &[], 85, &[&forbidden, &format!("user={}", hadoop::USER)]),
        case(&format!("hdfs://127.0.0.1:{page}/x"), &[], 80, &["hdfs://127.0.0.1:", "RPC port"]),
        case("hdfs://no-such-host.invalid/x", &[], 86, &["hdfs://no-such-host.invalid/x", "check the address"]),
    ]) {
        site.uri.clone_from(&case.store);
        let mut command = site.world.command(cpack_test::programs::cluster_pack());
        command.args(["--store", &case.store, "upload", "--venv", utf8(&env)]);
        check(&site, &mut command, &case);
    }
}

#[test]
fn missing_and_newer_artifacts_are_told_in_one_line() {
    use cpack_format::Digest;
    use cpack_store::{Key, Put, Source};

    if !inside("input::missing_and_newer_artifacts_are_told_in_one_line", &seaweed::credentials()) {
        return;
    }
    let server = Seaweed::start();
    let site = Site::s3(&server, server.port);
    let store = site.store(&server.options(server.port));
    let newer = br#"{"format":99,"layers":"of another kind"}"#;
    let id = Digest::of(newer);
    store.put(&Key::environment(&id), Source::Bytes(newer), Put::Replace).expect("writes");
    let info = |artifact: &str, code: i32, needles: &[&str]| {
        let said = complaint(&site.command(&["info", artifact]).output().expect("starts"), code);
        assert!(needles.iter().all(|needle| said.contains(needle)), "{said}");
    };
    info("nobody", 84, &["nobody", &site.uri]);
    let uri = site.store(&server.options(server.port)).uri().join(Key::environment(&id).as_str());
    info(&uri, 83, &[&uri, "upgrade"]);
    let missing = uri.replace(&id.to_hex(), &Digest::of(b"").to_hex());
    info(&missing, 84, &[&missing]);

    // The same for a node: a job whose manifest is in the store only.
    for (environment, code, needle) in [(id, 83, "upgrade"), (Digest::of(b""), 84, "no such object")] {
        let job = serde_json::json!({
            "format": 1, "environment": environment.to_hex(), "store": site.uri,
            "interpreter": { "path": "", "version": "3.11.7", "soabi": "cpython-311-x86_64-linux-gnu" },
            "cluster": { "fs.s3a.endpoint": format!("http://127.0.0.1:{}", server.port) },
        });
        let mut command = site.on_node("node", cpack_test::programs::boot());
        let said = complaint(&command.env("CPACK_JOB", job.to_string()).output().expect("starts"), code);
        assert!(said.contains(needle) && said.contains(&environment.to_hex()) && said.contains(&site.uri), "{said}");
    }
}
