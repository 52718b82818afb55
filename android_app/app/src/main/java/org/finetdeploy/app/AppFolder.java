package org.finetdeploy.app;

import android.content.Context;

import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.plan.Bundle;
import org.finetdeploy.core.plan.NewRun;
import org.finetdeploy.core.run.RunFolder;

/** The app's own external folder, which adb can reach: nothing outside it is read or written. */
final class AppFolder {
    private final File root;

    AppFolder(Context context) {
        root = context.getExternalFilesDir(null);
        if (root == null) {
            throw new Problem("the phone's shared storage is not mounted; unlock the phone");
        }
    }

    /** For messages, and for adb. */
    String path() {
        return root.getPath();
    }

    /** A path inside the folder; Problem for one that leads out. */
    Path resolve(String relative) {
        return CheckedFiles.inside(root.toPath(), relative);
    }

    /** Problem for a file that is not in the folder. */
    void check(Path file) {
        CheckedFiles.inside(root.toPath(), relative(file));
    }

    /** A path as {@link #resolve} takes it. */
    String relative(Path path) {
        try {
            return root.toPath().toRealPath().relativize(path.toFile().getCanonicalFile().toPath()).toString();
        } catch (IOException error) {
            throw CheckedFiles.cannot("read", path, error);
        }
    }

    /** A new run with this job; Problem when there is one of this name, or it cannot be written. */
    void write(String run, byte[] job) {
        NewRun.write(root.toPath(), run, job);
    }

    /** Names of the bundles in the folder, sorted. */
    List<String> bundles() {
        return holding(Bundle.MANIFEST);
    }

    /** Names of the runs in the folder, sorted. */
    List<String> runs() {
        return holding(RunFolder.JOB);
    }

    /**
     * Names of folders into which the app may not look, sorted. From Android 11 on, what adb's shell puts here is the
     * shell's, and closed to the app until its mode is changed.
     */
    List<String> closed() {
        List<String> found = new ArrayList<>();
        for (File folder : folders()) {
            if (!folder.canRead() || !folder.canExecute()) {
                found.add(folder.getName());
            }
        }
        return found;
    }

    private List<String> holding(String name) {
        List<String> found = new ArrayList<>();
        for (File folder : folders()) {
            if (new File(folder, name).isFile() && !NewRun.isPart(folder.getName())) {
                found.add(folder.getName());
            }
        }
        return found;
    }

    private List<File> folders() {
        File[] found = root.listFiles(File::isDirectory);
        if (found == null) {
            return new ArrayList<>();
        }
        Arrays.sort(found);
        return Arrays.asList(found);
    }
}
