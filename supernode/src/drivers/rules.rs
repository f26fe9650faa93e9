//! Which pushes are brought where: `--preheat-rule REGISTRY/REPOSITORY[:TAG]=TARGET[,zone=…]`. Pure; read by the command's
//! settings, asked by [`super::notifications`].

use std::str::FromStr;

use peer::image::manifest::Platform;
use peer::image::reference::Reference;
use peer::origin::registry::canonical;

use super::glob::Glob;
use crate::preheat::choice::Choice;
use crate::preheat::job::{Spec, Target};

/// Rules are asked one after the other.
const MAX_RULES: usize = 1000;

/// Not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rule:?} is no preheat rule: {why}; expected REGISTRY/REPOSITORY[:TAG]=cache|peers|runtime[,zone=NAME][,count=N], for \
     example 'quay.io/team/**:v*=peers,zone=eu-1a'"
)]
pub struct RuleError {
    rule: String,
    why: String,
}

/// What is done with a push that it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    registry: Glob,
    repository: Glob,
    tag: Glob,
    to: Target,
    nodes: Choice,
    platforms: Vec<String>,
}

/// All of them; the first that fits is the one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

// === impl Rule ===

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::read(text).map_err(|why| RuleError { rule: text.chars().take(200).collect(), why })
    }
}

impl Rule {
    fn read(text: &str) -> Result<Self, String> {
        let (images, action) = text.split_once('=').ok_or("it names no target")?;
        let (registry, path) = images.trim().split_once('/').ok_or("it names no repository")?;
        // A tag has no `/`, and a repository no `:`.
        let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "*"));
        let mut words = action.split([',', ' ']).filter(|word| !word.is_empty());
        let to = match words.next() {
            Some("cache") => Target::Cache,
            Some("peers") => Target::Peers,
            Some("runtime") => Target::Runtime,
            Some(other) => return Err(format!("there is no target {other:?}")),
            None => return Err("it names no target".into()),
        };
        let mut rule = Self {
            registry: Glob::new(&canonical(registry))?,
            repository: Glob::new(repository)?,
            tag: Glob::new(tag)?,
            to,
            nodes: Choice::default(),
            platforms: Vec::new(),
        };
        words.try_for_each(|word| rule.add(word))?;
        if to == Target::Cache && rule.nodes != Choice::default() {
            return Err("the cache is the supernode's own: no nodes are chosen for it".into());
        }
        rule.nodes.check()?;
        Ok(rule)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if value.is_empty() {
            return Err(format!("{word:?} says nothing"));
        }
        let number = |_| format!("{word:?} is no number");
        match name {
            "zone" => self.nodes.zones.push(value.to_owned()),
            "rack" => self.nodes.racks.push(value.to_owned()),
            "node" => self.nodes.names.push(value.to_owned()),
            "count" => self.nodes.count = Some(value.parse().map_err(number)?),
            "percent" => self.nodes.percent = Some(value.parse().map_err(number)?),
            "platform" => {
                if value != "all" {
                    value.parse::<Platform>()?;
                }
                self.platforms.push(value.to_owned());
            }
            _ => return Err(format!("{name:?} is none of zone, rack, node, count, percent, platform")),
        }
        Ok(())
    }

    /// Whether an image with a tag is meant.
    fn fits(&self, image: &Reference) -> bool {
        image.tag.as_ref().is_some_and(|tag| self.tag.matches(tag))
            && self.registry.matches(&canonical(&image.registry))
            && self.repository.matches(&image.repository)
    }

    /// The job for an image that it fits.
    pub(super) fn job(&self, image: &Reference) -> Spec {
        // A runtime knows an image by the name that it was pulled by, and pods say the tag. Everything else is asked by
        // the digest that was pushed, where it is known: the tag may still show what it showed before.
        let digest = image.digest.filter(|_| self.to != Target::Runtime);
        let image = Reference { digest, ..image.clone() };
        Spec {
            platforms: self.platforms.clone(),
            nodes: self.nodes.clone(),
            ..Spec::image(image.spelled(), self.to)
        }
    }
}

// === impl Rules ===

