//! What makes pods: Deployments and Jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::manifest::{list, text};
use crate::pod::Pod;
use crate::service::Service;
use crate::site::World;

/// The longest that a pod may take to become ready.
const READY: Duration = Duration::from_secs(120);

/// A Deployment.
pub(crate) struct Deployment {
    world: Arc<World>,
    name: String,
    template: Value,
    surge: bool,
    service: Option<Service>,
    pods: Vec<Pod>,
    gone: Vec<Pod>,
    made: u32,
}

impl Deployment {
    /// That of the manifests, without a pod yet.
    pub(crate) fn of(world: &Arc<World>, name: &str, service: Option<Service>) -> Self {
        let document = world.manifests.lock().unwrap().get("Deployment", name).clone();
        let strategy = &document["spec"]["strategy"]["rollingUpdate"];
        let surge = strategy["maxSurge"] == 1;
        assert_ne!(surge, strategy["maxUnavailable"] == 1, "other ways of renewal are not played");
        let (name, template) = (name.to_owned(), document["spec"]["template"].clone());
        Self { world: world.clone(), name, template, surge, service, pods: vec![], gone: vec![], made: 0 }
    }

    /// Its pods that are ready.
    pub(crate) fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| pod.state().ready).count()
    }

    /// Has so many pods from now on: those that are too many leave, the newest first.
    pub(crate) fn scale(&mut self, replicas: usize) {
        let leaving = self.pods.split_off(replicas.min(self.pods.len()));
        self.delete(leaving);
        while self.pods.len() < replicas {
            let pod = self.pod();
            self.pods.push(pod);
        }
    }

    /// Kills the process of its first pod.
    pub(crate) fn kill(&self) {
        self.pods[0].kill();
    }

    /// Replaces its pods by those of a new version.
    pub(crate) fn roll(&mut self) {
        self.world.next_version();
        for old in std::mem::take(&mut self.pods) {
            if self.surge {
                let new = self.pod();
                until_ready(&new);
                self.pods.push(new);
                self.delete(vec![old]);
            } else {
                self.delete(vec![old]);
                let new = self.pod();
                until_ready(&new);
                self.pods.push(new);
            }
        }
    }

    /// Their node is drained: all leave at once, and others come.
    pub(crate) fn drain(&mut self) {
        let replicas = self.pods.len();
        self.scale(0);
        self.scale(replicas);
    }

    fn pod(&mut self) -> Pod {
        self.made += 1;
        let pod = Pod::start(&self.world, &format!("{}-{}", self.name, self.made), &self.template);
        if let Some(service) = &self.service {
            service.leads_to(&pod);
        }
        pod
    }

    fn delete(&mut self, pods: Vec<Pod>) {
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| pod.delete());
            }
        });
        self.gone.extend(pods);
    }

    /// All pods that there have been.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Pod> {
        self.gone.iter().chain(&self.pods)
    }
}

fn until_ready(pod: &Pod) {
    let started = Instant::now();
    while !pod.state().ready {
        assert!(started.elapsed() < READY, "{} is not ready after {READY:?}:\n{}", pod.name, pod.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A Job.
pub(crate) struct Job {
    world: Arc<World>,
    name: String,
    spec: Value,
    /// By index: the pod, and how often it has failed by its own fault.
    pods: Vec<(Pod, u64)>,
    gone: Vec<Pod>,
    /// Those that somebody has evicted, by name.
    evicted: Vec<String>,
    made: u32,
    pub(crate) outcome: Option<Result<(), String>>,
}

impl Job {
    /// That of the manifests, with its pods.
    pub(crate) fn start(world: &Arc<World>, name: &str) -> Self {
        let document = world.manifests.lock().unwrap().get("Job", name).clone();
        let (name, spec) = (name.to_owned(), document["spec"].clone());
        let mut job = Self {
            world: world.clone(),
            name,
            spec,
            pods: vec![],
            gone: vec![],
            evicted: vec![],
            made: 0,
            outcome: None,
        };
        for index in 0..job.spec["completions"].as_u64().unwrap_or(1) {
            let pod = job.pod(index);
            job.pods.push((pod, 0));
        }
        job
    }

    fn pod(&mut self, index: u64) -> Pod {
        self.made += 1;
        Pod::start(&self.world, &format!("{}-{index}-{}", self.name, self.made), &self.spec["template"])
    }

    /// Does what its spec says about pods that have ended.
    pub(crate) fn reconcile(&mut self) {
        for index in 0..self.pods.len() {
            let Some(code) = self.pods[index].0.state().code.filter(|_| self.outcome.is_none()) else { continue };
            let name = self.pods[index].0.name.clone();
            match self.rule(code, &name) {
                _ if code == 0 => self.outcome = self.is_complete().then_some(Ok(())),
                Some("FailJob") => self.outcome = Some(Err(format!("{name} has ended with {code}"))),
                Some("Ignore") => self.replace(index),
                _ => {
                    self.pods[index].1 += 1;
                    let limit = ["backoffLimitPerIndex", "backoffLimit"].iter().find_map(|key| self.spec[key].as_u64());
                    if Some(self.pods[index].1) > limit {
                        self.outcome = Some(Err(format!("{name} has failed too often")));
                    } else {
                        self.replace(index);
                    }
                }
            }
        }
    }

    /// What the first rule that fits says.
    fn rule(&self, code: i32, pod: &str) -> Option<&str> {
        let fits = |rule: &&Value| {
            let evicted = rule["onPodConditions"].is_array() && self.evicted.iter().any(|name| name == pod);
            evicted || list(&rule["onExitCodes"]["values"]).any(|value| *value == code)
        };
        list(&self.spec["podFailurePolicy"]["rules"]).find(fits).map(|rule| text(&rule["action"]))
    }

    /// As many have succeeded as are needed: all, or what a policy of success says.
    fn is_complete(&self) -> bool {
        let succeeded = self.pods.iter().filter(|(pod, _)| pod.state().code == Some(0)).count();
        let needed = self.spec["successPolicy"]["rules"][0]["succeededCount"].as_u64();
        succeeded as u64 >= needed.unwrap_or(self.pods.len() as u64)
    }

    fn replace(&mut self, index: usize) {
        let new = self.pod(index as u64);
        self.gone.push(std::mem::replace(&mut self.pods[index].0, new));
    }

    /// Kills the process of a pod.
    pub(crate) fn kill(&self, index: usize) {
        self.pods[index].0.kill();
    }

    /// Evicts a pod, as a node does that is drained.
    pub(crate) fn evict(&mut self, index: usize) {
        self.evicted.push(self.pods[index].0.name.clone());
        self.pods[index].0.delete();
    }

    /// Pods that were replaced.
    pub(crate) fn replaced(&self) -> usize {
        self.gone.len()
    }

    /// Whether it is over, by its own word. What still runs then is told to leave.
    pub(crate) fn ended(&self) -> bool {
        if self.outcome.is_some() {
            self.pods.iter().filter(|(pod, _)| pod.state().code.is_none()).for_each(|(pod, _)| pod.delete());
        }
        self.outcome.is_some()
    }

    /// How its pods of now ended.
    pub(crate) fn codes(&self) -> Vec<i32> {
        self.pods.iter().filter_map(|(pod, _)| pod.state().code).collect()
    }

    /// What they have said.
    pub(crate) fn log(&self) -> String {
        self.all().map(|pod| format!("== {}\n{}", pod.name, pod.log())).collect()
    }

    /// All pods that there have been.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Pod> {
        self.gone.iter().chain(self.pods.iter().map(|(pod, _)| pod))
    }
}
