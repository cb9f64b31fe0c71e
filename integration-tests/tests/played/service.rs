//! A Service: an address behind which connections go to pods that are ready.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::pod::{Pod, State};

/// A pod that it leads to.
struct Endpoint {
    address: String,
    state: Arc<Mutex<State>>,
}

/// A service of one port.
pub(crate) struct Service {
    port: u64,
    endpoints: Arc<Mutex<Vec<Endpoint>>>,
}

impl Service {
    /// Begins to listen.
    pub(crate) fn listen(address: &str, port: u64) -> Self {
        let listener = TcpListener::bind(format!("{address}:{port}")).unwrap();
        let endpoints = Arc::new(Mutex::new(Vec::new()));
        let known = endpoints.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let known = known.clone();
                std::thread::spawn(move || forward(connection, &known));
            }
        });
        Self { port, endpoints }
    }

    /// From now on it leads to a pod, too, while that is ready.
    pub(crate) fn leads_to(&self, pod: &Pod) {
        let address = format!("{}:{}", pod.address, self.port);
        self.endpoints.lock().unwrap().push(Endpoint { address, state: pod.state.clone() });
    }
}

/// Nobody who is ready: the connection is closed, as one is refused.
fn forward(connection: TcpStream, known: &Mutex<Vec<Endpoint>>) {
    let ready = |endpoint: &Endpoint| endpoint.state.lock().unwrap().ready;
    let address = known.lock().unwrap().iter().rev().find(|e| ready(e)).map(|e| e.address.clone());
    let Some(pod) = address.and_then(|address| TcpStream::connect(address).ok()) else { return };
    let back = (pod.try_clone().unwrap(), connection.try_clone().unwrap());
    let copied = std::thread::spawn(move || copy(back.0, back.1));
    copy(connection, pod);
    let _ = copied.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0_u8; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
    let _ = to.shutdown(Shutdown::Write);
}
