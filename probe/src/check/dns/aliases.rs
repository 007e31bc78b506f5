//! Follows the aliases of an answer, from the name that was asked for to the records that answer. What is about other names
//! is passed over: a server may say anything besides. Never asks anything.

use hickory_proto::rr::{Name, RData, Record, RecordType as WireType};
use hickory_proto::serialize::binary::BinDecodable as _;

/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 16;

/// What an answer says about a name.
#[derive(Debug, Default)]
pub(super) struct Followed<'a> {
    /// The records that lead from alias to alias, in their order.
    pub(super) links: Vec<&'a Record>,
    /// The records of the type that was asked for, at the end of them.
    pub(super) found: Vec<&'a Record>,
}

/// Follows `name` through `answers` to its records of type `asked`.
pub(super) fn follow<'a>(answers: &'a [Record], name: &Name, asked: WireType) -> Followed<'a> {
    let mut followed = Followed::default();
    let mut owner = name.clone();
    for _ in 0..=ALIASES_MAX {
        let is_asked = |record: &Record| {
            let kind = record.record_type();
            kind == asked || (asked == WireType::ANY && kind != WireType::RRSIG)
        };
        followed.found = answers.iter().filter(|record| record.name == owner && is_asked(record)).collect();
        if !followed.found.is_empty() {
            break;
        }
        let Some((link, target)) = next(answers, &owner) else { break };
        followed.links.push(link);
        owner = target;
    }
    followed
}

/// The record that leads on from `owner`: a DNAME above it, since an alias that follows from one is signed by nobody, or its
/// CNAME.
fn next<'a>(answers: &'a [Record], owner: &Name) -> Option<(&'a Record, Name)> {
    let rewritten = answers.iter().find_map(|record| Some((record, rewrite(record, owner)?)));
    let alias = || {
        let of_owner = answers.iter().filter(|record| record.name == *owner);
        let mut aliases = of_owner.filter_map(|record| {
            if let RData::CNAME(target) = &record.data { Some((record, target.0.clone())) } else { None }
        });
        aliases.next()
    };
    rewritten.or_else(alias)
}

/// What the owner becomes by a DNAME above it (RFC 6672, 2.2): the end of its name is replaced.
fn rewrite(record: &Record, owner: &Name) -> Option<Name> {
    let RData::Unknown { code: WireType::DNAME, rdata } = &record.data else { return None };
    let target = Name::from_bytes(&rdata.anything).ok()?;
    let kept = owner.iter().count().checked_sub(record.name.iter().count()).filter(|kept| *kept > 0)?;
    if !record.name.zone_of(owner) {
        return None;
    }
    let mut name = Name::from_labels(owner.iter().take(kept).chain(target.iter())).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata::{A, CNAME, NULL};
    use hickory_proto::serialize::binary::BinEncodable as _;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn address(owner: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::A(A(Ipv4Addr::LOCALHOST)))
    }

    fn alias(owner: &str, target: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
    }

    fn rename(owner: &str, target: &str) -> Record {
        let rdata = NULL::with(name(target).to_bytes().unwrap());
        Record::from_rdata(name(owner), 60, RData::Unknown { code: WireType::DNAME, rdata })
    }

    /// Owners of the links, and of what was found.
    fn followed(answers: &[Record]) -> (Vec<String>, Vec<String>) {
        let owners = |records: Vec<&Record>| records.iter().map(|record| record.name.to_string()).collect();
        let Followed { links, found } = follow(answers, &name("a.b.test."), WireType::A);
        (owners(links), owners(found))
    }

    #[test]
    fn only_what_is_about_the_name_counts() {
        let of = |links: &[&str], found: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            (owned(links), owned(found))
        };
        assert_eq!(followed(&[address("other.test."), address("A.B.test.")]), of(&[], &["A.B.test."]));
        assert_eq!(followed(&[address("other.test.")]), of(&[], &[]));
        let answers = [address("d.test."), alias("c.test.", "d.test."), alias("a.b.test.", "c.test.")];
        assert_eq!(followed(&answers), of(&["a.b.test.", "c.test."], &["d.test."]));
        // Aliases in a circle end.
        assert!(followed(&[alias("a.b.test.", "a.b.test.")]).1.is_empty());
    }

    #[test]
    fn an_alias_below_a_dname_is_what_the_dname_makes_of_it() {
        let answers = [rename("b.test.", "y.test."), alias("a.b.test.", "evil.test."), address("evil.test.")];
        let (links, found) = followed(&answers);
        assert_eq!((links, found), (vec!["b.test.".to_owned()], vec![]));
        let answers = [rename("b.test.", "y.test."), alias("a.b.test.", "a.y.test."), address("a.y.test.")];
        assert_eq!(followed(&answers).1, ["a.y.test."]);
        // Its own owner is not renamed.
        let (links, _) = followed(&[rename("a.b.test.", "y.test.")]);
        assert!(links.is_empty());
    }
}
