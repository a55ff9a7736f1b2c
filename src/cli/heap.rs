//! The C library's heap: large buffers go back to the system when they are freed, so that resident memory is what is
//! in use. It changes nothing but that.

/// Buffers from this size on are mapped on their own, and unmapped when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM_BYTES: libc::c_int = 4 << 20;

/// A heap keeps so much of what is freed at its end.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 8 << 20;

/// Fixes the size from which glibc maps buffers on their own.
///
/// Left alone, glibc raises it up to 32 MiB as large buffers are freed and keeps what is freed later in its heaps:
/// 2,000,000 cells mapped within 512 MiB then peak at 270 MiB, now at 150 MiB, the same for twice as many. Chunks of the
/// output, 3.9 MiB at k = 30, are below it: mapping each anew costs 2 % of the time of a search of many cells.
#[allow(unsafe_code)]
pub fn give_large_buffers_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers and sets a parameter of the allocator; it is called before any other thread
    // starts. When it refuses the value it returns 0 and everything stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}
