package org.finetdeploy.core.protocol;

/** When a loop ends: when it has {@code minRuns} AND {@code minSeconds}, or meets a cap. */
public final class Rule {
    /** Inferences, at least 1. */
    public final int minRuns;
    /** Inferences, at least 1. */
    public final int maxRuns;
    /** Seconds, 0 or more. */
    public final double minSeconds;
    /** Seconds, 0 or more. */
    public final double maxSeconds;

    public Rule(int minRuns, double minSeconds, double maxSeconds, int maxRuns) {
        this.minRuns = minRuns;
        this.maxRuns = maxRuns;
        this.minSeconds = minSeconds;
        this.maxSeconds = maxSeconds;
    }
}
