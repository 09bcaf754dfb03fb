//! What keeps the static executable safe on nodes with another C library.
//!
//! A static executable can still load shared objects, and glibc then runs code that was made for another glibc: the
//! process dies (seen on 2.31, 2.36 and 2.41: SIGABRT, SIGFPE, SIGSEGV). Name service modules are kept out by
//! [`crate::sys::plain_name_service`]. The HDFS client loads `libgssapi_krb5` whenever a cluster uses Kerberos, also where
//! delegation tokens are all that is needed; here it finds that nothing can be loaded, and goes on with the tokens. Ticket
//! caches therefore do not work in this build: executors have tokens.

use std::ffi::{c_char, c_int, c_void};

/// Why nothing is loaded. Shown to users by the HDFS client where neither tokens nor tickets are left.
const REFUSAL: &std::ffi::CStr = c"this executable is static: no Kerberos tickets, only delegation tokens";

/// Takes the place of dlopen(3): nothing can be loaded.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the symbol must have the name that libc's function has")]
extern "C" fn dlopen(_path: *const c_char, _flags: c_int) -> *mut c_void {
    std::ptr::null_mut()
}

/// Takes the place of dlerror(3).
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the symbol must have the name that libc's function has")]
extern "C" fn dlerror() -> *mut c_char {
    REFUSAL.as_ptr().cast_mut()
}
