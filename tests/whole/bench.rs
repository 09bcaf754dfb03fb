//! `cluster-pack bench`: what it measures, what it prints, and how its page looks in a browser.

use std::fs;
use std::path::PathBuf;
#[cfg(feature = "browser")]
use std::process::Command;
use std::sync::OnceLock;

use cpack_test::programs::{World, cluster_pack, install_by_hand, text, usual_interpreter, utf8, venv_without_pip};

/// An environment of two distributions, of which a run imports one, that imports the other's second module.
fn environment(world: &World) -> PathBuf {
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    install_by_hand(&env, "wanted", "1.0", "import json, time\ntime.sleep(0.05)\nimport helper\n");
    install_by_hand(&env, "helper", "2.0", &format!("DATA = {:?}\n", "x".repeat(200_000)));
    install_by_hand(&env, "unused", "3.0", &format!("DATA = {:?}\n", "y".repeat(100_000)));
    env
}

/// What one measurement reports, and its page.
fn measured() -> &'static (serde_json::Value, String) {
    static MEASURED: OnceLock<(serde_json::Value, String)> = OnceLock::new();
    MEASURED.get_or_init(|| {
        let world = World::new();
        let (env, page) = (environment(&world), world.path("page <of> it.html"));
        let arguments = ["--json", "bench", "--runs", "2", "--containers", "3", "--html", utf8(&page)];
        let mut command = world.command(cluster_pack());
        command.args(["--venv", utf8(&env), "--store", utf8(&world.path("store"))]).args(arguments);
        let output = command.args(["--", "-c", "import wanted"]).output().expect("runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let left = fs::read_dir(world.directory.path()).expect("reads").flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("bench")).collect();
        assert!(left.is_empty(), "nothing stays in the store: {left:?}");
        (serde_json::from_slice(&output.stdout).expect("JSON"), fs::read_to_string(page).expect("a page"))
    })
}

#[test]
fn bench_report_tells_where_time_went() {
    let (report, html) = measured();
    let number = |path: &str| report.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(-1.0);
    for path in [
        "/creation/seconds",
        "/creation/again",
        "/cold/seconds",
        "/lazy/seconds",
        "/second/seconds",
        "/warm/boot",
        "/together/last",
    ] {
        let (median, min, max) = ("/median", "/min", "/max");
        let [median, min, max] = [median, min, max].map(|part| number(&format!("{path}{part}")));
        assert!(0.0 < min && min <= median && median <= max, "{path}: {min} {median} {max}");
        assert_eq!(
            report.pointer(&format!("{path}/values")).and_then(|v| v.as_array()).map(Vec::len),
            Some(2),
            "{path}"
        );
    }
    let phases = |kind: &str| -> Vec<String> {
        let all = report[kind]["phases"].as_array().expect("phases");
        all.iter().map(|pair| pair[0].as_str().expect("a name").to_owned()).collect()
    };
    for phase in ["find", "plan", "extract", "link", "commit", "interpreter", "command"] {
        assert!(phases("cold").iter().any(|found| found == phase), "{phase}: {:?}", phases("cold"));
    }
    assert!(!phases("warm").iter().any(|found| found == "extract"), "{:?}", phases("warm"));
    let work: Vec<&str> =
        report["cold"]["work"].as_array().expect("work").iter().filter_map(|w| w[0].as_str()).collect();
    assert_eq!(work, ["fetch", "verify", "decode", "write"]);
    let fetched = number("/lazy/fetched");
    assert!(0.0 < fetched, "{}", report["lazy"]);
    // Three containers fetch what one does.
    assert_eq!(number("/together/fetched"), number("/cold/fetched"));
    let modules = |name: &str| {
        let layers = report["environment"]["layers"].as_array().expect("layers");
        layers.iter().find(|l| l["name"] == name).and_then(|l| l["modules"].as_u64())
    };
    assert_eq!((modules("wanted"), modules("helper"), modules("unused")), (Some(1), Some(1), Some(0)));
    let worked = report["environment"]["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .all(|l| l["work"][0][1].as_f64() > Some(0.0));
    assert!(worked, "the trace tells what each layer cost: {}", report["environment"]["layers"]);
    assert_eq!(report["store"], "file");
    assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("<script"), "needs nothing else");
}

