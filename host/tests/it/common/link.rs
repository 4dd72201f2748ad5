//! A link to a server that can be cut, as a network is when it falls apart.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// In which way a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nobody is told. Connections stay and new ones hang; what is sent arrives when the link is healed, as TCP has it.
    Silent,
    /// Connections end, with all that is on its way, and so do new ones.
    Broken,
}

/// Carries TCP connections to a server. Its threads end with the connections, and the one that takes them with the process.
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
    /// Both ends of each, for the day on which it is broken.
    connections: Vec<TcpStream>,
}

impl Link {
    /// `nats`: `nats://127.0.0.1:…`
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

    /// `nats://127.0.0.1:…`
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

    /// Waits while the link is silent. Whether it is whole then.
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
    // Err: it has ended already.
    let _ = connection.shutdown(Shutdown::Both);
}
