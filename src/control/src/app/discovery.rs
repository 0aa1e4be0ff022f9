//! Where a client logs in.

use tokenroute_api::auth::Discovery;

use super::Problem;
use crate::{Parts, identity};

/// Where the device flow is done, as the issuer's own metadata say.
pub(crate) async fn discovery(parts: &Parts) -> Result<Discovery, Problem> {
    let metadata = parts.identity.metadata(parts).await?;
    let (Some(device), Some(token)) =
        (&metadata.device_authorization_endpoint, &metadata.token_endpoint)
    else {
        return Err(Problem::NotConfigured {
            reason: "device_flow_not_offered",
            message: "the issuer offers no device flow (RFC 8628): configure it there".to_owned(),
        });
    };
    let settings = &parts.settings;
    let client = identity::client(settings);
    Ok(Discovery {
        issuer: metadata.issuer.clone(),
        client_id: client.id,
        device_authorization_endpoint: device.clone(),
        token_endpoint: token.clone(),
        scopes: client.scopes,
        resource: client.resource,
        inference_base_url: settings.inference_base_url.clone(),
    })
}
