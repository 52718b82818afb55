package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;

import android.content.Intent;
import android.os.BatteryManager;
import android.os.PowerManager;

import java.util.Map;

import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Schema;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.Shadows;
import org.robolectric.annotation.Config;

/** What the platform's API tells, as the record has it. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35, shadows = ThermalPhone.class)
public class ProbesTest {
    private final AppSandbox sandbox = new AppSandbox();

    private Map<String, Object> state(boolean sustained) {
        Map<String, Object> state = new AndroidProbes(sandbox.application, sustained).state();
        Schema.load().check("DeviceState", JsonParser.parse(JsonWriter.compact(state)));
        return state;
    }

    private static String reading(Map<String, Object> state, String name) {
        return state.get(name).toString();
    }

    @Test
    public void theBatteryIsToldAsThePlatformTellsIt() {
        Intent battery = new Intent(Intent.ACTION_BATTERY_CHANGED)
                .putExtra(BatteryManager.EXTRA_LEVEL, 40)
                .putExtra(BatteryManager.EXTRA_SCALE, 50)
                .putExtra(BatteryManager.EXTRA_TEMPERATURE, 315)
                .putExtra(BatteryManager.EXTRA_PLUGGED, BatteryManager.BATTERY_PLUGGED_USB);
        sandbox.application.sendStickyBroadcast(battery);
        Map<String, Object> state = state(false);
        assertEquals("{value=80.0, reason=null}", reading(state, "battery_percent"));
        assertEquals("{value=true, reason=null}", reading(state, "battery_charging"));
        assertEquals("{value={battery=31.5}, reason=null}", reading(state, "temperatures_celsius"));
        assertNotNull(((Map<?, ?>) state.get("memory_available_mib")).get("value"));
    }

    @Test
    public void withoutABatteryThereIsAReason() {
        assertEquals("{value=null, reason=no battery}", reading(state(false), "battery_percent"));
    }

    @Test
    public void heatIsToldByAndroidsNames() {
        PowerManager power = sandbox.application.getSystemService(PowerManager.class);
        Shadows.shadowOf(power).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_SEVERE);
        ThermalPhone.headroom = 0.75f;
        Map<String, Object> state = state(false);
        assertEquals("{value=severe, reason=null}", reading(state, "thermal_status"));
        assertEquals("{value=0.75, reason=null}", reading(state, "thermal_headroom"));
        ThermalPhone.headroom = Float.NaN;
        assertTrue(reading(state(false), "thermal_headroom").contains("less than a second ago"));
    }

    @Test
    public void theSustainedModeIsOnOffOrNotThere() {
        ThermalPhone.sustainedMode = false;
        assertTrue(reading(state(true), "sustained_performance").contains("does not have the mode"));
        ThermalPhone.sustainedMode = true;
        assertEquals("{value=true, reason=null}", reading(state(true), "sustained_performance"));
        assertEquals("{value=false, reason=null}", reading(state(false), "sustained_performance"));
    }

    @Test
    public void thePhoneIsWhatAJobCallsADevice() {
        Map<String, Object> info = PhoneInfo.json();
        Schema.load().check("DeviceInfo", JsonParser.parse(JsonWriter.compact(info)));
        assertEquals("{value=Android 15, reason=null}", info.get("operating_system").toString());
        assertTrue(PhoneInfo.emulated("ranchu", "sdk_gphone64_x86_64"));
        assertFalse(PhoneInfo.emulated("qcom", "raven"));
    }
}
