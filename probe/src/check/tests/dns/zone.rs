//! A signed zone, `signed.test`, as a server would answer for it; each part can be spoilt.

use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::sig::SigInput;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_proto::dnssec::{Algorithm, PublicKey as _, SigningKey, TBS};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};

use crate::check::tests::servers::dns_answer;
use crate::clock::Clock;

const TTL: u32 = 300;
const ALGORITHM: Algorithm = Algorithm::ECDSAP256SHA256;

/// A key of the zone.
struct Key {
    secret: EcdsaSigningKey,
    public: DNSKEY,
}

impl Key {
    fn new(is_entry_point: bool) -> Self {
        let pkcs8 = EcdsaSigningKey::generate_pkcs8(ALGORITHM).unwrap();
        let secret = EcdsaSigningKey::from_pkcs8(&pkcs8, ALGORITHM).unwrap();
        let public = DNSKEY::new(true, is_entry_point, false, secret.to_public_key().unwrap());
        Self { secret, public }
    }

    /// The signature over `records`, which lasts from an hour ago for `seconds`.
    fn sign(&self, records: &[Record], seconds: i64) -> Record {
        let first = &records[0];
        let began = Clock::system().wall().0 / 1_000_000 - 3_600;
        let serial = |at: i64| SerialNumber::new(u32::try_from(at).unwrap());
        let input = SigInput {
            type_covered: first.record_type(),
            algorithm: ALGORITHM,
            num_labels: first.name.num_labels(),
            original_ttl: first.ttl,
            sig_expiration: serial(began + seconds),
            sig_inception: serial(began),
            key_tag: self.public.calculate_key_tag().unwrap(),
            signer_name: apex(),
        };
        let tbs = TBS::from_input(&first.name, DNSClass::IN, &input, records.iter()).unwrap();
        let signature = RRSIG::from_sig(input, self.secret.sign(&tbs).unwrap());
        record(&first.name, RData::DNSSEC(DNSSECRData::RRSIG(signature)))
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn apex() -> Name {
    name("signed.test.")
}

/// Zone `signed.test`: `www` and its alias `alias`, the delegation `plain` of an unsigned zone, `stale` with a signature
/// that has expired, `bare` without one, `forged` with one that is not for its address.
pub(super) struct Zone {
    entry: Key,
    signing: Key,
}

const DAY: i64 = 86_400;

impl Zone {
    pub(super) fn new() -> Self {
        Self { entry: Key::new(true), signing: Key::new(false) }
    }

    /// The key that others trust, as a check has it.
    pub(super) fn anchor(&self) -> String {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::STANDARD.encode(self.entry.public.public_key().public_bytes());
        format!("signed.test. DNSKEY 257 3 {} {key}", u8::from(ALGORITHM))
    }

    fn signed(&self, records: Vec<Record>) -> Vec<Record> {
        let signature = self.signing.sign(&records, DAY);
        records.into_iter().chain([signature]).collect()
    }

    fn soa(&self) -> Vec<Record> {
        let soa = SOA::new(apex(), apex(), 1, 3_600, 600, 86_400, TTL);
        self.signed(vec![record(&apex(), RData::SOA(soa))])
    }

    fn nsec(&self, owner: &Name, next: &Name, types: &[RecordType]) -> Vec<Record> {
        let nsec = NSEC::new_cover_self(next.clone(), types.iter().copied());
        self.signed(vec![record(owner, RData::DNSSEC(DNSSECRData::NSEC(nsec)))])
    }

    /// Answers for the zone and for the unsigned one below it.
    pub(super) fn answer(&self, query: &Message) -> Message {
        assert!(query.metadata.checking_disabled, "the server need not judge");
        assert!(query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok), "signatures are wanted");
        let mut answer = dns_answer(query, ResponseCode::NoError, &[]);
        let asked = query.queries[0].clone();
        let owner = asked.name().clone();
        let address = |last: u8| record(&owner, RData::A(A::new(192, 0, 2, last)));
        let text = owner.to_ascii();
        match (text.as_str(), asked.query_type()) {
            ("signed.test.", RecordType::DNSKEY) => {
                let keys = [&self.entry, &self.signing]
                    .map(|key| record(&owner, RData::DNSSEC(DNSSECRData::DNSKEY(key.public.clone()))));
                answer.add_answer(self.entry.sign(&keys, DAY)).add_answers(keys);
            }
            ("signed.test.", RecordType::NS) => {
                answer.add_answers(self.signed(vec![record(&owner, RData::NS(NS(name("ns.signed.test."))))]));
            }
            ("www.signed.test.", RecordType::A) => {
                answer.add_answers(self.signed(vec![address(1), address(2)]));
            }
            ("alias.signed.test.", RecordType::A) => {
                let target = name("www.signed.test.");
                let address = record(&target, RData::A(A::new(192, 0, 2, 1)));
                answer.add_answers(self.signed(vec![record(&owner, RData::CNAME(CNAME(target)))]));
                answer.add_answers(self.signed(vec![address]));
            }
            ("stale.signed.test.", RecordType::A) => {
                let records = [address(1)];
                answer.add_answer(self.signing.sign(&records, 60)).add_answers(records);
            }
            ("forged.signed.test.", RecordType::A) => {
                answer.add_answer(self.signing.sign(&[address(1)], DAY)).add_answer(address(66));
            }
            ("bare.signed.test.", RecordType::A) | ("host.plain.signed.test.", RecordType::A) => {
                answer.add_answer(address(1));
            }
            _ => self.answer_below(&mut answer, &text, asked.query_type()),
        }
        answer
    }

    /// Answers for delegations, and for names that are not there.
    fn answer_below(&self, answer: &mut Message, text: &str, kind: RecordType) {
        let (owner, plain) = (name(text), name("plain.signed.test."));
        match (text, kind) {
            ("plain.signed.test.", RecordType::NS) => {
                answer.add_answer(record(&owner, RData::NS(NS(name("ns.plain.signed.test.")))));
            }
            // A server of this zone answers for its parent as well, which it knows nothing of.
            ("signed.test.", RecordType::DS) => {
                let types = [RecordType::NS, RecordType::SOA, RecordType::DNSKEY];
                answer.add_authorities(self.soa());
                answer.add_authorities(self.nsec(&apex(), &name("alias.signed.test."), &types));
            }
            ("plain.signed.test.", RecordType::DS) => {
                let types = [RecordType::NS];
                answer.add_authorities(self.soa());
                answer.add_authorities(self.nsec(&plain, &name("stale.signed.test."), &types));
            }
            ("nothing.signed.test.", _) => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authorities(self.soa());
                // Between `forged` and `plain`; and at the apex, that no wildcard answers.
                answer.add_authorities(self.nsec(&name("forged.signed.test."), &plain, &[RecordType::A]));
                let types = [RecordType::NS, RecordType::SOA, RecordType::DNSKEY];
                answer.add_authorities(self.nsec(&apex(), &name("alias.signed.test."), &types));
            }
            ("liar.signed.test.", _) => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.add_authorities(self.soa());
            }
            _ => {}
        }
    }
}
