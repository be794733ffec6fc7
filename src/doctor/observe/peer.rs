//! The other end of a veth pair, which may be in another network namespace.

use crate::dataplane::af_xdp::ethtool;
use crate::dataplane::netlink::{Answer, NetlinkSocket};
use crate::doctor::observed::Peer;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Finds the other end of this one.
///
/// # Errors
///
/// Why it could not be looked at.
pub(super) fn look(end: &LinkMessage, all: &[LinkMessage]) -> Result<Peer, String> {
    let (mut index, mut namespace) = (None, None);
    for attribute in &end.attributes {
        match attribute {
            LinkAttribute::Link(link) => index = Some(*link),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            _ => {}
        }
    }
    let index = index.ok_or("the kernel does not say which it is")?;
    let Some(namespace) = namespace else {
        let name = all.iter().find(|link| link.header.index == index).and_then(name_of);
        return peer(name.ok_or("it is gone")?, String::new());
    };
    let (file, enter) = find(namespace)?;
    let inside = move || {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("it is in a namespace that cannot be entered: {error}"))?;
        let name = ask_name(index).map_err(|error| format!("it cannot be asked for: {error}"))?;
        peer(&name, enter)
    };
    // The thread takes the namespace away with it.
    let thread = std::thread::Builder::new().name("dsrlb-doctor".to_owned()).spawn(inside);
    let thread = thread.map_err(|error| error.to_string())?;
    thread.join().unwrap_or_else(|_| Err("looking at it failed".to_owned()))
}

fn peer(name: &str, enter: String) -> Result<Peer, String> {
    let leaves_checksums = ethtool::leaves_checksums(name)
        .map_err(|error| format!("its driver cannot be asked: {error}"))?
        .ok_or("its driver does not tell")?;
    Ok(Peer { name: name.to_owned(), enter, leaves_checksums })
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn ask_name(index: u32) -> io::Result<String> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    match NetlinkSocket::open(&[])?.call(RouteNetlinkMessage::GetLink(link), 0)? {
        Answer::Message(RouteNetlinkMessage::NewLink(link)) => {
            name_of(&link).map(str::to_owned).ok_or_else(|| io::Error::other("it has no name"))
        }
        Answer::Refused(error) => Err(error),
        _ => Err(io::Error::other("the answer is about something else")),
    }
}

/// The namespace that this one knows by that number, among those with a name and those of processes; with
/// what to put before a command to run it there.
fn find(wanted: i32) -> Result<(File, String), String> {
    let mut socket = NetlinkSocket::open(&[]).map_err(|error| error.to_string())?;
    let named = entries("/run/netns").filter_map(|path| {
        let enter = format!("ip netns exec {} ", path.file_name()?.to_str()?);
        Some((path, enter))
    });
    let of_processes = entries("/proc").filter_map(|path| {
        path.file_name()?.to_str()?.parse::<u32>().ok()?;
        let path = path.join("ns/net");
        let enter = format!("nsenter --net={} ", path.display());
        Some((path, enter))
    });
    let mut seen = Vec::new();
    for (path, enter) in named.chain(of_processes) {
        let Some((file, number)) = open(&path) else {
            continue;
        };
        if seen.contains(&number) {
            continue;
        }
        seen.push(number);
        if number_of(&mut socket, &file) == Some(wanted) {
            return Ok((file, enter));
        }
    }
    Err("it is in a network namespace that this process cannot find".to_owned())
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// With the inode number, which tells namespaces apart.
fn open(path: &Path) -> Option<(File, u64)> {
    let file = File::open(path).ok()?;
    let number = file.metadata().ok()?.ino();
    Some((file, number))
}

fn number_of(socket: &mut NetlinkSocket, namespace: &File) -> Option<i32> {
    let mut question = NsidMessage::default();
    let descriptor = u32::try_from(namespace.as_raw_fd()).ok()?;
    question.attributes = vec![NsidAttribute::Fd(descriptor)];
    match socket.call(RouteNetlinkMessage::GetNsId(question), 0).ok()? {
        Answer::Message(RouteNetlinkMessage::NewNsId(answer)) => {
            answer.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(number) => Some(*number),
                _ => None,
            })
        }
        _ => None,
    }
}
