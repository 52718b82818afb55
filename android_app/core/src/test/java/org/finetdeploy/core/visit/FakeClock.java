package org.finetdeploy.core.visit;

/** A clock that stands still until somebody moves it. */
final class FakeClock implements Clock {
    long now = Long.MAX_VALUE - 36_000_000; // may start anywhere: it overflows in the middle of the timed runs

    @Override
    public long nanoseconds() {
        return now;
    }

    @Override
    public String utc() {
        return "2026-11-21T00:00:01.000+00:00";
    }
}
