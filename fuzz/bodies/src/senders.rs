//! What other programs send to a supernode's HTTP port for something to be preheated, and the rules that say what is.

/// Takes the bytes for a body, a URL, and a rule.
pub fn senders(data: &[u8]) {
    supernode::drivers::fuzz::senders(data);
}
