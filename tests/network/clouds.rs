//! From an upload to Google Cloud Storage and Azure, and from what a web server publishes, to Python on a node; and what is
//! told of their secrets.

use std::fs;

use cpack_test::clouds::{ACCOUNT, ACCOUNT_KEY, Cloud, Kind, shared_access};
use cpack_test::http;
use cpack_test::programs::{text, utf8};
use cpack_test::proxy::Proxy;
use cpack_test::web::{Web, WebServer};

use super::publishing::doctor;
use super::secrets::{assert_not_kept, talkative, told};
use super::starting::{
    a_change_costs_little_on_the_wire, a_pex_starts_from_the_store, from_upload_to_python, memory_is_bounded,
};
use cpack_test::site::{PROBE, Site, complaint, environment, whole};

/// In every planted secret, and in nothing else.
const MARK: &str = "PLANTED";

#[test]
fn launcher_starts_from_google_and_azure() {
    for kind in [Kind::Google, Kind::Azure] {
        let server = Cloud::start(kind);
        let proxy = Proxy::start(server.port);
        let site = Site::cloud(&server, proxy.port);
        doctor(&site, &*site.store(&server.options(server.port)), &environment(&site));
        from_upload_to_python(&site);
        a_pex_starts_from_the_store(&site);
        a_change_costs_little_on_the_wire(&site, &proxy);
        memory_is_bounded(&site);
        assert_not_kept(site.world.directory.path(), ACCOUNT_KEY);
    }
}

#[test]
fn launcher_starts_from_web_server_that_publishes_store() {
    let site = Site::directory();
    let env = environment(&site);
    site.pack(&["upload", "--venv", utf8(&env), "--name", "mine"]);
    const TOKEN: &str = "Authorization: Bearer PLANTED";
    let server = WebServer::start(site.uri.as_ref(), Web { want: Some(TOKEN), ..Web::default() });
    let headers = ("CPACK_HTTP_HEADER_FILE", server.header_file(TOKEN).display().to_string());
    let web = Site {
        uri: format!("http://127.0.0.1:{}", server.port),
        client: vec![headers.clone()],
        node: vec![headers],
        ..site
    };
    // What is there already is not sent: a launcher can name it.
    let launcher = web.launcher(&env);
    assert_eq!(web.run("cold", &launcher, PROBE), whole());
    let output = talkative(web.on_node("told", &launcher).args(["-c", PROBE]), &web.world).output().expect("starts");
    assert_eq!(text(&output.stdout), whole(), "{}", text(&output.stderr));
    assert!(!told(&output, &web.world).contains(MARK));
    let bytes = fs::read(&launcher).expect("reads");
    assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()), "the launcher has the token");

    let mut stranger = web.on_node("stranger", &launcher);
    let said = complaint(&stranger.env_remove("CPACK_HTTP_HEADER_FILE").args(["-c", ""]).output().expect("starts"), 85);
    assert!(said.contains("CPACK_HTTP_HEADER_FILE") && said.contains(&web.uri), "{said}");
    let said =
        complaint(&web.command(&["-q", "upload", "--venv", utf8(&env), "--name", "new"]).output().expect("starts"), 80);
    assert!(said.contains("can only be read"), "{said}");
}

#[test]
fn clients_of_clouds_tell_no_secret_that_a_server_repeats() {
    const KEY: &str = "UExBTlRFRCBwbGFudGVkIFBMQU5URUQ=";
    let token = format!("{}{MARK}", shared_access("2100-01-01T00:00:00Z"));
    let server = Cloud::start(Kind::Azure);
    let site = Site::cloud(&server, server.port);
    let env = environment(&site);
    let gate = Proxy::start(server.port);
    let gated = Site { client: server.variables(gate.port), ..site };
    let launcher = gated.launcher(&env);
    for (status, code) in
        [(403, "AuthenticationFailed"), (403, "AuthorizationFailure"), (400, "InvalidQueryParameterValue")]
    {
        let (port, heads) = http::echoing(status, code);
        gate.lead_to(port);
        for (name, value, sent) in
            [("AZURE_STORAGE_KEY", KEY, "SharedKey"), ("AZURE_STORAGE_SAS_TOKEN", token.as_str(), MARK)]
        {
            let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", gate.port);
            let mut client = gated.command(&["-v", "upload", "--venv", utf8(&env)]);
            client.env_remove("AZURE_STORAGE_CONNECTION_STRING").env("AZURE_STORAGE_ENDPOINT", endpoint);
            let mut node = gated.on_node(code, &launcher);
            node.env_remove("AZURE_STORAGE_KEY").args(["-c", PROBE]);
            for command in [&mut client, &mut node] {
                heads.lock().expect("no panic").clear();
                let output = talkative(command.env(name, value), &gated.world).output().expect("starts");
                let all = told(&output, &gated.world);
                assert!(!output.status.success(), "{code}: {all}");
                let heads = heads.lock().expect("no panic");
                assert!(heads.iter().any(|head| head.contains(sent)), "{code}: {heads:?}");
                let signed =
                    heads.iter().filter_map(|head| head.split("SharedKey ").nth(1)?.lines().next()?.split_once(':'));
                assert!(signed.into_iter().all(|(_, signature)| !all.contains(signature.trim())), "{code}: {all}");
                assert!(!all.contains(MARK) && !all.contains(KEY), "{code}: {all}");
            }
        }
    }
    assert_not_kept(gated.world.directory.path(), MARK);
    assert_not_kept(gated.world.directory.path(), KEY);
}
