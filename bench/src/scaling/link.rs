//! What connects two neighbours of a ring.

/// A link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) name: &'static str,
    /// Bytes a second.
    pub(super) bandwidth: f64,
    /// Seconds from the end of a frame here to its being read there.
    pub(super) latency: f64,
}

/// Between the cards of a machine: what one card sends of the 900 GB/s of both directions, at 80 %.
pub(super) const NVLINK: Link = Link { name: "NVLink", bandwidth: 360e9, latency: 5e-6 };
/// 400 Gb/s to each card.
pub(super) const INFINIBAND: Link = Link { name: "InfiniBand 400", bandwidth: 45e9, latency: 8e-6 };
pub(super) const ETHERNET_25G: Link = Link { name: "Ethernet 25 Gb/s", bandwidth: 2.9e9, latency: 40e-6 };
pub(super) const ETHERNET_10G: Link = Link { name: "Ethernet 10 Gb/s", bandwidth: 1.15e9, latency: 40e-6 };
