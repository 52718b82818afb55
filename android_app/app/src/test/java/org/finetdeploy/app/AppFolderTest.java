package org.finetdeploy.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import android.net.Uri;

import java.io.File;
import java.io.FileNotFoundException;
import java.nio.file.Files;
import java.util.Arrays;

import org.finetdeploy.core.Problem;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.annotation.Config;

/** Nothing outside the app's folder is read, written or shared. */
@RunWith(RobolectricTestRunner.class)
@Config(sdk = 35)
public class AppFolderTest {
    private final AppSandbox sandbox = new AppSandbox();

    @Test
    public void noPathLeavesTheAppsFolder() throws Exception {
        File root = sandbox.root;
        AppFolder folder = new AppFolder(sandbox.application);
        assertEquals(new File(root, "a/b").getCanonicalFile(), folder.resolve("a/b").toFile());
        assertEquals(new File(root, "b").getCanonicalFile(), folder.resolve("a/../b").toFile());
        for (String path : Arrays.asList("", ".", "..", "../other", "a/../../other", "../" + root.getName() + "x/y")) {
            assertThrows(path, Problem.class, () -> folder.resolve(path));
        }
        Files.createSymbolicLink(new File(root, "link").toPath(), new File("/proc").toPath());
        assertThrows(Problem.class, () -> folder.resolve("link/version"));
    }

    @Test
    public void theProviderGivesJobsAndRecordsAloneAndOnlyToRead() throws Exception {
        sandbox.write("r/records.jsonl", "{}\n");
        sandbox.write("r/job.json", "{}");
        sandbox.write("r/visit.json", "{}");
        sandbox.write("records.jsonl", "secret");
        RecordsProvider provider = Robolectric.setupContentProvider(RecordsProvider.class);
        for (String file : RecordsProvider.FILES) {
            assertNotNull(provider.openFile(RecordsProvider.of("r", file), "r"));
            assertThrows(SecurityException.class, () -> provider.openFile(RecordsProvider.of("r", file), "rw"));
        }
        Uri all = RecordsProvider.of("r", "records.jsonl");
        assertEquals(1, provider.query(all, null, null, null, null).getCount());
        for (String run : Arrays.asList("..", ".", "", "../x", "r/../../x", "absent")) {
            Uri uri = RecordsProvider.of(run, "records.jsonl");
            assertThrows(run, FileNotFoundException.class, () -> provider.openFile(uri, "r"));
        }
        for (String file : Arrays.asList("visit.json", "../records.jsonl", "..", "")) {
            Uri uri = RecordsProvider.of("r", file);
            assertThrows(file, FileNotFoundException.class, () -> provider.openFile(uri, "r"));
            assertEquals(0, provider.query(uri, null, null, null, null).getCount());
        }
        assertTrue(RecordsProvider.hasRecords(sandbox.application, "r"));
        assertFalse(RecordsProvider.hasRecords(sandbox.application, "../r"));
    }
}