impl Rules {
    /// The rules of the settings, in their order.
    ///
    /// # Errors
    /// With the first that is none.
    pub fn read(texts: &[String]) -> Result<Self, RuleError> {
        if texts.len() > MAX_RULES {
            let why = format!("it is one too many, {MAX_RULES} are read");
            return Err(RuleError { rule: texts[MAX_RULES].chars().take(200).collect(), why });
        }
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first rule that fits.
    pub(super) fn of(&self, image: &Reference) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(image))
    }
}

#[cfg(test)]
mod tests {
    use common::digest::Digest;
    use proptest::prelude::*;

    use super::*;

    fn image(name: &str) -> Reference {
        Reference::of_image(name).unwrap()
    }

    fn rules(texts: &[&str]) -> Result<Rules, RuleError> {
        Rules::read(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_first_rule_that_fits_is_the_one() {
        let rules = rules(&[
            "quay.io/team/**:v*=runtime,zone=eu-1a,zone=eu-1b,count=3",
            "quay.io/team/**=peers percent=50",
            "docker.io/library/*:latest=cache,platform=linux/arm64",
            "127.0.0.1:5000/**=cache",
        ])
        .unwrap();
        let job = |name: &str| rules.of(&image(name)).map(|rule| rule.job(&image(name)));
        let runtime = job("quay.io/team/a/b:v1").unwrap();
        assert_eq!((runtime.to, runtime.nodes.count), (Target::Runtime, Some(3)));
        assert_eq!(runtime.nodes.zones, ["eu-1a", "eu-1b"]);
        assert_eq!(job("quay.io/team/a:main").unwrap().nodes.percent, Some(50));
        assert_eq!(job("nginx").unwrap().platforms, ["linux/arm64"]);
        assert_eq!(job("127.0.0.1:5000/x:1").unwrap().image.unwrap(), "127.0.0.1:5000/x:1");
        assert_eq!(job("ghcr.io/team/a:v1"), None);
        assert_eq!(job("quay.io/other:v1"), None);
        assert!(job(&format!("quay.io/team/a@{}", Digest::of(b""))).is_none(), "no tag, no rule");
    }

    #[test]
    fn what_was_pushed_is_asked_by_its_digest_except_of_runtimes() {
        let pushed = image(&format!("quay.io/team/a:1@{}", Digest::of(b"")));
        for (to, asked) in [
            ("cache", pushed.to_string()),
            ("peers", pushed.to_string()),
            ("runtime", "quay.io/team/a:1".to_owned()),
        ] {
            let rules = rules(&[&format!("*/**={to}")]).unwrap();
            let spec = rules.of(&pushed).unwrap().job(&pushed);
            assert_eq!(spec.image, Some(asked));
            spec.check().unwrap();
        }
    }

    #[test]
    fn all_names_of_docker_hub_are_one() {
        let rules = rules(&["index.docker.io/team/app=cache"]).unwrap();
        assert!(rules.of(&image("team/app:1")).is_some());
    }

    #[test]
    fn what_is_no_rule_is_said_with_the_way_out() {
        for (text, word) in [
            ("", "no target"),
            ("quay.io/team", "no target"),
            ("quay.io=cache", "no repository"),
            ("quay.io/team=", "no target"),
            ("quay.io/team=disk", "no target \"disk\""),
            ("quay.io/te am=cache", "in no name"),
            ("quay.io/team=peers,zone=", "says nothing"),
            ("quay.io/team=peers,speed=1", "none of"),
            ("quay.io/team=peers,count=x", "no number"),
            ("quay.io/team=peers,count=0", "at least 1"),
            ("quay.io/team=peers,count=1,percent=1", "leave one out"),
            ("quay.io/team=peers,platform=linux", "OS/ARCHITECTURE"),
            ("quay.io/team=cache,zone=a", "the supernode's own"),
            ("zone=b", "no repository"),
        ] {
            let error = rules(&[text]).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("for example"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_rule_or_is_refused(text in "[a-z.*/:=,0-9 ]{0,60}|\\PC{0,40}") {
            if let Ok(rule) = text.parse::<Rule>() {
                let _ = rule.fits(&image("quay.io/team/app:1"));
            }
        }
    }
}
