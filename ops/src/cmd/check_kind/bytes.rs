//! Bytes that a person types. Never sends any.

/// Bytes as a flag spells them. A type of its own, since a list of bytes would be a flag that may be repeated.
#[derive(Debug, Clone, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

/// Reads bytes; a backslash begins the spelling of one that cannot be typed.
pub(super) fn parse_bytes(text: &str) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        bytes.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let byte = is_byte.then(|| u8::from_str_radix(&digits, 16).ok()).flatten();
                byte.ok_or_else(|| format!("`\\x{digits}` is not a byte: write two hexadecimal digits"))?
            }
            Some(other) => return Err(format!("`\\{other}` means nothing: use \\r, \\n, \\t, \\0, \\\\ or \\xHH")),
            None => return Err("ends with a single backslash: write \\\\ for one".to_owned()),
        });
    }
    Ok(Bytes(bytes))
}

/// Reads text, spelled as bytes are.
pub(super) fn parse_text(text: &str) -> Result<String, String> {
    let Bytes(bytes) = parse_bytes(text)?;
    String::from_utf8(bytes).map_err(|_| "is not text in UTF-8, as a message of a WebSocket is".to_owned())
}

/// Bytes as [`parse_bytes`] reads them.
pub(super) fn shown(bytes: &[u8]) -> String {
    let spell = |byte: &u8| match byte {
        b'\\' => r"\\".to_owned(),
        b'\r' => r"\r".to_owned(),
        b'\n' => r"\n".to_owned(),
        b'\t' => r"\t".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        byte => format!(r"\x{byte:02x}"),
    };
    bytes.iter().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_can_be_typed() {
        let bytes = |text: &str| parse_bytes(text).map(|Bytes(bytes)| bytes);
        assert_eq!(bytes(r"EHLO a\r\n").unwrap(), b"EHLO a\r\n");
        assert_eq!(bytes(r"\x00\xfF\0\\\t\u00fc".split(r"\u").next().unwrap()).unwrap(), b"\x00\xff\0\\\t");
        assert_eq!(bytes("ü").unwrap(), "ü".as_bytes());
        for (text, part) in [
            (r"\q", "means nothing"),
            (r"\x1", "two hexadecimal digits"),
            (r"\x+1", "two hexadecimal"),
            ("a\\", "single backslash"),
        ] {
            assert!(bytes(text).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_what_can_be_typed() {
        let every: Vec<u8> = (0..=u8::MAX).collect();
        let shown = shown(&every);
        assert_eq!(parse_bytes(&shown).unwrap().0, every);
        let text = "{\"ü\": \"a\\n\"}\n";
        assert_eq!(parse_text(&super::shown(text.as_bytes())).unwrap(), text);
        assert!(parse_text(r"\xff").unwrap_err().contains("UTF-8"));
    }
}
