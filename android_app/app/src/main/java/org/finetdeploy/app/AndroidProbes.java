package org.finetdeploy.app;

import android.app.ActivityManager;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.BatteryManager;

import java.nio.file.Paths;
import java.util.LinkedHashMap;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.probes.DeviceProbes;
import org.finetdeploy.core.probes.ProcProbes;
import org.finetdeploy.core.probes.Reading;

/** What the platform's API tells, and {@code /proc} for the rest; apps may read little of {@code /sys}. */
final class AndroidProbes implements DeviceProbes {
    private static final double MIB = 1 << 20;
    private static final double TENTHS = 10;

    private final Context context;
    private final ProcProbes kernel = new ProcProbes(Paths.get("/"));

    AndroidProbes(Context context) {
        this.context = context;
    }

    @Override
    public Map<String, Object> state() {
        Map<String, Object> state = kernel.state();
        state.put("memory_available_mib", Reading.of(this::availableMib));
        state.put("temperatures_celsius", Reading.of(this::temperatures));
        state.put("battery_percent", Reading.of(this::batteryPercent));
        state.put("battery_charging", Reading.of(this::charging));
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
}
