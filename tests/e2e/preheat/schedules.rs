//! Jobs that begin by themselves: at times, and when a tag moves.

use serde_json::Value;

use super::{MIB, REGISTRY, begin, job_that_is, longshore};
use crate::support::cluster::{Cluster, World, sample};
use crate::support::eventually;
use crate::support::faulty::{Fault, Origin};
use crate::support::image::{Image, TAG};

fn name(image: &Image) -> String {
    format!("{REGISTRY}/{}:{TAG}", image.repository)
}

/// Makes a schedule, or finds the same one.
async fn make(cluster: &Cluster, arguments: &[&str]) -> Value {
    let (status, said) = longshore(cluster, &[&["preheat", "--json"], arguments].concat()).await;
    assert_eq!(status, Some(0), "{said}");
    // A word on its login may stand before it.
    serde_json::from_str(&said[..=said.rfind('}').unwrap()]).unwrap()
}

/// Does something with a schedule; gives it as it is then.
async fn schedule(cluster: &Cluster, deed: &str, id: &Value) -> Value {
    let (status, said) =
        longshore(cluster, &["preheats", "schedules", deed, &id.to_string(), "--json"]).await;
    assert_eq!(status, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

/// The schedule, once its last run is over and there have been so many.
async fn ran(cluster: &Cluster, id: &Value, runs: usize) -> Value {
    eventually(&format!("{runs} runs of schedule {id}"), async || {
        let shown = schedule(cluster, "show", id).await;
        let all = shown["runs"].as_array().unwrap();
        assert!(all.len() <= runs, "{shown:#}");
        (all.len() == runs && all[0]["result"] != "running").then_some(shown)
    })
    .await
}

/// Has a schedule look at its tag, and waits until it did.
async fn looks(cluster: &Cluster, id: &Value) -> Value {
    let before = schedule(cluster, "pause", id).await["looked_at"].clone();
    schedule(cluster, "resume", id).await;
    eventually("a look", async || {
        let shown = schedule(cluster, "show", id).await;
        (shown["looked_at"] != before).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_brought_at_once_and_when_it_moves_and_a_restart_brings_nothing_again() {
    let origin = Origin::start().await;
    let mut cluster = Cluster::start(1, World::registry(REGISTRY, &origin.url())).await;
    let (old, new) = (Image::single("team/app", 2 * MIB, 9600), Image::single("team/app", 2 * MIB, 9601));
    origin.add(&old);
    let made = make(&cluster, &[&name(&old), "--to", "cache", "--follow=30s"]).await;
    let id = made["id"].clone();
    let first = ran(&cluster, &id, 1).await;
    assert_eq!(first["digest"], old.manifest.digest.to_string());
    assert_eq!(
        (&first["runs"][0]["reason"], &first["runs"][0]["result"]),
        (&"moved".into(), &"succeeded".into()),
        "{first:#}"
    );
    assert!((origin.copies(&old, old.layer().digest) - 1.0).abs() < f64::EPSILON);
    // The same wish is the same schedule, and a tag that stays is brought once.
    assert_eq!(make(&cluster, &[&name(&old), "--to", "cache", "--follow=30s"]).await["id"], id);
    assert_eq!(looks(&cluster, &id).await["runs"].as_array().unwrap().len(), 1);

    cluster.supernode.kill().await;
    cluster.supernode.restart().await;
    let after = looks(&cluster, &id).await;
    assert_eq!(after["digest"], old.manifest.digest.to_string());
    assert_eq!(after["runs"].as_array().unwrap().len(), 1, "{after:#}");

    // Nobody says that it moved: it is looked at by itself.
    origin.add(&new);
    let moved = ran(&cluster, &id, 2).await;
    assert_eq!(moved["digest"], new.manifest.digest.to_string());
    assert!((origin.copies(&new, new.layer().digest) - 1.0).abs() < f64::EPSILON);
    assert!((origin.copies(&old, old.layer().digest) - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_begins_when_it_is_time_or_asked_for_and_never_beside_itself() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry(REGISTRY, &origin.url())).await;
    let image = Image::single("team/app", 4 * MIB, 9610);
    origin.add(&image);
    origin.hold_at(MIB as u64);
    let made =
        make(&cluster, &[&name(&image), "--schedule", "* * * * *", "--time-zone", "Europe/Berlin"]).await;
    let id = made["id"].clone();
    assert_eq!(made["runs"], Value::Array(Vec::new()));
    assert!(made["next_at"].is_string());
    let running = schedule(&cluster, "run", &id).await;
    assert_eq!(running["runs"][0]["reason"], "asked");
    let job = running["runs"][0]["job"].as_u64().unwrap();
    job_that_is(&cluster, job, "running").await;
    let (status, said) = longshore(&cluster, &["preheats", "schedules", "run", &id.to_string()]).await;
    assert!(status == Some(1) && said.contains("still under way"), "{said}");
    // It is time, and the first is not done.
    let skipped = eventually("a run that is skipped", async || {
        let shown = schedule(&cluster, "show", &id).await;
        (shown["runs"][0]["result"] == "skipped").then_some(shown)
    })
    .await;
    assert_eq!(skipped["runs"][0]["reason"], "due");
    assert!(skipped["runs"][0]["message"].as_str().unwrap().contains(&job.to_string()));
    origin.release();
    job_that_is(&cluster, job, "succeeded").await;
    let due = eventually("a run when it is time", async || {
        let shown = schedule(&cluster, "show", &id).await;
        (shown["runs"][0]["result"] == "succeeded" && shown["runs"][0]["reason"] == "due").then_some(shown)
    })
    .await;
    assert_ne!(due["runs"][0]["job"], job);
    let metrics = cluster.supernode.metrics().await;
    let counted = |name: &str, result: &str| {
        sample(&metrics, &format!("longshore_preheat_{name}_total"), &format!("result=\"{result}\""))
    };
    assert!(counted("jobs", "succeeded") >= 2 && counted("runs", "begun") >= 2, "{metrics}");
    assert!(counted("runs", "skipped") >= 1, "{metrics}");
    assert_eq!((counted("jobs", "failed"), counted("runs", "failed")), (0, 0));

    let paused = schedule(&cluster, "pause", &id).await;
    assert_eq!((&paused["spec"]["paused"], &paused["next_at"]), (&true.into(), &Value::Null));
    let (_, said) = longshore(&cluster, &["preheats", "schedules"]).await;
    assert!(said.contains("* * * * * Europe/Berlin") && said.contains("paused"), "{said}");
    let (status, _) = longshore(&cluster, &["preheats", "schedules", "remove", &id.to_string()]).await;
    assert_eq!(status, Some(0));
    let (status, said) = longshore(&cluster, &["preheats", "schedules", "show", &id.to_string()]).await;
    assert!(status == Some(1) && said.contains("there is no preheat schedule"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_rest_is_left_alone_by_all_schedules() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry(REGISTRY, &origin.url())).await;
    let (one, other) = (Image::single("team/one", MIB, 9620), Image::single("team/other", MIB, 9621));
    origin.add(&one);
    origin.add(&other);
    let path = format!("/v2/team/one/manifests/{TAG}");
    origin.fault(&path, Fault::Busy(600), usize::MAX);
    let made = make(&cluster, &[&name(&one), "--to", "cache", "--follow=30s"]).await;
    let tired = eventually("a look that fails", async || {
        let shown = schedule(&cluster, "show", &made["id"]).await;
        shown["message"].is_string().then_some(shown)
    })
    .await;
    assert!(tired["message"].as_str().unwrap().contains("429"), "{tired:#}");
    let date = |value: &Value| {
        let format = &time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(value.as_str().unwrap(), format).unwrap()
    };
    let wait = date(&tired["next_at"]) - date(&tired["created_at"]);
    assert!(wait.whole_seconds() >= 600, "{tired:#}");
    // Another schedule does not ask it either.
    let made = make(&cluster, &[&name(&other), "--to", "cache", "--follow=30s"]).await;
    let waits = eventually("a look that is put off", async || {
        let shown = schedule(&cluster, "show", &made["id"]).await;
        let wait = date(shown.get("next_at")?) - date(&shown["created_at"]);
        (wait.whole_seconds() > 500).then_some(shown)
    })
    .await;
    assert_eq!(waits["runs"], Value::Array(Vec::new()));
    assert_eq!(origin.answers(&path), 1);
    // A job that somebody asks for is no schedule's.
    let id = begin(&cluster, &[&name(&other), "--to", "cache"]).await;
    job_that_is(&cluster, id, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_schedule_is_refused_in_words() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry(REGISTRY, &origin.url())).await;
    let image = format!("{REGISTRY}/team/app:1");
    for (arguments, status, word) in [
        (vec![&*image, "--schedule", "0 3 * *"], 2, "five fields"),
        (vec![&image, "--schedule", "0 0 30 2 *"], 2, "never comes"),
        (vec![&image, "--schedule", "@daily", "--time-zone", "Europe/Atlantis"], 2, "no time zone"),
        (vec![&image, "--schedule", "@daily", "--follow"], 2, "--follow"),
        (vec![&image, "--follow=5s"], 2, "from 30"),
        (vec![&image, "--follow", "--wait"], 2, "--wait"),
        (vec![&image, "--time-zone", "UTC"], 2, "--schedule"),
        (vec!["http://127.0.0.1:9/a", "--follow"], 2, "only an image"),
    ] {
        let (ended, said) = longshore(&cluster, &[&["preheat"], &*arguments].concat()).await;
        assert_eq!(ended, Some(status), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let (_, said) = longshore(&cluster, &["preheats", "schedules"]).await;
    assert!(said.contains("there are no preheat schedules"), "{said}");
}
