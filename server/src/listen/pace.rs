//! A request body that must keep coming.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

/// A body that fails where it is silent for `idle`, or slower over all than `idle` and `per_kib` for each KiB allow (TH-25).
pub(super) struct Paced {
    inner: Incoming,
    idle: Duration,
    per_kib: Duration,
    /// The clock starts when the body is first asked for.
    since: Option<(Instant, Pin<Box<Sleep>>)>,
    received: u32,
}

impl Paced {
    pub(super) fn new(inner: Incoming, idle: Duration, per_kib: Duration) -> Self {
        Self { inner, idle, per_kib, since: None, received: 0 }
    }

    fn deadline(&self, start: Instant) -> Instant {
        let earned = self.per_kib.saturating_mul(self.received / 1024);
        (Instant::now() + self.idle).min(start + self.idle + earned)
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(frame) = frame {
            if let (Some(Ok(frame)), Some((start, _))) = (&frame, &self.since) {
                let start = *start;
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.received = self.received.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
                let deadline = self.deadline(start);
                if let Some((_, sleep)) = &mut self.since {
                    sleep.as_mut().reset(deadline);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let start = self.since.as_ref().map_or_else(Instant::now, |(start, _)| *start);
        let deadline = self.deadline(start);
        let (_, sleep) = self.since.get_or_insert_with(|| (start, Box::pin(sleep_until(deadline))));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
