package org.finetdeploy.core.probes;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;

/** Small files that the kernel makes up, below a root that is {@code /} outside tests. */
public final class ProcFiles {
    private static final int MAX_BYTES = 1 << 20;

    private final Path root;

    public ProcFiles(Path root) {
        this.root = root;
    }

    /** Text of a file without blanks at its ends; Problem when it cannot be read. */
    public String text(String path) {
        byte[] data = CheckedFiles.readBounded(root.resolve(path), MAX_BYTES);
        return new String(data, StandardCharsets.UTF_8).trim();
    }

    /** A file that holds a number; Problem or NumberFormatException. */
    public double number(String path) {
        return Double.parseDouble(text(path));
    }

    /** Whether there is such a file. */
    public boolean exists(String path) {
        return Files.exists(root.resolve(path));
    }

    /** What a symbolic link holds; Problem when it is none. */
    public String link(String path) {
        try {
            return Files.readSymbolicLink(root.resolve(path)).toString();
        } catch (IOException error) {
            throw CheckedFiles.cannot("read", root.resolve(path), error);
        }
    }

    /** Paths in {@code folder} whose names match the glob, sorted; empty when there is no such folder. */
    public List<String> list(String folder, String glob) {
        List<String> found = new ArrayList<>();
        try (DirectoryStream<Path> entries = Files.newDirectoryStream(root.resolve(folder), glob)) {
            for (Path entry : entries) {
                found.add(folder + "/" + entry.getFileName());
            }
        } catch (IOException error) {
            return found; // absent, or not for everybody: the probe says that there is none
        }
        Collections.sort(found);
        return found;
    }

    /** Values of the lines {@code name: value}; Problem when there is none. */
    public List<String> fields(String path, String name) {
        List<String> found = new ArrayList<>();
        for (String line : text(path).split("\n")) {
            int colon = line.indexOf(':');
            if (colon >= 0 && line.substring(0, colon).trim().equals(name)) {
                found.add(line.substring(colon + 1).trim());
            }
        }
        if (found.isEmpty()) {
            throw new Problem("no field '" + name + "': " + root.resolve(path));
        }
        return found;
    }
}
