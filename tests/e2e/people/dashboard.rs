//! The dashboard in a real browser, over real daemons: its figures are the API's, it asks for the token where the API does,
//! and it is a page that everybody can use.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::cluster::{Cluster, Node, World, run};
use crate::support::faulty::Origin;
use crate::support::image::{Image, TAG};
use crate::support::{client, eventually, need};

const MIB: usize = 1 << 20;
/// The Tab key, in WebDriver.
const TAB: char = '\u{e004}';
/// The narrowest phones that are still sold.
const PHONE: u32 = 360;
/// What the first page may weigh.
const WEIGHT: u64 = 100 * 1024;
const PAGES: [&str; 5] = ["#/", "#/swarms", "#/nodes", "#/images", "#/preheats"];

/// A swarm of three that has pulled one image, and a browser.
struct Scene {
    origin: Origin,
    cluster: Cluster,
    browser: Browser,
}

// === impl Scene ===

impl Scene {
    async fn start() -> Self {
        let origin = Origin::start().await;
        let cluster = Cluster::start(3, World::registry("quay.test", &origin.url())).await;
        let scene = Self { origin, cluster, browser: Browser::start().await };
        scene.pull(420).await;
        scene.preheat(430).await;
        scene
    }

    /// Lets every peer pull a new image, and gives its bytes.
    async fn pull(&self, seed: u64) -> u64 {
        let image = Image::single("team/app", 6 * MIB, seed);
        self.origin.add(&image);
        for proxy in self.cluster.proxies() {
            client::pull(proxy, "quay.test".to_owned(), image.clone()).await;
        }
        image.blobs().map(|blob| blob.size()).sum::<u64>() + image.manifest.size()
    }

    /// Brings a new image to the supernode's cache.
    async fn preheat(&self, seed: u64) {
        let image = Image::single("team/ahead", MIB, seed);
        self.origin.add(&image);
        let dir = self.supernode().data.display().to_string();
        let name = format!("quay.test/{}:{TAG}", image.repository);
        let arguments = ["preheat", &name, "--to", "cache", "--wait", "--data-dir", &dir];
        let (status, said) = run(self.cluster.root(), &arguments).await;
        assert_eq!(status, Some(0), "{said}");
    }

    fn supernode(&self) -> &Node {
        &self.cluster.supernode
    }

    async fn api(&self, path: &str) -> Value {
        api(self.supernode(), path).await
    }

    async fn open(&self, page: &str) {
        self.browser.open(&self.supernode().url(&format!("/{page}"))).await;
        self.browser.shows("document.querySelector('#state').textContent", json!("live")).await;
    }
}

