//! The way through a proxy. It is asked to connect to the very address that the guard has vetted, never to a name: what
//! a name would mean to the proxy nobody here could vet. Never speaks TLS to a proxy.
//!
//! Phase `connect` lasts until the proxy says that the connection to the target stands: it holds the handshake with the
//! proxy and the exchange of CONNECT.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sonde_proto::model::check::{HttpProxy, Login};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;
use zeroize::Zeroizing;

use super::request::Target;
use crate::check::trace::{Phase, Trace};
use crate::check::{Context, reach};
use crate::guard::{Stream, Vetted};

/// Largest head of the answer of a proxy.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why a proxy did not connect.
enum Fault {
    /// It answered with this status.
    Refused(u16),
    /// It said something else.
    Protocol,
}

/// Connects to `target` through `proxy`: phases `dns`, for the proxy's name, and `connect`.
///
/// # Errors
/// `proxy_*`; [`ErrorClass::AddressForbidden`] for a proxy that may not be dialled; [`ErrorClass::ConnectTimeout`] when
/// the proxy was reached and did not connect in time.
pub(super) async fn connect(
    proxy: &HttpProxy,
    target: Vetted,
    context: &Context,
    trace: &mut Trace,
) -> Result<Stream, ErrorClass> {
    let url = Url::parse(&proxy.url).map_err(|_| ErrorClass::ProbeError)?;
    let Target { host, port, .. } = Target::of(&url)?;
    let address = reach::find(&host, port, context, trace).await.map_err(of_proxy)?;
    let mut stream = reach::connect(address, context, trace).await.map_err(of_proxy)?;
    let from = trace.now();
    let answered = trace.within(ask(&mut stream, &proxy.login, target)).await;
    trace.close(Phase::Connect, from);
    match answered {
        Some(Ok(())) => Ok(stream),
        Some(Err(Fault::Refused(status))) => {
            trace.status_code = Some(status);
            Err(if status == 407 { ErrorClass::ProxyAuth } else { ErrorClass::ProxyRefused })
        }
        Some(Err(Fault::Protocol)) => Err(ErrorClass::ProxyProtocol),
        None => Err(ErrorClass::ConnectTimeout),
    }
}

/// What is wrong on the way to a proxy says nothing of the target.
fn of_proxy(class: ErrorClass) -> ErrorClass {
    let is_own = matches!(class, ErrorClass::AddressForbidden | ErrorClass::ProbeError);
    if is_own { class } else { ErrorClass::ProxyConnect }
}

async fn ask(stream: &mut Stream, login: &Login, target: Vetted) -> Result<(), Fault> {
    let addr = target.addr();
    let mut request = Zeroizing::new(format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\n"));
    if !login.user.is_empty() {
        request.push_str("Proxy-Authorization: ");
        request.push_str(&basic(&login.user, login.password.expose()));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|_| Fault::Protocol)?;
    let head = head(stream).await?;
    let status = status(&head).ok_or(Fault::Protocol)?;
    if (200..300).contains(&status) { Ok(()) } else { Err(Fault::Refused(status)) }
}

/// Credentials as `Authorization` and `Proxy-Authorization` carry them.
pub(super) fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

/// Reads the head of an answer and not a byte beyond it: that is the target's already.
async fn head(stream: &mut Stream) -> Result<Vec<u8>, Fault> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut ahead = [0; 1_024];
    while !head.ends_with(END) {
        let length = stream.peek(&mut ahead).await.map_err(|_| Fault::Protocol)?;
        if length == 0 || head.len() + length > HEAD_BYTES_MAX {
            return Err(Fault::Protocol);
        }
        let known = head.len();
        head.extend_from_slice(&ahead[..length]);
        let searched = known.saturating_sub(END.len() - 1);
        if let Some(place) = head[searched..].windows(END.len()).position(|window| window == END) {
            head.truncate(searched + place + END.len());
        }
        stream.read_exact(&mut ahead[..head.len() - known]).await.map_err(|_| Fault::Protocol)?;
    }
    Ok(head)
}

/// The status of an answer in HTTP/1.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let ends = matches!(rest.first(), Some(b' ' | b'\r'));
    let code: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (ends && digits.iter().all(u8::is_ascii_digit) && (100..600).contains(&code)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_of_http_1_is_one() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407\r\n\r\n", Some(407)),
            ("HTTP/2 200 OK\r\n\r\n", None),
            ("HTTP/1.1 2000\r\n\r\n", None),
            ("HTTP/1.1 +20 OK\r\n\r\n", None),
            ("HTTP/1.1 20", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
        assert_eq!(basic("Aladdin", "open sesame").as_str(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
