//! `mllm4rec doctor --store`: what it says of good stores and of bad ones.

use mllm4rec_integration_tests::program::{Workshop, wait};
use mllm4rec_integration_tests::proxy::{Proxy, Trouble};
use mllm4rec_integration_tests::servers::{Cloud, Server};
use serde_json::Value;
use std::time::Instant;

/// Exit code, standard output, standard error.
fn doctor(workshop: &Workshop, url: &str, more: &[&str], variables: Vec<(&str, String)>) -> (i32, String, String) {
    let mut command = workshop.command(&[&["doctor", "--store", url], more].concat());
    let output = wait(command.envs(variables).spawn().unwrap());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn good_stores_are_told_so_and_left_as_they_were() {
    let workshop = Workshop::open();
    let folder = workshop.path("root").display().to_string();
    let (code, _, said) = doctor(&workshop, &folder, &[], vec![]);
    assert!(code == 64 && said.contains(&folder) && !workshop.path("root").exists(), "{code} {said}");
    std::fs::create_dir(workshop.path("root")).unwrap();
    let (code, said, _) = doctor(&workshop, &folder, &[], vec![]);
    assert!(code == 0 && said.ends_with("jobs can run here\n"), "{said}");
    assert!(said.contains("race of creates") && said.contains("96 of 96 objects had exactly one winner"), "{said}");
    for cloud in Cloud::ALL {
        let Some(server) = Server::of(cloud) else { continue };
        let variables = server.variables(server.address);
        let (code, said, complaint) = doctor(&workshop, &server.url("doctor"), &["--json"], variables);
        assert_eq!(code, 0, "{cloud:?}: {said}{complaint}");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["usable"], said["trials"].as_array().unwrap().len()), (&Value::Bool(true), 5));
        assert!(said["trials"].as_array().unwrap().iter().all(|t| t["passed"] == true), "{said}");
        assert!(said["median_ms"]["create"].as_f64().unwrap() > 0.0);
        assert_eq!(server.store("doctor").list("").await.unwrap(), [], "{cloud:?}");
    }
}

#[test]
fn a_store_without_conditional_writes_is_refused_in_words() {
    let workshop = Workshop::open();
    // Not Azure, where the condition is a part of what is signed.
    for cloud in [Cloud::S3, Cloud::Gcs] {
        let Some(server) = Server::of(cloud) else { continue };
        let deaf = Proxy::with_trouble(server.address, Trouble { deaf: true, ..Trouble::default() });
        let (code, said, _) = doctor(&workshop, &server.url("deaf"), &[], server.variables(deaf.address));
        assert_eq!(code, 65, "{cloud:?}: {said}");
        assert!(said.contains("jobs must NOT run here: create twice: the second was accepted"), "{said}");
        assert!(said.contains("conditional writes are not honoured"), "{said}");
    }
}

#[test]
fn a_store_that_cannot_be_tried_says_why() {
    let workshop = Workshop::open();
    let Some(server) = Server::of(Cloud::Gcs) else { unreachable!("it is ours") };
    let (code, _, said) = doctor(&workshop, "gs://nowhere/runs", &[], server.variables(server.address));
    assert!(code == 65 && said.contains("the bucket of gs://nowhere/runs does not exist"), "{code} {said}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = Instant::now();
    let (code, _, said) = doctor(&workshop, &server.url("runs"), &[], server.variables(nobody));
    assert!(code == 75 && said.contains("cannot try gs://shop/runs"), "{code} {said}");
    assert!(started.elapsed().as_secs() < 40, "{:?}", started.elapsed());

    let started = Instant::now();
    let metadata = vec![("AWS_METADATA_ENDPOINT", format!("http://{nobody}"))];
    let (code, _, said) = doctor(&workshop, "s3://shop/runs", &[], metadata);
    assert!(code == 75 && said.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{code} {said}");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());

    let unencrypted = vec![("AWS_ENDPOINT_URL", "http://127.0.0.1:9".to_owned())];
    let (code, _, said) = doctor(&workshop, "s3://shop/runs", &[], unencrypted);
    assert!(code == 64 && said.contains("set AWS_ALLOW_HTTP=true"), "{code} {said}");
}
