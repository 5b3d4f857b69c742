//! Time-outs of a connection: for headers, between requests, and for a client that does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;

/// Whether requests are being served on a connection, and how many were.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    busy: AtomicUsize,
    served: AtomicUsize,
}

/// One request being served.
#[derive(Debug)]
pub(super) struct Busy(Arc<Pulse>);

impl Pulse {
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.served.fetch_add(1, Ordering::SeqCst);
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream that ends with an error where the other side is too slow. Request bodies are watched elsewhere.
pub(super) struct Timed<S> {
    inner: S,
    pulse: Arc<Pulse>,
    limits: Limits,
    is_h2: bool,
    /// Requests served when the present silence began.
    served: usize,
    in_headers: bool,
    read_by: Pin<Box<Sleep>>,
    write_by: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) fn new(inner: S, pulse: Arc<Pulse>, limits: Limits, is_h2: bool) -> Self {
        let read_by = Box::pin(sleep_until(Instant::now() + limits.header));
        Self { inner, pulse, limits, is_h2, served: 0, in_headers: true, read_by, write_by: None }
    }

    /// Passes a write on; one that cannot go on for [`Limits::write`] is an error.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_by = None;
            return written;
        }
        let limit = self.limits.write;
        let by = self.write_by.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        ready!(by.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let served = this.pulse.served.load(Ordering::SeqCst);
        let busy = this.pulse.busy.load(Ordering::SeqCst) > 0;
        if !busy && served != this.served {
            this.served = served;
            this.in_headers = false;
            this.read_by.as_mut().reset(Instant::now() + this.limits.keep_alive);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        match &read {
            // On HTTP/2 bytes need not be the begin of a request: the time between requests holds.
            Poll::Ready(Ok(())) if !busy && !this.in_headers && !this.is_h2 && buf.filled().len() > before => {
                this.in_headers = true;
                this.read_by.as_mut().reset(Instant::now() + this.limits.header);
            }
            Poll::Pending if !busy => {
                ready!(this.read_by.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            _ => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.watch_write(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch_write(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closed = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.watch_write(cx, closed)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
