package org.finetdeploy.core.files;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Files that are packed into this program. */
public final class Resource {
    private Resource() {}

    /** The file {@code name} that lies beside {@code owner}. */
    public static byte[] read(Class<?> owner, String name) {
        try (InputStream stream = owner.getResourceAsStream(name)) {
            if (stream == null) {
                throw new IllegalStateException(name + " is not in this program");
            }
            ByteArrayOutputStream data = new ByteArrayOutputStream();
            byte[] block = new byte[8192];
            for (int got = stream.read(block); got >= 0; got = stream.read(block)) {
                data.write(block, 0, got);
            }
            return data.toByteArray();
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
