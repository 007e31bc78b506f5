//! A mesh CA for tests: issues whatever a test asks for, also what a collector never would.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sonde_proto::model::id::ProbeId;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::{DataDir, Identity, Key, Membership, public_key_sha256};
use crate::clock::Clock;
use crate::identity::Address;

pub(crate) const TRUST_DOMAIN: &str = "sonde.test";
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// What a certificate is to say.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) uris: Vec<String>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) not_before: Wall,
    pub(crate) not_after: Wall,
    pub(crate) is_ca: bool,
}

impl Wanted {
    pub(crate) fn collector() -> Self {
        Self::named(format!("spiffe://{TRUST_DOMAIN}/collector/local-1"), ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn probe(probe: ProbeId) -> Self {
        let uri = format!("spiffe://{TRUST_DOMAIN}/region/eu-west/probe/{probe}");
        Self::named(uri, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn named(uri: String, usage: ExtendedKeyUsagePurpose) -> Self {
        let now = Clock::system().wall();
        let (not_before, not_after) = (now - HOUR, now + HOUR * 23);
        Self { uris: vec![uri], usages: vec![usage], not_before, not_after, is_ca: false }
    }

    fn params(&self) -> CertificateParams {
        let instant =
            |wall: Wall| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(wall.0 / 1_000_000).unwrap());
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        for uri in &self.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        params.extended_key_usages.clone_from(&self.usages);
        params.not_before = instant(self.not_before);
        params.not_after = instant(self.not_after);
        if self.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Sonde mesh CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    pub(crate) fn pin(&self) -> [u8; 32] {
        public_key_sha256(&self.der).unwrap()
    }

    /// A certificate and its key.
    pub(crate) fn issue(&self, wanted: &Wanted) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        (wanted.params().signed_by(&key, &self.issuer).unwrap().der().clone(), key.into())
    }

    /// A certificate for the key of a request, as a collector issues it.
    pub(crate) fn certify(&self, csr_der: &[u8], wanted: &Wanted) -> CertificateDer<'static> {
        let mut request = CertificateSigningRequestParams::from_der(&csr_der.into()).unwrap();
        request.params = wanted.params();
        request.signed_by(&self.issuer).unwrap().der().clone()
    }

    /// Joins without a network: an identity in `dir` whose certificate is `wanted`.
    pub(crate) fn enrol(&self, dir: &DataDir, probe: ProbeId, mesh_address: &str, wanted: &Wanted) -> Identity {
        let key: Key = dir.key_to_join().unwrap();
        let chain = vec![self.certify(&key.request().unwrap(), wanted)];
        let identity = Identity::assemble(membership(probe, mesh_address), key, chain, vec![self.der()]).unwrap();
        dir.store_joined(&identity).unwrap();
        identity
    }
}

pub(crate) fn membership(probe: ProbeId, mesh_address: &str) -> Membership {
    Membership {
        probe,
        region: "eu-west".parse().unwrap(),
        name: "eu-west-1".to_owned(),
        mesh_address: Address::parse("mesh_address", mesh_address).unwrap(),
        enrol_address: Address::parse("enrol_address", "127.0.0.1:7402").unwrap(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        bundle_version: 1,
    }
}

pub(crate) fn some_probe() -> ProbeId {
    ProbeId(Uuid::from_u128(0x7f3a_2b64_2f0e_4a55_8a39_7c1f_0d6f_2a11))
}
