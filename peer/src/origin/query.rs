//! Which query parameters of a URL are a key and not a name. Everybody who has a signed URL of one object has another
//! one, and all of them mean one task: its name goes without them, and the request to the origin with them, as a credential.
//! That also keeps signatures out of the store's records. Pure; called for every source.
//!
//! Even a parameter that is left out wrongly mixes nothing: the revision that the origin names (its entity tag) is part of a
//! task's name, too.
//!
//! Sources: AWS Signature Version 4, "Authenticating requests: using query parameters"; Google Cloud Storage, "Signed URLs";
//! Azure Storage, "Create a service SAS", "… account SAS", "… user delegation SAS"; CloudFront, "Use signed URLs".

use std::str::FromStr;

/// All that AWS and Google sign by.
const SIGNED_PREFIXES: [&str; 2] = ["x-amz-", "x-goog-"];
/// What shows that a query is one of the older signatures, and what then belongs to it.
const OLDER: [(&[&str], &[&str]); 2] = [
    (
        &["signature", "expires"],
        &["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"],
    ),
    (&["signature", "policy"], &["signature", "expires", "key-pair-id", "policy"]),
];
/// The same of Azure's shared access signatures. Their names are too short to be taken out of any URL.
const AZURE_SIGNS: [&str; 2] = ["sig", "sv"];
const AZURE: [&str; 24] = [
    "sig", "sv", "ss", "srt", "sp", "st", "se", "sip", "spr", "si", "sr", "sdd", "skoid", "sktid", "skt",
    "ske", "sks", "skv", "saoid", "suoid", "scid", "ses", "skdutid", "sduoid",
];

/// What is left out of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    clouds: bool,
    more: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Name(String),
    Prefix(String),
}

/// A query, cut in two; either may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parted {
    /// What names the content.
    pub name: String,
    /// What opens it.
    pub key: String,
}

/// Not a list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError(String);

impl std::fmt::Display for FilterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} names no query parameters: expected NAME,NAME… (a * at the end of one stands for anything), or none",
            self.0
        )
    }
}

impl std::error::Error for FilterError {}

// === impl Filter ===

impl Default for Filter {
    fn default() -> Self {
        Self { clouds: true, more: Vec::new() }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text == "none" {
            return Ok(Self { clouds: false, more: Vec::new() });
        }
        let more = text.split(',').map(|name| {
            let name = name.trim().to_ascii_lowercase();
            let (stem, prefix) = name.strip_suffix('*').map_or((name.as_str(), false), |stem| (stem, true));
            let plain = !stem.is_empty() && !stem.contains(|c: char| c.is_whitespace() || "*&=#".contains(c));
            match (plain, prefix) {
                (false, _) => Err(FilterError(text.to_owned())),
                (true, true) => Ok(Pattern::Prefix(stem.to_owned())),
                (true, false) => Ok(Pattern::Name(stem.to_owned())),
            }
        });
        Ok(Self { clouds: true, more: more.collect::<Result<_, _>>()? })
    }
}

impl Filter {
    /// Parts a query; each half keeps its order and spelling.
    pub fn part(&self, query: &str) -> Parted {
        let names: Vec<String> = query.split('&').map(name_of).collect();
        let has = |wanted: &[&str]| wanted.iter().all(|wanted| names.iter().any(|name| name == wanted));
        let is_key = |name: &str| {
            let older = || OLDER.iter().any(|(signs, all)| has(signs) && all.contains(&name));
            let azure = || has(&AZURE_SIGNS) && AZURE.contains(&name);
            let cloud =
                || SIGNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || older() || azure();
            (self.clouds && cloud()) || self.more.iter().any(|pattern| pattern.fits(name))
        };
        let (key, name): (Vec<_>, Vec<_>) = query.split('&').zip(&names).partition(|(_, name)| is_key(name));
        let join =
            |half: Vec<(&str, &String)>| half.into_iter().map(|(text, _)| text).collect::<Vec<_>>().join("&");
        Parted { name: join(name), key: join(key) }
    }
}

fn name_of(parameter: &str) -> String {
    parameter.split('=').next().unwrap_or_default().to_ascii_lowercase()
}

// === impl Pattern ===

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Prefix(stem) => name.starts_with(stem.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parted(filter: &Filter, query: &str) -> (String, String) {
        let Parted { name, key } = filter.part(query);
        (name, key)
    }

    #[test]
    fn what_the_big_clouds_sign_by_names_nothing() {
        for (query, name) in [
            (
                "X-Amz-Algorithm=A&X-Amz-Credential=k%2Fx&X-Amz-Date=d&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Signature=s&versionId=7",
                "versionId=7",
            ),
            ("x-id=GetObject&X-Amz-Security-Token=t&X-Amz-Signature=s", "x-id=GetObject"),
            ("AWSAccessKeyId=k&Expires=9&Signature=s&response-content-type=x", "response-content-type=x"),
            ("X-Goog-Algorithm=A&X-Goog-Signature=s&generation=3", "generation=3"),
            ("GoogleAccessId=g&Expires=9&Signature=s", ""),
            ("sv=2024-11-04&ss=b&srt=o&sp=r&se=2026-01-01T00%3A00Z&sig=x%3D&snapshot=y", "snapshot=y"),
            ("Policy=p&Signature=s&Key-Pair-Id=K", ""),
        ] {
            assert_eq!(parted(&Filter::default(), query).0, name, "{query}");
        }
    }

    #[test]
    fn what_is_no_signature_stays_in_the_name() {
        for query in
            ["", "st=2&se=3", "expires=never", "sp=a", "policy=x&a=b", "sig=1", "a&b&&c", "signature=x"]
        {
            assert_eq!(parted(&Filter::default(), query), (query.to_owned(), String::new()), "{query}");
        }
    }

    #[test]
    fn names_of_the_users_own_are_left_out_too_and_none_leaves_out_nothing() {
        let own: Filter = "token, sess*".parse().unwrap();
        assert_eq!(
            parted(&own, "a=1&Token=x&session=2&X-Amz-Date=d"),
            ("a=1".into(), "Token=x&session=2&X-Amz-Date=d".into())
        );
        let none: Filter = "none".parse().unwrap();
        assert_eq!(parted(&none, "X-Amz-Signature=s").0, "X-Amz-Signature=s");
        for bad in ["", ",", "a,,b", "a b", "*", "a=b", "a*b"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_a_query_is_lost(query in "([a-zA-Z]{1,3}(=[a-z0-9%]{0,4})?&?){0,8}", filter in "[a-z]{1,2}(,[a-z]\\*)?") {
            let Parted { name, key } = filter.parse::<Filter>().unwrap().part(&query);
            let mut before: Vec<_> = query.split('&').filter(|part| !part.is_empty()).collect();
            let mut after: Vec<_> = name.split('&').chain(key.split('&')).filter(|part| !part.is_empty()).collect();
            before.sort_unstable();
            after.sort_unstable();
            prop_assert_eq!(before, after);
        }
    }
}
