//! The values that metric labels can take, as enums: so that a series can be looked up once and then counted on
//! without a map, and nothing that a stranger sent becomes a label.

/// A label of a metric: a closed set of values.
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The value as it is shown.
    fn value(self) -> &'static str;

    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident as $label:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn value(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Where verified bytes came from.
    ByteSource as "source" {
        /// The registry or server itself.
        Origin = "origin",
        /// A supernode.
        Seed = "seed",
        /// Another peer.
        Peer = "peer",
        /// This node's own store, for a client.
        Local = "local",
        /// A supernode's bucket of whole blobs.
        Cache = "cache",
    }
}

label! {
    /// Whom bytes were sent to.
    Recipient as "to" {
        /// Another node.
        Peer = "peer",
        /// A container runtime, or `get`.
        Client = "client",
    }
}

label! {
    /// What a supernode did with an event that a registry told it of, and with the pushes among them.
    Notified as "result" {
        /// A push that a rule fits: it waits to be preheated.
        Queued = "queued",
        /// The same image waits already.
        Known = "known",
        /// No push of a tagged image.
        Ignored = "ignored",
        /// A push that no rule fits.
        Unmatched = "unmatched",
        /// A push of something whose name cannot be read.
        Nameless = "nameless",
        /// Too many wait: the registry sends it again.
        Full = "full",
        /// A push that waited is being preheated.
        Begun = "begun",
        /// A push that waited could not be.
        Lost = "lost",
    }
}

label! {
    /// What became of a preheat job.
    Preheated as "result" {
        /// All its nodes have it.
        Succeeded = "succeeded",
        /// Some have not.
        Failed = "failed",
        /// Somebody ended it.
        Cancelled = "cancelled",
    }
}

label! {
    /// What became of a preheat schedule's run.
    Scheduled as "result" {
        /// A job began.
        Begun = "begun",
        /// The job of the run before was still under way.
        Skipped = "skipped",
        /// No job could begin, or it could not be found out what a tag means.
        Failed = "failed",
    }
}

label! {
    /// Why a task had to leave the store.
    Eviction as "reason" {
        /// The quota.
        Quota = "quota",
        /// The disk has to keep some room free, or has none.
        Disk = "disk",
        /// Nobody used it for longer than the settings allow.
        Ttl = "ttl",
        /// Somebody asked for it.
        Request = "request",
    }
}

label! {
    /// Why a piece was not taken.
    RejectReason as "reason" {
        /// Its bytes are not the piece.
        Digest = "digest",
        /// It is shorter or longer than the piece.
        Length = "length",
        /// It did not come in time.
        Timeout = "timeout",
        /// The neighbour would not give it.
        Refused = "refused",
    }
}

label! {
    /// What a neighbour did wrong.
    FaultKind as "fault" {
        /// It sent bytes that are not the piece.
        WrongBytes = "wrong_bytes",
        /// It did not give a piece that it had shown.
        FalseClaim = "false_claim",
        /// It does so again and again.
        FalseSet = "false_set",
        /// It could not be reached, or fell silent.
        Silent = "silent",
        /// It is many times slower than the others.
        Slow = "slow",
    }
}

// === impl FaultKind ===

impl FaultKind {
    /// Number of kinds.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in their order.
    pub fn each() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied()
    }
}

label! {
    /// How a download ended.
    Outcome as "result" {
        /// Complete and proven.
        Ok = "ok",
        /// Given up.
        Failed = "failed",
        /// The origin's bytes have the wrong digest.
        Poisoned = "poisoned",
    }
}

label! {
    /// The class of an HTTP answer.
    Code as "code" {
        /// 2xx, and 1xx, which no answer ends with.
        Success = "2xx",
        /// 3xx.
        Redirect = "3xx",
        /// 4xx.
        Client = "4xx",
        /// 5xx.
        Server = "5xx",
        /// No answer at all.
        Error = "error",
    }
}

label! {
    /// What a client asked the proxy for.
    RequestKind as "kind" {
        /// A manifest.
        Manifest = "manifest",
        /// A blob.
        Blob = "blob",
        /// What is handed on as it came: tunnels, pushes, tokens.
        Passed = "passed",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// How a request for membership ended.
    Enrolment as "result" {
        /// A certificate was issued.
        Issued = "issued",
        /// An old certificate was renewed.
        Renewed = "renewed",
        /// The token or the request was not good.
        Refused = "refused",
        /// Something broke here.
        Failed = "failed",
    }
}

label! {
    /// Why a neighbour, or what it asked for, was turned away.
    TurnedAway as "reason" {
        /// No common protocol version.
        Version = "version",
        /// Its certificate does not fit what it says it is.
        Identity = "identity",
        /// Its words make no sense.
        Malformed = "malformed",
        /// The configuration forbids the origin that it asked for.
        Origin = "origin",
        /// All places are taken.
        Busy = "busy",
    }
}

// === impl Code ===

impl Code {
    /// The class of a status code.
    pub fn of(status: u16) -> Self {
        match status {
            100..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            500..=599 => Self::Server,
            _ => Self::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_fall_into_their_class() {
        let classes = [101, 200, 206, 307, 404, 503, 0, 999].map(|status| Code::of(status).value());
        assert_eq!(classes, ["2xx", "2xx", "2xx", "3xx", "4xx", "5xx", "error", "error"]);
    }

    #[test]
    fn each_value_stands_at_its_index() {
        for (index, source) in ByteSource::ALL.iter().enumerate() {
            assert_eq!(source.index(), index);
        }
    }
}
