package org.finetdeploy.app;

import android.app.ActivityManager;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.BatteryManager;
import android.os.Build;
import android.os.PowerManager;

import java.nio.file.Paths;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.probes.DeviceProbes;
import org.finetdeploy.core.probes.ProcProbes;
import org.finetdeploy.core.probes.Reading;

/** What the platform's API tells, and {@code /proc} for the rest; apps may read little of {@code /sys}. */
final class AndroidProbes implements DeviceProbes {
    /** {@code PowerManager.THERMAL_STATUS_*} by their numbers, as the protocol calls them. */
    static final List<String> THERMAL_STATUSES =
            Arrays.asList("none", "light", "moderate", "severe", "critical", "emergency", "shutdown");

    private static final double MIB = 1 << 20;
    private static final double TENTHS = 10;

    private final Context context;
    private final boolean sustained;
    private final ProcProbes kernel = new ProcProbes(Paths.get("/"));

    /** @param sustained whether a window of the app has asked for the sustained-performance mode for this visit */
    AndroidProbes(Context context, boolean sustained) {
        this.context = context;
        this.sustained = sustained;
    }

    @Override
    public Map<String, Object> state() {
        Map<String, Object> state = kernel.state();
        state.put("memory_available_mib", Reading.of(this::availableMib));
        state.put("temperatures_celsius", Reading.of(this::temperatures));
        state.put("battery_percent", Reading.of(this::batteryPercent));
        state.put("battery_charging", Reading.of(this::charging));
        state.put("thermal_status", Reading.of(this::thermalStatus));
        state.put("thermal_headroom", Reading.of(this::thermalHeadroom));
        state.put("sustained_performance", Reading.of(this::sustainedPerformance));
        return state;
    }

    @Override
    public Map<String, Object> affinityCpus() {
        return kernel.affinityCpus();
    }

    @Override
    public Map<String, Object> peakRssMib() {
        return kernel.peakRssMib();
    }

    @Override
    public Map<String, Object> osThreads() {
        return kernel.osThreads();
    }

    @Override
    public long pid() {
        return android.os.Process.myPid();
    }

    private Object availableMib() {
        ActivityManager.MemoryInfo info = new ActivityManager.MemoryInfo();
        context.getSystemService(ActivityManager.class).getMemoryInfo(info);
        return (long) (info.availMem / MIB);
    }

    private Object temperatures() {
        int tenths = battery().getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Integer.MIN_VALUE);
        if (tenths == Integer.MIN_VALUE) {
            throw new Problem("the battery does not tell its temperature");
        }
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("battery", tenths / TENTHS);
        return found;
    }

    private Object batteryPercent() {
        Intent battery = battery();
        int level = battery.getIntExtra(BatteryManager.EXTRA_LEVEL, -1);
        int scale = battery.getIntExtra(BatteryManager.EXTRA_SCALE, -1);
        if (level < 0 || scale <= 0) {
            throw new Problem("the battery does not tell its charge");
        }
        return 100.0 * level / scale;
    }

    private Object charging() {
        return battery().getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0;
    }

    private Intent battery() {
        Intent battery = context.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED));
        if (battery == null) {
            throw new Problem("no battery");
        }
        return battery;
    }

    private Object thermalStatus() {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) {
            throw new Problem("Android tells it from version 10 on");
        }
        int status = power().getCurrentThermalStatus();
        if (status < 0 || status >= THERMAL_STATUSES.size()) {
            throw new Problem("unknown thermal status " + status);
        }
        return THERMAL_STATUSES.get(status);
    }

    /** Now, not in the future: 1.0 is where severe throttling begins. Asked twice in a second it is NaN. */
    private Object thermalHeadroom() {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) {
            throw new Problem("Android tells it from version 11 on");
        }
        float headroom = power().getThermalHeadroom(0);
        if (Float.isNaN(headroom) || Float.isInfinite(headroom)) {
            throw new Problem("the phone does not tell it, or was asked less than a second ago");
        }
        return (double) headroom;
    }

    private Object sustainedPerformance() {
        if (!power().isSustainedPerformanceModeSupported()) {
            throw new Problem("this phone does not have the mode");
        }
        return sustained;
    }

    private PowerManager power() {
        return context.getSystemService(PowerManager.class);
    }
}
