package org.finetdeploy.core.plan;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.run.RunFolder;

/** The folder of a run that begins: it has its name when all of its job is in it. */
public final class NewRun {
    private static final String PART = ".part";

    private NewRun() {}

    /** Whether a folder of this name is one that is not complete. */
    public static boolean isPart(String name) {
        return name.endsWith(PART);
    }

    /** {@code root/name} with this job. Problem when it is there already, or cannot be written. */
    public static void write(Path root, String name, byte[] job) {
        Path folder = root.resolve(name);
        Path part = root.resolve(name + PART);
        if (Files.exists(folder)) {
            throw new Problem("there is a run of this name already: " + folder);
        }
        try {
            Files.createDirectories(part); // one that a kill left behind is filled anew
            Files.write(part.resolve(RunFolder.JOB), job);
            Files.move(part, folder);
        } catch (IOException error) {
            throw CheckedFiles.cannot("write", folder, error);
        }
    }
}
