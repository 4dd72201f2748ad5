//! A link to a server that can be cut, like a network that fails.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// The ways in which a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// No packet arrives. Open connections stay and new ones hang; data sent meanwhile arrives once the link
    /// is healed, as it does with TCP.
    Silent,
    /// Connections end and lose the data in flight, and so do new ones.
    Broken,
}

/// A proxy for TCP connections to a server. Its threads end with their connections; the thread that accepts
/// them ends with the process.
pub(crate) struct Link {
    address: SocketAddr,
    switch: Arc<Switch>,
}

#[derive(Default)]
struct Switch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    /// Both ends of each connection, to be closed when the link is broken.
    connections: Vec<TcpStream>,
}

impl Link {
    /// Opens a link to a server. `nats`: such as `nats://127.0.0.1:4222`.
    pub(crate) fn to(nats: &str) -> Self {
        let server: SocketAddr = nats.strip_prefix("nats://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let switch = Arc::<Switch>::default();
        let link = Self { address, switch: switch.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, switch) = (client.unwrap(), switch.clone());
                thread::spawn(move || switch.carry(client, server));
            }
        });
        link
    }

    /// Returns the address of this end, such as `nats://127.0.0.1:4222`.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub(crate) fn cut(&self, cut: Cut) {
        let mut state = self.switch.state();
        state.cut = Some(cut);
        if cut == Cut::Broken {
            state.connections.drain(..).for_each(|connection| end(&connection));
        }
    }

    pub(crate) fn heal(&self) {
        self.switch.state().cut = None;
        self.switch.changed.notify_all();
    }
}

impl Switch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits while the link is silent. Returns `true` if it is whole then.
    fn is_whole(&self) -> bool {
        let silent = |state: &mut State| state.cut == Some(Cut::Silent);
        self.changed.wait_while(self.state(), silent).unwrap().cut.is_none()
    }

    fn carry(&self, client: TcpStream, server: SocketAddr) {
        if !self.is_whole() {
            return;
        }
        // Err: the server is down, and the client sees the same.
        let Ok(server) = TcpStream::connect(server) else { return };
        let both = [&client, &server];
        both.iter().for_each(|end| end.set_nodelay(true).unwrap());
        self.state().connections.extend(both.map(|end| end.try_clone().unwrap()));
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&client, &server));
            self.pump(&server, &client);
        });
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut bytes = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if !self.is_whole() || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        [from, to].into_iter().for_each(end);
    }
}

fn end(connection: &TcpStream) {
    // Err: it has already ended.
    let _ = connection.shutdown(Shutdown::Both);
}
