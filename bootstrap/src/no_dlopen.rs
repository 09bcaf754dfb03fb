//! Keeps shared objects out of the static executable, which runs on nodes with another C library.
//!
//! A static executable can load shared objects, and glibc then runs code that was made for another glibc: the process dies
//! (seen on 2.31, 2.36 and 2.41: SIGABRT, SIGFPE, SIGSEGV). [`crate::sys::plain_name_service`] keeps name service modules
//! out. The HDFS client loads `libgssapi_krb5` whenever a cluster uses Kerberos, even if it has a delegation token; here
//! that load fails, and the client goes on with the token. Ticket caches therefore do not work in this build: executors
//! have tokens.

use std::ffi::{c_char, c_int, c_void};

/// The HDFS client shows this to users if it has neither a token nor a ticket.
const REFUSAL: &std::ffi::CStr = c"this executable is static: no Kerberos tickets, only delegation tokens";

/// Replaces dlopen(3): nothing can be loaded.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the symbol must have the name that libc's function has")]
extern "C" fn dlopen(_path: *const c_char, _flags: c_int) -> *mut c_void {
    std::ptr::null_mut()
}

/// Replaces dlerror(3).
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the symbol must have the name that libc's function has")]
extern "C" fn dlerror() -> *mut c_char {
    REFUSAL.as_ptr().cast_mut()
}
