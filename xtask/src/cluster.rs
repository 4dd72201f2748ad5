//! Three nats-servers and three hosts on this machine, to try things on: one log, replicated by three
//! servers.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::cargo::Workspace;
use crate::plugins::PLUGINS;
use crate::programs::{self, Group, Program, Running};
use crate::{Result, nats};

const NUMBERS: [u16; 3] = [1, 2, 3];

/// The port of the hosts, next to that of `cargo xtask run`. The number of a host or a server is added to
/// each port.
const HOST_PORT: u16 = 7_070;
/// The ports of the servers for clients, for each other and for monitoring. None is the default of a
/// nats-server.
const CLIENT_PORT: u16 = 4_270;
const CLUSTER_PORT: u16 = 6_270;
const MONITORING_PORT: u16 = 8_270;

/// Builds, and runs the cluster until it is interrupted. The data of the previous run is kept unless `fresh`
/// is set.
pub(crate) fn run(workspace: &Workspace, release: bool, fresh: bool) -> Result<()> {
    nats::ensure_server(workspace)?;
    crate::build(workspace, &[PLUGINS], release)?;
    let folder = workspace.target.join("cluster");
    if fresh && folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let kontor = workspace.target.join(if release { "release" } else { "debug" }).join("kontor");
    let mut servers = Vec::new();
    let mut hosts = Vec::new();
    for number in NUMBERS {
        servers.push(server(&nats::server(workspace), &folder, number)?);
        hosts.push(host(workspace, &kontor, &folder, number)?);
    }
    programs::take_interrupts();
    let group = Group::new()?;
    let mut servers = programs::start(servers, &group)?;
    let mut hosts = programs::start(hosts, &group)?;
    println!("{}", welcome(&servers, &hosts, &folder, &kontor));
    let mut all: Vec<&mut Running> = servers.iter_mut().chain(&mut hosts).collect();
    programs::keep_up(&mut all, &group)?;
    programs::stop(&mut hosts)?;
    programs::stop(&mut servers)
}

fn server(path: &Path, folder: &Path, number: u16) -> Result<Program> {
    let name = format!("nats-{number}");
    let folder = folder.join(&name);
    fs::create_dir_all(&folder)?;
    let configuration = folder.join("nats.conf");
    let [client, cluster, monitoring] =
        [CLIENT_PORT, CLUSTER_PORT, MONITORING_PORT].map(|port| port + number);
    let settings = format!(
        "server_name: {name}\n\
         listen: \"127.0.0.1:{client}\"\n\
         http: \"127.0.0.1:{monitoring}\"\n\
         jetstream {{ store_dir: {store:?}, sync_interval: always }}\n\
         cluster {{ name: kontor, listen: \"127.0.0.1:{cluster}\", routes: [{routes}] }}\n",
        store = folder.join("store"),
        routes = addresses("nats", CLUSTER_PORT).join(", "),
    );
    fs::write(&configuration, settings)?;
    let arguments = vec!["--config".into(), configuration.into()];
    Ok(Program { name, path: path.to_owned(), arguments, ready: "Server is ready" })
}

/// Returns a host that is configured by the repository's kontor.toml and by the settings of a cluster.
fn host(workspace: &Workspace, path: &Path, folder: &Path, number: u16) -> Result<Program> {
    let name = format!("shop-{number}");
    let folder = folder.join(&name);
    fs::create_dir_all(&folder)?;
    let configuration = folder.join("kontor.toml");
    let common = fs::read_to_string(workspace.root.join("kontor.toml"))?;
    let monitoring = addresses("http", MONITORING_PORT);
    let settings = format!(
        "name = {name:?}\n{common}\n[nats]\nreplicas = {}\n\n[jetstream]\nmonitoring = {monitoring:?}\n",
        NUMBERS.len()
    );
    fs::write(&configuration, settings)?;
    let arguments: Vec<OsString> = vec![
        "serve".into(),
        "--config".into(),
        configuration.into(),
        "--listen".into(),
        format!("127.0.0.1:{}", HOST_PORT + number).into(),
        "--data".into(),
        folder.join("data").into(),
        "--plugins".into(),
        PLUGINS.folder(workspace).into(),
        "--log".into(),
        "jetstream".into(),
        "--nats-url".into(),
        addresses("nats", CLIENT_PORT).join(",").into(),
    ];
    Ok(Program { name, path: path.to_owned(), arguments, ready: "listening on http://" })
}

/// Returns the addresses of all three servers or hosts.
fn addresses(scheme: &str, port: u16) -> [String; 3] {
    NUMBERS.map(|number| format!("{scheme}://127.0.0.1:{}", port + number))
}

fn welcome(servers: &[Running], hosts: &[Running], folder: &Path, kontor: &Path) -> String {
    let row = |(running, address): (&Running, String)| {
        format!("{:7}  {:<7}  {address}\n", running.name(), running.pid())
    };
    let hosts_at = addresses("http", HOST_PORT);
    let servers: String = servers.iter().zip(addresses("nats", CLIENT_PORT)).map(row).collect();
    let of_hosts: String = hosts.iter().zip(hosts_at.clone()).map(row).collect();
    let [first, second, third] = hosts_at;
    let (folder, kontor, pid) = (folder.display(), kontor.display(), hosts[0].pid());
    format!(
        "\n\
         NAME     PROCESS  ADDRESS\n\
         {servers}{of_hosts}\n\
         All data is in {folder}. In another terminal:\n\n  \
         curl -s -X PUT {first}/products/tea --json '{{\"name\":\"Tea\",\"unit_price\":450,\"quantity\":1000}}'\n  \
         curl -s {second}/orders -H 'Prefer: wait=5' --json '{ORDER}'\n  \
         curl -s {third}/products/tea\n  \
         {kontor} nodes --host {second}\n  \
         kill -9 {pid}    # the others take over its sagas; it is started again\n\n\
         Ctrl-C stops everything.\n"
    )
}

/// The body of an order, in JSON.
const ORDER: &str = concat!(
    r#"{"user_id":"ada","lines":[{"product_id":"tea","quantity":2}],"payment":[{"method":"card","share":"1"}],"#,
    r#""address":{"region":"hanse","line":"Kontorgasse 1"}}"#
);
