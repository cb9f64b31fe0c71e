//! A pod, and the kubelet's care for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::program::terminate;
use serde_json::Value;

use crate::bucket::identity;
use crate::manifest::{list, text};
use crate::node::write;
use crate::site::World;

/// How often the kubelet looks.
const LOOK: Duration = Duration::from_millis(100);

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) ready: bool,
    /// It is told to leave.
    stopping: bool,
    /// Its exit code, once it has ended for good.
    pub(crate) code: Option<i32>,
    /// Containers that ended and were started again, by exit code.
    pub(crate) restarts: Vec<i32>,
    /// What must not happen: killed for not leaving in time, or for a probe of its life.
    pub(crate) faults: Vec<String>,
}

/// A pod.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
    log: PathBuf,
    grace: Duration,
    process: Arc<Mutex<Child>>,
}

impl Pod {
    /// Starts a pod as a template says.
    pub(crate) fn start(world: &Arc<World>, name: &str, template: &Value) -> Self {
        let (space, address) = world.node.pod_network();
        let spec = template["spec"].clone();
        assert_eq!(list(&spec["containers"]).count(), 1);
        let log = world.node.path(&format!("{name}.log"));
        let start = Start {
            world: world.clone(),
            name: name.to_owned(),
            space,
            address: address.clone(),
            log: log.clone(),
            program: world.program(text(&spec["containers"][0]["image"])),
            spec,
        };
        let process = Arc::new(Mutex::new(start.container()));
        let state = Arc::new(Mutex::new(State::default()));
        let grace = Duration::from_secs(start.spec["terminationGracePeriodSeconds"].as_u64().unwrap());
        let kubelet = Kubelet { start, state: state.clone(), process: process.clone() };
        std::thread::spawn(move || kubelet.care());
        Self { name: name.to_owned(), address, state, log, grace, process }
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// What it has printed and logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Its page of figures, while it lives.
    pub(crate) fn page(&self) -> Option<String> {
        let address = format!("{}:9090", self.address).parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// Kills its process, as the system does that is out of memory.
    pub(crate) fn kill(&self) {
        self.process.lock().unwrap().kill().unwrap();
    }

    /// Deletes it: SIGTERM, time to leave, SIGKILL.
    pub(crate) fn delete(&self) {
        {
            let mut state = self.state.lock().unwrap();
            (state.stopping, state.ready) = (true, false);
        }
        let started = Instant::now();
        terminate(self.process.lock().unwrap().id());
        while self.state().code.is_none() {
            if started.elapsed() > self.grace {
                let mut state = self.state.lock().unwrap();
                state.faults.push(format!("{} did not leave within {:?}", self.name, self.grace));
                drop(state);
                self.kill();
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.state.lock().unwrap().stopping = true;
        let _ = self.process.lock().unwrap().kill();
    }
}

/// What a container is started with, every time.
struct Start {
    world: Arc<World>,
    name: String,
    space: String,
    address: String,
    log: PathBuf,
    /// A container that is started again has the image of before.
    program: PathBuf,
    spec: Value,
}

impl Start {
    fn container(&self) -> Child {
        let container = &self.spec["containers"][0];
        let variables = self.variables(container);
        let args = list(&container["args"]).map(|arg| expanded(text(arg), &variables));
        let root = self.world.node.path(&format!("{}.root", self.name));
        std::fs::create_dir_all(&root).unwrap();
        let security = &self.spec["securityContext"];
        assert_eq!(security["fsGroup"], security["runAsGroup"], "groups beside the first are not played");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/played/launch.sh");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space, "sh"]).arg(script).arg(root);
        command.arg(&self.program).arg(self.world.hosts());
        command.args([security["runAsUser"].to_string(), security["runAsGroup"].to_string()]);
        command.args(list(&container["volumeMounts"]).map(|mount| self.mounted(mount))).arg("--").args(args);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(&variables);
        let log = || File::options().append(true).create(true).open(&self.log).unwrap();
        command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().unwrap()
    }

    /// The variables of a container, and those that a cloud gives to its service account.
    fn variables(&self, container: &Value) -> BTreeMap<String, String> {
        let configs = list(&container["envFrom"]).map(|from| text(&from["configMapRef"]["name"]));
        let mut variables: BTreeMap<String, String> =
            configs.flat_map(|name| self.world.manifests.lock().unwrap().config(name)).collect();
        for variable in list(&container["env"]) {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("status.podIP") => self.address.clone(),
                Some("metadata.name") => self.name.clone(),
                Some(other) => panic!("{other} is not played"),
                None => text(&variable["value"]).to_owned(),
            };
            variables.insert(text(&variable["name"]).to_owned(), value);
        }
        let own = identity(text(&self.spec["serviceAccountName"]));
        variables.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        variables
    }

    /// `SOURCE:TARGET:ro|rw` of a mount.
    fn mounted(&self, mount: &Value) -> String {
        let volume = list(&self.spec["volumes"]).find(|volume| volume["name"] == mount["name"]).unwrap();
        let source = if let Some(secret) = volume["secret"]["secretName"].as_str() {
            let folder = self.world.secret(secret);
            let mode = u32::try_from(volume["secret"]["defaultMode"].as_u64().unwrap()).unwrap();
            let group = u32::try_from(self.spec["securityContext"]["fsGroup"].as_u64().unwrap()).unwrap();
            for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
                std::os::unix::fs::chown(&file, Some(0), Some(group)).unwrap();
            }
            folder.display().to_string()
        } else if let Some(name) = volume["configMap"]["name"].as_str() {
            let folder = self.world.node.path(&format!("configs/{name}"));
            for (file, content) in self.world.manifests.lock().unwrap().config(name) {
                write(&folder.join(file), content.as_bytes());
            }
            folder.display().to_string()
        } else if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            self.world.claim(claim).display().to_string()
        } else {
            let size = text(&volume["emptyDir"]["sizeLimit"]).replace("Gi", "g").replace("Mi", "m");
            format!("tmpfs={size}")
        };
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        format!("{source}:{}:{mode}", text(&mount["mountPath"]))
    }
}

/// A text with the variables that it names as `$(NAME)`.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

/// What the kubelet does for a pod as long as it lives.
struct Kubelet {
    start: Start,
    state: Arc<Mutex<State>>,
    process: Arc<Mutex<Child>>,
}

impl Kubelet {
    fn care(self) {
        let container = self.start.spec["containers"][0].clone();
        let probe = |name: &str| Probe::of(&container, &self.start.address, name);
        let (mut startup, mut life, mut readiness) =
            (probe("startupProbe"), probe("livenessProbe"), probe("readinessProbe"));
        loop {
            std::thread::sleep(LOOK);
            let ended = self.process.lock().unwrap().try_wait().unwrap();
            if let Some(status) = ended {
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
                let mut state = self.state.lock().unwrap();
                state.ready = false;
                if state.stopping || self.start.spec["restartPolicy"] == "Never" {
                    state.code = Some(code);
                    return;
                }
                state.restarts.push(code);
                drop(state);
                *self.process.lock().unwrap() = self.start.container();
                (startup, life, readiness) = (probe("startupProbe"), probe("livenessProbe"), probe("readinessProbe"));
                continue;
            }
            if startup.as_mut().is_some_and(|startup| !startup.has_passed()) {
                continue;
            }
            if let Some(ready) = readiness.as_mut().and_then(Probe::look) {
                let mut state = self.state.lock().unwrap();
                state.ready = ready && !state.stopping;
            }
            if life.as_mut().and_then(Probe::look) == Some(false) {
                let fault = format!("{}: its probe of life has failed", self.start.name);
                self.state.lock().unwrap().faults.push(fault);
                let _ = self.process.lock().unwrap().kill();
            }
        }
    }
}

/// A probe over HTTP, as often and as patient as the manifest says.
struct Probe {
    address: SocketAddr,
    path: String,
    period: Duration,
    timeout: Duration,
    threshold: u64,
    next: Instant,
    failed: u64,
    passed: bool,
}

impl Probe {
    fn of(container: &Value, address: &str, name: &str) -> Option<Self> {
        let probe = container[name].as_object()?;
        let asked = &probe["httpGet"];
        let named = list(&container["ports"]).find(|port| port["name"] == asked["port"]).unwrap();
        let seconds = |key: &str, usual| Duration::from_secs(probe.get(key).and_then(Value::as_u64).unwrap_or(usual));
        Some(Self {
            address: format!("{address}:{}", named["containerPort"]).parse().unwrap(),
            path: text(&asked["path"]).to_owned(),
            period: seconds("periodSeconds", 10),
            timeout: seconds("timeoutSeconds", 1),
            threshold: probe.get("failureThreshold").and_then(Value::as_u64).unwrap_or(3),
            next: Instant::now(),
            failed: 0,
            passed: false,
        })
    }

    /// What follows, if it is time to look: whether it passes, once it passes or has failed often enough.
    fn look(&mut self) -> Option<bool> {
        if Instant::now() < self.next {
            return None;
        }
        self.next = Instant::now() + self.period;
        if self.ask().is_some_and(|status| (200..400).contains(&status)) {
            (self.failed, self.passed) = (0, true);
            return Some(true);
        }
        self.failed += 1;
        (self.failed >= self.threshold).then_some(false)
    }

    fn has_passed(&mut self) -> bool {
        self.passed || self.look() == Some(true)
    }

    fn ask(&self) -> Option<u16> {
        let mut stream = TcpStream::connect_timeout(&self.address, self.timeout).ok()?;
        stream.set_read_timeout(Some(self.timeout)).ok()?;
        write!(stream, "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.path, self.address).ok()?;
        let mut answer = [0_u8; 12];
        stream.read_exact(&mut answer).ok()?;
        std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
    }
}
