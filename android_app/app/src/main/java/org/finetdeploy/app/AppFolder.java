package org.finetdeploy.app;

import android.content.Context;

import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.Files;
import org.finetdeploy.core.run.RunFolder;

/** The app's own external folder, to which adb can push: nothing outside it is read or written. */
final class AppFolder {
    private static final String MANIFEST = "manifest.json";

    private final File root;

    AppFolder(Context context) {
        root = context.getExternalFilesDir(null);
        if (root == null) {
            throw new Problem("the phone's shared storage is not mounted; unlock the phone");
        }
    }

    /** For messages, and for {@code adb push}. */
    String path() {
        return root.getPath();
    }

    /** A path inside the folder; Problem for one that leads out. */
    Path resolve(String relative) {
        return Files.inside(root.toPath(), relative);
    }

    /** Problem for a file that is not in the folder. */
    void check(Path file) {
        Files.inside(root.toPath(), relative(file));
    }

    /** A path as {@link #resolve} takes it. */
    String relative(Path path) {
        try {
            return root.toPath().toRealPath().relativize(path.toFile().getCanonicalFile().toPath()).toString();
        } catch (IOException error) {
            throw Files.cannot("read", path, error);
        }
    }

    /** Names of the bundles in the folder, sorted. */
    List<String> bundles() {
        return holding(MANIFEST);
    }

    /** Names of the runs in the folder, sorted. */
    List<String> runs() {
        return holding(RunFolder.JOB);
    }

    private List<String> holding(String name) {
        List<String> found = new ArrayList<>();
        File[] folders = root.listFiles();
        if (folders != null) {
            Arrays.sort(folders);
            for (File folder : folders) {
                if (new File(folder, name).isFile()) {
                    found.add(folder.getName());
                }
            }
        }
        return found;
    }
}
