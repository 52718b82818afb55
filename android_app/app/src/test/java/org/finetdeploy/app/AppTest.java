package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import android.Manifest;
import android.app.Activity;
import android.app.Application;
import android.content.ComponentName;
import android.content.Intent;
import android.content.pm.ActivityInfo;
import android.content.pm.ApplicationInfo;
import android.content.pm.PackageInfo;
import android.content.pm.PackageManager;
import android.content.pm.ServiceInfo;
import android.net.Uri;
import android.os.BatteryManager;
import android.view.View;
import android.view.ViewGroup;
import android.view.WindowManager;
import android.widget.LinearLayout;
import android.widget.ListView;
import android.widget.TextView;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowLog;

@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35)
public class AppTest {
    private Application application;
    private File root;

    @Before
    public void setUp() {
        application = RuntimeEnvironment.getApplication();
        root = application.getExternalFilesDir(null);
    }

    private File write(String name, String text) throws Exception {
        Path path = new File(root, name).toPath();
        Files.createDirectories(path.getParent());
        return Files.write(path, text.getBytes("UTF-8")).toFile();
    }

    @Test
    public void withoutABundleTheScreenSaysWhereToPushOne() {
        MainActivity activity = Robolectric.setupActivity(MainActivity.class);
        TextView view = (TextView) content(activity);
        assertTrue(view.getText().toString().contains(root.getPath()));
    }

    @Test
    public void bundlesAreListedByName() throws Exception {
        write("b/manifest.json", "{}");
        write("a/manifest.json", "{}");
        write("no-bundle/other.json", "{}");
        MainActivity activity = Robolectric.setupActivity(MainActivity.class);
        ListView list = (ListView) content(activity);
        assertEquals(2, list.getAdapter().getCount());
        assertEquals("Bundle: a", list.getAdapter().getItem(0));
    }

    @Test
    public void aRunShowsItsTableKeepsTheScreenOnAndIsShared() throws Exception {
        String data = System.getProperty("finet.golden");
        write("r/job.json", new String(Files.readAllBytes(new File(data, "bench/job.json").toPath()), "UTF-8"));
        String records = new String(Files.readAllBytes(new File(data, "bench/records.jsonl").toPath()), "UTF-8");
        write("r/records.jsonl", records);
        write("bundle/model.onnx", "model");
        MainActivity main = Robolectric.setupActivity(MainActivity.class);
        ListView list = (ListView) content(main);
        Shadows.shadowOf(list).performItemClick(0);
        Intent opened = Shadows.shadowOf(main).getNextStartedActivity();
        assertEquals("r", opened.getStringExtra(RunActivity.RUN));

        RunActivity run = Robolectric.buildActivity(RunActivity.class, opened).setup().get();
        LinearLayout layout = (LinearLayout) content(run);
        TextView text = (TextView) layout.getChildAt(2);
        assertTrue(text.getText().toString(), text.getText().toString().startsWith("2 of 6 visits"));
        assertTrue(text.getText().toString(), text.getText().toString().contains("952.4 images/s"));

        layout.getChildAt(1).performClick();
        Intent chooser = Shadows.shadowOf(run).getNextStartedActivity();
        Intent shared = chooser.getParcelableExtra(Intent.EXTRA_INTENT);
        Uri uri = shared.getParcelableExtra(Intent.EXTRA_STREAM);
        assertTrue((shared.getFlags() & Intent.FLAG_GRANT_READ_URI_PERMISSION) != 0);
        try (InputStream stream = application.getContentResolver().openInputStream(uri)) {
            assertEquals(records.length(), stream.readAllBytes().length);
        }

        layout.getChildAt(0).performClick();
        assertTrue((run.getWindow().getAttributes().flags & WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON) != 0);
        Intent visit = null;
        for (int i = 0; i < 200 && visit == null; i++) {
            Thread.sleep(50);
            visit = Shadows.shadowOf(application).getNextStartedService();
        }
        assertEquals("r/visit.json", visit.getStringExtra(VisitService.REQUEST));
        assertEquals("r/visit.jsonl", visit.getStringExtra(VisitService.RECORDS));
    }

    @Test
    public void theProviderGivesRecordsAloneAndOnlyToRead() throws Exception {
        write("r/records.jsonl", "{}\n");
        write("r/job.json", "{}");
        write("records.jsonl", "secret");
        RecordsProvider provider = Robolectric.setupContentProvider(RecordsProvider.class);
        assertNotNull(provider.openFile(RecordsProvider.of("r"), "r"));
        assertThrows(SecurityException.class, () -> provider.openFile(RecordsProvider.of("r"), "rw"));
        for (String path : Arrays.asList("..", ".", "", "../x", "r/../../x", "absent")) {
            assertThrows(path, FileNotFoundException.class, () -> provider.openFile(RecordsProvider.of(path), "r"));
        }
    }

    private static View content(Activity activity) {
        return ((ViewGroup) activity.findViewById(android.R.id.content)).getChildAt(0);
    }

    @Test
    public void noPathLeavesTheAppsFolder() throws Exception {
        AppFolder folder = new AppFolder(application);
        assertEquals(new File(root, "a/b").getCanonicalFile(), folder.resolve("a/b").toFile());
        assertEquals(new File(root, "b").getCanonicalFile(), folder.resolve("a/../b").toFile());
        for (String path : Arrays.asList("", ".", "..", "../other", "a/../../other", "../" + root.getName() + "x/y")) {
            assertThrows(path, Problem.class, () -> folder.resolve(path));
        }
        Files.createSymbolicLink(new File(root, "link").toPath(), new File("/proc").toPath());
        assertThrows(Problem.class, () -> folder.resolve("link/version"));
    }

