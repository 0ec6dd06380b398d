//! What time it is: by the clock of the events, and by that of people.

/// CLOCK_MONOTONIC, the clock of the events.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock counts from boot: it is never negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The wall clock: nanoseconds since 1970.
pub(super) fn wall_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec)
}

/// What makes a wall-clock time of a CLOCK_MONOTONIC one, as of now.
pub(super) fn clock_offset_ns() -> i64 {
    wall_ns().wrapping_sub_unsigned(now_ns())
}
