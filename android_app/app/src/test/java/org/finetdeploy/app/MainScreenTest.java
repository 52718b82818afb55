package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import android.app.Activity;
import android.content.Intent;
import android.widget.Button;
import android.widget.CheckBox;
import android.widget.LinearLayout;
import android.widget.ListView;
import android.widget.Spinner;
import android.widget.TextView;

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;

import org.finetdeploy.core.Version;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.Shadows;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;

/** The screen that lists bundles and runs, and measures. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35)
public class MainScreenTest {
    private final AppSandbox sandbox = new AppSandbox();

    private static ListView list(Activity activity, int place) {
        LinearLayout layout = AppSandbox.find(activity, LinearLayout.class, null);
        return (ListView) layout.getChildAt(place == 0 ? 1 : layout.getChildCount() - 1);
    }

    private static String word(Activity activity) {
        return AppSandbox.find(activity, TextView.class, null).getText().toString();
    }

    @Test
    public void withoutABundleTheScreenSaysWhereToPutOne() {
        assertTrue(word(Robolectric.setupActivity(MainActivity.class)).contains(sandbox.root.getPath()));
    }

    @Test
    public void bundlesAndRunsAreListedByNameAndSeenWhenTheAppComesToTheFront() throws Exception {
        sandbox.write("b/manifest.json", "{}");
        sandbox.write("no-bundle/other.json", "{}");
        sandbox.write("r/job.json", "{}");
        sandbox.write("cut-off.part/job.json", "{}");
        ActivityController<MainActivity> controller = Robolectric.buildActivity(MainActivity.class).setup();
        Activity activity = controller.get();
        assertEquals(1, list(activity, 0).getAdapter().getCount());
        assertEquals(1, list(activity, 1).getAdapter().getCount());
        sandbox.write("a/manifest.json", "{}");
        controller.pause().resume();
        assertEquals(2, list(activity, 0).getAdapter().getCount());
        assertEquals("a", list(activity, 0).getAdapter().getItem(0));
        Shadows.shadowOf(list(activity, 1)).performItemClick(0);
        Intent opened = Shadows.shadowOf(activity).getNextStartedActivity();
        assertEquals("r", opened.getStringExtra(RunActivity.RUN));
        assertFalse(opened.getBooleanExtra(RunActivity.START, true));
    }

    /** Python's plan of the same bundles, but for what the device is and when it was made. */
    @Test
    public void aPresetByHandIsTheJobThatPythonPlansAndIsStarted() throws Exception {
        sandbox.bundle("net_b");
        sandbox.bundle("net_b_unfused");
        sandbox.bundle("net_a");
        Activity activity = Robolectric.setupActivity(MainActivity.class);
        list(activity, 0).setItemChecked(0, true);
        list(activity, 0).setItemChecked(1, true);
        Spinner threads = AppSandbox.find(activity, Spinner.class, null);
        assertTrue(threads.getSelectedItem().toString().startsWith("quick: "));
        AppSandbox.find(activity, Button.class, "Measure").performClick();
        assertEquals("Reading the bundles…", word(activity));
        Intent[] opened = {null};
        AppSandbox.await("the run is opened", () -> {
            opened[0] = opened[0] == null ? Shadows.shadowOf(activity).getNextStartedActivity() : opened[0];
            return opened[0] != null;
        });
        assertTrue(opened[0].getBooleanExtra(RunActivity.START, false));
        String run = opened[0].getStringExtra(RunActivity.RUN);
        assertTrue(run, run.matches("run-\\d{8}-\\d{6}"));
        String golden = new String(Files.readAllBytes(AppSandbox.golden("plan/two.json")), StandardCharsets.UTF_8);
        assertEquals(comparable(golden), comparable(sandbox.read(run + "/job.json")));
    }

    private static String comparable(String job) {
        return job.replaceFirst("(?s)\"created_utc\": \"[^\"]*\"", "")
                .replaceFirst("\"tool_version\": \"(0.1.0|" + Version.TOOL + ")\"", "")
                .replaceFirst("(?s)\"device\": .*?\"runner\": \"app\"", "")
                .replaceAll("\"threads\": \\d+", "\"threads\": N");
    }

    @Test
    public void bundlesThatMustNotShareATableAreRefusedInWordsAndNothingIsWritten() throws Exception {
        sandbox.bundle("net_b");
        sandbox.bundle("net_b_unfused");
        Activity activity = Robolectric.setupActivity(MainActivity.class);
        Button measure = AppSandbox.find(activity, Button.class, "Measure");
        measure.performClick();
        AppSandbox.await("told", () -> word(activity).contains("choose at least one bundle"));
        list(activity, 0).setItemChecked(0, true);
        list(activity, 0).setItemChecked(1, true);
        AppSandbox.find(activity, CheckBox.class, "Fused beside unfused networks").setChecked(true);
        measure.performClick();
        AppSandbox.await("told", () -> word(activity).contains("no file for runtime 'executorch'"));
        assertTrue(measure.isEnabled());
        assertNull(Shadows.shadowOf(activity).getNextStartedActivity());
        assertEquals(2, new File(sandbox.root.getPath()).list().length);
    }
}
