//! Every message that a neighbour or a stranger can send: decoding never panics and never takes more memory than a frame,
//! and what decodes encodes again, to the same.

use bytes::BytesMut;
use common::wire::{codec, enrol, exchange, hello, inquiry, swarm};

fn frame(payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::from(&(payload.len() as u32).to_le_bytes()[..]);
    frame.extend_from_slice(payload);
    frame
}

macro_rules! round_trip {
    ($payload:expr, $($message:ty),+ $(,)?) => {$(
        if let Ok(Some(message)) = codec::decode::<$message>(&mut frame($payload)) {
            let written = codec::encode(&message).expect("what was decoded fits into a frame");
            let read = codec::decode::<$message>(&mut BytesMut::from(&written[..]));
            let again = codec::encode(&read.expect("what was written can be read").expect("it is whole"));
            assert_eq!(again.expect("it fits"), written);
        }
    )+};
}

/// Takes the bytes for the payload of a frame of each message, and for a frame.
pub fn wire(data: &[u8]) {
    round_trip!(
        data,
        swarm::ToSupernode,
        swarm::ToPeer,
        exchange::Opening,
        exchange::Link,
        exchange::PieceReply,
        inquiry::Inquiry,
        inquiry::Inquired,
        hello::Hello,
        hello::Reply,
        enrol::Request,
        enrol::Reply,
    );
    let _ = codec::decode::<String>(&mut BytesMut::from(data));
}
