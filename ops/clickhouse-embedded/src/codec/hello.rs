//! The answer to the hello of the Go driver behind Grafana's plugin. The driver reads that first answer in the form of
//! protocol revision 54460 and every later one in the form of the revision that the answer names. The engine writes
//! revision 0 only, so the answer names revision 0 and is itself written in the newer form. Never used for other statements.

/// The statement that the driver sends first.
pub(crate) const STATEMENT: &[u8] = b"SELECT displayName(), version(), revision(), timezone()";
/// The oldest `client_protocol_version` whose blocks carry a block header.
pub(crate) const BLOCK_INFO_REVISION_MIN: u64 = 51_903;
/// The oldest whose columns carry a flag for custom serialisation.
const CUSTOM_SERIALIZATION_REVISION_MIN: u64 = 54_454;

/// Writes the block for a client that speaks `client_revision`.
#[must_use]
pub(crate) fn block(client_revision: u64, display_name: &str, version: &str, timezone: &str) -> Vec<u8> {
    let has_flag = client_revision >= CUSTOM_SERIALIZATION_REVISION_MIN;
    // Field 1: not overflows. Field 2: bucket -1. End of fields.
    let mut block = vec![1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];
    // Four columns, one row.
    block.extend_from_slice(&[4, 1]);
    let mut column = |name: &str, kind: &str, value: &[u8]| {
        push_text(&mut block, name.as_bytes());
        push_text(&mut block, kind.as_bytes());
        if has_flag {
            block.push(0);
        }
        block.extend_from_slice(value);
    };
    column("displayName()", "String", &text(display_name));
    column("version()", "String", &text(version));
    column("revision()", "UInt32", &0_u32.to_le_bytes());
    column("timezone()", "String", &text(timezone));
    block
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_text(&mut bytes, value.as_bytes());
    bytes
}

/// Length as a variable-length number, then the bytes.
fn push_text(target: &mut Vec<u8>, value: &[u8]) {
    let mut length = value.len();
    while length >= 0x80 {
        target.push(u8::try_from(length & 0x7f).expect("seven bits fit") | 0x80);
        length >>= 7;
    }
    target.push(u8::try_from(length).expect("below 128"));
    target.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_has_the_form_of_revision_54460_and_names_revision_0() {
        let block = block(54_460, "me", "26.7.2.1", "UTC");
        let mut expected = vec![1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 4, 1];
        expected.extend_from_slice(b"\x0ddisplayName()\x06String\x00\x02me");
        expected.extend_from_slice(b"\x09version()\x06String\x00\x0826.7.2.1");
        expected.extend_from_slice(b"\x0arevision()\x06UInt32\x00\0\0\0\0");
        expected.extend_from_slice(b"\x0atimezone()\x06String\x00\x03UTC");
        assert_eq!(block, expected);
    }

    #[test]
    fn long_texts_get_a_longer_length() {
        let mut bytes = Vec::new();
        push_text(&mut bytes, &[b'x'; 300]);
        assert_eq!(bytes[..2], [0xac, 0x02]);
        assert_eq!(bytes.len(), 302);
    }
}
