package org.finetdeploy.core.probes;

import java.util.Map;

/** What a device is doing, as the protocol wants it told; each method returns JSON. */
public interface DeviceProbes {
    /** A {@code DeviceState}. */
    Map<String, Object> state();

    /** CPUs on which the calling thread may run: a Reading of whole numbers. */
    Map<String, Object> affinityCpus();

    /** The largest resident set of this process so far: a Reading of MiB. */
    Map<String, Object> peakRssMib();

    /** Threads of this process, as the kernel counts them: a Reading. */
    Map<String, Object> osThreads();

    /** This process. */
    long pid();
}
