//! What Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tollgate_engine::event::{EventKind, Verdict};
use tollgate_policy::Side;

use crate::counters::{Kind, Reading};
use crate::filter::verdict_word;
use crate::record::{Names, Stamped};
use crate::state::{State, direction_word};

/// Content type of the text format that [`render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label combinations of the verdict counter; beyond it endpoint, policy and reason are summed up
/// as [`OTHER`], so that churning endpoints cannot grow the agent or the time-series data base.
const MAX_SERIES: usize = 10_000;

/// Label value for what has no series of its own.
const OTHER: &str = "other";

/// Label value where no policy decided.
const NONE: &str = "none";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
    direction: &'static str,
    endpoint: Arc<str>,
    policy: Arc<str>,
    reason: &'static str,
}

/// Counters fed by events.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    verdicts: Family<VerdictLabels, Counter>,
    series: Arc<AtomicUsize>,
    closed: Counter,
}

impl EventMetrics {
    /// Counts one event.
    pub fn count(&self, stamped: &Stamped, names: &Names) {
        let Some(event) = stamped.flow() else {
            return;
        };
        match &event.kind {
            EventKind::Verdict(verdict) => {
                let endpoint = names.endpoint(event.key.endpoint).name;
                self.verdict(labels(verdict, event.side, endpoint));
            }
            EventKind::Closed { .. } => {
                self.closed.inc();
            }
        }
    }

    fn verdict(&self, labels: VerdictLabels) {
        if let Some(counter) = self.verdicts.get(&labels) {
            counter.inc();
            return;
        }
        // Only the writer thread counts, so nothing comes between the question and the answer.
        let labels = match self.series.load(Ordering::Relaxed) < MAX_SERIES {
            true => {
                self.series.fetch_add(1, Ordering::Relaxed);
                labels
            }
            false => {
                let (endpoint, policy) = (OTHER.into(), OTHER.into());
                VerdictLabels {
                    endpoint,
                    policy,
                    reason: OTHER,
                    ..labels
                }
            }
        };
        self.verdicts.get_or_create(&labels).inc();
    }
}

fn labels(verdict: &Verdict, side: Side, endpoint: Arc<str>) -> VerdictLabels {
    VerdictLabels {
        verdict: verdict_word(verdict.word),
        direction: side_word(side),
        endpoint,
        policy: verdict.policy.clone().unwrap_or_else(|| NONE.into()),
        reason: verdict.reason,
    }
}

/// A word for who opened a flow.
pub fn side_word(side: Side) -> &'static str {
    match side {
        Side::Egress => "egress",
        Side::Ingress => "ingress",
    }
}

/// A registry of everything the agent counts.
pub fn registry(events: &EventMetrics, state: Arc<State>) -> Registry {
    let mut registry = Registry::with_prefix("tollgate");
    registry.register(
        "verdicts",
        "Verdicts that were reported: every refusal, what a rule with enableLogging allowed, and \
         the rest while it is logged or observed",
        events.verdicts.clone(),
    );
    registry.register(
        "flow_ends",
        "Flows whose end was reported",
        events.closed.clone(),
    );
    registry.register_collector(Box::new(StateCollector(state)));
    registry
}

/// The text that a scrape gets.
pub fn render(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// Reads the numbers that others keep, when somebody asks.
struct StateCollector(Arc<State>);

impl fmt::Debug for StateCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateCollector")
    }
}

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for reading in self.0.readings() {
            put(&mut encoder, &reading)?;
        }
        kernel(&mut encoder, &self.0)?;
        build_info(&mut encoder)
    }
}

fn put(encoder: &mut DescriptorEncoder, reading: &Reading) -> fmt::Result {
    // The registry adds the full stop to HELP texts of its own; ours must not have two.
    let help = reading.help.trim_end_matches('.').to_owned() + ".";
    match reading.kind {
        Kind::Counter => {
            let counter = ConstCounter::new(reading.value);
            let metric =
                encoder.encode_descriptor(reading.name, &help, None, counter.metric_type())?;
            counter.encode(metric)
        }
        Kind::Gauge => {
            let gauge = ConstGauge::new(reading.value);
            let metric =
                encoder.encode_descriptor(reading.name, &help, None, gauge.metric_type())?;
            gauge.encode(metric)
        }
    }
}

fn kernel(encoder: &mut DescriptorEncoder, state: &State) -> fmt::Result {
    let counters = state.kernel_counters();
    let kind = ConstCounter::new(0u64).metric_type();
    let help = "Packets by what the kernel programs did with them.";
    let mut family = encoder.encode_descriptor("kernel_packets", help, None, kind)?;
    for counter in counters {
        let labels = [
            ("action", counter.name),
            ("direction", direction_word(counter.direction)),
        ];
        ConstCounter::new(counter.value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn build_info(encoder: &mut DescriptorEncoder) -> fmt::Result {
    let gauge = ConstGauge::new(1u64);
    let help = "The running version; always 1.";
    let mut family = encoder.encode_descriptor("build_info", help, None, gauge.metric_type())?;
    gauge.encode(family.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?)
}

#[cfg(test)]
mod tests {
    use tollgate_engine::event::VerdictWord;

    use super::*;
    use crate::record::samples::{names, stamped};

    #[test]
    fn verdicts_have_their_labels() {
        let metrics = EventMetrics::default();
        metrics.count(&stamped(VerdictWord::Denied, 1), &names());
        metrics.count(&stamped(VerdictWord::Denied, 2), &names());
        let text = render(&registry(&metrics, State::for_tests())).unwrap();
        let line = "tollgate_verdicts_total{verdict=\"DENIED\",direction=\"egress\",\
                    endpoint=\"shop/web-0\",policy=\"ClusterNetworkPolicy/web\",reason=\"rule\"} 2";
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(text.contains("tollgate_policy_generation 0"), "{text}");
        assert!(text.contains("tollgate_frames_in_total 0"), "{text}");
        assert!(
            text.contains("# HELP tollgate_events_dropped Events"),
            "{text}"
        );
        assert!(text.contains("tollgate_build_info{version="), "{text}");
        assert!(!text.contains(".."), "no doubled full stop: {text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn endpoints_that_come_and_go_do_not_grow_the_registry() {
        let metrics = EventMetrics::default();
        let event = stamped(VerdictWord::Allowed, 1);
        let EventKind::Verdict(verdict) = &event.flow().unwrap().kind else {
            panic!("a verdict")
        };
        for n in 0..MAX_SERIES + 50 {
            metrics.verdict(labels(verdict, Side::Egress, format!("pod-{n}").into()));
        }
        let text = render(&registry(&metrics, State::for_tests())).unwrap();
        let series = text
            .lines()
            .filter(|line| line.starts_with("tollgate_verdicts_total"));
        assert_eq!(series.count(), MAX_SERIES + 1);
        let mut other = labels(verdict, Side::Egress, OTHER.into());
        other.policy = OTHER.into();
        other.reason = OTHER;
        assert_eq!(metrics.verdicts.get_or_create(&other).get(), 50);
    }
}
