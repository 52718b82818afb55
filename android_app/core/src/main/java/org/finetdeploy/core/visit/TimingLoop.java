package org.finetdeploy.core.visit;

import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.protocol.Rule;

/** Repeats a session's call until the rule is met. */
public final class TimingLoop {
    /** All latencies, nanoseconds. */
    public final Samples samples;
    /** {@code minimum}, {@code max_seconds} or {@code max_runs}. */
    public final String stoppedBy;

    private TimingLoop(Samples samples, String stoppedBy) {
        this.samples = samples;
        this.stoppedBy = stoppedBy;
    }

    /** Between the two clock readings stands the call alone. */
    public static TimingLoop run(Rule rule, Session session, Clock clock) {
        Samples samples = new Samples(rule.maxRuns);
        long begin = clock.nanoseconds();
        long enough = (long) (rule.minSeconds * 1e9);
        long limit = (long) (rule.maxSeconds * 1e9);
        while (samples.count() < rule.maxRuns) {
            long before = clock.nanoseconds();
            session.call();
            long after = clock.nanoseconds();
            samples.add(after - before);
            if (after - begin >= enough && samples.count() >= rule.minRuns) {
                return new TimingLoop(samples, "minimum");
            }
            if (after - begin >= limit) {
                return new TimingLoop(samples, "max_seconds");
            }
        }
        return new TimingLoop(samples, "max_runs");
    }
}
