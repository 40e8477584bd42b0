//! The thread pool, seen from outside.

/// Runs `f`, which calls many kernels, on a thread of the pool that kernels use.
///
/// A thread that is not of the pool hands each kernel over and sleeps until it is done, which costs some tens of microseconds: with the
/// hundreds of small kernels of a small network, a tenth of its time.
///
/// While `f` waits for a part of a kernel that another thread took, its thread may begin something else that waits for the
/// pool. So `f` must not hold a lock that this could want.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_the_pool_once() {
        assert!(rayon::current_thread_index().is_none());
        let index = || on_pool(rayon::current_thread_index);
        assert!(index().is_some());
        // From inside, it stays on the same thread.
        let (outer, inner) = on_pool(|| (rayon::current_thread_index(), index()));
        assert_eq!(outer, inner);
    }
}
