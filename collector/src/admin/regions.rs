//! Regions over the admin API. Every workspace may read them; only the instance creates them.

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::RegionId;
use sonde_proto::wire;
use sonde_proto::wire::regions_server::{Regions, RegionsServer};
use tonic::{Request, Response, Status};

use super::{ANSWER_BYTES_MAX, Core, REQUEST_BYTES_MAX, error};
use crate::authz::Scope;
use crate::store::RegionRow;

/// The service `sonde.v1.Regions`.
#[derive(Debug, Clone)]
pub struct RegionsService {
    core: Core,
}

impl RegionsService {
    /// The service with its limits on message sizes.
    pub fn server(core: Core) -> RegionsServer<Self> {
        RegionsServer::new(Self { core })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Regions for RegionsService {
    async fn create_region(
        &self,
        request: Request<wire::CreateRegionRequest>,
    ) -> Result<Response<wire::Region>, Status> {
        let caller = self.core.auth.require(&request, Scope::RegionsWrite)?;
        caller.require_instance("creating a region")?;
        // The message of the field `name` of this request speaks of what it names.
        let name = RegionId::new(request.into_inner().name)
            .map_err(|invalid| error::invalid(InvalidField::new("name", invalid.reason)))?;
        let created = self.core.store.create_region(&caller.workspace, caller.actor(), &name).await;
        let row = created.map_err(|failure| error::store(&caller, failure))?;
        Ok(Response::new(message(&row)))
    }

    async fn list_regions(
        &self,
        request: Request<wire::ListRegionsRequest>,
    ) -> Result<Response<wire::ListRegionsResponse>, Status> {
        let caller = self.core.auth.require(&request, Scope::RegionsRead)?;
        let rows = self.core.store.regions(&caller.workspace).await.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(wire::ListRegionsResponse { regions: rows.iter().map(message).collect() }))
    }
}

fn message(row: &RegionRow) -> wire::Region {
    wire::Region { name: row.name.to_string(), created_at_us: row.created_at.0 }
}
