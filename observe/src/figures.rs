//! Counters and times of this process.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A kind of call to the object store and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreCall {
    /// `read`, `write`, `create`, `look at`, `list`, `delete`.
    pub op: &'static str,
    /// `ok`, `conflict`, `denied` or `failed`.
    pub code: &'static str,
}

/// Why a row was put aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// What a process counts, from its start on. The names are those that `/metrics` shows, behind `mllm4rec_`.
#[derive(Debug)]
pub struct Figures {
    store_requests: Family<StoreCall, Counter>,
    bad_rows: Family<Reason, Counter>,
    /// Seconds in which the parts and the done record of a shard are written.
    pub commit_seconds: Histogram,
    /// The last step of the training at work.
    pub step: Gauge,
    /// Seconds of a step.
    pub step_seconds: Histogram,
    /// Seconds that a step waits for the sums of all members.
    pub allreduce_seconds: Histogram,
    /// The generation of the gang at work.
    pub generation: Gauge,
    /// What [`Figures::device_has_free`] was told.
    device_free_bytes: Gauge,
    /// Whether a device has told that.
    knows_device: AtomicBool,
}

/// Those of this process.
#[must_use]
pub fn figures() -> &'static Figures {
    static FIGURES: LazyLock<Figures> = LazyLock::new(Figures::new);
    &FIGURES
}

impl Figures {
    fn new() -> Self {
        let seconds = |first: f64| Histogram::new(exponential_buckets(first, 2.0, 14));
        Self {
            store_requests: Family::default(),
            bad_rows: Family::default(),
            commit_seconds: seconds(0.01),
            step: Gauge::default(),
            step_seconds: seconds(0.01),
            allreduce_seconds: seconds(0.001),
            generation: Gauge::default(),
            device_free_bytes: Gauge::default(),
            knows_device: AtomicBool::new(false),
        }
    }

    /// Counts a call to the object store.
    pub fn store_call(&self, op: &'static str, code: &'static str) {
        self.store_requests.get_or_create(&StoreCall { op, code }).inc();
    }

    /// Notes how much memory of the device can be asked for.
    pub fn device_has_free(&self, bytes: usize) {
        self.device_free_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.knows_device.store(true, Ordering::Relaxed);
    }

    /// Counts rows that were put aside.
    pub fn rows_put_aside(&self, reason: &str, rows: u64) {
        self.bad_rows.get_or_create(&Reason { reason: reason.to_owned() }).inc_by(rows);
    }

    /// All of them and what `more` adds, as Prometheus reads them (OpenMetrics 1.0).
    #[must_use]
    pub fn page(&self, role: &'static str, build: &'static str, more: impl FnOnce(&mut Registry)) -> String {
        let mut registry = Registry::with_prefix("mllm4rec");
        registry.register("build", "What this process is", Info::new([("version", build), ("role", role)]));
        registry.register("store_requests", "Calls to the object store", self.store_requests.clone());
        if role == "worker" {
            self.of_a_worker(&mut registry);
        }
        more(&mut registry);
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut page, &registry);
        page
    }

    fn of_a_worker(&self, registry: &mut Registry) {
        let seconds = || Unit::Seconds;
        registry.register("bad_rows", "Rows that were put aside", self.bad_rows.clone());
        registry.register_with_unit("commit_latency", "Writing a shard", seconds(), self.commit_seconds.clone());
        registry.register_with_unit("step", "A step of training", seconds(), self.step_seconds.clone());
        registry.register_with_unit(
            "allreduce",
            "Waiting for the sums of all members",
            seconds(),
            self.allreduce_seconds.clone(),
        );
        registry.register("step", "The last step of the training at work", self.step.clone());
        registry.register("generation", "The generation of the gang at work", self.generation.clone());
        if self.knows_device.load(Ordering::Relaxed) {
            let help = "Memory that may still be taken on the device";
            registry.register_with_unit("gpu_mem_free", help, Unit::Bytes, self.device_free_bytes.clone());
        }
    }
}
