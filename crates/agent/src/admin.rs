//! The admin socket: HTTP/1.1 and JSON on a Unix socket that only its owner may open.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::{self, Stream, StreamExt};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tollgate_engine::FlowSummary;
use tollgate_engine::event::VerdictWord;
use tollgate_wire::tag::EndpointId;

use crate::api::{self, Failure, FlowInfo, FlowQuery, ObserveQuery, PolicyReport};
use crate::control::Command;
use crate::filter::Filter;
use crate::hub::{Hub, Observer};
use crate::metrics;
use crate::record::{self, Names, Record, RecordKind, Stamped};
use crate::state::State;

/// How long all workers together may take to list their flows.
const DUMP_TIMEOUT: Duration = Duration::from_secs(5);

/// Flows in one answer unless fewer are asked for.
const MAX_FLOWS: usize = 100_000;

/// What the handlers share.
#[derive(Clone)]
pub struct Admin {
    /// The agent's state.
    pub state: Arc<State>,
    /// What Prometheus reads.
    pub registry: Arc<Registry>,
}

/// Binds the socket, in the place of one that a dead agent left. The caller has made sure that no
/// other agent lives in the same run directory.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The admin socket's routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route(api::STATUS, get(status))
        .route(api::FLOWS, get(flows))
        .route(api::OBSERVE, get(observe))
        .route(api::POLICY, get(policy))
        .route(api::METRICS, get(scrape))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "no such path") })
        .with_state(admin)
}

/// The metrics port's routes.
pub fn metrics_router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .with_state(admin)
}

fn failure(code: StatusCode, error: impl ToString) -> Response {
    (
        code,
        Json(Failure {
            error: error.to_string(),
        }),
    )
        .into_response()
}

async fn status(Extract(admin): Extract<Admin>) -> Json<api::Status> {
    Json(admin.state.status())
}

/// For liveness and readiness probes: 200 once traffic is governed.
async fn healthz(Extract(admin): Extract<Admin>) -> Response {
    match admin.state.status().health {
        api::Health::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        api::Health::Ok => "ok\n".into_response(),
        api::Health::Degraded => "degraded\n".into_response(),
    }
}

async fn policy(Extract(admin): Extract<Admin>) -> Response {
    let state = &admin.state;
    let policies = match &state.policy.load().set {
        None => Vec::new(),
        Some(set) => match set.policies().iter().map(serde_json::to_value).collect() {
            Ok(policies) => policies,
            Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, error),
        },
    };
    let endpoints = state.endpoints.load().to_vec();
    Json(PolicyReport {
        status: state.policy_status(),
        policies,
        endpoints,
    })
    .into_response()
}

