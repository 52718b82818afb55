package org.finetdeploy.core.run;

import static org.finetdeploy.core.files.CheckedFiles.inside;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Job;
import org.finetdeploy.core.protocol.RecordFile;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.visit.Clock;

/** Does the visits of a job that are still missing, one after another. */
public final class JobRun {
    private static final int POLL_MS = 100;
    /** While a visit runs: looking costs the phone a little, which the visit would measure. */
    private static final int WATCH_MS = 500;
    private static final int START_MS = 10_000;
    private static final int END_MS = 10_000;
    private static final int MAX_REFUSAL_BYTES = 64 << 10;

    private final RunFolder run;
    private final Path folder;
    private final BundleResolver resolver;
    private final VisitLauncher launcher;
    private final Path records;
    private volatile boolean stopped;

    /** Is told after each visit. */
    public interface Progress {
        /** @param done visits that have an end; {@code total} of them there are */
        void visitDone(int done, int total);
    }

    /** Where the bundles of a job are. */
    public interface BundleResolver {
        /** The folder of a bundle, whose path the job has relative to the run's folder; Problem for one outside. */
        Path resolve(String relative);
    }

    /** @param folder the run's folder; requests and a visit's own records lie there while it runs */
    public JobRun(RunFolder run, Path folder, BundleResolver resolver, VisitLauncher launcher) {
        this.run = run;
        this.folder = folder;
        this.resolver = resolver;
        this.launcher = launcher;
        records = folder.resolve("visit.jsonl");
    }

    /** Ends after the visit that is running. */
    public void stop() {
        stopped = true;
    }

    /**
     * All missing visits. A visit whose process dies or hangs is {@code invalid} and the next one follows; Problem for
     * what makes further visits pointless: another file than the job names, a visit that may not be started.
     */
    public void run(Progress progress) throws InterruptedException {
        List<Integer> missing = run.missing();
        if (missing.isEmpty()) {
            return;
        }
        checkFiles();
        run.resume(Clock.SYSTEM.utc());
        int total = run.job.visitCount();
        int done = total - missing.size();
        for (int visit : missing) {
            if (stopped) {
                break;
            }
            run.append(visit, visit(visit));
            progress.visitDone(++done, total);
        }
        clear();
    }

    /** Every file is still the one that the job names. */
    private void checkFiles() {
        Map<Path, String> checked = new HashMap<>();
        for (String row : run.job.rowIds()) {
            Path bundle = resolver.resolve(run.job.bundleOf(row));
            check(inside(bundle, run.job.artifactOf(row)), run.job.artifactSha256(row), checked);
            check(inside(bundle, run.job.goldenOf(row)), run.job.goldenSha256(row), checked);
        }
    }

    private static void check(Path file, String sha256, Map<Path, String> checked) {
        if (!checked.computeIfAbsent(file, CheckedFiles::sha256).equals(sha256)) {
            throw new Problem("the file is not the one that the job names; copy the bundle again, or plan a new run ["
                    + file + "]");
        }
    }

    private List<Map<String, Object>> visit(int visit) throws InterruptedException {
        awaitLastProcess();
        Path request = folder.resolve("visit.json");
        try {
            clear();
            Job job = run.job;
            String row = job.rowOf(visit);
            Path bundle = resolver.resolve(job.bundleOf(row));
            String artifact = inside(bundle, job.artifactOf(row)).toString();
            String golden = inside(bundle, job.goldenOf(row)).toString();
            Files.write(request, JsonWriter.compact(job.request(visit, artifact, golden)));
        } catch (IOException error) {
            throw CheckedFiles.cannot("write", request, error);
        }
        launcher.start(request, records);
        return await(visit);
    }

    /** What an earlier visit left behind must not be taken for this one's. */
    private void clear() {
        try {
            for (String suffix : new String[] {"", RecordFile.UNFINISHED, RecordFile.REFUSED}) {
                Files.deleteIfExists(records.resolveSibling(records.getFileName() + suffix));
            }
            Files.deleteIfExists(folder.resolve("visit.json"));
        } catch (IOException error) {
            throw CheckedFiles.cannot("write", folder, error);
        }
    }

    /** The process of the visit before ends right after its records got their name; else it would get this request. */
    private void awaitLastProcess() throws InterruptedException {
        for (int waited = 0; launcher.running(); waited += POLL_MS) {
            if (waited >= START_MS + END_MS) {
                throw new Problem("the process of the visit before does not end; restart the phone");
            }
            if (waited >= START_MS) {
                launcher.end();
            }
            Thread.sleep(POLL_MS);
        }
    }

    private List<Map<String, Object>> await(int visit) throws InterruptedException {
        long begin = System.nanoTime();
        double limitSeconds = run.job.visitTimeoutSeconds();
        boolean seen = false;
        while (!Files.exists(records)) {
            double seconds = (System.nanoTime() - begin) / 1e9;
            boolean running = launcher.running();
            seen |= running;
            if (seconds > limitSeconds) {
                launcher.end();
                return failed(visit, "no result within " + limitSeconds + " s");
            }
            // It ends right after the records got their name: look once more.
            if (!running && (seen || seconds * 1000 > START_MS || refusal() != null) && !Files.exists(records)) {
                return failed(visit, ending(seen));
            }
            Thread.sleep(seen ? WATCH_MS : POLL_MS);
        }
        try {
            return run.read(records);
        } catch (Problem problem) {
            return failed(visit, problem.getMessage());
        }
    }

    private String ending(boolean seen) {
        String refusal = refusal();
        if (refusal != null) {
            return refusal;
        }
        return seen ? "the visit's process died" : "the visit's process did not start";
    }

    /** Why the visit's process did not take the request, in its own words; null when it says nothing. */
    private String refusal() {
        Path file = records.resolveSibling(records.getFileName() + RecordFile.REFUSED);
        if (!Files.exists(file)) {
            return null;
        }
        byte[] text = CheckedFiles.readBounded(file, MAX_REFUSAL_BYTES);
        return new String(text, StandardCharsets.UTF_8);
    }

    /** What the visit had reached, and why it went no further. */
    private List<Map<String, Object>> failed(int visit, String reason) {
        List<Map<String, Object>> reached = Collections.emptyList();
        Path unfinished = records.resolveSibling(records.getFileName() + RecordFile.UNFINISHED);
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
