//! Traces and log lines by which a job, its shards and their attempts are found again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::cluster::{Cluster, until};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let service = texts(&of_resource.resource.unwrap_or_default().attributes)["service.name"].clone();
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Attributes that are texts or numbers.
fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.clone()?.value? {
        Any::StringValue(text) => Some((pair.key.clone(), text)),
        Any::IntValue(number) => Some((pair.key.clone(), number.to_string())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

#[test]
fn a_shard_is_found_by_job_and_attempt_in_traces_and_logs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collector = Collector::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = TraceServiceServer::new(collector.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut cluster = Cluster::new();
    let _coordinator = cluster.coordinator_with(&["--otlp", &url]);
    let job = cluster.submit();
    let worker = cluster.worker_with(&["--otlp", &url]);
    cluster.until_done(&job, "rank", 3);
    let spans = || collector.0.lock().unwrap().clone();
    until("the collector has leases of the ranking", || {
        spans().iter().any(|(_, span)| span.name == "lease" && texts(&span.attributes)["stage"] == "rank")
    });
    let (_, lease) = spans()
        .into_iter()
        .find(|(_, span)| texts(&span.attributes).get("stage").is_some_and(|s| s == "rank"))
        .unwrap();
    let attributes = texts(&lease.attributes);
    assert_eq!(attributes["job_id"], job);
    let committed = lease.events.iter().find(|event| event.name == "shard committed").unwrap();
    assert_eq!(texts(&committed.attributes)["attempt"], attributes["attempt"]);
    assert!(texts(&committed.attributes).contains_key("shard"));
    assert!(spans().iter().any(|(service, span)| service == "mllm4rec-coordinator" && span.name == "open"));

    let is_it = |line: &&Value| {
        line["message"] == "shard committed" && line["span"]["job_id"] == job && line["span"]["stage"] == "rank"
    };
    let log = worker.log();
    let line = log.iter().find(is_it).unwrap_or_else(|| panic!("no shard in the log: {log:#?}"));
    assert!(line["shard"].is_u64() && line["attempt"] == line["span"]["attempt"], "{line:#}");
}
