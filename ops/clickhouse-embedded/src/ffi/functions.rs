//! The C functions of the pinned engine version, with the prototypes of its header, and the loading of the library.
//! Never calls one of them except to switch off the engine's signal handlers.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// The engine's `chdb_state` for success.
pub(super) const STATE_OK: c_int = 0;

/// Opaque: a connection.
pub(super) type RawConnection = *mut c_void;
/// Opaque: a result, or a running SELECT.
pub(super) type RawResult = *mut c_void;
/// Opaque: a running INSERT.
pub(super) type RawInsert = *mut c_void;
/// Names or values of parameters: text pointers, then their lengths.
pub(super) type RawTexts = *const *const c_char;

/// What the engine says about a text without running it (`chdb_query_analysis_v1`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct RawAnalysis {
    pub(super) struct_size: u32,
    pub(super) statement_count: u32,
    pub(super) flags: u32,
    pub(super) query_class: u32,
}

macro_rules! library {
    ($($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The functions that are used, by their C names.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Functions {
            /// Looks up every function; the prototypes are those of the engine's header.
            fn find(library: &libloading::Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: each symbol has the prototype given for it in the header of the pinned engine version.
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }?,)*
                })
            }
        }
    };
}

library! {
    chdb_set_signal_handlers_enabled: fn(c_int);
    chdb_connect: fn(c_int, *mut *mut c_char) -> *mut RawConnection;
    chdb_close_conn: fn(*mut RawConnection);
    chdb_classify_query_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, *mut RawAnalysis) -> c_int;
    chdb_query_with_params_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, RawTexts, *const usize, RawTexts, *const usize, usize) -> RawResult;
    chdb_stream_query_with_params_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, RawTexts, *const usize, RawTexts, *const usize, usize) -> RawResult;
    chdb_stream_fetch_result: fn(RawConnection, RawResult) -> RawResult;
    chdb_stream_cancel_query: fn(RawConnection, RawResult);
    chdb_destroy_query_result: fn(RawResult);
    chdb_stream_insert_with_params_n: fn(RawConnection, *const c_char, usize, *const c_char, usize, RawTexts, *const usize, RawTexts, *const usize, usize) -> RawInsert;
    chdb_stream_append: fn(RawInsert, *const c_void, usize) -> c_int;
    chdb_stream_done: fn(RawInsert) -> RawResult;
    chdb_stream_cancel_insert: fn(RawInsert);
    chdb_stream_insert_error: fn(RawInsert) -> *const c_char;
    chdb_destroy_insert_stream: fn(RawInsert);
    chdb_result_buffer: fn(RawResult) -> *const c_char;
    chdb_result_length: fn(RawResult) -> usize;
    chdb_result_rows_read: fn(RawResult) -> u64;
    chdb_result_bytes_read: fn(RawResult) -> u64;
    chdb_result_storage_rows_read: fn(RawResult) -> u64;
    chdb_result_storage_bytes_read: fn(RawResult) -> u64;
    chdb_result_rows_written: fn(RawResult) -> u64;
    chdb_result_bytes_written: fn(RawResult) -> u64;
    chdb_result_error: fn(RawResult) -> *const c_char;
}

/// The engine library could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the engine library {path} cannot be loaded; run `make setup` to fetch it again")]
pub(crate) struct LoadError {
    path: PathBuf,
    #[source]
    source: libloading::Error,
}

/// The loaded engine. It stays loaded until the process ends.
pub(crate) struct Engine {
    pub(super) functions: Functions,
    /// Keeps the code that `functions` points to mapped.
    _library: libloading::Library,
}

impl Engine {
    /// Loads the library and tells it to leave the process's signal handlers alone.
    ///
    /// # Errors
    /// When the file is not a library for this machine or lacks a function that is needed.
    pub(crate) fn load(path: &Path) -> Result<&'static Self, LoadError> {
        let failed = |source| LoadError { path: path.to_owned(), source };
        // SAFETY: the file is the engine library; its initialisers have no precondition.
        let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        let functions = Functions::find(&library).map_err(failed)?;
        // SAFETY: takes a plain number and is meant to be called before the first connection.
        unsafe { (functions.chdb_set_signal_handlers_enabled)(0) };
        Ok(Box::leak(Box::new(Self { functions, _library: library })))
    }
}
