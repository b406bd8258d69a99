//! The API of spire-server over gRPC: what stock agents, downstream servers and tools speak.

pub mod proto;
