//! The stages of the story, in its order.

use serde::{Serialize, Serializer};

use super::path::Off;
use crate::error::{LabError, Result};

/// One stage: what stands in the path, and what is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing stands in the path; every offload on.
    NoEngine,
    /// The blind engine; every offload on.
    BlindDefaults,
    /// The blind engine; TX checksums off inside the pod.
    BlindPodTxOff,
    /// The blind engine; TX checksums off inside the pod, segmentation off at the gateway.
    BlindGatewayTsoOff,
    /// The blind engine; TX checksums, and with them segmentation, off on both.
    BlindWorkaround,
    /// Tollgate; every offload on.
    Tollgate,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 6] = [
        Stage::NoEngine,
        Stage::BlindDefaults,
        Stage::BlindPodTxOff,
        Stage::BlindGatewayTsoOff,
        Stage::BlindWorkaround,
        Stage::Tollgate,
    ];

    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Stage::NoEngine => "no-engine",
            Stage::BlindDefaults => "blind-defaults",
            Stage::BlindPodTxOff => "blind-pod-tx-off",
            Stage::BlindGatewayTsoOff => "blind-gateway-tso-off",
            Stage::BlindWorkaround => "blind-workaround",
            Stage::Tollgate => "tollgate",
        }
    }

    /// The stages of these names, in the story's order; all of them if there is no name.
    ///
    /// # Errors
    /// [`LabError::Usage`] for a name that no stage has.
    pub fn select(names: &[String]) -> Result<Vec<Stage>> {
        let known = |name: &&String| Self::ALL.iter().any(|stage| stage.name() == *name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let all = Self::ALL.map(Stage::name).join(", ");
            return Err(LabError::Usage(format!("stage {unknown:?}: use {all}")));
        }
        let wanted = |stage: &Stage| names.is_empty() || names.iter().any(|n| n == stage.name());
        Ok(Self::ALL.into_iter().filter(wanted).collect())
    }

    /// Whether the blind engine stands in the path.
    pub fn is_blind(self) -> bool {
        !matches!(self, Stage::NoEngine | Stage::Tollgate)
    }

    /// What is switched off in it.
    pub(super) fn off(self) -> Off {
        let none = Off::default();
        match self {
            Stage::NoEngine | Stage::BlindDefaults | Stage::Tollgate => none,
            Stage::BlindPodTxOff => Off {
                pod_checksum: true,
                ..none
            },
            Stage::BlindGatewayTsoOff => Off {
                pod_checksum: true,
                gateway_tso: true,
                ..none
            },
            Stage::BlindWorkaround => Off {
                pod_checksum: true,
                gateway_checksum: true,
                ..none
            },
        }
    }

    /// What is set up, in a few words.
    pub fn setting(self) -> &'static str {
        match self {
            Stage::NoEngine => "nothing in the path, every offload on",
            Stage::BlindDefaults => "blind engine, every offload on",
            Stage::BlindPodTxOff => "blind engine; ethtool -K eth0 tx off in the pod",
            Stage::BlindGatewayTsoOff => {
                "blind engine; tx off in the pod, ethtool -K gw0 tso off on the node"
            }
            Stage::BlindWorkaround => "blind engine; tx off in the pod and on gw0",
            Stage::Tollgate => "Tollgate governs the pod, every offload on",
        }
    }

    /// Why it goes as it goes.
    pub fn explanation(self) -> &'static str {
        match self {
            Stage::NoEngine => {
                "the kernel's own road: super-packets and unfilled checksums all the way"
            }
            Stage::BlindDefaults => {
                "checksums that were to be filled in later never are: the first SYN is dropped"
            }
            Stage::BlindPodTxOff => {
                "what the uplink merged is longer than the MTU: cut off by the engine's buffer, \
                 refused with EMSGSIZE; what fits one frame passes"
            }
            Stage::BlindGatewayTsoOff => {
                "the gateway cuts merged packets to MTU size but leaves their checksums to be filled \
                 in: the pod drops them"
            }
            Stage::BlindWorkaround => {
                "every frame is small and complete before the engine sees it; it works at the price of \
                 every offload"
            }
            Stage::Tollgate => {
                "offload metadata stays with each packet, and what is decided stays in the kernel"
            }
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_chosen_by_name_in_the_storys_order() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(Stage::select(&[]).unwrap(), Stage::ALL);
        let chosen = Stage::select(&names(&["tollgate", "no-engine", "tollgate"])).unwrap();
        assert_eq!(chosen, [Stage::NoEngine, Stage::Tollgate]);
        let error = Stage::select(&names(&["blind"])).unwrap_err();
        assert!(error.to_string().contains("blind-workaround"), "{error}");
    }

    #[test]
    fn only_stages_with_the_blind_engine_switch_anything_off() {
        for stage in Stage::ALL {
            let off = stage.off() != Off::default();
            assert!(!off || stage.is_blind(), "{stage:?}");
        }
    }
}
