package org.finetdeploy.core.run;

import java.nio.file.Path;

/** Starts a visit in a process of its own. */
public interface VisitLauncher {
    /**
     * Starts it. The records appear at {@code records} when they are complete; a line at that name and
     * {@code RecordFile.REFUSED} when the request is not taken. Problem when no visit can be started now.
     */
    void start(Path request, Path records);

    /** Whether the process of the visit is there. It may not be yet, right after {@link #start}. */
    boolean running();

    /** Ends the process of the visit, if there is one. */
    void end();
}
