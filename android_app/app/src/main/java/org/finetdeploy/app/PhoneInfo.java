package org.finetdeploy.app;

import android.os.Build;

import java.nio.file.Paths;
import java.util.LinkedHashMap;
import java.util.Map;

import org.finetdeploy.core.probes.Cores;
import org.finetdeploy.core.probes.ProcFiles;
import org.finetdeploy.core.probes.Reading;

/** What the phone is, as a job holds it: a {@code DeviceInfo}. */
final class PhoneInfo {
    private static final long KIB = 1024;

    private PhoneInfo() {}

    /** The phone goes by its model: apps cannot know its serial. */
    static Map<String, Object> json() {
        ProcFiles files = new ProcFiles(Paths.get("/"));
        Map<String, Object> info = new LinkedHashMap<>();
        info.put("name", title());
        info.put("kind", "android");
        info.put("emulated", emulated(Build.HARDWARE, Build.PRODUCT));
        info.put("cpu_model", Reading.of(() -> chip() + " in " + title()));
        info.put("cpu_count", (long) new Cores(files).count());
        info.put("machine", Reading.of(() -> System.getProperty("os.arch")));
        info.put("operating_system", Reading.of(() -> "Android " + Build.VERSION.RELEASE));
        info.put("memory_mib", Reading.of(
                () -> Long.parseLong(files.fields("proc/meminfo", "MemTotal").get(0).split("\\s+")[0]) / KIB));
        return info;
    }

    /** The virtual devices of Android's SDK call themselves so. */
    static boolean emulated(String hardware, String product) {
        return hardware.equals("ranchu") || hardware.equals("goldfish") || product.startsWith("sdk_");
    }

    private static String title() {
        return Build.MANUFACTURER + " " + Build.MODEL;
    }

    private static String chip() {
        return Build.VERSION.SDK_INT >= Build.VERSION_CODES.S
                ? Build.SOC_MANUFACTURER + " " + Build.SOC_MODEL
                : Build.BOARD;
    }
}
