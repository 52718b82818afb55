package org.finetdeploy.engines;

import java.nio.file.Paths;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.probes.ProcFiles;

/**
 * How many threads a runtime really started. Native threads inherit the name of the thread that makes them, while
 * those of the virtual machine (compiler, collector, binder) have names of their own: only the former are counted.
 */
final class KernelThreads {
    private static final ProcFiles FILES = new ProcFiles(Paths.get("/"));

    private final int before;

    private KernelThreads(int before) {
        this.before = before;
    }

    /** To be called before the runtime starts its threads. */
    static KernelThreads count() {
        return new KernelThreads(now());
    }

    /** The calling thread and those started since; {@code wanted} where the kernel does not say. */
    int used(int wanted) {
        int after = now();
        return before > 0 && after > 0 ? 1 + after - before : wanted;
    }

    private static int now() {
        int found = 0;
        try {
            String name = FILES.text("proc/thread-self/comm");
            for (String task : FILES.list("proc/self/task", "[0-9]*")) {
                found += name.equals(nameOf(task)) ? 1 : 0;
            }
        } catch (Problem unreadable) {
            return 0;
        }
        return found;
    }

    private static String nameOf(String task) {
        try {
            return FILES.text(task + "/comm");
        } catch (Problem ended) {
            return "";
        }
    }
}
