//! The interface of spire-server as protobuf (`proto/`): messages, clients and servers. And the
//! Workload API, of which we are a client.
//!
//! All below `generated` is written by `make codegen`. Names and numbers are those of
//! spire-api-sdk and of the SPIFFE standard; nothing is added to them. One message has its code here, [`sync_response`].

#![allow(
    clippy::pedantic,
    clippy::as_conversions,
    clippy::large_futures,
    clippy::enum_variant_names,
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    reason = "generated code"
)]

mod sync_response;

/// `spire.api.types`: what several services have in common.
pub mod types {
    include!("generated/spire.api.types.rs");
}

/// `spire.api.server.*.v1`, one module a service.
mod server {
    pub mod agent {
        pub mod v1 {
            include!("generated/spire.api.server.agent.v1.rs");
        }
    }
    pub mod bundle {
        pub mod v1 {
            include!("generated/spire.api.server.bundle.v1.rs");
        }
    }
    pub mod debug {
        pub mod v1 {
            include!("generated/spire.api.server.debug.v1.rs");
        }
    }
    pub mod entry {
        pub mod v1 {
            pub use super::super::super::sync_response::SyncAuthorizedEntriesResponse;
            include!("generated/spire.api.server.entry.v1.rs");
        }
    }
    pub mod localauthority {
        pub mod v1 {
            include!("generated/spire.api.server.localauthority.v1.rs");
        }
    }
    pub mod logger {
        pub mod v1 {
            include!("generated/spire.api.server.logger.v1.rs");
        }
    }
    pub mod svid {
        pub mod v1 {
            include!("generated/spire.api.server.svid.v1.rs");
        }
    }
    pub mod trustdomain {
        pub mod v1 {
            include!("generated/spire.api.server.trustdomain.v1.rs");
        }
    }
}

/// The SPIFFE Workload API, which has no package.
pub mod workload {
    include!("generated/_.rs");
}

pub use self::server::{
    agent::v1 as agent, bundle::v1 as bundle, debug::v1 as debug, entry::v1 as entry,
    localauthority::v1 as localauthority, logger::v1 as logger, svid::v1 as svid,
    trustdomain::v1 as trustdomain,
};