    @Test
    public void onlyTheScreenIsOpenToOtherApps() throws Exception {
        int flags = PackageManager.GET_ACTIVITIES | PackageManager.GET_SERVICES | PackageManager.GET_RECEIVERS
                | PackageManager.GET_PROVIDERS | PackageManager.GET_PERMISSIONS;
        PackageInfo info = application.getPackageManager().getPackageInfo(application.getPackageName(), flags);
        for (ActivityInfo activity : info.activities) {
            assertEquals(activity.name.endsWith(".MainActivity"), activity.exported);
        }
        assertEquals(1, info.services.length);
        ServiceInfo service = info.services[0];
        assertTrue(service.exported);
        assertEquals(Manifest.permission.DUMP, service.permission);
        assertEquals(ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE, service.getForegroundServiceType());
        assertTrue(service.processName.endsWith(":visit"));
        assertNull(info.receivers);
        assertEquals(1, info.providers.length);
        assertFalse(info.providers[0].exported);
        List<String> permissions = Arrays.asList(info.requestedPermissions);
        assertFalse(permissions.contains(Manifest.permission.INTERNET));
        assertEquals(0, info.applicationInfo.flags & ApplicationInfo.FLAG_ALLOW_BACKUP);
    }

    @Test
    public void theBatteryIsToldAsThePlatformTellsIt() {
        Intent battery = new Intent(Intent.ACTION_BATTERY_CHANGED)
                .putExtra(BatteryManager.EXTRA_LEVEL, 40)
                .putExtra(BatteryManager.EXTRA_SCALE, 50)
                .putExtra(BatteryManager.EXTRA_TEMPERATURE, 315)
                .putExtra(BatteryManager.EXTRA_PLUGGED, BatteryManager.BATTERY_PLUGGED_USB);
        application.sendStickyBroadcast(battery);
        Map<String, Object> state = new AndroidProbes(application).state();
        assertEquals("{value=80.0, reason=null}", state.get("battery_percent").toString());
        assertEquals("{value=true, reason=null}", state.get("battery_charging").toString());
        assertEquals("{value={battery=31.5}, reason=null}", state.get("temperatures_celsius").toString());
        assertNotNull(((Map<?, ?>) state.get("memory_available_mib")).get("value"));
    }

    @Test
    public void withoutABatteryThereIsAReason() {
        Map<String, Object> state = new AndroidProbes(application).state();
        assertEquals("{value=null, reason=no battery}", state.get("battery_percent").toString());
    }

    @Test
    public void aVisitThatFailsLeavesItsRecordsInTheAppsFolder() throws Exception {
        write("job/model.pte", "no model");
        write("job/request.json", System.getProperty("finet.request")
                .replace("ARTIFACT", new File(root, "job/model.pte").getPath())
                .replace("GOLDEN", new File(root, "job/golden.safetensors").getPath()));
        VisitService service = start("job/request.json", "job/records.jsonl");
        assertNotNull(Shadows.shadowOf(service).getLastForegroundNotification());
        Path records = new File(root, "job/records.jsonl").toPath();
        for (int i = 0; i < 200 && !Files.exists(records); i++) {
            Thread.sleep(50);
        }
        List<Map<String, Object>> found = Records.decodeLines(Files.readAllBytes(records), Schema.load());
        assertEquals("start", found.get(0).get("type"));
        assertTrue(found.get(0).get("runner").toString().contains("app on Android 15"));
        Map<String, Object> last = found.get(found.size() - 1);
        assertEquals("load", last.get("phase"));
        assertTrue(last.get("reason").toString().contains("SHA-256 differs"));
    }

    @Test
    public void aRequestForAFileOutsideTheAppsFolderIsRefused() throws Exception {
        write("request.json", System.getProperty("finet.request")
                .replace("ARTIFACT", "/proc/version")
                .replace("GOLDEN", new File(root, "golden.safetensors").getPath()));
        refused("request.json");
    }

    @Test
    public void aRequestOutsideTheAppsFolderIsNotRead() throws Exception {
        refused("../request.json");
    }

    private void refused(String request) throws Exception {
        start(request, "records.jsonl");
        for (int i = 0; i < 200 && ShadowLog.getLogsForTag("finet-bench").isEmpty(); i++) {
            Thread.sleep(50);
        }
        String word = ShadowLog.getLogsForTag("finet-bench").get(0).msg;
        assertTrue(word, word.contains("leaves its folder"));
        assertFalse(new File(root, "records.jsonl").exists());
        Path refused = new File(root, "records.jsonl.refused").toPath();
        for (int i = 0; i < 200 && !Files.exists(refused); i++) {
            Thread.sleep(50);
        }
        assertEquals(word + "\n", new String(Files.readAllBytes(refused), "UTF-8"));
    }

    private VisitService start(String request, String records) {
        Intent intent = new Intent()
                .setComponent(new ComponentName(application, VisitService.class))
                .putExtra(VisitService.REQUEST, request)
                .putExtra(VisitService.RECORDS, records);
        return Robolectric.buildService(VisitService.class, intent).create().startCommand(0, 1).get();
    }
}
