//! A real browser without a screen: Chromium, driven through chromedriver by WebDriver, which is JSON over HTTP. Both are
//! ended by their ids when the test ends.

use std::process::Command;

use reqwest::{Client, Method};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, without_proxies};
use super::{client, eventually};

const STARTED: &str = "started successfully on port ";
/// What a browser needs in a container, as root, and to ask nothing of the world by itself.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
];
/// Said by every page before its own scripts run: what the policy forbade, and what failed.
const WATCH: &str = "window.complaints = []; \
    addEventListener('securitypolicyviolation', (event) => complaints.push(`policy: ${event.violatedDirective} ${event.blockedURI}`)); \
    addEventListener('error', (event) => complaints.push(`error: ${event.message}`)); \
    addEventListener('unhandledrejection', (event) => complaints.push(`rejection: ${event.reason}`));";
/// The name that WebDriver gives to elements in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window of a browser of its own, with nothing kept from before.
pub(crate) struct Browser {
    http: Client,
    session: String,
    process: Option<Pid>,
    _driver: Process,
    _profile: TempDir,
}

// === impl Browser ===

impl Browser {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let profile = TempDir::new().unwrap();
        let mut command = Command::new("chromedriver");
        without_proxies(command.arg("--port=0").env("HOME", profile.path()));
        let mut driver = Process::spawn("chromedriver", &mut command, &profile.path().join("driver.log"));
        driver.says(STARTED).await;
        let port = eventually("the driver's port", async || {
            let said = driver.said();
            let (port, _) = said.split_once(STARTED)?.1.split_once('.')?;
            Some(port.to_owned())
        })
        .await;
        let http = client::http();
        let folder = format!("--user-data-dir={}", profile.path().join("data").display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([folder.as_str()]).collect();
        let wish = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": { "args": flags },
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let made = ask(&http, Method::POST, &base, wish).await;
        let session = format!("{base}/{}", made["sessionId"].as_str().unwrap());
        let process = made["capabilities"]["goog:processID"].as_i64();
        let process = process.and_then(|id| Pid::from_raw(i32::try_from(id).unwrap()));
        let browser = Self { http, session, process, _driver: driver, _profile: profile };
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH })).await;
        browser
    }

    /// Loads a page.
    pub(crate) async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    /// What a function's body returns in the page; a promise is waited for.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is as it should be.
    pub(crate) async fn shows(&self, expression: &str, wanted: Value) {
        let what = format!("{expression} being {wanted}");
        let script = format!("return {expression};");
        let mut last = Value::Null;
        let look = eventually(&what, async || {
            let now = self.run(&script).await;
            if now != last {
                println!("{expression}: {now}");
                last = now;
            }
            (last == wanted).then_some(())
        });
        look.await;
    }

    /// Types into the element that the selector finds.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let found = self.post("element", json!({ "using": "css selector", "value": selector })).await;
        let element = found[ELEMENT].as_str().unwrap();
        self.post(&format!("element/{element}/value"), json!({ "text": text })).await;
    }

    /// Presses and lets go a key, by its WebDriver code.
    pub(crate) async fn press(&self, key: char) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }))
            .await;
    }

    /// Says something to the browser itself.
    pub(crate) async fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": params })).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        ask(&self.http, Method::POST, &format!("{}/{path}", self.session), body).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
    }
}

async fn ask(http: &Client, method: Method, url: &str, body: Value) -> Value {
    let answer = http.request(method, url).json(&body).send().await.expect("the driver answers");
    let mut said: Value = answer.json().await.expect("the driver speaks JSON");
    let value = said["value"].take();
    assert!(value.get("error").is_none(), "{url} {body}: {value}");
    value
}
