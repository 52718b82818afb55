package org.finetdeploy.core.visit;

import java.util.Arrays;

/** Latencies in the order in which they were taken. Storage exists before the first one, so that none pays for it. */
public final class Samples {
    private final long[] latenciesNs;
    private int count;

    /** @param capacity the largest number of samples */
    public Samples(int capacity) {
        latenciesNs = new long[capacity];
    }

    /** @param latencyNs nanoseconds */
    void add(long latencyNs) {
        latenciesNs[count++] = latencyNs;
    }

    /** Number of samples. */
    public int count() {
        return count;
    }

    /** Sum of all latencies, milliseconds. */
    public double totalMs() {
        long total = 0;
        for (int i = 0; i < count; i++) {
            total += latenciesNs[i];
        }
        return total / 1e6;
    }

    /** Samples {@code from} up to, but without, {@code to}; nanoseconds. */
    public long[] range(int from, int to) {
        return Arrays.copyOfRange(latenciesNs, from, Math.min(to, count));
    }
}
