//! URLs that a request forger writes so that a filter reads another host than the one that is dialled. Each is refused, or
//! read as the address that it means, and then the vetting refuses that.

use super::super::{CheckKind, Host};
use crate::model::address::vet;

const SPELLINGS: &[&str] = &[
    // Numbers of other forms and bases.
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0X7F000001/",
    "http://0x7f.0x0.0x0.0x1/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://00000177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0x1/",
    "http://127.65535/",
    "http://127.0.0.1./",
    "http://127.1./",
    "http://0/",
    "http://0.0/",
    "http://00.00.00.00/",
    "http://0x0/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://0251.0376.0251.0376/",
    "http://0xA9.0xFE.0xA9.0xFE/",
    "http://3232235777/",
    "http://10.1/",
    "http://012.0.0.1/",
    "http://256.256.256.256/",
    "http://127.0.0.1.1/",
    "http://4294967296/",
    "http://-1/",
    // Letters that look like, or are mapped to, others.
    "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
    "http://\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}/",
    "http://127\u{3002}0\u{3002}0\u{3002}1/",
    "http://127\u{ff0e}0\u{ff0e}0\u{ff0e}1/",
    "http://127.0.0.\u{ad}1/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://127.0.0.1%00.example.com/",
    "http://127.0.0.1%09/",
    "http://1\t27.0.0.1/",
    "http://127.0.0.1\n/",
    " http://127.0.0.1/",
    // IPv6, and IPv4 inside of it.
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::FFFF:7f00:1]/",
    "http://[0:0:0:0:0:ffff:7f00:0001]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b:1::127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:1:2:3:4:80ff:fffe]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[::1%251]/",
    "http://::1/",
    "http://[::1/",
    "http://[127.0.0.1]/",
    // Somebody else before, or after.
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1/",
    "http://example.com%40127.0.0.1/",
    "http://127.0.0.1:80@example.com/",
    "http://127.0.0.1\\@example.com/",
    "http://127.0.0.1\\example.com/",
    "http:127.0.0.1/",
    "http:/127.0.0.1/",
    "http:///127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "//127.0.0.1/",
    "http://127.0.0.1:0x50/",
    "http://127.0.0.1:080080/",
    "http://0x7f.1:80/",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1?@example.com/",
];

#[test]
fn no_spelling_hides_an_address() {
    assert!(SPELLINGS.len() >= 60, "{}", SPELLINGS.len());
    let (mut read, mut faults) = (0, Vec::new());
    for url in SPELLINGS {
        let Ok(kind) = CheckKind::parse(super::http(url)) else { continue };
        match kind.host() {
            Some(Host::Addr(addr)) if vet(addr).is_err() => read += 1,
            host => faults.push(format!("{url:?} is read as {host:?}")),
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(read >= 20, "what is refused before it is vetted proves little: {read}");
}