async fn scrape(Extract(admin): Extract<Admin>) -> Response {
    match metrics::render(&admin.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn parse_filter(text: Option<&str>) -> Result<Filter, String> {
    let Some(text) = text else {
        return Ok(Filter::default());
    };
    serde_json::from_str(text).map_err(|error| format!("filter: {error}"))
}

async fn flows(Extract(admin): Extract<Admin>, Query(query): Query<FlowQuery>) -> Response {
    let filter = match parse_filter(query.filter.as_deref()) {
        Ok(filter) => filter,
        Err(error) => return failure(StatusCode::BAD_REQUEST, error),
    };
    let limit = query.limit.unwrap_or(MAX_FLOWS).min(MAX_FLOWS);
    match tokio::time::timeout(DUMP_TIMEOUT, dump(&admin.state)).await {
        Err(_) => failure(
            StatusCode::GATEWAY_TIMEOUT,
            "the workers did not list their flows",
        ),
        Ok(found) => {
            let hub = &admin.state.hub;
            let names = hub.names();
            let infos = found
                .into_iter()
                .map(|(worker, summary)| flow_info(worker, summary, hub, &names))
                .filter(|info| filter.matches(&flow_record(info, hub)))
                .take(limit);
            Json(infos.collect::<Vec<_>>()).into_response()
        }
    }
}

async fn dump(state: &State) -> Vec<(usize, FlowSummary)> {
    let mut replies = Vec::new();
    for worker in state.workers() {
        let (sender, receiver) = oneshot::channel();
        worker.inbox.push(Command::DumpFlows(sender));
        replies.push(receiver);
    }
    let mut flows = Vec::new();
    for (index, reply) in replies.into_iter().enumerate() {
        // An error: the worker ended. The status says so.
        flows.extend(
            reply
                .await
                .unwrap_or_default()
                .into_iter()
                .map(|flow| (index, flow)),
        );
    }
    flows
}

fn flow_info(worker: usize, flow: FlowSummary, hub: &Hub, names: &Names) -> FlowInfo {
    let (source, destination) = record::summary_ends(&flow, names);
    let endpoint = EndpointId::new(flow.endpoint).map(|id| names.endpoint(id).name);
    FlowInfo {
        flow: record::flow_name(worker, flow.id),
        endpoint: endpoint.map_or_else(|| format!("#{}", flow.endpoint), |name| name.to_string()),
        direction: flow.side,
        protocol: record::protocol_name(flow.protocol),
        source,
        destination,
        state: flow.state.to_owned(),
        cached: flow.cached,
        l7: flow.l7.as_ref().map(|facts| hub.recorder().facts(facts)),
        policy: flow.policy,
        rule: flow.rule,
        traffic: record::Traffic {
            bytes_out: flow.bytes[0],
            bytes_in: flow.bytes[1],
            packets_out: flow.packets[0],
            packets_in: flow.packets[1],
        },
    }
}

/// A flow in the shape that filters look at.
fn flow_record(info: &FlowInfo, hub: &Hub) -> Record {
    Record {
        event: RecordKind::Verdict,
        verdict: Some(match info.state.as_str() {
            "denied" => VerdictWord::Denied,
            _ => VerdictWord::Allowed,
        }),
        direction: Some(info.direction),
        endpoint: Some(info.endpoint.as_str().into()),
        protocol: Some(info.protocol.clone()),
        source: Some(info.source.clone()),
        destination: Some(info.destination.clone()),
        l7: info.l7.clone(),
        policy: info.policy.as_deref().map(Into::into),
        rule: info.rule.as_deref().map(Into::into),
        ..hub.lost(0)
    }
}

async fn observe(Extract(admin): Extract<Admin>, Query(query): Query<ObserveQuery>) -> Response {
    let filter = match parse_filter(query.filter.as_deref()) {
        Ok(filter) => filter,
        Err(error) => return failure(StatusCode::BAD_REQUEST, error),
    };
    let since = match query
        .since
        .as_deref()
        .map(str::parse::<Timestamp>)
        .transpose()
    {
        Ok(since) => since,
        Err(error) => return failure(StatusCode::BAD_REQUEST, format!("since: {error}")),
    };
    let hub = &admin.state.hub;
    let (past, observer) = match query.follow {
        true => {
            let (past, observer) = hub.observe();
            (past, Some(observer))
        }
        false => (hub.remembered(), None),
    };
    let past = recent_lines(hub, past, &filter, since, query.last);
    let first = stream::iter((!past.is_empty()).then_some(Ok::<_, Infallible>(past)));
    let lines = match observer {
        Some(observer) => Body::from_stream(first.chain(live_lines(observer, filter))),
        None => Body::from_stream(first),
    };
    ([(header::CONTENT_TYPE, "application/jsonl")], lines).into_response()
}

fn line(record: &Record) -> Vec<u8> {
    // A record has no map with keys that are not strings, so this cannot fail.
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

fn recent_lines(
    hub: &Hub,
    past: Vec<Arc<Stamped>>,
    filter: &Filter,
    since: Option<Timestamp>,
    last: Option<usize>,
) -> Bytes {
    let wanted = |stamped: &Arc<Stamped>| since.is_none_or(|since| stamped.time >= since);
    let records = past
        .iter()
        .rev()
        .filter(|s| wanted(s))
        .map(|stamped| hub.record(stamped));
    let last = last.unwrap_or(usize::MAX);
    let mut chosen: Vec<_> = records.filter(|r| filter.matches(r)).take(last).collect();
    chosen.reverse();
    chosen.iter().flat_map(line).collect::<Vec<u8>>().into()
}

/// Lines as they come; ends with the agent.
fn live_lines(observer: Observer, filter: Filter) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((observer, filter), |(mut observer, filter)| async move {
        loop {
            let record = match observer.next().await? {
                Ok(stamped) => observer.hub().record(&stamped),
                Err(count) => observer.hub().lost(count),
            };
            if filter.matches(&record) {
                return Some((Ok(line(&record).into()), (observer, filter)));
            }
        }
    })
}