async fn api(node: &Node, path: &str) -> Value {
    let answer = client::http().get(node.url(&format!("/api/v1/{path}"))).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

/// Bytes as the page writes them.
fn bytes(value: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = (0..units.len()).rev().find(|unit| value >= 1 << (10 * unit)).unwrap_or(0);
    let shown = value as f64 / (1_u64 << (10 * unit)) as f64;
    let digits = if unit == 0 || shown >= 100.0 { 0 } else { 1 + usize::from(shown < 10.0) };
    format!("{shown:.digits$} {}", units[unit])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_what_the_api_says_and_keep_up_with_it() {
    need!("chromium", "chromedriver");
    let scene = Scene::start().await;
    let browser = &scene.browser;
    let pulled = scene.api("overview").await["bytes"]["origin"].as_u64().unwrap();
    scene.open("#/").await;
    let figure = "document.querySelector('.figure').textContent";
    for seed in [421, 422] {
        let image = scene.pull(seed).await;
        let known = eventually("all that was pulled being counted", async || {
            let now = scene.api("overview").await["bytes"].take();
            let rounds = seed - 419;
            (now["delivered"].as_u64()? == 3 * rounds * image).then_some(now)
        })
        .await;
        let of = |name: &str| known[name].as_u64().unwrap();
        let metrics = scene.supernode().received().await;
        assert_eq!((of("origin"), of("saved")), (metrics.origin, of("delivered") - of("origin")), "{known}");
        assert!(of("origin") > pulled && of("nodes") + of("seed") >= of("delivered"), "{known}");
        // The page was opened before: it hears of it by itself.
        browser.shows(figure, json!(bytes(of("saved")))).await;
    }
    let named = "[...document.querySelectorAll('.hero .facts div')].map(fact => fact.innerText.split('\\n').slice(0, 2).join(' '))[0]";
    browser.shows(named, json!("Nodes 3")).await;

    let nodes = scene.api("nodes").await;
    let of_each = |value: fn(&Value) -> String| -> Vec<_> {
        nodes["nodes"].as_array().unwrap().iter().map(value).collect()
    };
    let shown = |column: u32| {
        format!("[...document.querySelectorAll('tbody tr')].map(row => row.children[{column}].textContent)")
    };
    let name = |node: &Value| {
        format!("{} {}", node["labels"]["host"].as_str().unwrap(), &node["node"].as_str().unwrap()[..12])
    };
    scene.open("#/nodes").await;
    browser.shows(&shown(0), json!(of_each(name))).await;
    browser.shows(&shown(2), json!(of_each(|node| node["address"].as_str().unwrap().to_owned()))).await;
    browser.shows(&shown(4), json!(of_each(|node| bytes(node["received"].as_u64().unwrap())))).await;

    let swarms = scene.api("swarms").await;
    scene.open("#/swarms").await;
    browser.shows("document.querySelectorAll('tbody tr').length", swarms["total"].clone()).await;
    let large = |swarm: &&Value| swarm["length"].as_u64() == Some(6 * MIB as u64);
    let swarm = swarms["swarms"].as_array().unwrap().iter().find(large).unwrap();
    scene.open(&format!("#/swarms/{}", swarm["task"].as_str().unwrap())).await;
    browser.shows(&shown(2), json!(["100 %", "100 %", "100 %"])).await;
    browser.shows("document.querySelectorAll('.graph .dot.complete').length", json!(3)).await;

    let images = scene.api("images").await;
    assert!(images["named"] == false && !images.to_string().contains("team/app"), "anybody here may look");
    scene.open("#/images").await;
    browser.shows("document.querySelectorAll('tbody tr').length", images["total"].clone()).await;

    let jobs = scene.api("preheats").await;
    assert!(!jobs.to_string().contains("team/ahead"), "anybody here may look");
    scene.open("#/preheats").await;
    browser
        .shows("document.querySelectorAll('tbody tr').length", json!(jobs.as_array().unwrap().len()))
        .await;
    browser.shows("document.querySelector('tbody tr').textContent.includes('succeeded')", json!(true)).await;
}

/// Everything but the page itself asks for the token.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_everybodys_and_its_figures_are_not() {
    let root = TempDir::new().unwrap();
    let words = ["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", "0.0.0.0:0"];
    let arguments = words.iter().map(|word| (*word).to_owned()).collect();
    let mut node = Node::spawn("supernode", arguments, root.path(), None);
    node.bound().await;
    let base = format!("http://127.0.0.1:{}", node.at.http.rsplit_once(':').unwrap().1);
    let page = client::http().get(&base).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'; "));
    for path in ["overview", "events", "nodes", "swarms", "swarms/x", "images", "preheats"] {
        let answer = client::http().get(format!("{base}/api/v1/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_may_listen_and_the_daemon_ends_while_they_do() {
    const LISTENERS: usize = 64;
    let mut cluster = Cluster::start(0, World::default()).await;
    let url = cluster.supernode.url("/api/v1/events");
    let mut listening = Vec::new();
    for _ in 0..LISTENERS {
        let stream = client::http().get(&url).send().await.unwrap();
        assert_eq!(stream.status(), StatusCode::OK);
        listening.push(stream);
    }
    let refused = client::http().get(&url).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    for stream in &mut listening {
        let told = stream.chunk().await.unwrap().unwrap();
        assert!(told.starts_with(b"event: overview\ndata: {"), "{told:?}");
    }
    drop(listening.split_off(1));
    eventually("a place for another listener", async || {
        (client::http().get(&url).send().await.unwrap().status() == StatusCode::OK).then_some(())
    })
    .await;
    assert!(cluster.supernode.terminate().await.success());
    let mut last = listening.pop().unwrap();
    while let Ok(Some(_)) = last.chunk().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_lets_in_and_stays_in_the_tab() {
    need!("chromium", "chromedriver");
    let (origin, root) = (Origin::start().await, TempDir::new().unwrap());
    let token = "a token of the operator's own";
    std::fs::write(root.path().join("token"), token).unwrap();
    let file = root.path().join("token").display().to_string();
    let world = World::registry("quay.test", &origin.url()).set("LONGSHORE_SUPERNODE_API_TOKEN_FILE", &file);
    let cluster = Cluster::start(1, world).await;
    let image = Image::single("team/app", MIB, 430);
    origin.add(&image);
    client::pull(cluster.peers[0].at.proxy.clone(), "quay.test".to_owned(), image).await;
    let browser = Browser::start().await;
    let title = "document.querySelector('h1').textContent";
    let complaint = "document.querySelector('.error')?.textContent";

    browser.open(&cluster.supernode.url("/")).await;
    browser.shows(title, json!("Log in")).await;
    browser.write("#token", "a guess that is wrong\n").await;
    browser.shows(complaint, json!("The supernode does not know this token.")).await;
    browser.write("#token", &format!("{token}\n")).await;
    browser.shows(title, json!("Overview")).await;
    browser.shows("document.querySelector('#state').textContent", json!("live")).await;
    browser.run("location.hash = '#/images'").await;
    let name = format!("{}/team/app", origin.address);
    browser.shows("document.querySelector('summary b')?.textContent", json!(name)).await;
    let kept = "JSON.stringify([localStorage, document.cookie, location.href]).includes('operator')";
    browser.shows(kept, json!(false)).await;
    browser.run("document.querySelector('#leave').click()").await;
    browser.shows(title, json!("Log in")).await;
    browser.shows("sessionStorage.length", json!(0)).await;

    // A link may bring it; it does not stay in the address.
    let link = format!("/#token={}", token.replace(' ', "%20").replace('\'', "%27"));
    browser.open(&cluster.supernode.url("/")).await;
    browser.shows(title, json!("Log in")).await;
    browser.open("about:blank").await;
    browser.open(&cluster.supernode.url(&link)).await;
    browser.shows(title, json!("Overview")).await;
    browser.shows("location.hash", json!("#/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_light_keeps_to_itself_and_can_be_used_by_keyboard_and_phone() {
    need!("chromium", "chromedriver");
    let scene = Scene::start().await;
    let browser = &scene.browser;
    scene.open("#/").await;
    browser.shows("document.querySelectorAll('tbody tr').length > 0", json!(true)).await;
    let weights = "const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]; \
                   return all.filter(({ name }) => !name.endsWith('/events')).map(({ name, transferSize }) => [name, transferSize])";
    let loaded = browser.run(weights).await;
    let loaded = loaded.as_array().unwrap();
    let home = scene.supernode().url("/");
    assert!(loaded.iter().all(|entry| entry[0].as_str().unwrap().starts_with(&home)), "{loaded:?}");
    let weight: u64 = loaded.iter().map(|entry| entry[1].as_u64().unwrap()).sum();
    assert!(loaded.len() > 10 && weight < WEIGHT, "{weight} bytes: {loaded:?}");

    let swarms = scene.api("swarms").await;
    let swarm = format!("#/swarms/{}", swarms["swarms"][0]["task"].as_str().unwrap());
    for page in PAGES.into_iter().chain([swarm.as_str()]) {
        scene.open("#/").await;
        browser.run(&format!("location.hash = '{page}'")).await;
        browser.shows("document.querySelectorAll('main table tbody tr').length > 0", json!(true)).await;
        all_is_reached_by_tab(browser, page).await;
        for scheme in ["light", "dark"] {
            fits_a_phone(browser, page, scheme).await;
        }
        browser.shows("complaints", json!([])).await;
    }
}

/// Presses Tab until the focus comes around, and wants to have met everything that can be pressed, and to have seen where
/// it was.
async fn all_is_reached_by_tab(browser: &Browser, page: &str) {
    let mark = "const all = [...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')] \
                .filter(element => element.checkVisibility()); \
                all.forEach((element, at) => element.dataset.stop = at); document.activeElement.blur(); return all.length";
    let count = browser.run(mark).await.as_u64().unwrap();
    assert!(count > 6, "{page}: {count}");
    let here = "const at = document.activeElement; const style = getComputedStyle(at); \
                const seen = style.outlineStyle !== 'none' || at.matches('.dot') || at.matches('.skip'); \
                return [at.dataset.stop ?? '', seen, at.outerHTML.slice(0, 80)]";
    let mut met = BTreeSet::new();
    for _ in 0..count + 4 {
        browser.press(TAB).await;
        let at = browser.run(here).await;
        let stop = at[0].as_str().unwrap().to_owned();
        assert!(stop.is_empty() || at[1] == true, "{page}: the focus is not seen on {}", at[2]);
        met.extend(stop.parse::<u64>());
    }
    let missed: Vec<_> = (0..count).filter(|stop| !met.contains(stop)).collect();
    assert!(missed.is_empty(), "{page}: Tab never comes to {missed:?} of {count}");
}

async fn fits_a_phone(browser: &Browser, page: &str, scheme: &str) {
    let metrics = json!({ "width": PHONE, "height": 740, "deviceScaleFactor": 2, "mobile": true });
    browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
    browser.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    browser.shows("innerWidth", json!(PHONE)).await;
    let wide = "[...document.querySelectorAll('body *')].filter(element => element.getBoundingClientRect().right > innerWidth + 1 \
                && element.checkVisibility() && !element.closest('thead')).map(element => element.outerHTML.slice(0, 120))";
    let wide = browser.run(&format!("return {wide}")).await;
    assert_eq!(wide, json!([]), "{page} is wider than a phone");
    browser.shows("document.documentElement.scrollWidth <= innerWidth", json!(true)).await;
    let dark = "getComputedStyle(document.documentElement).colorScheme";
    browser.shows(dark, json!(scheme)).await;
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
}
