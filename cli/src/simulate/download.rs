//! Bulk downloads over HTTP, with what was ordered to go wrong with them.
//!
//! A dump never changes while it is sent, and `Last-Modified` tells the truth: the moment in the
//! registry's own time that the dump shows, in whole seconds, never later than that.

use std::{io, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use super::{
    api::{BASE_PATH, hang, refusal, refused},
    dump::{self, Counter, Flaw, Snapshot},
    faults::{Ending, Fault, FaultKind, Target},
    number::Kind,
    service::Service,
    stream::{self, Cut},
};

pub(super) fn routes() -> Router<Arc<Service>> {
    let mut router = Router::new();
    for kind in Kind::BOTH {
        router = router.route(
            &format!("{BASE_PATH}/{}/lastned", kind.path()),
            get(move |State(service): State<Arc<Service>>, headers: HeaderMap| async move {
                download(kind, service, &headers).await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
            }),
        );
    }
    router
}

async fn download(kind: Kind, service: Arc<Service>, headers: &HeaderMap) -> io::Result<Response> {
    if let Some(refusal) = refusal(&service, headers) {
        return Ok(refusal);
    }
    let maker = Arc::clone(&service);
    let snapshot = tokio::task::spawn_blocking(move || maker.world().dump(kind)).await?;
    let fault = service.faults().take(|fault| fault.is_for(Target::Dump, kind) && fits(fault, &snapshot));
    let Some(fault) = fault else {
        return answer(kind, snapshot, Flaw::None, None);
    };
    if let Some(refused) = refused(&fault) {
        return Ok(refused);
    }
    match fault.kind {
        FaultKind::Hang => {
            hang(&service).await;
            answer(kind, snapshot, Flaw::None, None)
        }
        FaultKind::Truncate => {
            let counted = Arc::clone(&snapshot);
            let length = tokio::task::spawn_blocking(move || dump::write(&counted, &Flaw::None, Counter::default())).await??.0;
            // Not the whole file, whatever was asked for.
            let most = length.saturating_sub(1).max(1);
            let after_bytes = fault.at_byte.unwrap_or_else(|| 1 + service.dice() % most).clamp(1, most);
            answer(kind, snapshot, Flaw::None, Some((after_bytes, fault.ending())))
        }
        _ => {
            let flaw = flaw(&fault, &snapshot, service.dice());
            answer(kind, snapshot, flaw, None)
        }
    }
}

/// Whether the fault would be seen in this dump.
fn fits(fault: &Fault, snapshot: &Snapshot) -> bool {
    let needs_a_row = matches!(fault.kind, FaultKind::Malformed | FaultKind::TornJson | FaultKind::Shrunken | FaultKind::Empty);
    (!needs_a_row || snapshot.len() > 0) && fault.unit().is_none_or(|unit| snapshot.place(unit).is_some())
}

fn flaw(fault: &Fault, snapshot: &Snapshot, salt: u64) -> Flaw {
    let named = fault.unit().and_then(|unit| snapshot.place(unit));
    let place = named.unwrap_or(snapshot.len() / 2);
    match fault.kind {
        FaultKind::Empty => Flaw::Empty,
        FaultKind::TornJson => Flaw::TornJson { place },
        FaultKind::Malformed => Flaw::Malformed { place, shape: fault.shape() },
        FaultKind::Shrunken if named.is_some() => Flaw::Without { place },
        FaultKind::Shrunken => Flaw::Shrunken { share: fault.share(), salt },
        _ => Flaw::None,
    }
}

fn answer(kind: Kind, snapshot: Arc<Snapshot>, flaw: Flaw, cut: Option<(u64, Ending)>) -> io::Result<Response> {
    let moment = last_modified(snapshot.moment_ms())?;
    let way = cut.map(|(after_bytes, ending)| Cut { after_bytes, breaks: ending == Ending::Abrupt });
    let body = stream::body(way, move |out| dump::write(&snapshot, &flaw, out).map(drop));
    let mut response = Response::new(body);
    describe(response.headers_mut(), kind, moment);
    match cut {
        Some((bytes, Ending::Length)) => drop(response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into())),
        Some((_, Ending::Clean)) => drop(response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"))),
        _ => {}
    }
    Ok::<Response<Body>, _>(response)
}

fn describe(headers: &mut HeaderMap, kind: Kind, moment: HeaderValue) {
    let (media_type, disposition) = match kind {
        Kind::Enhet => {
            ("application/vnd.brreg.enhetsregisteret.enhet.v2+gzip;charset=UTF-8", "attachment; filename=\"enheter_alle.json.gz\"")
        }
        Kind::Underenhet => (
            "application/vnd.brreg.enhetsregisteret.underenhet.v2+gzip;charset=UTF-8",
            "attachment; filename=\"underenheter_alle.json.gz\"",
        ),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    headers.insert(header::LAST_MODIFIED, moment);
}

/// Whole seconds, rounded down: a dump must never claim to show more than it does.
fn last_modified(moment_ms: i64) -> io::Result<HeaderValue> {
    let moment = Timestamp::from_second(moment_ms.div_euclid(1000)).map_err(io::Error::other)?;
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&moment).map_err(io::Error::other)?;
    HeaderValue::try_from(text).map_err(io::Error::other)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn last_modified_is_rounded_down() {
        for moment_ms in [1_735_689_600_000, 1_735_689_600_999] {
            assert_eq!(last_modified(moment_ms).expect("a moment"), "Wed, 01 Jan 2025 00:00:00 GMT");
        }
    }
}
