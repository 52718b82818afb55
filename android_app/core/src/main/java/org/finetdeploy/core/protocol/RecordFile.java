package org.finetdeploy.core.protocol;

import java.io.Closeable;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Map;

import org.finetdeploy.core.files.CheckedFiles;

/**
 * The records of one visit: lines under a temporary name, each with the system when {@link #write} returns, so that
 * what was reached is still told when the process dies in the next phase; renamed when the last one is written.
 */
public final class RecordFile implements RecordSink, Closeable {
    /** Added to the name of the records until they are complete. */
    public static final String UNFINISHED = ".unfinished";
    /** Added to the name of records that will not come: a file with one line that tells why. */
    public static final String REFUSED = ".refused";

    private final Path path;
    private final Path unfinished;
    private final FileOutputStream stream;

    /** Unwritable when the file cannot be made. */
    public RecordFile(Path path) {
        this.path = path;
        unfinished = path.resolveSibling(path.getFileName() + UNFINISHED);
        try {
            stream = new FileOutputStream(unfinished.toFile());
        } catch (IOException error) {
            throw new Unwritable(unfinished, error);
        }
    }

    @Override
    public void write(Map<String, Object> record) {
        try {
            stream.write(Records.line(record));
        } catch (IOException error) {
            throw new Unwritable(unfinished, error);
        }
    }

    /** The last record was written: the file gets its name. */
    public void finish() {
        try {
            stream.close();
            CheckedFiles.rename(unfinished, path);
        } catch (IOException error) {
            throw new Unwritable(path, error);
        }
    }

    @Override
    public void close() throws IOException {
        stream.close();
    }
}
