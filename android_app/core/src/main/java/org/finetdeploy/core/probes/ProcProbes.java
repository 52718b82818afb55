package org.finetdeploy.core.probes;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;

import org.finetdeploy.core.Problem;

/** What {@code /proc} and {@code /sys} tell without root, as the Python and the native runner read it. */
public final class ProcProbes implements DeviceProbes {
    private static final String CPUS = "sys/devices/system/cpu";
    private static final String SUPPLIES = "sys/class/power_supply";
    private static final int MAX_CPUS = 4096;
    private static final String ANDROID_ONLY = "Android's alone";

    private final ProcFiles files;

    /** @param root where {@code proc} and {@code sys} are looked for: {@code /} outside tests */
    public ProcProbes(Path root) {
        files = new ProcFiles(root);
    }

    @Override
    public Map<String, Object> state() {
        Map<String, Object> state = new LinkedHashMap<>();
        state.put("load_average_1min", Reading.of(() -> Double.valueOf(files.text("proc/loadavg").split(" ")[0])));
        state.put("governor", Reading.of(this::governors));
        state.put("frequencies_mhz", Reading.of(this::frequencies));
        state.put("memory_available_mib",
                Reading.of(() -> Long.parseLong(first("proc/meminfo", "MemAvailable")) / 1024));
        state.put("temperatures_celsius", Reading.of(this::temperatures));
        state.put("battery_percent", Reading.of(() -> files.number(battery() + "/capacity")));
        state.put("battery_charging", Reading.of(this::charging));
        state.put("thermal_status", Reading.none(ANDROID_ONLY));
        state.put("thermal_headroom", Reading.none(ANDROID_ONLY));
        state.put("sustained_performance", Reading.none(ANDROID_ONLY));
        return state;
    }

    @Override
    public Map<String, Object> affinityCpus() {
        return Reading.of(() -> cpuList(files.fields("proc/thread-self/status", "Cpus_allowed_list").get(0)));
    }

    @Override
    public Map<String, Object> peakRssMib() {
        return Reading.of(() -> Double.parseDouble(first("proc/self/status", "VmHWM")) / 1024);
    }

    @Override
    public Map<String, Object> osThreads() {
        return Reading.of(() -> Long.valueOf(first("proc/self/status", "Threads")));
    }

    @Override
    public long pid() {
        return Long.parseLong(files.link("proc/self"));
    }

    /** {@code 0-3,6} as whole numbers; Problem when it is no such list. */
    static List<Object> cpuList(String text) {
        List<Object> cpus = new ArrayList<>();
        for (String part : text.split(",")) {
            String[] ends = part.trim().split("-", 2);
            long low = Long.parseLong(ends[0]);
            long high = Long.parseLong(ends[ends.length - 1]);
            if (low < 0 || high >= MAX_CPUS) {
                throw new Problem("no list of CPUs: " + Problem.firstLine(text));
            }
            for (long cpu = low; cpu <= high; cpu++) {
                cpus.add(cpu);
            }
        }
        return cpus;
    }

    private String first(String path, String name) {
        return files.fields(path, name).get(0).split("\\s+")[0];
    }

    private List<String> ofCpus(String leaf) {
        List<String> found = new ArrayList<>();
        for (String cpu : files.list(CPUS, "cpu[0-9]*")) {
            if (files.exists(cpu + leaf)) {
                found.add(cpu + leaf);
            }
        }
        return found;
    }

    private String governors() {
        TreeSet<String> names = new TreeSet<>();
        for (String file : ofCpus("/cpufreq/scaling_governor")) {
            names.add(files.text(file));
        }
        if (names.isEmpty()) {
            throw new Problem("no cpufreq: the frequency is set outside this system");
        }
        return String.join(", ", names);
    }

    private List<Object> frequencies() {
        List<Object> found = new ArrayList<>();
        for (String file : ofCpus("/cpufreq/scaling_cur_freq")) {
            found.add(files.number(file) / 1000);
        }
        if (found.isEmpty()) {
            for (String value : files.fields("proc/cpuinfo", "cpu MHz")) {
                found.add(Double.valueOf(value));
            }
        }
        return found;
    }

    /** Phones have dozens of zones, some of which refuse to be read at times: the others count. */
    private Map<String, Object> temperatures() {
        Map<String, Object> found = new LinkedHashMap<>();
        String refused = "no thermal zones";
        for (String zone : files.list("sys/class/thermal", "thermal_zone*")) {
            try {
                String name = zone.substring(zone.lastIndexOf('/') + 1) + " " + files.text(zone + "/type");
                found.put(name, files.number(zone + "/temp") / 1000);
            } catch (Problem problem) {
                refused = problem.getMessage();
            } catch (NumberFormatException error) {
                refused = "not a number";
            }
        }
        if (found.isEmpty()) {
            throw new Problem(refused);
        }
        return found;
    }

    private String battery() {
        for (String supply : files.list(SUPPLIES, "*")) {
            if (files.exists(supply + "/capacity")) {
                return supply;
            }
        }
        throw new Problem("no battery");
    }

    private boolean charging() {
        String status = files.text(battery() + "/status");
        return "Charging".equals(status) || "Full".equals(status);
    }
}
