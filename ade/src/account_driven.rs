//! Account-driven enrollment without a file on the organization's web site: Apple's service tells devices where service
//! discovery is, for the domains that the organization has proven. Apple's page: Account-Driven Enrollment, `profile`.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::ade::Server;
use utoipa::ToSchema;

use crate::service::Service;
use crate::{Context, Error, servers};

const PATH: &str = "/account-driven-enrollment/profile";

/// Where Apple sends devices for service discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Discovery {
    /// The URL that answers as `/.well-known/com.apple.remotemanagement` does; absent where none is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mdm_service_discovery_url: Option<String>,
}

/// What Apple has.
pub async fn discovery(context: &Context, server: &Server) -> Result<Discovery, Error> {
    let token = servers::token(context, server)?;
    let answer = Service::new(context, &token).call(Method::GET, PATH, None).await;
    match answer {
        Err(fault) if matches!(&fault, crate::service::Fault::Refused { status: 404, .. }) => Ok(Discovery::default()),
        answer => Ok(answer?),
    }
}

/// Tells Apple `url`.
pub async fn put_discovery(context: &Context, server: &Server, url: &url::Url) -> Result<(), Error> {
    let token = servers::token(context, server)?;
    let body = json!({ "mdm_service_discovery_url": url });
    let _: serde_json::Value = Service::new(context, &token).call(Method::POST, PATH, Some(&body)).await?;
    Ok(())
}

/// Tells Apple that there is none.
pub async fn forget_discovery(context: &Context, server: &Server) -> Result<(), Error> {
    let token = servers::token(context, server)?;
    let _: serde_json::Value = Service::new(context, &token).call(Method::DELETE, PATH, None).await?;
    Ok(())
}
