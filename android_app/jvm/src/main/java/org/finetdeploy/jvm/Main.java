package org.finetdeploy.jvm;

import java.io.IOException;
import java.nio.file.Path;
import java.nio.file.Paths;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Version;
import org.finetdeploy.core.engine.Engines;
import org.finetdeploy.core.probes.ProcProbes;
import org.finetdeploy.core.protocol.RecordFile;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.protocol.Unwritable;
import org.finetdeploy.core.protocol.VisitRequest;
import org.finetdeploy.core.visit.Clock;
import org.finetdeploy.core.visit.Visit;
import org.finetdeploy.engines.OnnxRuntimeEngine;

/**
 * The app's own code on a JVM: one visit of a benchmark in one process. A stand-in for a phone, not a phone.
 *
 * <p>Exit status 0: the records end with {@code end}; 1: with {@code invalid}; 2: no request, or a wrong call; 3: the
 * records cannot be written.
 */
public final class Main {
    private static final String NAME = "finet-app-jvm";
    private static final String USAGE = "usage: " + NAME + " REQUEST.json RECORDS.jsonl [--outputs FILE] | --version";
    private static final String THREAD = "finet-visit";
    private static final int END = 0;
    private static final int INVALID = 1;
    private static final int NO_REQUEST = 2;
    private static final int NO_RECORDS = 3;

    private Path request;
    private Path records;
    private Path outputs;

    private Main() {}

    /** {@code REQUEST.json RECORDS.jsonl [--outputs FILE] | --version}. */
    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length == 1 && "--version".equals(arguments[0])) {
            System.out.println(runner());
            System.exit(END);
        }
        Main main = new Main();
        if (!main.takes(arguments)) {
            System.err.println(USAGE);
            System.exit(NO_REQUEST);
        }
        int[] status = {NO_REQUEST};
        Thread thread = new Thread(() -> status[0] = main.visit(), THREAD);
        thread.start();
        thread.join();
        System.err.flush();
        // Without the clean-up of a runtime that could still crash, or wait for a thread of its own.
        Runtime.getRuntime().halt(status[0]);
    }

    private boolean takes(String[] arguments) {
        int at = 0;
        while (at < arguments.length) {
            String argument = arguments[at++];
            if ("--outputs".equals(argument) && at < arguments.length && outputs == null) {
                outputs = Paths.get(arguments[at++]);
            } else if (argument.isEmpty() || argument.startsWith("--") || records != null) {
                return false;
            } else if (request == null) {
                request = Paths.get(argument);
            } else {
                records = Paths.get(argument);
            }
        }
        return records != null;
    }

    private int visit() {
        VisitRequest wanted;
        try {
            wanted = VisitRequest.read(request, Schema.load());
        } catch (Problem problem) {
            return say(problem, NO_REQUEST);
        }
        try (RecordFile file = new RecordFile(records.toAbsolutePath())) {
            Engines engines = new Engines(new OnnxRuntimeEngine());
            ProcProbes probes = new ProcProbes(Paths.get("/"));
            boolean ended = new Visit(wanted, engines, probes, runner(), Clock.SYSTEM, file).run(outputs);
            file.finish();
            return ended ? END : INVALID;
        } catch (Unwritable problem) {
            return say(problem, NO_RECORDS);
        } catch (IOException error) {
            return say(new Problem(Problem.firstLine(error)), NO_RECORDS);
        }
    }

    private static String runner() {
        return "finet-deploy " + Version.TOOL + " app on Java " + System.getProperty("java.version")
                + " (a stand-in, not a phone)";
    }

    private static int say(Problem problem, int status) {
        System.err.println(NAME + ": " + problem.getMessage());
        return status;
    }
}
