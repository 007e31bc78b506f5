//! WebSockets that are none, that never end, or that never come.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::{BINARY, CLOSE, PING, TEXT, accept, acceptance, frame, kind, raw_server, server, talk, wait_for_end};
use crate::check::tests::servers::{Authority, http1_server, read_head, tcp_server};
use crate::check::tests::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe};

#[tokio::test]
async fn another_status_is_kept() {
    let cases: [(&[u8], u16); 3] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200),
        (b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\n\r\n", 426),
        (b"HTTP/1.1 302 Found\r\nlocation: ws://10.0.0.1/\r\ncontent-length: 0\r\n\r\n", 302),
    ];
    for (answer, status) in cases {
        let observation = talk(http1_server(answer).await, "", "").await;
        assert_failed(&observation, ErrorClass::HttpStatus);
        assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(status)));
    }
    // Nobody waits for the body of such an answer.
    let without_body = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.unwrap();
        wait_for_end(&mut stream).await;
    })
    .await;
    assert_failed(&talk(without_body, "", "").await, ErrorClass::HttpStatus);
}

#[tokio::test]
async fn an_answer_that_is_not_an_upgrade_is_refused() {
    let bare =
        http1_server(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await;
    let wrong = http1_server(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await;
    let extended = tcp_server(|mut stream| async move {
        let answer = acceptance(&read_head(&mut stream).await);
        stream.write_all(format!("{answer}sec-websocket-extensions: x\r\n\r\n").as_bytes()).await.unwrap();
        wait_for_end(&mut stream).await;
    })
    .await;
    for addr in [bare, wrong, extended] {
        let observation = talk(addr, "", "").await;
        assert_failed(&observation, ErrorClass::WebsocketProtocol);
        assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(101)));
    }
    let observation = talk(http1_server(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await, "", "").await;
    assert_failed(&observation, ErrorClass::HttpProtocol);
    let observation = talk(http1_server(b"").await, "", "").await;
    assert_failed(&observation, ErrorClass::ConnectionLost);
}

#[tokio::test]
async fn bad_frames_are_not_a_websocket() {
    let masked = [&[TEXT, 0x82, 0, 0, 0, 0][..], b"ok"].concat();
    for bytes in [
        masked,
        frame(0x83, b"a kind that is reserved"),
        frame(0xc1, b"a bit that is reserved"),
        frame(TEXT, b"not \xff text"),
        frame(0x80, b"the rest of nothing"),
        frame(0x09, b"a ping in pieces"),
        frame(PING, &[b'x'; 126]),
        frame(CLOSE, b"x"),
    ] {
        let observation = talk(raw_server(bytes.clone()).await, "", "never").await;
        assert_failed(&observation, ErrorClass::WebsocketProtocol);
        assert_eq!((happened(&observation).as_str(), observation.status_code), ("-c-sfx", Some(101)), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_without_the_message_is_a_mismatch() {
    let closing = server(|mut socket| async move {
        socket.send(Message::text("something else")).await.unwrap();
        socket.close(None).await.unwrap();
        while socket.next().await.is_some() {}
    })
    .await;
    let observation = talk(closing, "", "welcome").await;
    assert_failed(&observation, ErrorClass::ExpectMismatch);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-c-sfx", Some(14)));
    let ending = tcp_server(|mut stream| async move {
        accept(&mut stream, &frame(TEXT, b"else")).await;
    })
    .await;
    assert_failed(&talk(ending, "", "welcome").await, ErrorClass::ExpectMismatch);
    // Many a server ends TLS without saying so.
    let authority = Authority::new();
    let acceptor = authority.issue(&["127.0.0.1"], |_| {}).acceptor(&[]);
    let ending = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move { drop(accept(&mut acceptor.accept(stream).await.unwrap(), &frame(TEXT, b"else")).await) }
    })
    .await;
    let context = context_with(None, vec![authority.root.clone()]);
    let observation = observe(&kind(&format!("wss://{ending}/"), "", "welcome"), &context, GENEROUS).await;
    assert_failed(&observation, ErrorClass::ExpectMismatch);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-ctsfx", Some(4)));
}

/// Accepts every upgrade and says `again` for ever.
async fn endless(again: Vec<u8>, pause: Duration) -> SocketAddr {
    tcp_server(move |mut stream| {
        let again = again.clone();
        async move {
            accept(&mut stream, b"").await;
            let (mut reader, mut writer) = stream.into_split();
            let talking = async {
                while writer.write_all(&again).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
            };
            tokio::join!(talking, wait_for_end(&mut reader));
        }
    })
    .await
}

#[tokio::test]
async fn messages_without_end_are_cut_off() {
    for again in [
        frame(TEXT, &[b'z'; 1_000]),
        frame(TEXT, b"").repeat(1_000),
        frame(PING, b"again").repeat(1_000),
        frame(0x8a, b"").repeat(1_000),
        // A message of fragments: growing, and empty ones.
        [frame(0x02, b"z"), frame(0x00, &[b'z'; 1_000]).repeat(100)].concat(),
        [frame(0x02, b"z"), frame(0x00, b"").repeat(200_000)].concat(),
        [&[BINARY, 127][..], &u64::MAX.to_be_bytes()].concat(),
        [&[BINARY, 127, 0, 0, 0, 0, 0, 1, 0, 1][..], &[b'z'; 65_537]].concat(),
    ] {
        let observation = observe(
            &kind(&format!("ws://{}/", endless(again.clone(), Duration::ZERO).await), "", "never"),
            &context(),
            GENEROUS,
        )
        .await;
        assert_failed(&observation, ErrorClass::ExpectMismatch);
        assert_eq!(happened(&observation), "-c-sfx");
        assert!(observation.bytes.unwrap() <= 131_072, "{observation:?}");
    }
    // The largest message is searched to its last byte.
    let mut largest = vec![b'z'; 65_534];
    largest.extend_from_slice(b"ok");
    let whole = [&[BINARY, 127][..], &65_536_u64.to_be_bytes(), &largest].concat();
    let observation = talk(raw_server(whole).await, "", "ok$").await;
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(65_536));
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    for (first, again, class) in [
        (&b"HTTP/1.1 101 Switching Protocols\r\nx: "[..], &[b'y'; 65_536][..], ErrorClass::HttpProtocol),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", ErrorClass::BodyTooLarge),
    ] {
        let addr = tcp_server(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(first).await.ok();
            while stream.write_all(again).await.is_ok() {}
        })
        .await;
        assert_failed(&talk(addr, "", "").await, class);
    }
}

