//! The manifests of `k8s/`, as the API server of Kubernetes would read them: every key is one that it knows, whatever is referred to
//! exists, and what the project promises of its pods holds in every overlay. No cluster is needed, `kubectl` is; nothing here has
//! ever met a live cluster.
#![allow(clippy::unwrap_used)]

mod catalogue;
mod commands;
mod copies;
mod kinds;
mod network;
mod pods;
mod policies;
mod references;
mod schemas;
