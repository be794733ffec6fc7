//! Who has attached an XDP program.

use libbpf_rs::query::{LinkInfo, LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use std::io;

/// The BPF link by which this program is on the interface with this index; `None` if there is none.
///
/// # Errors
///
/// If this process may not ask (CAP_SYS_ADMIN).
pub(crate) fn holder(program: u32, interface: u32) -> io::Result<Option<u32>> {
    let is_it = |link: &LinkInfo| {
        link.prog_id == program
            && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == interface)
    };
    may_list_links()?;
    Ok(LinkInfoIter::default().find(is_it).map(|link| link.id))
}

/// The iterator ends in the same way where there is nothing and where nothing is told.
fn may_list_links() -> io::Result<()> {
    let mut first = 0;
    // SAFETY: writes a number where the pointer says, which is a local variable.
    match unsafe { libbpf_sys::bpf_link_get_next_id(0, &raw mut first) } {
        error if error < 0 && error != -libc::ENOENT => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}

/// The name of a program, if this process may ask.
pub(crate) fn program_name(program: u32) -> Option<String> {
    let mut programs = ProgInfoIter::default();
    let found = programs.find(|info| info.id == program);
    found.map(|info| info.name.to_string_lossy().into_owned())
}
