//! Gets the next certificate over the stream: asks with a new key, checks the answer, makes it durable.
//! Never touches the stream's own connection: the new certificate is shown on the next one.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use sonde_proto::session::RenewAnswer;
use thiserror::Error;
use tracing::{debug, info, warn};

use super::Link;
use super::renew::Renewal;
use crate::identity::{DataDir, FilesError, Identity, Membership, Mismatch, unix_time, verify_own_chain};

/// Why there is no new certificate.
#[derive(Debug, Error)]
enum RenewError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("a certificate request could not be made ({0})")]
    Request(#[from] rcgen::Error),
    #[error("the collector refuses: {0}")]
    Refused(String),
    #[error("the collector's answer makes no sense: {0}")]
    Mismatch(#[from] Mismatch),
    #[error("the new certificate is not valid: {0}")]
    Chain(rustls::Error),
}

impl Link {
    /// Asks for a certificate when it is time, and takes the one that came.
    pub(super) async fn renew(&mut self) {
        let wall = self.clock.wall();
        if self.renewal.expire(wall, rand::random()) {
            warn!("the collector did not answer the request for a certificate; it is asked again");
        }
        if let Some(answer) = self.renew_answer.take() {
            let taken = self.take_certificate(answer).await;
            self.note_renewal_failure(taken);
        }
        let is_live = self.spool.drive(|session, _, _| session.is_live());
        if is_live && self.departure.is_none() && self.renewal.is_due(wall) {
            let asked = self.ask_for_certificate().await;
            self.note_renewal_failure(asked);
        }
    }

    async fn ask_for_certificate(&mut self) -> Result<(), RenewError> {
        let dir = Arc::clone(&self.dir);
        let csr_der = blocking(move || Ok(dir.key_to_renew()?.request()?)).await?;
        self.spool.drive(|session, _, _| session.renew(csr_der));
        self.renewal.note_asked(self.clock.wall());
        debug!("asked for the next certificate");
        Ok(())
    }

    async fn take_certificate(&mut self, answer: RenewAnswer) -> Result<(), RenewError> {
        if !answer.refused.is_empty() {
            return Err(RenewError::Refused(answer.refused));
        }
        let dir = Arc::clone(&self.dir);
        let membership = Membership { bundle_version: answer.bundle_version, ..self.identity.membership.clone() };
        let now = unix_time(self.clock.wall());
        let identity = blocking(move || {
            let identity = assemble(&dir, membership, answer)?;
            verify_own_chain(&identity.chain, &identity.ca, now).map_err(RenewError::Chain)?;
            dir.store_renewed(&identity)?;
            Ok(identity)
        })
        .await?;
        let (bundle_version, hours) =
            (identity.membership.bundle_version, identity.valid.1.since(self.clock.wall()).as_secs() / 3_600);
        info!(bundle_version, hours, "the certificate is renewed");
        self.spool.drive(|session, _, _| session.set_bundle_version(bundle_version));
        self.renewal = Renewal::after(identity.valid, self.clock.wall(), rand::random());
        self.identity = identity;
        Ok(())
    }

    fn note_renewal_failure(&mut self, result: Result<(), RenewError>) {
        if let Err(error) = result {
            let pause = self.renewal.note_failed(self.clock.wall(), rand::random());
            warn!(%error, pause_s = pause.as_secs(), "the certificate is not renewed yet; it is asked for again");
        }
    }
}

fn assemble(dir: &DataDir, membership: Membership, answer: RenewAnswer) -> Result<Identity, RenewError> {
    let chain = answer.chain_der.into_iter().map(CertificateDer::from).collect();
    let ca = answer.ca_der.into_iter().map(CertificateDer::from).collect();
    Ok(Identity::assemble(membership, dir.key_to_renew()?, chain, ca)?)
}

/// Runs file work where it does not hold up measurements.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RenewError> + Send + 'static,
) -> Result<T, RenewError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
