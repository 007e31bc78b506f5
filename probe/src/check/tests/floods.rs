//! Targets that say more than anybody wants to hear, in pieces that each are in order.

use sonde_proto::model::check::CheckKind;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt;

use super::servers::{read_head, tcp_server};
use super::{GENEROUS, assert_failed, context, http_kind, observe};

/// Says `begin` after a request, and then `more` until the client goes.
async fn floods(begin: &'static [u8], more: &'static [u8]) -> CheckKind {
    let addr = tcp_server(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(begin).await.ok();
        let many = more.repeat(4_096);
        while stream.write_all(&many).await.is_ok() {}
    })
    .await;
    http_kind(&format!("http://{addr}/"), |_| {})
}

#[tokio::test]
async fn interim_answers_without_end_are_too_large_an_answer() {
    let kind = floods(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
    let observation = observe(&kind, &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::BodyTooLarge);
    assert_eq!(observation.status_code, None);
}
