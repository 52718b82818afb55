package org.finetdeploy.core.probes;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.finetdeploy.core.Problem;

/** The cores of this machine, by the figures that the kernel gives for them. */
public final class Cores {
    private static final String CPUS = "sys/devices/system/cpu";
    private static final double CAPACITY_SHARE = 0.5;

    private final ProcFiles files;
    private final List<String> cores;

    /** @param files below whose root {@code sys} is */
    public Cores(ProcFiles files) {
        this.files = files;
        cores = files.list(CPUS, "cpu[0-9]*");
    }

    /** Number of cores that there are, at least 1. */
    public int count() {
        return cores.isEmpty() ? Runtime.getRuntime().availableProcessors() : cores.size();
    }

    /**
     * Number of big cores: the threads of a runtime when nobody says otherwise. Big is what has half of the largest
     * capacity; without capacities, what is faster than the slowest; else every core. The Python side knows types of
     * cores besides ({@code finet_deploy/devices/affinity.py}).
     */
    public int big() {
        List<Double> capacities = figures("/cpu_capacity");
        if (!capacities.isEmpty()) {
            double limit = CAPACITY_SHARE * Collections.max(capacities);
            return (int) capacities.stream().filter(capacity -> capacity >= limit).count();
        }
        List<Double> clocks = figures("/cpufreq/cpuinfo_max_freq");
        if (!clocks.isEmpty() && !Collections.min(clocks).equals(Collections.max(clocks))) {
            double slowest = Collections.min(clocks);
            return (int) clocks.stream().filter(clock -> clock > slowest).count();
        }
        return count();
    }

    /** Of each core, or none when one lacks it: half a rule is none. */
    private List<Double> figures(String leaf) {
        List<Double> found = new ArrayList<>();
        for (String core : cores) {
            try {
                found.add(files.number(core + leaf));
            } catch (Problem | NumberFormatException absent) {
                return new ArrayList<>();
            }
        }
        return found;
    }
}
