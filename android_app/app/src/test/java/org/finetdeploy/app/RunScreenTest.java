package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import android.app.Activity;
import android.content.Intent;
import android.net.Uri;
import android.view.WindowManager;
import android.widget.Button;
import android.widget.ScrollView;
import android.widget.TextView;

import java.io.File;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.Shadows;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;

/** The screen of one run: goes on with it, follows it, shares it. The test plays the process of a visit. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35)
public class RunScreenTest {
    private final AppSandbox sandbox = new AppSandbox();
    private ActivityController<RunActivity> controller;

    @Before
    public void aRunOfTwoVisits() throws Exception {
        sandbox.bundle("net_b");
        sandbox.bundle("net_b_unfused");
        sandbox.write("r/job.json", new String(Files.readAllBytes(AppSandbox.golden("plan/fusion.json")), "UTF-8"));
    }

    @After
    public void noRunIsLeft() throws Exception {
        if (CurrentRun.find("r") != null) {
            CurrentRun.find("r").stop();
            if (new File(sandbox.root, "r/visit.json").exists()) {
                play();
            }
            AppSandbox.await("the run ends", () -> CurrentRun.find("r") == null);
        }
    }

    private RunActivity open(boolean start) {
        Intent intent = new Intent().putExtra(RunActivity.RUN, "r").putExtra(RunActivity.START, start);
        controller = Robolectric.buildActivity(RunActivity.class, intent).setup();
        return controller.get();
    }

    private static String text(Activity activity) {
        return ((TextView) AppSandbox.find(activity, ScrollView.class, null).getChildAt(0)).getText().toString();
    }

    private static boolean staysOn(Activity activity) {
        return (activity.getWindow().getAttributes().flags & WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON) != 0;
    }

    private Intent started() throws InterruptedException {
        Intent[] visit = {null};
        AppSandbox.await("a visit is started", () -> {
            visit[0] = visit[0] == null ? Shadows.shadowOf(sandbox.application).getNextStartedService() : visit[0];
            return visit[0] != null;
        });
        return visit[0];
    }

    /** What the service would write for the request that lies there: the golden visit, as one of this job. */
    private void play() throws Exception {
        Fields request = new Fields(JsonParser.parseObject(sandbox.read("r/visit.json").getBytes("UTF-8")));
        Fields row = request.inner("row");
        long visit = request.inner("visit").integer("index", 0, 99);
        byte[] golden = Files.readAllBytes(AppSandbox.golden("bench/records.jsonl"));
        StringBuilder lines = new StringBuilder();
        for (Map<String, Object> record : Records.decodeLines(golden, Schema.load()).subList(0, 6)) {
            record.put("visit", visit);
            record.computeIfPresent("artifact_sha256", (name, old) -> row.inner("artifact").text("sha256"));
            record.computeIfPresent("output_errors", (name, old) -> {
                Map<String, Object> errors = new HashMap<>();
                row.inner("golden").inner("output_limits").names().forEach(input -> errors.put(input, 1e-7));
                return errors;
            });
            lines.append(new String(Records.line(record), "UTF-8"));
        }
        Path part = sandbox.write("r/part", lines.toString()).toPath();
        Files.move(part, part.resolveSibling("visit.jsonl"));
    }

    @Test
    public void aPlannedRunIsDoneAndItsTableGrows() throws Exception {
        RunActivity activity = open(true);
        Intent visit = started();
        assertEquals("r/visit.json", visit.getStringExtra(VisitService.REQUEST));
        assertEquals("r/visit.jsonl", visit.getStringExtra(VisitService.RECORDS));
        assertTrue(staysOn(activity));
        assertTrue(text(activity), text(activity).startsWith("0 of 2 visits"));
        play();
        started();
        AppSandbox.await("the table grows", () -> text(activity).startsWith("1 of 2 visits"));
        assertTrue(text(activity), text(activity).contains("952.4 images/s"));
        play();
        AppSandbox.await("the run ends", () -> CurrentRun.find("r") == null);
        assertTrue(text(activity), text(activity).startsWith("2 of 2 visits"));
        assertFalse(staysOn(activity));
        assertTrue(AppSandbox.find(activity, Button.class, "Share job and records").isEnabled());
        assertEquals(12, Records.decodeLines(sandbox.read("r/records.jsonl").getBytes("UTF-8"), Schema.load()).size());
    }

    @Test
    public void aTurnedPhoneGoesOnWithTheRunThatIsThere() throws Exception {
        open(true);
        started();
        controller.recreate();
        RunActivity again = controller.get();
        assertNotNull(AppSandbox.find(again, Button.class, "Stop after this visit"));
        assertTrue(staysOn(again));
        play();
        started();
        AppSandbox.await("the new screen follows", () -> text(again).startsWith("1 of 2 visits"));
    }

    @Test
    public void whoLeavesTheScreenStopsTheRunAfterTheVisit() throws Exception {
        open(true);
        started();
        controller.pause().stop();
        play();
        AppSandbox.await("the run ends", () -> CurrentRun.find("r") == null);
        assertNull(Shadows.shadowOf(sandbox.application).getNextStartedService());
        controller.restart().start().resume();
        RunActivity activity = controller.get();
        assertTrue(text(activity), text(activity).startsWith("1 of 2 visits"));
        AppSandbox.find(activity, Button.class, "Start").performClick();
        started();
        assertTrue(sandbox.read("r/records.jsonl").contains("\"type\":\"resumed\""));
    }

    @Test
    public void thereIsOneRunAtATime() throws Exception {
        open(true);
        started();
        sandbox.write("other/job.json", sandbox.read("r/job.json"));
        Intent intent = new Intent().putExtra(RunActivity.RUN, "other").putExtra(RunActivity.START, true);
        RunActivity other = Robolectric.buildActivity(RunActivity.class, intent).setup().get();
        assertTrue(text(other), text(other).contains("run 'r' is being done"));
        assertFalse(staysOn(other));
    }

    @Test
    public void jobAndRecordsOfAFinishedRunAreShared() throws Exception {
        String data = new String(Files.readAllBytes(AppSandbox.golden("bench/records.jsonl")), "UTF-8");
        sandbox.write("r/job.json", new String(Files.readAllBytes(AppSandbox.golden("bench/job.json")), "UTF-8"));
        sandbox.write("r/records.jsonl", data);
        RunActivity activity = open(false);
        AppSandbox.await("it is read", () -> text(activity).startsWith("2 of 6 visits"));
        AppSandbox.find(activity, Button.class, "Share job and records").performClick();
        Intent chooser = Shadows.shadowOf(activity).getNextStartedActivity();
        Intent shared = chooser.getParcelableExtra(Intent.EXTRA_INTENT);
        assertTrue((shared.getFlags() & Intent.FLAG_GRANT_READ_URI_PERMISSION) != 0);
        List<Uri> files = shared.getParcelableArrayListExtra(Intent.EXTRA_STREAM);
        List<String> texts = new ArrayList<>();
        for (Uri file : files) {
            try (InputStream stream = sandbox.application.getContentResolver().openInputStream(file)) {
                texts.add(new String(stream.readAllBytes(), "UTF-8"));
            }
        }
        assertEquals(List.of(sandbox.read("r/job.json"), data), texts);
    }

    @Test
    public void aRunThatCannotBeReadSaysWhyAndIsNotStarted() throws Exception {
        sandbox.write("r/job.json", "{}");
        RunActivity activity = open(false);
        AppSandbox.await("told", () -> text(activity).contains("not a job"));
        assertFalse(AppSandbox.find(activity, Button.class, "Start").isEnabled());
        assertFalse(AppSandbox.find(activity, Button.class, "Share job and records").isEnabled());
    }
}
