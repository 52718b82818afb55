package org.finetdeploy.core.plan;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.protocol.Schema;

/** An exported network: a folder with a {@code manifest.json} that vouches for the other files in it. */
public final class Bundle {
    /** Name of the manifest in the folder. */
    public static final String MANIFEST = "manifest.json";

    private static final int MAX_MANIFEST_BYTES = 4 << 20;
    private static final int MAX_CERTIFICATE_BYTES = 16 << 20;
    private static final String AGAIN = "; copy the bundle again, or export the model again";

    final Fields manifest;
    final Fields certificate;
    private final Path folder;

    private Bundle(Path folder, Fields manifest, Fields certificate) {
        this.folder = folder;
        this.manifest = manifest;
        this.certificate = certificate;
    }

    /**
     * The bundle in {@code folder}; Problem, naming the file, when it is none, or a file is absent, outside the
     * folder, or another one than the manifest names. Reads every byte of it.
     */
    public static Bundle read(Path folder, Planning planning) {
        Fields manifest =
                object(folder.resolve(MANIFEST), MAX_MANIFEST_BYTES, "Manifest", planning.manifestVersions);
        for (Fields artifact : artifacts(manifest)) {
            Path file = checked(folder, artifact.text("file"), artifact.text("sha256"));
            long bytes = artifact.integer("bytes", 1, Long.MAX_VALUE);
            if (size(file) != bytes) {
                throw new Problem(
                        "file has not the " + bytes + " bytes that the manifest says" + AGAIN + " [" + file + "]");
            }
        }
        Fields golden = manifest.inner("golden");
        checked(folder, golden.text("file"), golden.text("sha256"));
        Fields entry = manifest.inner("certificate");
        Path file = checked(folder, entry.text("file"), entry.text("sha256"));
        Fields certificate = object(file, MAX_CERTIFICATE_BYTES, "Certificate", planning.certificateVersions);
        if (entry.flag("passed") != certificate.flag("passed")) {
            throw new Problem("manifest and certificate disagree on the verdict" + AGAIN + " [" + folder + "]");
        }
        return new Bundle(folder, manifest, certificate);
    }

    /** The exported network's name. */
    public String name() {
        return manifest.text("name");
    }

    /** The runtimes that it has a file for, in the order of the manifest. */
    List<String> runtimes() {
        List<String> found = new ArrayList<>();
        for (Fields artifact : artifacts(manifest)) {
            found.add(artifact.text("runtime"));
        }
        return found;
    }

    /** The precisions of its files. */
    Set<String> precisions() {
        Set<String> found = new TreeSet<>();
        for (Fields artifact : artifacts(manifest)) {
            found.add(artifact.text("dtype"));
        }
        return found;
    }

    /** What the manifest says of the file for a runtime; null when there is none. */
    Fields artifact(String runtime) {
        for (Fields artifact : artifacts(manifest)) {
            if (artifact.text("runtime").equals(runtime)) {
                return artifact;
            }
        }
        return null;
    }

    /** The folder's name. */
    String folderName() {
        return folder.getFileName().toString();
    }

    private static List<Fields> artifacts(Fields manifest) {
        List<Fields> found = new ArrayList<>();
        Fields artifacts = manifest.inner("artifacts");
        for (String format : artifacts.names()) {
            Fields artifact = artifacts.inner(format);
            if (!artifact.text("format").equals(format)) {
                throw new Problem("artifact '" + format + "' says that its format is '" + artifact.text("format") + "'"
                        + AGAIN);
            }
            found.add(artifact);
        }
        return found;
    }

    private static Fields object(Path file, int maxBytes, String structure, List<Object> versions) {
        try {
            Map<String, Object> object =
                    JsonParser.parseObject(CheckedFiles.readBounded(file, maxBytes));
            Object version = object.get("schema_version");
            if (!versions.contains(version)) {
                throw new Problem("schema_version is " + version + ", this app reads " + versions);
            }
            Schema.ofBundles().check(structure, object);
            return new Fields(object);
        } catch (Problem problem) {
            throw new Problem("not a bundle's " + structure.toLowerCase(java.util.Locale.ROOT) + ": "
                    + problem.getMessage() + " [" + file + "]" + AGAIN, problem);
        }
    }

    private static Path checked(Path folder, String relative, String sha256) {
        Path file = CheckedFiles.inside(folder, relative);
        if (!CheckedFiles.sha256(file).equals(sha256)) {
            throw new Problem("file was changed: its SHA-256 is not the manifest's" + AGAIN + " [" + file + "]");
        }
        return file;
    }

    private static long size(Path file) {
        try {
            return Files.size(file);
        } catch (IOException error) {
            throw CheckedFiles.cannot("read", file, error);
        }
    }
}
