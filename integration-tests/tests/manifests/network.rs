//! Who may talk to whom.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::catalogue::{Rendered, all, name};
use crate::pods::{Pod, list, pods};

/// The ports at which a rule lets somebody in or out.
fn ports(rules: &Value) -> impl Iterator<Item = (u64, u64)> {
    list(rules).flat_map(|rule| list(&rule["ports"])).map(|port| {
        let first = port["port"].as_u64().unwrap();
        (first, port["endPort"].as_u64().unwrap_or(first))
    })
}

fn policies<'a>(rendered: &'a Rendered, pod: &'a Pod<'_>) -> impl Iterator<Item = &'a Value> {
    rendered.of_kind("NetworkPolicy").filter(|policy| pod.is_selected_by(&policy["spec"]["podSelector"]))
}

#[test]
fn nothing_is_open_by_default() {
    for rendered in all().unwrap_or_default() {
        let closes = |policy: &&Value| {
            let spec = &policy["spec"];
            spec["podSelector"] == json!({})
                && spec["policyTypes"] == json!(["Ingress", "Egress"])
                && spec["ingress"].is_null()
                && spec["egress"].is_null()
        };
        assert!(rendered.of_kind("NetworkPolicy").any(|policy| closes(&policy)), "{}", rendered.name);
        for policy in rendered.of_kind("NetworkPolicy") {
            for rule in list(&policy["spec"]["ingress"]).chain(list(&policy["spec"]["egress"])) {
                let what = format!("{}: {}: {rule}", rendered.name, name(policy));
                assert!(!list(&rule["ports"]).collect::<Vec<_>>().is_empty(), "any port: {what}");
                assert!(list(&rule["from"]).chain(list(&rule["to"])).next().is_some(), "anybody: {what}");
            }
        }
    }
}

#[test]
fn every_port_is_covered_by_a_policy_and_no_other_is() {
    for rendered in all().unwrap_or_default() {
        let watched = rendered.of_kind("PodMonitor").next().is_some();
        for pod in pods(rendered) {
            let open: Vec<(u64, u64)> = policies(rendered, &pod).flat_map(|p| ports(&p["spec"]["ingress"])).collect();
            for (name, port) in pod.ports() {
                let reached = open.iter().any(|(first, last)| (*first..=*last).contains(&port));
                // Probes come from the node, which policies do not bind.
                let expected = name != "health" || watched || pod.component() == "worker";
                assert_eq!(reached, expected, "{}: port {name}", pod.from);
            }
            let own: BTreeSet<u64> = pod.ports().into_iter().map(|(_, port)| port).collect();
            let single = open.iter().filter(|(first, last)| first == last).map(|(port, _)| *port);
            for port in single {
                assert!(own.contains(&port), "{}: a policy lets others in at {port}, where nobody listens", pod.from);
            }
        }
    }
}

#[test]
fn everybody_reaches_names_and_store_and_the_coordinator() {
    for rendered in all().unwrap_or_default() {
        let mut configs = rendered.of_kind("ConfigMap").map(|map| &map["data"]);
        let traced = configs.any(|data| !data["OTEL_EXPORTER_OTLP_ENDPOINT"].is_null());
        for pod in pods(rendered) {
            let out: Vec<(u64, u64)> = policies(rendered, &pod).flat_map(|p| ports(&p["spec"]["egress"])).collect();
            for port in [53, 443] {
                assert!(out.contains(&(port, port)), "{}: port {port}", pod.from);
            }
            if pod.component() != "coordinator" {
                assert!(out.contains(&(7070, 7070)), "{}: the coordinator", pod.from);
            }
            let collected = traced && pod.component() != "client";
            assert_eq!(out.contains(&(4317, 4317)), collected, "{}: the collector of traces", pod.from);
        }
        // The metadata service hands out the node's identity to whoever asks, unless pods have none of their own otherwise.
        for rule in rendered.of_kind("NetworkPolicy").flat_map(|p| list(&p["spec"]["egress"])) {
            for block in list(&rule["to"]).map(|to| &to["ipBlock"]).filter(|block| block["cidr"] == "0.0.0.0/0") {
                assert!(list(&block["except"]).any(|net| *net == "169.254.0.0/16"), "{}", rendered.name);
            }
        }
    }
}