#[test]
fn bench_compare_sets_two_reports_side_by_side() {
    let world = World::new();
    let reports = ["a.json", "b.json", "of s3.json"].map(|name| world.path(name));
    let [a, b, other] = &reports;
    let mut report = measured().0.clone();
    fs::write(a, report.to_string()).expect("writes");
    let median = report.pointer_mut("/cold/seconds/median").expect("a median");
    *median = (3.0 * median.as_f64().expect("seconds")).into();
    fs::write(b, report.to_string()).expect("writes");
    report["store"] = "s3".into();
    fs::write(other, report.to_string()).expect("writes");
    let compared = |arguments: &[&str]| {
        let output = world.command(cluster_pack()).args(arguments).output().expect("runs");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };

    let page = world.path("page.html");
    let (code, table, said) = compared(&["bench", "compare", utf8(a), utf8(b), "--html", utf8(&page)]);
    assert_eq!(code, Some(0), "{said}");
    for row in ["layers: size", "cold: until Python", "warm: until the end", "boot: extract", "from nothing, all"] {
        assert!(table.lines().any(|line| line.trim_start().starts_with(row)), "{row}: {table}");
    }
    let (_, document, _) = compared(&["--json", "bench", "compare", utf8(a), utf8(b)]);
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let mut slower = Vec::new();
    for row in document["parts"].as_array().expect("parts").iter().flat_map(|p| p["rows"].as_array().expect("rows")) {
        let number = |path: &str| row.pointer(path).and_then(serde_json::Value::as_f64);
        if let (Some(first), Some(second), Some(ratio)) = (number("/a/median"), number("/b/median"), number("/ratio")) {
            assert!((ratio * first - second).abs() <= 1e-9 * second.max(1.0), "{row}");
            assert!(ratio == 1.0 || (ratio - 3.0).abs() < 1e-9, "{row}");
            slower.extend((ratio > 1.0).then(|| row["what"].clone()));
        }
    }
    assert_eq!(slower, ["cold: until the end"], "{document}");

    let (code, _, said) = compared(&["bench", "compare", utf8(a), utf8(other)]);
    assert!(code == Some(80) && said.contains("cannot be compared: the first has store: file"), "{code:?} {said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    #[cfg(feature = "browser")]
    {
        let seen = seen_in_browser(&world, &fs::read_to_string(&page).expect("a page"), 360, 1);
        assert!(seen["contrast"].as_f64().is_some_and(|ratio| ratio >= 4.5), "{seen}");
        assert!(seen["overflow"] == 0 && seen["fetched"] == 0, "{seen}");
    }
}

/// In light and dark, narrow and wide.
#[cfg(feature = "browser")]
#[test]
fn bench_page_is_shown_by_browser() {
    let world = World::new();
    let (_, html) = measured();
    for (width, treemap) in [(360, "narrow"), (1280, "wide")] {
        for (scheme, dark) in [(1, false), (0, true)] {
            let seen = seen_in_browser(&world, html, width, scheme);
            let at = format!("{width} px, dark: {dark}: {seen}");
            assert!(seen["background"].as_f64().is_some_and(|light| (light < 0.2) == dark), "{at}");
            assert!(seen["contrast"].as_f64().is_some_and(|ratio| ratio >= 4.5), "text can be read; {at}");
            assert_eq!(seen["overflow"], 0, "nothing is wider than the page; {at}");
            assert_eq!(seen["treemap"], treemap, "{at}");
            assert_eq!(seen["outside"], 0, "tiles and bars are where they belong; {at}");
            assert!(seen["tiles"].as_u64() >= Some(3) && seen["bars"].as_u64() >= Some(5), "{at}");
            assert_eq!(seen["fetched"], 0, "{at}");
        }
    }
}

#[cfg(feature = "browser")]
/// What a browser makes of the page in a frame of this width. `scheme`: 0 for dark, 1 for light.
fn seen_in_browser(world: &World, html: &str, width: u32, scheme: u32) -> serde_json::Value {
    let escaped = html.replace('&', "&amp;").replace('"', "&quot;");
    let frame = world.path("frame.html");
    let script = include_str!("page.js");
    let style = format!("html{{color-scheme:light dark}}iframe{{border:0;width:{width}px;height:3000px}}");
    let wrapped = format!(
        "<!doctype html><meta charset=utf-8><style>{style}</style><iframe srcdoc=\"{escaped}\"></iframe>\
         <script>onload = () => {{ {script} }}</script>"
    );
    fs::write(&frame, wrapped).expect("writes");
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| on_path(name));
    let browser = browser.expect("no browser: install chromium");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,3100", "--dump-dom"])
        .arg(format!("--user-data-dir={}", world.path("browser").display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("file://{}", frame.display()))
        .output()
        .expect("a browser");
    let dom = text(&output.stdout);
    let told = dom.split("<pre>").nth(1).and_then(|rest| rest.split("</pre>").next());
    assert!(told.is_some(), "the browser shows nothing: {dom} {}", text(&output.stderr));
    serde_json::from_str(told.unwrap_or_default()).expect("JSON")
}

#[cfg(feature = "browser")]
fn on_path(name: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|place| place.join(name).is_file())
}
