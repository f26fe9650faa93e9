//! Every message that a neighbour or a stranger can send: decoding never panics and never takes more memory than a
//! frame, and what decodes encodes again.
#![no_main]

use bytes::BytesMut;
use common::wire::{codec, enrol, exchange, hello, swarm};
use libfuzzer_sys::fuzz_target;

fn frame(payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::from(&(payload.len() as u32).to_le_bytes()[..]);
    frame.extend_from_slice(payload);
    frame
}

macro_rules! round_trip {
    ($payload:expr, $($message:ty),+) => {$(
        if let Ok(Some(message)) = codec::decode::<$message>(&mut frame($payload)) {
            codec::encode(&message).expect("what was decoded fits into a frame");
        }
    )+};
}

fuzz_target!(|data: &[u8]| {
    round_trip!(
        data,
        swarm::ToSupernode,
        swarm::ToPeer,
        exchange::Opening,
        exchange::Link,
        exchange::PieceReply,
        hello::Hello,
        hello::Reply,
        enrol::Request,
        enrol::Reply
    );
    let _ = codec::decode::<String>(&mut BytesMut::from(data));
});
