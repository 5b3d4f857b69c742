//! Reading a request's body, never more of it than is allowed (TH-24).

use axum::body::{Body, Bytes};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use mdm_core::plist::Limits;

use crate::Door;
use crate::reply::DeviceError;

/// Whether the Content-Type says check-in message. Parameters such as a charset may follow (protocol.md §1).
pub(crate) fn is_check_in(headers: &HeaderMap) -> bool {
    const CHECK_IN: &[u8] = b"application/x-apple-aspen-mdm-checkin";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..CHECK_IN.len()))
        .is_some_and(|begin| begin.eq_ignore_ascii_case(CHECK_IN))
}

/// Reads a body of at most `most` bytes. One that is longer than a check-in message takes one of a few places.
pub(crate) async fn read(door: &Door, headers: &HeaderMap, mut body: Body, most: usize) -> Result<Bytes, DeviceError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(DeviceError::ContentEncoding);
    }
    let declared: Option<usize> = match headers.get(header::CONTENT_LENGTH) {
        Some(length) => Some(length.to_str().ok().and_then(|l| l.parse().ok()).ok_or(DeviceError::TooLarge)?),
        None => None,
    };
    if declared.is_some_and(|length| length > most) {
        return Err(DeviceError::TooLarge);
    }
    let mut place = None;
    let mut whole = Vec::with_capacity(declared.unwrap_or(0).min(Limits::CHECKIN.bytes));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| DeviceError::Body)?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > most {
            return Err(DeviceError::TooLarge);
        }
        if place.is_none() && whole.len() + data.len() > Limits::CHECKIN.bytes {
            place = Some(door.large_bodies.try_acquire().map_err(|_| DeviceError::Busy)?);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.into())
}
