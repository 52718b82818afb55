package org.finetdeploy.core;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;

/** The golden files that the Python tests use; Maven says where they are. */
public final class Resources {
    private Resources() {}

    /** A file of {@code tests/data}. */
    public static byte[] golden(String name) throws IOException {
        Path folder = Paths.get(System.getProperty("finet.golden"));
        return Files.readAllBytes(folder.resolve(name));
    }
}
