//! What the program says of itself: log lines on standard error, and traces for whoever collects them.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::args::{Args, Command, LogFormat};
use crate::exit::BadRequest;

/// Traces that are on their way.
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what is left.
    pub(crate) fn finish(self) {
        if let Some(provider) = self.0 {
            // A collector that is away does not keep the process, nor is it an error of the process.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// Logs go to standard error. `RUST_LOG` chooses; by default it is warnings, and of the servers of a cluster, which
/// nobody watches, every change of state. Of these, traces go to the collector that `--otlp` names. To be called in a runtime.
///
/// # Errors
/// [`BadRequest`] if the collector's address is none.
pub(crate) fn start(args: &Args) -> Result<Traces> {
    let role = match &args.command {
        Command::Coordinator(_) => Some("coordinator"),
        Command::Worker(_) => Some("worker"),
        _ => None,
    };
    let server = role.is_some() && !matches!(&args.command, Command::Worker(worker) if worker.with_parent);
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(if server { "info" } else { "warn" }));
    let provider = role.zip(args.otlp.as_deref()).map(|(role, collector)| traces(role, collector)).transpose()?;
    let traced =
        provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("mllm4rec")));
    Registry::default().with(filter).with(traced).with(lines(args)).init();
    Ok(Traces(provider))
}

fn lines<S>(args: &Args) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    // Lines of the audit are known by their target.
    let audited = matches!(args.command, Command::Coordinator(_));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(audited);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

/// A collector that speaks OTLP over gRPC.
fn traces(role: &'static str, collector: &str) -> Result<SdkTracerProvider> {
    let url = url::Url::parse(collector).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let url = url.ok_or_else(|| BadRequest(format!("--otlp {collector} is no URL: write http://HOST:4317")))?;
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(url.as_str()).build();
    let exporter = exporter.with_context(|| format!("--otlp {collector}"))?;
    let resource = Resource::builder()
        .with_service_name(format!("mllm4rec-{role}"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}
