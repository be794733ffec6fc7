//! A monitor of one's own: what an embedder writes, and how it is bound.
//!
//! The protocol here is a line: the server greets with `READY` when it will take work, and with anything else when it
//! will not. The library brings schedule, timeouts, thresholds and threads, and has the probe travel through the VIP.
//!
//! ```text
//! cargo run --no-default-features --example custom_monitor         # on loopback, without root: shows the transitions
//! ```

use dsrlb::health::{
    HealthPolicy, HealthState, Monitor, ProbeFailure, ProbeTarget, Runner, Target,
};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The part to copy.
struct Greeting {
    port: u16,
}

impl Monitor for Greeting {
    fn probe(&self, target: &Target<'_>, timeout: Duration) -> Result<(), ProbeFailure> {
        let start = Instant::now();
        let timed_out = |error: std::io::Error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => ProbeFailure::Timeout(timeout),
            _ => error.into(),
        };
        // An ordinary socket. Through the VIP, `target.address` is the VIP, and this backend gets the packets.
        let address = SocketAddr::new(target.address, self.port);
        let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(timed_out)?;
        let left = timeout.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).map_err(timed_out)?;
        match &greeting {
            b"READY" => Ok(()),
            other => Err(ProbeFailure::Unexpected(other.escape_ascii().to_string())),
        }
    }
}

/// With the data path: the same monitor, for the backends of a service.
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
#[allow(dead_code)]
fn in_a_director() -> Result<dsrlb::Director, Box<dyn Error>> {
    use dsrlb::balancer::{RealServer, VirtualService};
    use dsrlb::config::ServiceConfig;
    use dsrlb::health::{MonitorBinding, Through};

    let service = VirtualService::new("10.0.0.100:7000/tcp".parse()?)
        .backend(RealServer::new("10.0.0.11".parse()?))
        .backend(RealServer::new("10.0.0.12".parse()?));
    let binding = MonitorBinding::new(Greeting { port: 7000 })
        .through(Through::Vip)
        .policy(HealthPolicy { interval: Duration::from_secs(2), ..HealthPolicy::default() });
    let director = dsrlb::Director::builder("eth0")
        .service(ServiceConfig::new(service, binding))
        .on_event(|event| eprintln!("{event}"));
    Ok(director.start()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let ready = Arc::new(AtomicBool::new(true));
    let address = serve(Arc::clone(&ready))?;
    let (sender, events) = mpsc::channel();
    let runner = Runner::start(4, sender)?;
    runner.set_targets(vec![ProbeTarget {
        service: "worker".into(),
        id: "loopback".into(),
        address: address.ip(),
        monitor: Arc::new(Greeting { port: address.port() }),
        policy: HealthPolicy {
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(100),
            ..HealthPolicy::default()
        },
    }])?;
    for (is_ready, expected) in [(true, HealthState::Up), (false, HealthState::Down)] {
        ready.store(is_ready, Ordering::Relaxed);
        let event = events.recv_timeout(Duration::from_secs(5))?;
        println!("{event}");
        if event.to != expected {
            return Err(format!("{expected} was expected").into());
        }
    }
    Ok(())
}

/// A server that says whether it will take work.
fn serve(ready: Arc<AtomicBool>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let greeting = if ready.load(Ordering::Relaxed) { b"READY" } else { b"AWAY\n" };
            let _ = stream.write_all(greeting);
        }
    });
    Ok(address)
}
