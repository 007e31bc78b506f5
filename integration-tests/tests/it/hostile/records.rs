//! Records and handshake messages of TLS, byte by byte, so that they can be wrong. Never encrypts anything.

use tokio::io::{AsyncRead, AsyncReadExt as _};

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

pub(super) const HELLO_REQUEST: u8 = 0;
pub(super) const SERVER_HELLO: u8 = 2;
pub(super) const CERTIFICATE: u8 = 11;
pub(super) const SERVER_HELLO_DONE: u8 = 14;

pub(super) const TLS_1_0: u16 = 0x0301;
pub(super) const TLS_1_1: u16 = 0x0302;
pub(super) const TLS_1_2: u16 = 0x0303;
pub(super) const SSL_3: u16 = 0x0300;

/// ECDHE with ECDSA and AES-128-GCM, which every client of TLS 1.2 offers.
pub(super) const OFFERED: u16 = 0xc02b;
/// RSA with RC4 and MD5.
pub(super) const ANCIENT: u16 = 0x0004;

/// The random number that makes a hello a request for another one (RFC 8446, 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a server of TLS 1.3 puts at the end of its random number when it speaks 1.2 all the same.
pub(super) const DOWNGRADE: &[u8; 8] = b"DOWNGRD\x01";

/// A record with `payload`.
pub(super) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    record_of_length(kind, u16::try_from(payload.len()).unwrap(), payload)
}

/// A record that says it has `length` bytes.
pub(super) fn record_of_length(kind: u8, length: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind], &TLS_1_2.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// A handshake message in a record of its own.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    record(HANDSHAKE, &message_of_length(kind, body.len(), body))
}

/// A handshake message that says it has `length` bytes.
pub(super) fn message_of_length(kind: u8, length: usize, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// The hello of a server that speaks `version` and chose `cipher`.
pub(super) fn server_hello(version: u16, cipher: u16) -> Vec<u8> {
    hello(version, &[7; 32], &[], cipher, &[])
}

/// The same of a server that could do better.
pub(super) fn downgraded_hello() -> Vec<u8> {
    let mut random = [7; 32];
    random[24..].copy_from_slice(DOWNGRADE);
    hello(TLS_1_2, &random, &[], OFFERED, &[])
}

/// The same with an extension that nobody asked for.
pub(super) fn extended_hello(number: u16) -> Vec<u8> {
    hello(TLS_1_2, &[7; 32], &[], OFFERED, &extension(number, &[1]))
}

/// A request for another hello, with a key of `group`, in the session that the client named.
pub(super) fn retry(session: &[u8], group: u16) -> Vec<u8> {
    let extensions = [extension(43, &[3, 4]), extension(51, &group.to_be_bytes())].concat();
    hello(TLS_1_2, &RETRY, session, 0x1301, &extensions)
}

/// A hello of TLS 1.3 with a key of X25519 that is no point worth having.
pub(super) fn hello_of_1_3(session: &[u8]) -> Vec<u8> {
    let share = [&[0, 0x1d, 0, 32][..], &[0; 32]].concat();
    hello(TLS_1_2, &[7; 32], session, 0x1301, &[extension(43, &[3, 4]), extension(51, &share)].concat())
}

fn extension(number: u16, body: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn hello(version: u16, random: &[u8; 32], session: &[u8], cipher: u16, extensions: &[u8]) -> Vec<u8> {
    let body = [
        &version.to_be_bytes()[..],
        random,
        &[u8::try_from(session.len()).unwrap()],
        session,
        &cipher.to_be_bytes(),
        &[0],
        &u16::try_from(extensions.len()).unwrap().to_be_bytes(),
        extensions,
    ];
    message(SERVER_HELLO, &body.concat())
}

/// Hears the hello of a client, and returns the session that it names.
pub(super) async fn hear_hello(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.ok()?;
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut hello).await.ok()?;
    // Type, length, version and random number stand before it.
    let (length, rest) = hello.get(4 + 2 + 32..)?.split_first()?;
    rest.get(..usize::from(*length)).map(<[u8]>::to_vec)
}
