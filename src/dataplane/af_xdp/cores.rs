//! Which core serves which queue, and putting a thread there.

use super::error::XdpError;
use crate::dataplane::Cores;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::io;

/// The calling thread, to the calls below.
const SELF: Pid = Pid::from_raw(0);

/// One core for each of `queues` queues, if they are to have any, each tried out.
pub(super) fn assign(
    cores: &Cores,
    interface: &str,
    queues: u32,
) -> Result<Vec<Option<u32>>, XdpError> {
    let cores = match cores {
        Cores::Any => return Ok(vec![None; queues as usize]),
        Cores::Each => allowed(),
        Cores::List(cores) => cores.clone(),
    };
    if cores.len() < queues as usize {
        return Err(XdpError::TooFewCores {
            interface: interface.to_owned(),
            queues,
            cores: cores.len(),
        });
    }
    let taken = cores.get(..queues as usize).unwrap_or_default();
    for (index, core) in taken.iter().enumerate() {
        let twice = taken.get(..index).is_some_and(|before| before.contains(core));
        let refused = if twice {
            Some("it is named twice".to_owned())
        } else {
            try_out(*core).err().map(|error| error.to_string())
        };
        if let Some(reason) = refused {
            let allowed: Vec<String> = allowed().iter().map(u32::to_string).collect();
            return Err(XdpError::Core {
                interface: interface.to_owned(),
                core: *core,
                reason,
                allowed: allowed.join(", "),
            });
        }
    }
    Ok(taken.iter().copied().map(Some).collect())
}

/// Has the calling thread run on `core` and no other.
///
/// # Errors
///
/// If there is no such core, or it is off line or not for this process (cgroup cpuset).
pub fn pin_thread(core: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    let pinned = set.set(core as usize).and_then(|()| sched_setaffinity(SELF, &set));
    pinned.map_err(|error| match error {
        Errno::EINVAL => io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is no such core, or it is off line or not for this process",
        ),
        error => error.into(),
    })
}

/// The cores that the calling thread may run on, in order.
fn allowed() -> Vec<u32> {
    let set = sched_getaffinity(SELF).unwrap_or_default();
    let is_in = |core: &u32| set.is_set(*core as usize).unwrap_or(false);
    (0..CpuSet::count() as u32).filter(is_in).collect()
}

/// Pins a thread that does nothing else: what the thread which opens may run on may be less than what a
/// worker can be given, as the latter is up to the cgroup alone.
fn try_out(core: u32) -> io::Result<()> {
    let pinned = std::thread::Builder::new().spawn(move || pin_thread(core))?.join();
    pinned.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_a_core_of_its_own_or_an_error_that_helps() {
        let own = allowed();
        assert!(!own.is_empty());
        assert_eq!(assign(&Cores::Any, "eth0", 2).unwrap(), [None, None]);
        assert_eq!(assign(&Cores::Each, "eth0", 1).unwrap(), [Some(own[0])]);
        let last = *own.last().unwrap();
        let list = Cores::List(vec![last, 5000]);
        assert_eq!(assign(&list, "eth0", 1).unwrap(), [Some(last)], "of which one is needed");

        let error = assign(&list, "eth0", 2).unwrap_err();
        assert!(matches!(error, XdpError::Core { core: 5000, .. }), "{error}");
        let error = assign(&Cores::List(vec![last, last]), "eth0", 2).unwrap_err();
        assert!(error.to_string().contains("named twice"), "{error}");
        let queues = own.len() as u32 + 1;
        let error = assign(&Cores::Each, "eth0", queues).unwrap_err();
        assert!(matches!(error, XdpError::TooFewCores { .. }), "{error}");
    }
}
