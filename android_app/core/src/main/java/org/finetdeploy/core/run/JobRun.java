package org.finetdeploy.core.run;

import static org.finetdeploy.core.files.Files.inside;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Job;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.visit.Clock;

/** Does the visits of a job that are still missing, one after another. */
public final class JobRun {
    private static final int POLL_MS = 100;
    private static final int START_MS = 10_000;

    private final RunFolder run;
    private final Path folder;
    private final VisitLauncher launcher;
    private volatile boolean stopped;

    /** Is told after each visit. */
    public interface Progress {
        /** @param done visits that have an end; {@code total} of them there are */
        void visitDone(int done, int total);
    }

    /** @param folder the run's folder; requests and a visit's own records lie there while it runs */
    public JobRun(RunFolder run, Path folder, VisitLauncher launcher) {
        this.run = run;
        this.folder = folder;
        this.launcher = launcher;
    }

    /** Ends after the visit that is running. */
    public void stop() {
        stopped = true;
    }

    /**
     * All missing visits. A visit whose process dies or hangs is {@code invalid} and the next one follows.
     *
     * @param resolver where a bundle of the job is; throws Problem for one that is absent or outside
     */
    public void run(BundleResolver resolver, Progress progress) throws InterruptedException {
        run.resume(Clock.SYSTEM.utc());
        List<Integer> missing = run.missing();
        int total = run.job.visitCount();
        int done = total - missing.size();
        for (int visit : missing) {
            if (stopped) {
                return;
            }
            run.append(visit, visit(visit, resolver));
            progress.visitDone(++done, total);
        }
    }

    /** Where the bundles of a job are. */
    public interface BundleResolver {
        /** The folder of a bundle, whose path the job has relative to the run's folder. */
        Path resolve(String relative);
    }

    private List<Map<String, Object>> visit(int visit, BundleResolver resolver) throws InterruptedException {
        Path records = folder.resolve("visit.jsonl");
        try {
            endLastProcess();
            Files.deleteIfExists(records);
            Files.deleteIfExists(folder.resolve("visit.jsonl.unfinished"));
            Job job = run.job;
            Path bundle = resolver.resolve(job.bundleOf(job.rowOf(visit)));
            Path artifact = inside(bundle, job.artifactOf(job.rowOf(visit)));
            Path golden = inside(bundle, job.goldenOf(job.rowOf(visit)));
            Path request = folder.resolve("visit.json");
            Files.write(request, JsonWriter.compact(job.request(visit, artifact.toString(), golden.toString())));
            launcher.start(request, records);
        } catch (IOException error) {
            return failed(visit, Problem.firstLine(error), records);
        } catch (Problem problem) {
            return failed(visit, problem.getMessage(), records);
        }
        return await(visit, records);
    }

    /** The process of the visit before ends right after its records got their name; else it would get this request. */
    private void endLastProcess() throws InterruptedException {
        for (int waited = 0; launcher.running(); waited += POLL_MS) {
            if (waited >= START_MS) {
                launcher.end();
                return;
            }
            Thread.sleep(POLL_MS);
        }
    }

    private List<Map<String, Object>> await(int visit, Path records) throws InterruptedException {
        long begin = System.nanoTime();
        double limitSeconds = run.job.visitTimeoutSeconds();
        boolean seen = false;
        while (!Files.exists(records)) {
            double seconds = (System.nanoTime() - begin) / 1e9;
            boolean running = launcher.running();
            seen |= running;
            if (seconds > limitSeconds) {
                launcher.end();
                return failed(visit, "no result within " + limitSeconds + " s", records);
            }
            // It ends right after the records got their name: look once more.
            if (!running && (seen || seconds * 1000 > START_MS) && !Files.exists(records)) {
                return failed(visit, seen ? "the visit's process died" : "the visit's process did not start", records);
            }
            Thread.sleep(POLL_MS);
        }
        try {
            return run.read(records);
        } catch (Problem problem) {
            return failed(visit, problem.getMessage(), records);
        }
    }

    /** What the visit had reached, and why it went no further. */
    private List<Map<String, Object>> failed(int visit, String reason, Path records) {
        List<Map<String, Object>> reached = Collections.emptyList();
        Path unfinished = records.resolveSibling(records.getFileName() + ".unfinished");
        if (Files.exists(unfinished)) {
            try {
                reached = run.read(unfinished);
            } catch (Problem damaged) {
                reached = Collections.emptyList();
            }
        }
        List<Map<String, Object>> all = new ArrayList<>(reached);
        all.add(Records.invalid(visit, reason, Phases.after(reached)));
        return all;
    }
}
