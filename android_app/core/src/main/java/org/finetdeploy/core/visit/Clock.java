package org.finetdeploy.core.visit;

import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;

/** Time as a visit needs it; tests have one of their own. */
public interface Clock {
    /** The machine's. */
    Clock SYSTEM = new Clock() {
        @Override
        public long nanoseconds() {
            return System.nanoTime();
        }

        @Override
        public String utc() {
            return format(Instant.now());
        }
    };

    /** Monotonic nanoseconds from an arbitrary start. */
    long nanoseconds();

    /** Now, ISO 8601, as {@link #format} writes it. */
    String utc();

    /** {@code 2026-11-21T00:00:01.000+00:00}: milliseconds, UTC. */
    static String format(Instant time) {
        return DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSxxx").withZone(ZoneOffset.UTC).format(time);
    }
}
