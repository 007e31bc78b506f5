//! Servers that abuse the talk before TLS: banners without end, lengths that lie, answers to questions nobody asked yet.

use std::net::SocketAddr;

use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::case::{Case, Group, starttls};
use super::servers::{Then, blurts, drip, flood, hear_line, say, serve};

/// Says the first of `lines`, and each further one after a line of the client.
async fn talks(lines: &'static [&'static str]) -> SocketAddr {
    serve(move |mut stream| async move {
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                hear_line(&mut stream).await;
            }
            if stream.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
        say(&mut stream, b"", Then::Hold).await;
    })
    .await
}

/// Says the first of `lines` as [`talks`], then `more` until the client goes.
async fn floods(begin: &'static str, more: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        if stream.write_all(begin.as_bytes()).await.is_ok() {
            hear_line(&mut stream).await;
            flood(&mut stream, more).await;
        }
    })
    .await
}

/// Hears `length` bytes, then says `words`.
async fn answers(length: usize, words: &'static [u8], then: Then) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut heard = vec![0; length];
        if stream.read_exact(&mut heard).await.is_ok() {
            say(&mut stream, words, then).await;
        }
    })
    .await
}

/// Bytes of the request of PostgreSQL, and of LDAP.
const POSTGRES_BYTES: usize = 8;
const LDAP_BYTES: usize = 31;

pub(super) async fn cases() -> Vec<Case> {
    let mut group = Group::new("starttls");
    mail(&mut group).await;
    databases(&mut group).await;
    others(&mut group).await;
    group.done()
}

async fn mail(group: &mut Group) {
    use ErrorClass::{ConnectionLost, StarttlsProtocol, StarttlsRefused, TlsHandshake, TlsTimeout};
    const HELLO: &str = "250-mail.test\r\n250 STARTTLS\r\n";
    let mut smtp = async |name, server: SocketAddr, class| group.fails(name, starttls(server, "smtp"), class);
    smtp("smtp: banner without end", blurts(b"220-welcome\r\n", Then::Repeat).await, StarttlsProtocol).await;
    smtp("smtp: line without end", blurts(b"220 welcome", Then::Repeat).await, StarttlsProtocol).await;
    let slow = serve(|mut stream| async move { drip(&mut stream, b"220 mail").await });
    smtp("smtp: banner byte by byte", slow.await, TlsTimeout).await;
    smtp("smtp: says nothing", blurts(b"", Then::Hold).await, TlsTimeout).await;
    smtp("smtp: hangs up", blurts(b"220 mail.test\r\n", Then::Close).await, ConnectionLost).await;
    smtp("smtp: bytes of no protocol", blurts([0xfe, b'\n'], Then::Repeat).await, StarttlsProtocol).await;
    smtp("smtp: codes that change", talks(&["220 a\r\n", "250-a\r\n550 b\r\n"]).await, StarttlsProtocol).await;
    smtp("smtp: features without end", floods("220 a\r\n", b"250-x\r\n").await, StarttlsProtocol).await;
    smtp("smtp: no upgrade", talks(&["220 a\r\n", "250 HELP\r\n"]).await, StarttlsRefused).await;
    smtp("smtp: not today", talks(&["220 a\r\n", HELLO, "454 not now\r\n"]).await, StarttlsRefused).await;
    smtp("smtp: no service", talks(&["554 go away\r\n"]).await, StarttlsRefused).await;
    // Words that stand behind the answer would count as said in private (CVE-2011-0411).
    const INJECTED: &str = "220 go ahead\r\n250 injected\r\n";
    smtp("smtp: words before their time", talks(&["220 a\r\n", HELLO, INJECTED]).await, StarttlsProtocol).await;
    let plain = talks(&["220 a\r\n", HELLO, "220 go\r\n", "554 what?\r\n"]).await;
    smtp("smtp: no TLS after the upgrade", plain, TlsHandshake).await;
    // A reset may be there before the connection has been noticed.
    let resets = starttls(blurts(b"220-mail.test\r\n", Then::Reset).await, "smtp");
    group.fails_or("smtp: resets", resets, ConnectionLost, ErrorClass::ConnectError);
}

