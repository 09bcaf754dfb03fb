//! What the clients of network stores know and must not tell: keys, session tokens, signatures, delegation tokens. They are
//! planted, servers repeat them in their errors, and then they are looked for in all that is said and kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cpack_format::Digest;
use cpack_format::job::{Interpreter, Job};
use cpack_test::http;
use cpack_test::programs::{World, boot, text, usual_interpreter, utf8};
use cpack_test::proxy::Proxy;
use cpack_test::seaweed::{SECRET_KEY, Seaweed};

use cpack_test::site::{PROBE, Site, environment, whole};

/// In every planted secret, and in nothing else.
const MARK: &str = "PLANTED";

/// The credentials that a client of S3 presents.
const PLANTED: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIAPLANTEDPLANTED00"),
    ("AWS_SECRET_ACCESS_KEY", "PLANTED/secret+key/0000000000000000000000"),
    ("AWS_SESSION_TOKEN", "PLANTEDsessiontoken=="),
];

/// Everything that a process says about itself where it is asked to.
pub(crate) fn talkative<'a>(command: &'a mut Command, world: &World) -> &'a mut Command {
    let path = |name| world.path(name);
    command.env("CPACK_LOG", "1").env("CPACK_TRACE", path("told-trace")).env("CPACK_METRICS", path("told-metrics"))
}

/// All that was said by a process and by those before it.
pub(crate) fn told(output: &Output, world: &World) -> String {
    let kept = ["told-trace", "told-metrics"].map(|name| fs::read_to_string(world.path(name)).unwrap_or_default());
    [text(&output.stdout), text(&output.stderr), kept.concat()].concat()
}

/// No file below has `secret` in it.
pub(crate) fn assert_not_kept(directory: &Path, secret: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            assert_not_kept(&path, secret);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} has a secret", path.display());
        }
    }
}

/// The signatures in the heads of requests.
fn signatures(heads: &[String]) -> BTreeSet<String> {
    let after = heads.iter().flat_map(|head| head.split("Signature=").skip(1));
    after.map(|rest| rest.chars().take_while(char::is_ascii_hexdigit).collect()).collect()
}

#[test]
fn clients_of_s3_tell_no_secret_when_all_goes_well() {
    let server = Seaweed::start();
    let site = Site::s3(&server, server.port);
    let env = environment(&site);
    let output = talkative(&mut site.command(&["-v", "upload", "--venv", utf8(&env)]), &site.world).output();
    let mut all = told(&output.expect("starts"), &site.world);
    let launcher = site.launcher(&env);
    let output = talkative(site.on_node("node-1", &launcher).args(["-c", PROBE]), &site.world).output();
    let output = output.expect("starts");
    assert_eq!(text(&output.stdout), whole(), "{}", text(&output.stderr));
    all += &told(&output, &site.world);
    assert!(all.contains("fetch") && all.contains("cold start"), "{all}");
    for secret in [SECRET_KEY, "Signature", "AWS4-HMAC", "X-Amz-", "x-amz-"] {
        assert!(!all.contains(secret), "{secret} was told: {all}");
    }
    assert_not_kept(site.world.directory.path(), SECRET_KEY);
}

#[test]
fn clients_of_s3_tell_no_secret_that_a_server_repeats() {
    let server = Seaweed::start();
    let mut site = Site::s3(&server, server.port);
    let env = environment(&site);
    let gate = Proxy::start(server.port);
    let endpoint = site.client.iter_mut().find(|(name, _)| *name == "AWS_ENDPOINT_URL").expect("a client of S3");
    endpoint.1 = format!("http://127.0.0.1:{}", gate.port);
    let launcher = site.launcher(&env);
    for (status, code) in [
        (403, "SignatureDoesNotMatch"),
        (403, "InvalidAccessKeyId"),
        (400, "ExpiredToken"),
        (400, "InvalidToken"),
        (301, "PermanentRedirect"),
    ] {
        let (port, heads) = http::echoing(status, code);
        gate.lead_to(port);
        let mut client = site.command(&["-v", "upload", "--venv", utf8(&env)]);
        let mut node = site.on_node(code, &launcher);
        node.args(["-c", PROBE]);
        for command in [&mut client, &mut node] {
            let output = talkative(command.envs(PLANTED), &site.world).output().expect("starts");
            let all = told(&output, &site.world);
            assert!(!output.status.success(), "{code}: {all}");
            assert!(!all.contains(MARK), "{code}: {all}");
            let heads = heads.lock().expect("no panic");
            let signed = signatures(&heads);
            assert!(!signed.is_empty() && heads.iter().any(|head| head.contains(PLANTED[2].1)), "{code}: {heads:?}");
            assert!(signed.iter().all(|signature| !all.contains(signature.as_str())), "{code}: {all}");
        }
    }
    assert_not_kept(site.world.directory.path(), MARK);
}

/// A file of delegation tokens as Hadoop writes it (`Credentials.writeTokenStorageToStream`), with one token.
fn token_file(service: &str) -> Vec<u8> {
    let mut bytes = b"HDTS\0\x01".to_vec();
    let parts = ["alias", "PLANTED-identifier", "PLANTED-password", "HDFS_DELEGATION_TOKEN", service];
    for part in parts {
        bytes.push(u8::try_from(part.len()).expect("short"));
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[test]
fn clients_of_hdfs_tell_nothing_of_their_tokens() {
    let world = World::new();
    // No server listens there. A name node that answers with errors would be asked again for minutes.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let service = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let python = usual_interpreter();
    let job = Job {
        name: "n".into(),
        cluster: [("hadoop.security.authentication".to_owned(), "kerberos".to_owned())].into(),
        ..Job::new(
            Digest::of(b"an environment"),
            format!("hdfs://{service}/store"),
            Interpreter {
                path: utf8(&python).into(),
                version: "3.11.1".into(),
                soabi: "cpython-311-x86_64-linux-gnu".into(),
                shipped: false,
            },
        )
    };
    let job = text(&job.to_bytes());
    let whole = token_file(&service);
    let broken = [&whole[..whole.len() - 9], &b"PLANTED"[..]].concat();
    let elsewhere = token_file("192.0.2.1:8020");
    for (what, tokens) in [("whole", &whole), ("broken", &broken), ("of another service", &elsewhere)] {
        let file = world.path("tokens");
        fs::write(&file, tokens).expect("writes");
        let mut command = world.command(boot());
        command.args(["-c", PROBE]).env("CPACK_JOB", &job).env("HADOOP_TOKEN_FILE_LOCATION", &file);
        let output = talkative(&mut command, &world).output().expect("starts");
        let all = told(&output, &world);
        assert!(!output.status.success() && text(&output.stderr).contains("cpack-boot: "), "{what}: {all}");
        // As it is, and as others show bytes: base64 of it at any offset, and hexadecimal.
        for secret in [MARK, "UExBTlRFR", "BMQU5URU", "QTEFOVEVE", "504c414e544544", "504C414E544544", "80, 76, 65"] {
            assert!(!all.contains(secret), "{what}: {all}");
        }
        fs::remove_file(&file).expect("removes");
        assert_not_kept(world.directory.path(), MARK);
    }
}
