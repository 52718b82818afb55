package org.finetdeploy.core.run;

import java.nio.file.Path;

/** Starts a visit in a process of its own. */
public interface VisitLauncher {
    /** Starts it; the records appear at {@code records} when they are complete. Throws Problem. */
    void start(Path request, Path records);

    /** Whether the process of the visit is there. It may not be yet, right after {@link #start}. */
    boolean running();

    /** Ends the process of the visit, if there is one. */
    void end();
}
