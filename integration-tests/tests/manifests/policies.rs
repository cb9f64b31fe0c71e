//! What holds for every pod, and for each of the roles.

use serde_json::{Value, json};

use crate::catalogue::{all, name};
use crate::pods::{Pod, list, pods};

fn every_pod(check: impl Fn(&Pod<'_>)) {
    for rendered in all().unwrap_or_default() {
        pods(rendered).iter().for_each(&check);
    }
}

/// Bytes of a quantity of memory.
fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap();
    let (number, factor) = [("Gi", 1 << 30), ("Mi", 1 << 20)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or_else(|| panic!("{text} is no quantity in Mi or Gi"));
    number.parse::<u64>().unwrap() * factor
}

#[test]
fn resources_are_asked_for_and_bounded() {
    every_pod(|pod| {
        for container in pod.containers() {
            let [requests, limits] = ["requests", "limits"].map(|kind| &container["resources"][kind]);
            assert!(requests["cpu"].is_string(), "{}: no processor is asked for", pod.from);
            for what in ["memory", "ephemeral-storage"] {
                assert!(requests[what].is_string(), "{}: no {what} is asked for", pod.from);
                assert_eq!(requests[what], limits[what], "{}: {what}", pod.from);
            }
            assert!(limits["cpu"].is_null(), "{}: throttled workers hold up gangs", pod.from);
            assert!(requests["nvidia.com/gpu"].is_null(), "{}: cards are asked for by their limit", pod.from);
        }
    });
}

#[test]
fn images_have_a_version() {
    every_pod(|pod| {
        for image in pod.containers().map(|container| container["image"].as_str().unwrap()) {
            let tag = image.rsplit_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| !tag.contains('/') && tag != "latest"), "{}: {image}", pod.from);
        }
    });
}

#[test]
fn pods_have_no_rights_that_they_do_not_need() {
    every_pod(|pod| {
        let expected = [
            ("/automountServiceAccountToken", json!(false)),
            ("/enableServiceLinks", json!(false)),
            ("/securityContext/runAsNonRoot", json!(true)),
            ("/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ];
        for (at, value) in expected {
            assert_eq!(pod.spec.pointer(at), Some(&value), "{}: {at}", pod.from);
        }
        for container in pod.containers() {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{}", pod.from);
            assert_eq!(context["allowPrivilegeEscalation"], false, "{}", pod.from);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{}", pod.from);
        }
        for namespace in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.spec[namespace].is_null(), "{}: {namespace}", pod.from);
        }
    });
    for rendered in all().unwrap_or_default() {
        for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
            assert!(rendered.of_kind(kind).next().is_none(), "{}: nobody talks to the API server", rendered.name);
        }
    }
}

#[test]
fn workers_have_time_to_leave_and_memory_to_share() {
    every_pod(|pod| {
        if pod.component() != "worker" {
            return;
        }
        assert!(pod.spec["terminationGracePeriodSeconds"].as_u64() >= Some(120), "{}", pod.from);
        let shm = list(&pod.spec["volumes"]).find(|volume| volume["name"] == "shm").unwrap();
        assert_eq!(shm["emptyDir"]["medium"], "Memory", "{}", pod.from);
        let container = &pod.spec["containers"][0];
        let mounted = list(&container["volumeMounts"]).any(|mount| mount["mountPath"] == "/dev/shm");
        assert!(mounted, "{}: NCCL needs more than 64 MiB there", pod.from);
        let (shared, memory) =
            (bytes(&shm["emptyDir"]["sizeLimit"]), bytes(&container["resources"]["limits"]["memory"]));
        assert!(shared <= memory / 2, "{}: what is in /dev/shm counts as memory", pod.from);
    });
}

#[test]
fn whatever_serves_is_probed_beside_its_own_port() {
    every_pod(|pod| {
        let container = &pod.spec["containers"][0];
        if pod.component() == "client" {
            return;
        }
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!((&asked["path"], &asked["port"]), (&json!(path), &json!("health")), "{}: {probe}", pod.from);
        }
        // A loop may take ten seconds to answer, and is well all the same: docs/cluster.md.
        assert!(container["livenessProbe"]["timeoutSeconds"].as_u64() >= Some(11), "{}", pod.from);
    });
}

#[test]
fn one_coordinator_leads_and_its_successor_comes_before_it_goes() {
    for rendered in all().unwrap_or_default() {
        for deployment in rendered.of_kind("Deployment") {
            let (spec, labels) = (&deployment["spec"], &deployment["spec"]["template"]["metadata"]["labels"]);
            for (key, value) in spec["selector"]["matchLabels"].as_object().unwrap() {
                assert_eq!(labels[key], *value, "{}: {} does not select its own pods", rendered.name, name(deployment));
            }
            if name(deployment) == "coordinator" {
                let surge = json!({"maxSurge": 1, "maxUnavailable": 0});
                assert_eq!(spec["replicas"], 1);
                // In a folder only one may be there at a time.
                let folder = rendered
                    .of_kind("ConfigMap")
                    .any(|map| map["data"]["MLLM4REC_ROOT"].as_str().is_some_and(|root| root.starts_with("file:")));
                let expected = if folder {
                    json!({"type": "Recreate"})
                } else {
                    json!({"type": "RollingUpdate", "rollingUpdate": surge})
                };
                assert_eq!(spec["strategy"], expected, "{}", rendered.name);
            }
        }
        // None that would keep a node from being drained.
        assert!(rendered.of_kind("PodDisruptionBudget").next().is_none(), "{}", rendered.name);
    }
}

#[test]
fn jobs_are_not_failed_for_what_is_nobodys_fault_nor_repeated_for_what_lasts() {
    let specs = |document: &Value| -> Vec<Value> {
        match document["kind"].as_str().unwrap() {
            "Job" => vec![document["spec"].clone()],
            "CronJob" => vec![document["spec"]["jobTemplate"]["spec"].clone()],
            "JobSet" => list(&document["spec"]["replicatedJobs"]).map(|job| job["template"]["spec"].clone()).collect(),
            _ => Vec::new(),
        }
    };
    let mut seen = 0;
    for rendered in all().unwrap_or_default() {
        for (document, spec) in rendered.documents.iter().flat_map(|d| specs(d).into_iter().map(move |spec| (d, spec)))
        {
            let what = format!("{}: {}", rendered.name, name(document));
            seen += 1;
            assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never", "{what}");
            assert_eq!(spec["podReplacementPolicy"], "Failed", "{what}");
            let rules: Vec<&Value> = list(&spec["podFailurePolicy"]["rules"]).collect();
            let ignored = json!([{"type": "DisruptionTarget", "status": "True"}]);
            assert!(rules.iter().any(|r| r["action"] == "Ignore" && r["onPodConditions"] == ignored), "{what}");
            let lasting = rules.iter().find(|rule| rule["action"] == "FailJob").unwrap();
            // Of workers, 64 may be an upgrade on its way.
            let client = spec["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "client";
            let codes: &[u64] = if client { &[2, 64, 65, 130] } else { &[2, 65] };
            for &code in codes {
                assert!(list(&lasting["onExitCodes"]["values"]).any(|value| *value == code), "{what}: {code}");
            }
            let container = &spec["template"]["spec"]["containers"][0]["name"];
            assert_eq!(lasting["onExitCodes"]["containerName"], *container, "{what}");
            if spec["completionMode"] == "Indexed" {
                assert!(spec["backoffLimitPerIndex"].is_u64() && spec["completions"] == spec["parallelism"], "{what}");
            }
        }
    }
    assert!(seen > 0 || all().is_none());
}
