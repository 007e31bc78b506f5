//! Reads `KILL QUERY WHERE query_id ...` in the forms that clients send. Never kills.

use super::lex::{Kind, Lexer, Token, text_value};

/// A KILL by ids that this server resolves itself, because the ids are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    /// The ids of the requests.
    pub query_ids: Vec<String>,
    /// Whether to answer only when they are gone.
    pub waits: bool,
}

/// Ids in one statement; a client kills one query or a handful.
const IDS_MAX: usize = 100;

/// Reads `KILL QUERY WHERE query_id = 'x'` or `IN ('x', ...)`, then nothing, `SYNC` or `ASYNC`, then maybe a FORMAT.
/// Any other form is `None` and goes to the engine as it is.
#[must_use]
pub(crate) fn parse(source: &[u8]) -> Option<Kill> {
    let tokens: Vec<Token> = Lexer::new(source).collect();
    let (start, rest) = tokens.split_at_checked(4)?;
    let starts = ["KILL", "QUERY", "WHERE", "query_id"];
    if !start.iter().zip(starts).all(|(token, word)| token.is_word(source, word)) {
        return None;
    }
    let (query_ids, rest) = ids(source, rest)?;
    let (waits, rest) = match rest.split_first() {
        Some((mode, rest)) if mode.is_word(source, "SYNC") => (true, rest),
        Some((mode, rest)) if mode.is_word(source, "ASYNC") => (false, rest),
        Some(_) | None => (false, rest),
    };
    let is_end = match rest {
        [] => true,
        [end] => end.kind == Kind::Sign(b';'),
        [word, _name] => word.is_word(source, "FORMAT"),
        _ => false,
    };
    is_end.then_some(Kill { query_ids, waits })
}

fn ids<'a>(source: &[u8], tokens: &'a [Token]) -> Option<(Vec<String>, &'a [Token])> {
    let value = |token: &Token| text_value(token.of(source));
    match tokens {
        [equals, id, rest @ ..] if equals.kind == Kind::Sign(b'=') => Some((vec![value(id)?], rest)),
        [word, open, rest @ ..] if word.is_word(source, "IN") && open.kind == Kind::Sign(b'(') => {
            let end = rest.iter().position(|token| token.kind == Kind::Sign(b')'))?;
            let items = rest[..end].iter().filter(|token| token.kind != Kind::Sign(b','));
            let ids: Vec<String> = items.map(value).collect::<Option<_>>()?;
            (ids.len() <= IDS_MAX).then_some((ids, &rest[end + 1..]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: Option<(&[&str], bool)>) {
        let expected =
            expected.map(|(ids, waits)| Kill { query_ids: ids.iter().map(|id| (*id).to_owned()).collect(), waits });
        assert_eq!(parse(source.as_bytes()), expected, "{source}");
    }

    #[test]
    fn kills_by_id_are_read() {
        check("KILL QUERY WHERE query_id = 'a' SYNC", Some((&["a"], true)));
        check("kill query where query_id='it''s' async;", Some((&["it's"], false)));
        check("KILL QUERY WHERE query_id IN ('a', 'b') SYNC FORMAT JSON", Some((&["a", "b"], true)));
        check("KILL QUERY WHERE query_id = 'a'", Some((&["a"], false)));
    }

    #[test]
    fn other_kills_go_to_the_engine() {
        check("KILL QUERY WHERE user = 'x'", None);
        check("KILL QUERY WHERE query_id = 'a' OR 1", None);
        check("KILL QUERY WHERE query_id = 'a' TEST", None);
        check("KILL MUTATION WHERE query_id = 'a'", None);
        check("KILL QUERY WHERE query_id = concat('a')", None);
    }
}
