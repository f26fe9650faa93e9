//! Two connections as one: a tunnel's bytes. Used by [`super::connect`].

use std::io;
use std::time::Duration;

use peer::origin::activity::Activity;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes on their way in one direction.
const BUFFER: usize = 32 * 1024;

/// Carries bytes until both sides have ended, or nothing has moved either way for `idle`.
pub(super) async fn both_ways<A, B>(a: A, b: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::default();
    let (from_a, to_a) = tokio::io::split(a);
    let (from_b, to_b) = tokio::io::split(b);
    let carrying =
        async { tokio::try_join!(carry(from_a, to_b, &activity), carry(from_b, to_a, &activity)).map(drop) };
    tokio::select! {
        ended = carrying => ended,
        () = activity.silence(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        activity.note();
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn one_way_is_enough_to_keep_a_tunnel_and_silence_ends_it() {
        let ((client, a), (b, mut server)) = (duplex(64), duplex(64));
        let tunnel = tokio::spawn(both_ways(a, b, IDLE));
        let (mut reader, _writer) = tokio::io::split(client);
        let mut bytes = [0; 5];
        for _ in 0..10 {
            tokio::time::sleep(IDLE / 2).await;
            server.write_all(b"bytes").await.unwrap();
            reader.read_exact(&mut bytes).await.unwrap();
        }
        assert!(!tunnel.is_finished());
        assert_eq!(tunnel.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_tunnel_ends_when_both_have() {
        let ((mut client, a), (b, mut server)) = (duplex(64), duplex(64));
        let tunnel = tokio::spawn(both_ways(a, b, IDLE));
        client.write_all(b"ask").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((asked.as_str(), answer.as_str()), ("ask", "answer"));
        tunnel.await.unwrap().unwrap();
    }
}
