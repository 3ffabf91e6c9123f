//! Gives up what a worker does not need: it reads packets that anybody may have sent.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Kernels before 5.19 let only `CAP_BPF` write to maps while unprivileged BPF is disabled (before
/// 5.8: `CAP_SYS_ADMIN`). Packets go through descriptors that are open already.
const KEPT: CapabilitySet = CapabilitySet::BPF;

/// Keeps, of what the calling thread has, what a worker needs; for good.
pub fn limit_worker() -> std::io::Result<()> {
    let permitted = capabilities(None)?.permitted & KEPT;
    let inheritable = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable,
        },
    )?;
    // Nothing is executed, and nothing executed may get more.
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_gone() {
        // In a thread of its own: the other tests keep theirs.
        let worker = std::thread::spawn(|| {
            limit_worker().unwrap();
            capabilities(None).unwrap()
        });
        let worker = worker.join().unwrap();
        assert!(KEPT.contains(worker.permitted) && KEPT.contains(worker.effective));
        assert!(worker.inheritable.is_empty());
    }
}
