package org.finetdeploy.core.protocol;

import java.io.IOException;
import java.nio.file.Path;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;

/** Records cannot be written: no {@code invalid} record can tell of it. */
public final class Unwritable extends Problem {
    private static final long serialVersionUID = 1L;

    public Unwritable(Path path, IOException error) {
        super(CheckedFiles.cannot("write", path, error).getMessage(), error);
    }
}
