//! The handshake.

use pyo3::exceptions::{PyConnectionAbortedError, PyException, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use super::closing::cancel_timer;
use super::engine::{Answer, is_ssl_error};
use super::{State, TlsTransport, Told};
use crate::ffi::call::method1;
use crate::imports::tls;

impl TlsTransport {
    /// Begins: the transport below is connected.
    pub(super) fn start_handshake(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let Some(event_loop) = self.event_loop.get(py) else {
            return Ok(());
        };
        if self.is_debug(py)? {
            self.debug_log(object, "%r starts SSL handshake")?;
            self.began.set(event_loop.call_method0("time")?.extract()?);
        }
        self.state.set(State::Handshaking);
        let check = object.getattr(intern!(py, "_check_handshake_timeout"))?;
        let timeout = self.handshake_timeout.get_or_none(py);
        let timer = event_loop.call_method1(intern!(py, "call_later"), (timeout, check))?;
        self.handshake_timer.set(timer);
        self.shake_hands(object)
    }

    /// Goes on with the handshake.
    pub(super) fn shake_hands(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        match self.shake(py, "do_handshake") {
            Ok(Answer::Again) => self.send(object),
            Ok(Answer::Got(())) => self.handshake_done(object, None),
            Err(error) if is_ssl_error(py, &error) => self.handshake_done(object, Some(error)),
            Err(error) => Err(error),
        }
    }

    /// The handshake has ended, with `error` where it failed.
    pub(super) fn handshake_done(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<PyErr>,
    ) -> PyResult<()> {
        let py = object.py();
        cancel_timer(py, &self.handshake_timer)?;
        if self.state.get() != State::Handshaking {
            return Ok(());
        }
        let outcome = match error {
            Some(error) => Err(error),
            None => self.learn(py),
        };
        match outcome {
            Ok(()) => {}
            Err(error) if error.is_instance_of::<PyException>(py) => {
                return self.handshake_failed(object, error);
            }
            Err(error) => return Err(error),
        }
        self.state.set(State::Wrapped);
        if self.is_debug(py)? {
            let now: f64 = match self.event_loop.get(py) {
                Some(event_loop) => event_loop.call_method0("time")?.extract()?,
                None => self.began.get(),
            };
            let milliseconds = (now - self.began.get()) * 1e3;
            let text = "%r: SSL handshake took %.1f ms";
            tls(py)?
                .logger
                .bind(py)
                .call_method1("debug", (text, object, milliseconds))?;
        }
        if self.told.get() == Told::Nothing {
            self.told.set(Told::Made);
            if let Some(protocol) = self.protocol.get(py) {
                method1(&protocol, intern!(py, "connection_made"), object)?;
            }
        }
        self.wake_waiter(py, None)?;
        if self.state.get() == State::Wrapped && self.reading_paused.get() {
            // Nothing is read, but what ends the handshake has to be sent.
            return self.send(object);
        }
        self.do_read(object)
    }

    fn handshake_failed(&self, object: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = object.py();
        self.state.set(State::Unwrapped);
        let message = if error.is_instance(py, tls(py)?.certificate_error.bind(py)) {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        let value = error.value(py).clone().into_any();
        self.fatal_error(object, error, message)?;
        self.wake_waiter(py, Some(&value))
    }

    /// Asks the `SSLObject` what the handshake has led to. Where it is an ordinary one that knows, only what is asked for
    /// is asked.
    fn learn(&self, py: Python<'_>) -> PyResult<()> {
        let object = self.ssl_object.get_or_none(py);
        let extra = self.extra.get_or_none(py).cast_into::<PyDict>()?;
        if !self.direct.get() {
            for (key, method) in LATER {
                extra.set_item(key, object.call_method0(method)?)?;
            }
        }
        extra.set_item(intern!(py, "ssl_object"), object)
    }

    /// What the handshake has led to, asked for now: where it is `name`, and there is an answer.
    pub(super) fn asked_late<'py>(
        &self,
        extra: &Bound<'py, PyDict>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = extra.py();
        if !self.direct.get() || !extra.contains(intern!(py, "ssl_object"))? {
            return Ok(None);
        }
        for (key, method) in LATER {
            if name.eq(key)? {
                return match self.ssl_object.get_or_none(py).call_method0(method) {
                    Ok(value) => {
                        extra.set_item(key, &value)?;
                        Ok(Some(value))
                    }
                    // After a fatal error OpenSSL has no handshake any more.
                    Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(None),
                    Err(error) => Err(error),
                };
            }
        }
        Ok(None)
    }

    /// Tells who waits for the handshake how it ended.
    pub(super) fn wake_waiter(
        &self,
        py: Python<'_>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let Some(waiter) = self.waiter.take(py) else {
            return Ok(());
        };
        if waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        match error {
            Some(error) => waiter.call_method1(intern!(py, "set_exception"), (error,)),
            None => waiter.call_method1(intern!(py, "set_result"), (py.None(),)),
        }
        .map(drop)
    }

    /// The time for the handshake is over.
    pub(super) fn handshake_timed_out(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        if self.state.get() != State::Handshaking {
            return Ok(());
        }
        let seconds = self.handshake_timeout.get_or_none(py);
        let error = PyConnectionAbortedError::new_err(format!(
            "SSL handshake is taking longer than {} seconds: aborting the connection",
            seconds.str()?
        ));
        let value = error.value(py).clone().into_any();
        self.fatal_error(object, error, "Fatal error on transport")?;
        let is_over = match self.lower.get(py) {
            Some(lower) => lower
                .getattr_opt("_protocol")?
                .is_none_or(|it| it.is_none()),
            None => true,
        };
        if is_over {
            // What is below had ended before it became ours, and will not tell.
            return self.connection_lost(object, &value);
        }
        Ok(())
    }

    pub(super) fn is_debug(&self, py: Python<'_>) -> PyResult<bool> {
        match self.event_loop.get(py) {
            Some(event_loop) => crate::event_loop::is_debug(&event_loop),
            None => Ok(false),
        }
    }

    pub(super) fn debug_log(&self, object: &Bound<'_, PyAny>, message: &str) -> PyResult<()> {
        let py = object.py();
        if self.is_debug(py)? {
            let logger = tls(py)?.logger.bind(py);
            logger.call_method1("debug", (message, object))?;
        }
        Ok(())
    }

    /// Schedules a method of this transport for the next turn.
    pub(super) fn call_soon(&self, object: &Bound<'_, PyAny>, method: &str) -> PyResult<()> {
        let py = object.py();
        match self.event_loop.get(py) {
            Some(event_loop) => {
                let method = object.getattr(method)?;
                method1(&event_loop, intern!(py, "call_soon"), &method).map(drop)
            }
            None => Ok(()),
        }
    }
}

/// What `get_extra_info()` knows after the handshake, and the `SSLObject`'s method that tells.
const LATER: [(&str, &str); 3] = [
    ("peercert", "getpeercert"),
    ("cipher", "cipher"),
    ("compression", "compression"),
];
