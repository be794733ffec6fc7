//! The wire: a veth pair between the generator's namespace and the forwarder's.

use crate::lab::Namespace;
use crate::lab::netns::{new_prefix, sweep};
use crate::plan::{self, BACKENDS, CLIENT, DIRECTOR_MAC, FIRST_BACKEND};
use crate::traffic::pin;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{fs, thread, time::Duration};

/// Has room for a tunnel's header around packets of 1,500 bytes.
const MTU: u32 = 1550;

pub struct Network {
    pub client: Namespace,
    pub director: Namespace,
    pub client_end: String,
    /// A name of its own on this machine, since kernel threads are named after it.
    pub director_end: String,
}

impl Network {
    pub fn build() -> Result<Self, Box<dyn Error>> {
        sweep();
        let prefix = new_prefix("forwarders")?;
        let client = Namespace::create(format!("{prefix}-client"))?;
        let director = Namespace::create(format!("{prefix}-director"))?;
        for namespace in [&director, &client] {
            namespace.sysctl(&[("net/ipv6/conf/default/accept_dad", "0")])?;
        }
        let process = std::process::id();
        let (client_end, director_end) = (format!("g{process}"), format!("w{process}"));
        let (to, client_mac) = (client.name(), plan::mac_text(plan::mac(CLIENT)));
        let director_mac = plan::mac_text(DIRECTOR_MAC);
        let mut lines = vec![
            format!(
                "link add {director_end} mtu {MTU} address {director_mac} type veth \
                 peer name {client_end} mtu {MTU} address {client_mac} netns {to}"
            ),
            format!("addr add 10.88.0.1/24 dev {director_end}"),
            format!("addr add fd88::1/64 dev {director_end} nodad"),
            format!("link set {director_end} up"),
        ];
        for number in FIRST_BACKEND..FIRST_BACKEND + BACKENDS {
            let mac = plan::mac_text(plan::mac(number));
            lines.extend([false, true].map(|ipv6| {
                let address = plan::backend(number, ipv6);
                format!("neigh add {address} lladdr {mac} dev {director_end} nud permanent")
            }));
        }
        director.ip_batch(&lines)?;
        client.ip_batch(&[format!("link set {client_end} up")])?;
        // Without an XDP program a veth has NAPI, as any real device has, only with GRO.
        director.run("ethtool", &["-K", &director_end, "gro", "on"])?;
        Ok(Self { client, director, client_end, director_end })
    }

    /// Has the forwarder's end receive where frames are sent from, or in a kernel thread.
    pub fn set_threaded(&self, threaded: bool) -> Result<(), Box<dyn Error>> {
        let value = if threaded { "1" } else { "0" };
        let file = format!("/sys/class/net/{}/threaded", self.director_end);
        // `ip netns exec` is what mounts a `/sys` that shows the namespace.
        let arguments = ["netns", "exec", self.director.name(), "tee", &file];
        let shell = format!("echo {value} | ip {} > /dev/null", arguments.join(" "));
        let status = Command::new("sh").args(["-c", &shell]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("cannot write {value} to {file}").into())
        }
    }

    /// Puts that kernel thread onto CPU `cpu`, at this nice value.
    pub fn place_thread(&self, cpu: usize, nice: i32) -> Result<(), Box<dyn Error>> {
        let mut threads = self.kernel_threads();
        for _ in 0..50 {
            if !threads.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
            threads = self.kernel_threads();
        }
        if threads.is_empty() {
            return Err(format!("no kernel thread receives for {}", self.director_end).into());
        }
        for id in threads {
            let (cpu, nice) = (cpu.to_string(), nice.to_string());
            run("taskset", &["-p", "-c", &cpu, &id])?;
            run("renice", &["-n", &nice, "-p", &id])?;
        }
        Ok(())
    }

    fn kernel_threads(&self) -> Vec<String> {
        let name = format!("napi/{}-", self.director_end);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let is_one = |path: &PathBuf| {
            // A kernel thread's name is cut off.
            fs::read_to_string(path.join("comm"))
                .is_ok_and(|comm| comm.starts_with(name.get(..15).unwrap_or(&name)))
        };
        let paths = processes.map(|entry| entry.path()).filter(is_one);
        paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }
}

/// The CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    let all = 0..thread::available_parallelism().map_or(1, usize::from).max(64);
    let usable = |cpu: &usize| thread::scope(|scope| scope.spawn(|| pin(*cpu).is_ok()).join());
    all.filter(|cpu| usable(cpu).unwrap_or(false)).take(2).collect()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("cannot start {program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}
