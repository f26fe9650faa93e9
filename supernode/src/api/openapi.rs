//! The API's description in OpenAPI, made of the routes themselves: each carries its own, and this adds what no single route
//! says. Served by [`super`] as `/api/v1/openapi.json`, and kept as `docs/openapi.json`.
//!
//! # Invariants
//! - Every operation says that it fails with an [`ApiError`] whatever the status, and who is not let in.

use peer::local_api::ApiError;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};

/// Its name in the description.
const TOKEN: &str = "token";
/// The answer that a route need not describe.
const FAILED: &str = "Failed";

/// What is said once for all routes.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Longshore supernode",
        version = "1",
        description = "What a supernode tells of its cluster and its store. On loopback whoever is on the machine may look without \
                       a token; whatever changes something wants it, and on other addresses everything does. It is in \
                       `api-token` in the supernode's data folder.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ApiError)),
    security(("token" = [])),
    modifiers(&Door),
    tags(
        (name = "cluster", description = "Peers and swarms"),
        (name = "tasks", description = "What the supernode's store has"),
        (name = "preheats", description = "What is brought to nodes before it is wanted"),
        (name = "log", description = "What the daemon logs"),
    )
)]
struct Common;

struct Door;

// === impl Door ===

impl Modify for Door {
    fn modify(&self, openapi: &mut OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.security_schemes.insert(TOKEN.to_owned(), RefOr::T(SecurityScheme::Http(bearer)));
        components.responses.insert(FAILED.to_owned(), RefOr::T(failed()));
    }
}

/// What the routes are nested into.
pub(super) fn common() -> OpenApi {
    Common::openapi()
}

/// Adds to every operation what it does not say itself.
pub(super) fn complete(mut openapi: OpenApi) -> OpenApi {
    for item in openapi.paths.paths.values_mut() {
        let PathItem { get, put, post, delete, .. } = item;
        for operation in [get, put, post, delete].into_iter().flatten() {
            for status in ["401", "403", "default"] {
                let failed = RefOr::Ref(Ref::from_response_name(FAILED));
                operation.responses.responses.entry(status.to_owned()).or_insert(failed);
            }
        }
    }
    openapi
}

fn failed() -> Response {
    let error = Content::builder().schema(Some(Ref::from_schema_name("ApiError"))).build();
    ResponseBuilder::new().description("Why not, in a line").content("application/json", error).build()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Set to write the file anew.
    const RENEW: &str = "LONGSHORE_RENEW_OPENAPI";

    #[test]
    fn the_kept_description_is_what_the_code_makes() {
        let made = super::super::description().to_pretty_json().unwrap() + "\n";
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os(RENEW).is_some() {
            std::fs::write(&kept, &made).unwrap();
        }
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert!(
            kept == made,
            "docs/openapi.json is not what the routes say; renew it with: {RENEW}=1 cargo test -p supernode openapi"
        );
    }

    #[test]
    fn every_operation_says_how_it_fails_and_has_a_name_of_its_own() {
        let description = serde_json::to_value(super::super::description()).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            assert!(path.starts_with("/api/v1/"), "{path}");
            for (method, operation) in item.as_object().unwrap() {
                let failed = &operation["responses"]["default"]["$ref"];
                assert_eq!(failed, "#/components/responses/Failed", "{method} {path}");
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(names.insert(operation["operationId"].to_string()), "{method} {path}");
            }
        }
        assert!(names.len() >= 8, "{names:?}");
    }
}
