package org.finetdeploy.app;

import android.os.PowerManager;

import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;
import org.robolectric.annotation.Resetter;
import org.robolectric.shadows.ShadowPowerManager;

/** Answers that Robolectric's own power manager does not have. */
@Implements(PowerManager.class)
public class ThermalPhone extends ShadowPowerManager {
    static float headroom = Float.NaN;
    static boolean sustainedMode;

    @Implementation
    protected float getThermalHeadroom(int forecastSeconds) {
        return forecastSeconds == 0 ? headroom : Float.NaN;
    }

    @Implementation
    protected boolean isSustainedPerformanceModeSupported() {
        return sustainedMode;
    }

    /** As before each test. */
    @Resetter
    public static void reset() {
        ShadowPowerManager.reset();
        headroom = Float.NaN;
        sustainedMode = false;
    }
}