#[tokio::test]
async fn a_server_that_sends_byte_by_byte_is_understood() {
    let addr = tcp_server(|mut stream| async move {
        let answer = acceptance(&read_head(&mut stream).await);
        for byte in [answer.as_bytes(), b"\r\n", &frame(TEXT, b"welcome")].concat() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        wait_for_end(&mut stream).await;
    })
    .await;
    assert_ok(&talk(addr, "", "^welcome$").await);
}

#[tokio::test]
async fn each_phase_ends_at_the_timeout() {
    let silent = tcp_server(|mut stream| async move { wait_for_end(&mut stream).await }).await;
    let half = tcp_server(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 Switch").await.unwrap();
        wait_for_end(&mut stream).await;
    })
    .await;
    let without_message = raw_server(Vec::new()).await;
    let half_a_message = raw_server(frame(TEXT, b"welcome")[..5].to_vec()).await;
    let drip = endless(frame(TEXT, b"z"), Duration::from_millis(5)).await;
    for (addr, class, phases, status) in [
        (silent, ErrorClass::FirstByteTimeout, "-c-sf-", None),
        (half, ErrorClass::TransferTimeout, "-c-sfx", None),
        (without_message, ErrorClass::TransferTimeout, "-c-sfx", Some(101)),
        (half_a_message, ErrorClass::TransferTimeout, "-c-sfx", Some(101)),
        (drip, ErrorClass::TransferTimeout, "-c-sfx", Some(101)),
    ] {
        let observation = observe(&kind(&format!("ws://{addr}/"), "", "never"), &context(), SHORT).await;
        assert_failed(&observation, class);
        assert_eq!((happened(&observation).as_str(), observation.status_code), (phases, status), "{observation:?}");
        assert!(observation.total_us >= 300_000, "{observation:?}");
    }
}