async fn databases(group: &mut Group) {
    use ErrorClass::{StarttlsProtocol, StarttlsRefused, TlsHandshake, TlsTimeout};
    let mut postgres = async |name, words: &'static [u8], then, class| {
        group.fails(name, starttls(answers(POSTGRES_BYTES, words, then).await, "postgres"), class);
    };
    postgres("postgres: no TLS", b"N", Then::Hold, StarttlsRefused).await;
    postgres("postgres: neither yes nor no", b"X", Then::Hold, StarttlsProtocol).await;
    postgres("postgres: error", b"E\0\0\0\x09FATAL", Then::Hold, StarttlsRefused).await;
    postgres("postgres: error of 4 GiB", b"E\xff\xff\xff\xff", Then::Repeat, StarttlsProtocol).await;
    // Words that stand behind the answer would count as said in private (CVE-2021-23222).
    postgres("postgres: words before their time", b"Sinjected", Then::Hold, StarttlsProtocol).await;
    postgres("postgres: says nothing", b"", Then::Hold, TlsTimeout).await;
    postgres("postgres: hangs up after its answer", b"S", Then::Close, TlsHandshake).await;
    let mut mysql = async |name, words: &'static [u8], then, class| {
        group.fails(name, starttls(blurts(words, then).await, "mysql"), class);
    };
    mysql("mysql: greeting of 16 MiB", b"\xff\xff\xff\0", Then::Repeat, StarttlsProtocol).await;
    mysql("mysql: locked out", b"\x09\0\0\0\xff\x69\x04blocked", Then::Hold, StarttlsRefused).await;
    mysql("mysql: version without end", b"\x10\0\0\0\x0a888888888888888", Then::Hold, StarttlsProtocol).await;
    mysql("mysql: empty greeting", b"\0\0\0\0", Then::Hold, StarttlsProtocol).await;
    mysql("mysql: half a greeting", b"\x50\0\0\0\x0a", Then::Hold, TlsTimeout).await;
}

async fn others(group: &mut Group) {
    use ErrorClass::{StarttlsProtocol, StarttlsRefused, TlsTimeout};
    let mut says = async |name, protocol, words: &'static [u8], then, class| {
        group.fails(name, starttls(blurts(words, then).await, protocol), class);
    };
    says("imap: farewell", "imap", b"* BYE go away\r\n", Then::Hold, StarttlsRefused).await;
    says("imap: news without end", "imap", b"* OK news\r\n", Then::Repeat, StarttlsProtocol).await;
    says("imap: says nothing", "imap", b"", Then::Hold, TlsTimeout).await;
    says("pop3: refuses", "pop3", b"-ERR go away\r\n", Then::Hold, StarttlsRefused).await;
    says("pop3: line without end", "pop3", b"+OK", Then::Repeat, StarttlsProtocol).await;
    says("ftp: banner without end", "ftp", b"220-a\r\n", Then::Repeat, StarttlsProtocol).await;
    says("ftp: not today", "ftp", b"421 go away\r\n", Then::Hold, StarttlsRefused).await;
    says("xmpp: tag without end", "xmpp", b"<stream:stream a='", Then::Repeat, StarttlsProtocol).await;
    says("xmpp: entities", "xmpp", b"<!DOCTYPE a [<!ENTITY b \"c\">]>", Then::Hold, StarttlsProtocol).await;
    let deep = b"<stream:stream><stream:features><a><a><a><a><a><a><a><a><a><a><a><a><a>";
    says("xmpp: features without end", "xmpp", deep, Then::Repeat, StarttlsProtocol).await;
    says("xmpp: text without end", "xmpp", b"aaaa", Then::Repeat, StarttlsProtocol).await;
    let mut ldap = async |name, words: &'static [u8], then, class| {
        group.fails(name, starttls(answers(LDAP_BYTES, words, then).await, "ldap"), class);
    };
    ldap("ldap: message of 4 GiB", b"\x30\x84\xff\xff\xff\xff", Then::Repeat, StarttlsProtocol).await;
    ldap("ldap: length of 127 bytes", b"\x30\xff", Then::Repeat, StarttlsProtocol).await;
    ldap("ldap: refuses", b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00", Then::Hold, StarttlsRefused)
        .await;
    ldap("ldap: element longer than its message", b"\x30\x05\x02\x7f\x01\x78\x00", Then::Hold, StarttlsProtocol).await;
    ldap("ldap: says nothing", b"", Then::Hold, TlsTimeout).await;
}
