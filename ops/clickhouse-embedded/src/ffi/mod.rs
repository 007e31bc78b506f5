//! The engine library: its C functions behind types that own what they hold.
//! Never knows HTTP, settings or policy; the only module of this crate with `unsafe` in it.
#![expect(unsafe_code, reason = "the engine is a C library that is loaded at run time")]

mod functions;
mod running;

use std::ffi::{CString, c_char, c_int};
use std::ptr::NonNull;

pub(crate) use functions::Engine;
use functions::{RawAnalysis, RawConnection, STATE_OK};
pub(crate) use running::{Answer, Counters, Insert, Select};

/// What a statement may change, as the engine's own parser judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Leaves no trace.
    ReadOnly,
    /// Changes a database.
    Mutating,
    /// Changes something beside the databases (functions, users, the `system` database).
    MutatingGlobal,
    /// Acts on the session, the server or files.
    Control,
    /// Did not parse.
    Unknown,
}

/// The engine's judgement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Analysis {
    /// The most powerful class among the statements.
    pub class: Class,
    /// Number of statements in the text; 0 when it did not parse.
    pub statements: u32,
}

/// A query parameter: name without `param_`, value in ClickHouse's escaped text form.
pub(crate) type Param = (String, String);

/// One engine connection. It runs one statement at a time, on the thread that holds it.
pub(crate) struct Connection {
    engine: &'static Engine,
    cell: NonNull<RawConnection>,
}

// SAFETY: the engine ties no state of a connection to a thread; `&mut self` on every call keeps it to one user.
unsafe impl Send for Connection {}

impl Connection {
    /// Connects with arguments such as `--path=...`. `None` when the engine refuses, for example because another
    /// process holds the path.
    #[must_use]
    pub(crate) fn open(engine: &'static Engine, arguments: &[CString]) -> Option<Self> {
        let mut pointers: Vec<*mut c_char> = std::iter::once(c"sonde-clickhouse".as_ptr().cast_mut())
            .chain(arguments.iter().map(|argument| argument.as_ptr().cast_mut()))
            .collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `pointers` holds `count` C strings that outlive the call; the engine only reads them.
        let cell = unsafe { (engine.functions.chdb_connect)(count, pointers.as_mut_ptr()) };
        Some(Self { engine, cell: NonNull::new(cell)? })
    }

    /// Asks the engine's parser what `sql` would do; nothing runs.
    pub(crate) fn classify(&mut self, sql: &[u8]) -> Analysis {
        let struct_size = u32::try_from(size_of::<RawAnalysis>()).expect("16 bytes fit in 32 bits");
        let mut raw = RawAnalysis { struct_size, statement_count: 0, flags: 0, query_class: u32::MAX };
        // SAFETY: the text is given with its length, and the struct carries its own size.
        let state = unsafe {
            let classify = self.engine.functions.chdb_classify_query_n;
            classify(self.raw(), sql.as_ptr().cast(), sql.len(), std::ptr::null(), 0, &raw mut raw)
        };
        let class = match raw.query_class {
            0 => Class::ReadOnly,
            1 => Class::Mutating,
            2 => Class::MutatingGlobal,
            3 => Class::Control,
            // Including classes of later versions: what is not known is not allowed.
            _ => Class::Unknown,
        };
        if state == STATE_OK {
            Analysis { class, statements: raw.statement_count }
        } else {
            Analysis { class: Class::Unknown, statements: 0 }
        }
    }

    /// Runs a statement and holds its whole answer.
    ///
    /// # Errors
    /// The engine's text.
    pub(crate) fn query(&mut self, sql: &[u8], format: &str, params: &[Param]) -> Result<Answer, String> {
        let texts = Texts::new(params);
        // SAFETY: all texts are given with their lengths and outlive the call.
        let raw = unsafe {
            (self.engine.functions.chdb_query_with_params_n)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                texts.names.as_ptr(),
                texts.name_lengths.as_ptr(),
                texts.values.as_ptr(),
                texts.value_lengths.as_ptr(),
                params.len(),
            )
        };
        Answer::new(self.engine, raw)
    }

    /// Starts a SELECT whose answer is fetched piece by piece.
    ///
    /// # Errors
    /// The engine's text, when the statement does not start.
    pub(crate) fn select(&mut self, sql: &[u8], format: &str, params: &[Param]) -> Result<Select<'_>, String> {
        let texts = Texts::new(params);
        // SAFETY: as in `query`; the parameters are taken over before the call returns.
        let raw = unsafe {
            (self.engine.functions.chdb_stream_query_with_params_n)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                texts.names.as_ptr(),
                texts.name_lengths.as_ptr(),
                texts.values.as_ptr(),
                texts.value_lengths.as_ptr(),
                params.len(),
            )
        };
        let stream = Answer::new(self.engine, raw)?;
        Ok(Select::new(self, stream))
    }

    /// Starts an INSERT whose rows are appended as bytes of `format`. `sql` has no FORMAT clause and no data.
    ///
    /// # Errors
    /// The engine's text, for example when the table or a column does not exist.
    pub(crate) fn insert(&mut self, sql: &[u8], format: &str, params: &[Param]) -> Result<Insert<'_>, String> {
        let texts = Texts::new(params);
        // SAFETY: as in `select`.
        let raw = unsafe {
            (self.engine.functions.chdb_stream_insert_with_params_n)(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                texts.names.as_ptr(),
                texts.name_lengths.as_ptr(),
                texts.values.as_ptr(),
                texts.value_lengths.as_ptr(),
                params.len(),
            )
        };
        let raw = NonNull::new(raw).ok_or("the engine did not start the insert")?;
        Insert::new(self, raw)
    }

    fn raw(&self) -> RawConnection {
        // SAFETY: the cell came from `chdb_connect` and is closed only on drop.
        unsafe { *self.cell.as_ptr() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the cell came from `chdb_connect` and is not used afterwards.
        unsafe { (self.engine.functions.chdb_close_conn)(self.cell.as_ptr()) };
    }
}

/// Parameters as the engine wants them: four parallel arrays.
struct Texts {
    names: Vec<*const c_char>,
    name_lengths: Vec<usize>,
    values: Vec<*const c_char>,
    value_lengths: Vec<usize>,
}

impl Texts {
    fn new(params: &[Param]) -> Self {
        Self {
            names: params.iter().map(|(name, _)| name.as_ptr().cast()).collect(),
            name_lengths: params.iter().map(|(name, _)| name.len()).collect(),
            values: params.iter().map(|(_, value)| value.as_ptr().cast()).collect(),
            value_lengths: params.iter().map(|(_, value)| value.len()).collect(),
        }
    }
}

unsafe extern "C" {
    fn _exit(status: c_int) -> !;
}

/// Ends the process at once. The engine's threads are not joined and its destructors do not run: they may fail after
/// several connections, and everything that was confirmed is on disk already.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { _exit(status) }
}
