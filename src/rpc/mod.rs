//! JSON-RPC by namespace: what is answered here, what passes through to the node, and the errors.

pub mod errors;
