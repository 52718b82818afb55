package org.finetdeploy.core.probes;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Map;

import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class ProcProbesTest {
    @Rule
    public final TemporaryFolder folder = new TemporaryFolder();

    private void file(String path, String text) throws IOException {
        Path file = folder.getRoot().toPath().resolve(path);
        Files.createDirectories(file.getParent());
        Files.write(file, text.getBytes());
    }

    private static Object value(Map<String, Object> state, String name) {
        Map<?, ?> reading = (Map<?, ?>) state.get(name);
        assertTrue(name, (reading.get("value") == null) != (reading.get("reason") == null));
        return reading.get("value");
    }

    @Test
    public void aPhonesFilesAreRead() throws IOException {
        file("proc/loadavg", "0.25 0.10 0.05 1/100 4242\n");
        file("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable:    4194304 kB\n");
        file("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n");
        file("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1800000\n");
        file("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n");
        file("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "2600000\n");
        file("sys/devices/system/cpu/cpufreq/none", "");
        file("sys/class/thermal/thermal_zone0/type", "cpu\n");
        file("sys/class/thermal/thermal_zone0/temp", "41500\n");
        file("sys/class/thermal/thermal_zone1/type", "broken\n");
        file("sys/class/thermal/thermal_zone1/temp", "?\n");
        file("sys/class/power_supply/battery/capacity", "80\n");
        file("sys/class/power_supply/battery/status", "Charging\n");
        Map<String, Object> state = new ProcProbes(folder.getRoot().toPath()).state();
        assertEquals(0.25, value(state, "load_average_1min"));
        assertEquals("performance, schedutil", value(state, "governor"));
        assertEquals("[1800.0, 2600.0]", value(state, "frequencies_mhz").toString());
        assertEquals(4096L, value(state, "memory_available_mib"));
        assertEquals("{thermal_zone0 cpu=41.5}", value(state, "temperatures_celsius").toString());
        assertEquals(80.0, value(state, "battery_percent"));
        assertEquals(true, value(state, "battery_charging"));
    }

    @Test
    public void whatCannotBeReadIsNullWithAReason() throws IOException {
        file("proc/loadavg", "broken\n");
        Map<String, Object> state = new ProcProbes(folder.getRoot().toPath()).state();
        for (String name : state.keySet()) {
            assertNull(value(state, name));
        }
        assertEquals("no battery", ((Map<?, ?>) state.get("battery_percent")).get("reason"));
        assertEquals("not a number", ((Map<?, ?>) state.get("load_average_1min")).get("reason"));
    }

    @Test
    public void thisProcessIsFoundInProc() {
        ProcProbes probes = new ProcProbes(Paths.get("/"));
        assertEquals(ProcessHandleOrZero.pid(), probes.pid());
        assertNotNull(probes.affinityCpus().get("value"));
        assertTrue((Double) probes.peakRssMib().get("value") > 1);
        assertTrue((Long) probes.osThreads().get("value") > 1);
    }

    @Test
    public void listsOfCpusAreReadOrRefused() {
        assertEquals("[0, 1, 2, 3, 6]", ProcProbes.cpuList("0-3,6").toString());
        assertEquals("[7]", ProcProbes.cpuList("7").toString());
        for (String text : new String[] {"", "a", "0-", "-1", "0-99999999999", "1,,2", "0-9999999"}) {
            assertNotNull(text, Reading.of(() -> ProcProbes.cpuList(text)).get("reason"));
        }
    }

    /** The process's number by another way than the one under test. */
    private static final class ProcessHandleOrZero {
        static long pid() {
            String name = java.lang.management.ManagementFactory.getRuntimeMXBean().getName();
            return Long.parseLong(name.substring(0, name.indexOf('@')));
        }
    }
}
