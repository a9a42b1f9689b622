//! How memory is requested from the operating system, on Linux. Only time depends on it.

/// Disables malloc trimming and `mmap` for large blocks (glibc): freed memory stays with the process for the
/// next allocation. A training step frees and allocates the same activations again and again, and every page
/// that comes from the system costs a page fault. Call it at the start of a program, before there are
/// threads. Without glibc it does nothing.
pub fn disable_malloc_trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: sets a parameter of the allocator; an invalid value is refused.
        unsafe { libc::mallopt(parameter, libc::c_int::MAX) };
    }
}

/// Requests transparent huge pages (`MADV_HUGEPAGE`) for `values` before they are first touched: a page fault
/// for every 2 MiB instead of 4 KiB, and fewer TLB misses. Best effort.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) fn advise_huge_pages<T>(values: &[T]) {
    #[cfg(target_os = "linux")]
    {
        /// Bytes below which there is little to gain.
        const MIN_SIZE: usize = 8 << 20;
        /// The alignment that `madvise` requires. With larger pages it refuses, which changes nothing but
        /// time.
        const PAGE: usize = 4096;
        let size = size_of_val(values);
        if size < MIN_SIZE {
            return;
        }
        let start = values.as_ptr().addr().next_multiple_of(PAGE);
        let end = (values.as_ptr().addr() + size) / PAGE * PAGE;
        // SAFETY: the range lies inside of `values`, which is borrowed, and this advice changes neither
        // content nor validity of memory. It may be refused; that changes nothing but time.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}
