//! How memory is asked of the system. Only Linux is asked; nothing but time depends on it.

/// Has the C library keep what is freed for what is allocated next, instead of giving it back to the
/// system: a training step frees and allocates the same activations again and again, and every page that
/// is asked for again costs a fault. For the start of a program, before there are threads. Does nothing
/// where the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: sets a parameter of the allocator; a value that it does not take is refused.
        unsafe { libc::mallopt(parameter, libc::c_int::MAX) };
    }
}

/// Asks the system for large pages where `values` lie, before they are first touched: a fault for every
/// 2 MiB instead of 4 KiB, and fewer misses of the table of pages. The system may decline.
pub(crate) fn large_pages<T>(values: &[T]) {
    #[cfg(target_os = "linux")]
    {
        /// Bytes below which there is little to win.
        const LEAST: usize = 8 << 20;
        const PAGE: usize = 4096;
        let size = size_of_val(values);
        if size < LEAST {
            return;
        }
        let start = values.as_ptr().addr().next_multiple_of(PAGE);
        let end = (values.as_ptr().addr() + size) / PAGE * PAGE;
        // SAFETY: the range lies inside of `values`, which is borrowed, and this advice changes neither
        // content nor validity of memory. That it may be refused is of no consequence.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}
