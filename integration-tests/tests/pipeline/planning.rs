//! What a training notes of its pace is what a plan counts with.

use mllm4rec_integration_tests::program::Workshop;
use serde_json::Value;

use super::earlier::finish;

#[test]
fn a_plan_knows_how_fast_earlier_trainings_were() {
    let workshop = Workshop::open();
    let job = workshop.job().display().to_string();
    let root = workshop.path("root").display().to_string();
    let plan = |sets: &[&str]| -> Value {
        let mut args = vec!["plan", &job, "--json", "--root", &root];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        serde_json::from_str(&workshop.call(&args).succeeded().stdout).unwrap()
    };
    assert_eq!(plan(&[])["earlier_runs"], Value::Array(Vec::new()));
    let (id, _, _) = finish(&workshop, &job, "root", &[]);
    let planned = plan(&[]);
    let [earlier] = planned["earlier_runs"].as_array().unwrap().as_slice() else { panic!("{planned}") };
    assert!(earlier["device"].as_str().unwrap().starts_with("CPU, "), "{earlier}");
    assert_eq!((&earlier["precision"], &earlier["parameters"]), (&Value::from("f32"), &planned["parameters"]));
    for work in ["training", "scoring"] {
        let [flops, seconds] = [0, 1].map(|i| earlier[work][i].as_f64().unwrap());
        assert!(flops > 0.0 && seconds > 0.0, "{earlier}");
    }
    // Who takes the ranker over has its prompts, and nothing to train.
    let taken = plan(&[&format!("ranker.from=job:{id}")]);
    assert_eq!((&taken["training"], &taken["scoring"]), (&Value::Null, &planned["scoring"]));
    // No card has been there, so all of them are assumed.
    assert!(planned["cards"].as_array().unwrap().iter().all(|card| card["measured"] == false), "{planned}");
}
