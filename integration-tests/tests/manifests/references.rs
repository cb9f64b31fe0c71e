//! Whatever is referred to exists.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::catalogue::{Rendered, all, name};
use crate::pods::{Pod, list, pods};

/// Secrets that `docs/operate.md` has people make where cert-manager does not.
const OWN_SECRETS: [&str; 3] = ["coordinator-tls", "worker-tls", "client-tls"];
/// What is in a Secret of a certificate.
const KEYS: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

fn names<'a>(rendered: &'a Rendered, kind: &'a str) -> BTreeSet<&'a str> {
    rendered.of_kind(kind).map(name).collect()
}

fn must_be(names: &BTreeSet<&str>, what: &str, value: &Value, from: &str) {
    let value = value.as_str().unwrap();
    assert!(names.contains(value), "{from} refers to the {what} {value}, and there are {names:?}");
}

#[test]
fn pods_refer_to_what_is_there() {
    for rendered in all().unwrap_or_default() {
        for pod in pods(rendered) {
            must_be(&names(rendered, "ServiceAccount"), "ServiceAccount", &pod.spec["serviceAccountName"], &pod.from);
            must_be(&names(rendered, "PriorityClass"), "PriorityClass", &pod.spec["priorityClassName"], &pod.from);
            for volume in list(&pod.spec["volumes"]) {
                volume_is_there(rendered, volume, &pod);
            }
            for container in pod.containers() {
                container_is_whole(rendered, container, &pod);
            }
        }
    }
}

fn volume_is_there(rendered: &Rendered, volume: &Value, pod: &Pod<'_>) {
    if let Some(secret) = volume["secret"]["secretName"].as_str() {
        let made: BTreeSet<&str> = rendered
            .of_kind("Certificate")
            .map(|certificate| certificate["spec"]["secretName"].as_str().unwrap())
            .collect();
        let known = if made.is_empty() { OWN_SECRETS.into() } else { made };
        assert!(known.contains(secret), "{} refers to the Secret {secret}, and there are {known:?}", pod.from);
    } else if volume["configMap"].is_object() {
        must_be(&names(rendered, "ConfigMap"), "ConfigMap", &volume["configMap"]["name"], &pod.from);
    } else if volume["persistentVolumeClaim"].is_object() {
        let claims = names(rendered, "PersistentVolumeClaim");
        must_be(&claims, "PersistentVolumeClaim", &volume["persistentVolumeClaim"]["claimName"], &pod.from);
    } else {
        assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{}: {volume} has no bound", pod.from);
    }
}

fn container_is_whole(rendered: &Rendered, container: &Value, pod: &Pod<'_>) {
    let volumes: BTreeSet<&str> = list(&pod.spec["volumes"]).map(|volume| volume["name"].as_str().unwrap()).collect();
    let mut used = BTreeSet::new();
    for mount in list(&container["volumeMounts"]) {
        must_be(&volumes, "volume", &mount["name"], &pod.from);
        used.insert(mount["name"].as_str().unwrap());
    }
    assert_eq!(used, volumes, "{}: a volume that nobody mounts", pod.from);
    for from in list(&container["envFrom"]) {
        must_be(&names(rendered, "ConfigMap"), "ConfigMap", &from["configMapRef"]["name"], &pod.from);
    }
    let variables: BTreeSet<&str> =
        list(&container["env"]).map(|variable| variable["name"].as_str().unwrap()).collect();
    let files = list(&container["env"]).filter_map(|variable| variable["value"].as_str());
    let args = list(&container["args"]).map(|arg| arg.as_str().unwrap());
    for word in args.chain(files) {
        for variable in word.split("$(").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(variables.contains(variable), "{}: {word}", pod.from);
        }
        if let Some((_, file)) = word.split_once("/etc/mllm4rec/tls/") {
            assert!(KEYS.contains(&file), "{}: {word}", pod.from);
        }
        if let Some((_, file)) = word.split_once("/etc/mllm4rec/jobs/") {
            let map = list(&pod.spec["volumes"]).find_map(|volume| volume["configMap"]["name"].as_str()).unwrap();
            let files = rendered.of_kind("ConfigMap").find(|document| name(document) == map).unwrap();
            assert!(files["data"][file].is_string(), "{}: {word} is not in the ConfigMap {map}", pod.from);
        }
    }
    // A secret in a variable is in every crash report.
    assert!(list(&container["env"]).all(|variable| variable["valueFrom"]["secretKeyRef"].is_null()), "{}", pod.from);
}

#[test]
fn services_lead_to_ports_of_pods() {
    for rendered in all().unwrap_or_default() {
        for service in rendered.of_kind("Service") {
            let selector = serde_json::json!({"matchLabels": service["spec"]["selector"]});
            let selected: Vec<Pod<'_>> =
                pods(rendered).into_iter().filter(|pod| pod.is_selected_by(&selector)).collect();
            assert!(!selected.is_empty(), "{}: {} selects nothing", rendered.name, name(service));
            for port in list(&service["spec"]["ports"]) {
                for pod in &selected {
                    let known = pod.ports().iter().any(|(name, _)| port["targetPort"] == *name);
                    assert!(known, "{}: {} leads to {}", pod.from, name(service), port["targetPort"]);
                }
            }
        }
        for ingress in rendered.of_kind("Ingress") {
            let services = names(rendered, "Service");
            let backends = list(&ingress["spec"]["rules"]).flat_map(|rule| list(&rule["http"]["paths"]));
            backends
                .for_each(|path| must_be(&services, "Service", &path["backend"]["service"]["name"], &rendered.name));
        }
        for monitor in rendered.of_kind("PodMonitor") {
            let selector = &monitor["spec"]["selector"];
            let scraped = pods(rendered).into_iter().filter(|pod| pod.is_selected_by(selector));
            assert!(scraped.count() > 1, "{}", rendered.name);
        }
        for scaled in rendered.of_kind("ScaledObject") {
            must_be(
                &names(rendered, "Deployment"),
                "Deployment",
                &scaled["spec"]["scaleTargetRef"]["name"],
                &rendered.name,
            );
        }
    }
}

/// Everything of a namespace is in it.
#[test]
fn everything_is_in_the_namespace() {
    for rendered in all().unwrap_or_default() {
        for document in &rendered.documents {
            let of_cluster = ["Namespace", "PriorityClass"].contains(&document["kind"].as_str().unwrap());
            let namespace = &document["metadata"]["namespace"];
            assert_eq!(namespace.is_null(), of_cluster, "{}: {}", rendered.name, name(document));
            assert!(of_cluster || namespace == "mllm4rec", "{}: {}", rendered.name, name(document));
        }
    }
}
