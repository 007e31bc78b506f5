//! Answers, running SELECTs and running INSERTs: each owns its handle and gives it back on every path.
//! Never opens a connection.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use super::Connection;
use super::functions::{Engine, RawResult, STATE_OK};

/// Counters that the engine gives with an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Rows and bytes read from tables.
    pub read: (u64, u64),
    /// Rows and bytes written to tables.
    pub written: (u64, u64),
    /// Rows and bytes of the result.
    pub result: (u64, u64),
}

/// The bytes and counters of one answer, or of one piece of it.
pub(crate) struct Answer {
    engine: &'static Engine,
    raw: NonNull<c_void>,
}

impl Answer {
    pub(super) fn new(engine: &'static Engine, raw: RawResult) -> Result<Self, String> {
        let raw = NonNull::new(raw).ok_or("the engine gave no answer")?;
        let answer = Self { engine, raw };
        // SAFETY: the result is alive, and the text it returns lives as long.
        match unsafe { copied((engine.functions.chdb_result_error)(raw.as_ptr())) } {
            Some(text) => Err(text),
            None => Ok(answer),
        }
    }

    /// The bytes in the format that was asked for.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        let functions = &self.engine.functions;
        // SAFETY: the result is alive.
        let (start, length) = unsafe {
            ((functions.chdb_result_buffer)(self.raw.as_ptr()), (functions.chdb_result_length)(self.raw.as_ptr()))
        };
        if start.is_null() || length == 0 {
            return &[];
        }
        // SAFETY: the engine keeps `length` bytes there until the result is destroyed, which needs `self`.
        unsafe { std::slice::from_raw_parts(start.cast(), length) }
    }

    /// What the engine counted.
    #[must_use]
    pub(crate) fn counters(&self) -> Counters {
        let functions = &self.engine.functions;
        let raw = self.raw.as_ptr();
        // SAFETY: the result is alive; these calls only read numbers.
        unsafe {
            Counters {
                read: ((functions.chdb_result_storage_rows_read)(raw), (functions.chdb_result_storage_bytes_read)(raw)),
                written: ((functions.chdb_result_rows_written)(raw), (functions.chdb_result_bytes_written)(raw)),
                result: ((functions.chdb_result_rows_read)(raw), (functions.chdb_result_bytes_read)(raw)),
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the result is alive and not used afterwards.
        unsafe { (self.engine.functions.chdb_destroy_query_result)(self.raw.as_ptr()) };
    }
}

/// A running SELECT. Dropping it before its end cancels it.
pub(crate) struct Select<'a> {
    connection: &'a mut Connection,
    stream: Answer,
    is_finished: bool,
}

impl<'a> Select<'a> {
    pub(super) fn new(connection: &'a mut Connection, stream: Answer) -> Self {
        Self { connection, stream, is_finished: false }
    }

    /// The next piece, a complete document of the format by itself; `None` after the last.
    ///
    /// # Errors
    /// The engine's text.
    pub(crate) fn fetch(&mut self) -> Result<Option<Answer>, String> {
        if self.is_finished {
            return Ok(None);
        }
        let engine = self.connection.engine;
        // SAFETY: connection and stream are alive and used by this thread only.
        let raw =
            unsafe { (engine.functions.chdb_stream_fetch_result)(self.connection.raw(), self.stream.raw.as_ptr()) };
        let piece = Answer::new(engine, raw).inspect_err(|_| self.is_finished = true)?;
        if piece.bytes().is_empty() {
            self.is_finished = true;
            return Ok(None);
        }
        Ok(Some(piece))
    }
}

impl Drop for Select<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            let cancel = self.connection.engine.functions.chdb_stream_cancel_query;
            // SAFETY: connection and stream are alive; the stream is destroyed after this, by its own drop.
            unsafe { cancel(self.connection.raw(), self.stream.raw.as_ptr()) };
        }
    }
}

/// A running INSERT. Dropping it before `finish` cancels it, and none of its rows is stored unless the engine had
/// already filled a block (about a million rows or 256 MB).
pub(crate) struct Insert<'a> {
    connection: &'a mut Connection,
    raw: NonNull<c_void>,
    is_finished: bool,
}

impl<'a> Insert<'a> {
    /// Takes over a stream; a stream that did not start carries its error.
    pub(super) fn new(connection: &'a mut Connection, raw: NonNull<c_void>) -> Result<Self, String> {
        let insert = Self { connection, raw, is_finished: false };
        match insert.error() {
            Some(text) => Err(text),
            None => Ok(insert),
        }
    }

    /// Hands over bytes; blocks while the engine is behind.
    ///
    /// # Errors
    /// The engine's text, if it has one by now; `finish` gives the reason otherwise.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        let append = self.connection.engine.functions.chdb_stream_append;
        // SAFETY: the stream is alive; the engine copies the bytes.
        let state = unsafe { append(self.raw.as_ptr(), bytes.as_ptr().cast(), bytes.len()) };
        if state == STATE_OK { Ok(()) } else { Err(self.error().unwrap_or_default()) }
    }

    /// Ends the data and commits. The counters hold the rows written.
    ///
    /// # Errors
    /// The engine's text.
    pub(crate) fn finish(mut self) -> Result<Counters, String> {
        self.is_finished = true;
        let engine = self.connection.engine;
        // SAFETY: the stream is alive; it is destroyed by drop, as the header demands on every path.
        let raw = unsafe { (engine.functions.chdb_stream_done)(self.raw.as_ptr()) };
        Ok(Answer::new(engine, raw)?.counters())
    }

    fn error(&self) -> Option<String> {
        // SAFETY: the stream is alive, and the text it returns lives as long.
        unsafe { copied((self.connection.engine.functions.chdb_stream_insert_error)(self.raw.as_ptr())) }
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        let functions = &self.connection.engine.functions;
        // SAFETY: the stream is alive and not used afterwards; cancelling a finished stream would be an error, so it is skipped.
        unsafe {
            if !self.is_finished {
                (functions.chdb_stream_cancel_insert)(self.raw.as_ptr());
            }
            (functions.chdb_destroy_insert_stream)(self.raw.as_ptr());
        }
    }
}

/// Copies a C string; `None` for a null pointer.
///
/// # Safety
/// `text` is null or a C string that is valid during the call.
unsafe fn copied(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
