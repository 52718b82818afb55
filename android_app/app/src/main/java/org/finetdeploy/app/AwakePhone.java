package org.finetdeploy.app;

import android.content.Context;
import android.os.PowerManager;

/**
 * Keeps processor and screen on while a visit runs. A visit that adb starts has no window whose flag would do the
 * latter, and a phone whose screen goes dark moves its apps to slower cores.
 */
final class AwakePhone {
    private static final long LONGEST_VISIT_MS = 3_600_000;

    private final PowerManager.WakeLock processor;
    private final PowerManager.WakeLock screen;

    /** From here on, for an hour at most. A screen that is off is not switched on. */
    @SuppressWarnings("deprecation") // the lock for the screen has no successor outside windows
    AwakePhone(Context context) {
        PowerManager power = context.getSystemService(PowerManager.class);
        processor = power.newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "finet-bench:visit");
        screen = power.newWakeLock(PowerManager.SCREEN_BRIGHT_WAKE_LOCK, "finet-bench:screen");
        processor.acquire(LONGEST_VISIT_MS);
        screen.acquire(LONGEST_VISIT_MS);
    }

    /** Lets the phone go to sleep again. */
    void release() {
        screen.release();
        processor.release();
    }
}
