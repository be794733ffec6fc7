//! Who has attached an XDP program.

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};

/// The BPF link by which this program is on the interface with this index; none if there is none, or this
/// process may not ask (CAP_SYS_ADMIN).
pub(crate) fn holder(program: u32, interface: u32) -> Option<u32> {
    let is_it = |link: &libbpf_rs::query::LinkInfo| {
        link.prog_id == program
            && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == interface)
    };
    LinkInfoIter::default().find(is_it).map(|link| link.id)
}

/// The name of a program, if this process may ask.
pub(crate) fn program_name(program: u32) -> Option<String> {
    let mut programs = ProgInfoIter::default();
    let found = programs.find(|info| info.id == program);
    found.map(|info| info.name.to_string_lossy().into_owned())
}
