package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;

import android.content.ComponentName;
import android.content.Intent;
import android.os.PowerManager;

import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Job;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.Shadows;
import org.robolectric.android.controller.ServiceController;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowLog;
import org.robolectric.shadows.ShadowPowerManager;

/** The service that does one visit. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35, shadows = ThermalPhone.class)
public class VisitServiceTest {
    private final AppSandbox sandbox = new AppSandbox();

    private Intent intent(String request, String records) {
        return new Intent()
                .setComponent(new ComponentName(sandbox.application, VisitService.class))
                .putExtra(VisitService.REQUEST, request)
                .putExtra(VisitService.RECORDS, records);
    }

    private VisitService start(Intent intent) {
        return Robolectric.buildService(VisitService.class, intent).create().startCommand(0, 1).get();
    }

    private String request(File artifact) throws Exception {
        Job job = Job.decode(Files.readAllBytes(AppSandbox.golden("bench/job.json")), Schema.load());
        String golden = new File(sandbox.root, "job/golden.safetensors").getPath();
        return new String(JsonWriter.compact(job.request(0, artifact.getPath(), golden)), "UTF-8");
    }

    private List<Map<String, Object>> records(String name) throws Exception {
        Path records = new File(sandbox.root, name).toPath();
        AppSandbox.await("records", () -> Files.exists(records));
        return Records.decodeLines(Files.readAllBytes(records), Schema.load());
    }

    @Test
    public void aVisitThatFailsLeavesItsRecordsInTheAppsFolder() throws Exception {
        sandbox.write("job/request.json", request(sandbox.write("job/model.onnx", "no model")));
        sandbox.write("job/records.jsonl", "of an earlier visit");
        sandbox.write("job/records.jsonl.refused", "an earlier visit");
        VisitService service = start(intent("job/request.json", "job/records.jsonl"));
        assertNotNull(Shadows.shadowOf(service).getLastForegroundNotification());
        AppSandbox.await("the earlier ones are gone", () -> {
            try {
                return !sandbox.read("job/records.jsonl").startsWith("of an");
            } catch (Exception gone) {
                return false;
            }
        });
        List<Map<String, Object>> found = records("job/records.jsonl");
        assertEquals("start", found.get(0).get("type"));
        assertTrue(found.get(0).get("runner").toString().contains("app on Android 15"));
        Map<String, Object> last = found.get(found.size() - 1);
        assertEquals("load", last.get("phase"));
        assertTrue(last.get("reason").toString().contains("SHA-256 differs"));
        assertFalse(new File(sandbox.root, "job/records.jsonl.refused").exists());
    }

    @Test
    public void theScreenStaysOnUntilTheVisitIsOverWithoutAWindow() throws Exception {
        sandbox.write("job/request.json", request(sandbox.write("job/model.onnx", "no model")));
        start(intent("job/request.json", "job/records.jsonl"));
        AppSandbox.await("a lock", () -> ShadowPowerManager.getLatestWakeLock() != null);
        PowerManager.WakeLock lock = ShadowPowerManager.getLatestWakeLock();
        records("job/records.jsonl");
        AppSandbox.await("it is released", () -> !lock.isHeld());
        assertEquals("finet-bench:screen", Shadows.shadowOf(lock).getTag());
        assertEquals(1, Shadows.shadowOf(lock).getTimesHeld());
    }

    @Test
    public void theSustainedModeOfTheWindowIsInTheRecord() throws Exception {
        ThermalPhone.sustainedMode = true;
        sandbox.write("job/request.json", request(sandbox.write("job/model.onnx", "no model")));
        start(intent("job/request.json", "job/adb.jsonl"));
        start(intent("job/request.json", "job/hand.jsonl").putExtra(VisitService.SUSTAINED, true));
        String adb = records("job/adb.jsonl").get(0).toString();
        String hand = records("job/hand.jsonl").get(0).toString();
        assertTrue(adb, adb.contains("sustained_performance={value=false, reason=null}"));
        assertTrue(hand, hand.contains("sustained_performance={value=true, reason=null}"));
    }

    @Test
    public void aRequestForAFileOutsideTheAppsFolderIsRefused() throws Exception {
        sandbox.write("request.json", request(new File("/proc/version")));
        refused("request.json");
    }

    @Test
    public void aRequestOutsideTheAppsFolderIsNotRead() throws Exception {
        refused("../request.json");
    }

    private void refused(String request) throws Exception {
        start(intent(request, "records.jsonl"));
        Path refused = new File(sandbox.root, "records.jsonl.refused").toPath();
        AppSandbox.await("refused", () -> Files.exists(refused));
        String word = ShadowLog.getLogsForTag("finet-bench").get(0).msg;
        assertTrue(word, word.contains("leaves its folder"));
        assertFalse(new File(sandbox.root, "records.jsonl").exists());
        assertEquals(word + "\n", sandbox.read("records.jsonl.refused"));
    }

    @Test
    public void aSecondRequestIsToldThatTheServiceIsBusy() throws Exception {
        sandbox.write("job/request.json", request(sandbox.write("job/model.onnx", "no model")));
        ServiceController<VisitService> controller =
                Robolectric.buildService(VisitService.class, intent("job/request.json", "job/records.jsonl")).create();
        controller.startCommand(0, 1);
        controller.withIntent(intent("job/request.json", "job/other.jsonl")).startCommand(0, 2);
        assertTrue(sandbox.read("job/other.jsonl.refused").startsWith("busy"));
        controller.withIntent(intent("job/request.json", "job/records.jsonl")).startCommand(0, 3);
        records("job/records.jsonl");
        assertFalse(new File(sandbox.root, "job/records.jsonl.refused").exists());
    }
}
