package org.finetdeploy.core.visit;

import java.nio.file.Path;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Engine;
import org.finetdeploy.core.engine.Engines;
import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.golden.GoldenFile;
import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.probes.DeviceProbes;
import org.finetdeploy.core.protocol.RecordSink;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Unwritable;
import org.finetdeploy.core.protocol.VisitRequest;

/** One visit, phase by phase, as {@code finet_deploy/devices/worker.py} and the native runner do it. */
public final class Visit {
    private static final int BATCH = 1000;

    private final VisitRequest request;
    private final Engines engines;
    private final DeviceProbes probes;
    private final String runner;
    private final Clock clock;
    private final RecordSink records;
    private String phase = "start";

    /**
     * @param runner program and version, for the {@code start} record
     * @param records takes each record as soon as its phase is over
     */
    public Visit(VisitRequest request, Engines engines, DeviceProbes probes, String runner, Clock clock,
            RecordSink records) {
        this.request = request;
        this.engines = engines;
        this.probes = probes;
        this.runner = runner;
        this.clock = clock;
        this.records = records;
    }

    /**
     * Does the visit. Whatever fails in it is its result: an {@code invalid} record.
     *
     * @param outputs where to write the outputs of all golden inputs; null: nowhere
     * @return whether the records end with {@code end}
     * @throws Unwritable when the records cannot be written
     */
    public boolean run(Path outputs) {
        String reason;
        try {
            phases(outputs);
            return true;
        } catch (Unwritable problem) {
            throw problem;
        } catch (Problem problem) {
            reason = problem.getMessage();
        } catch (OutOfMemoryError error) {
            reason = "out of memory";
        } catch (RuntimeException | LinkageError error) { // what a runtime throws is the visit's result
            reason = error.getClass().getSimpleName() + ": " + error.getMessage();
        }
        records.write(Records.invalid(request.visit, reason, phase));
        return false;
    }

    private void phases(Path outputs) {
        String sha256 = CheckedFiles.sha256(request.artifact);
        write("start",
                "started_utc", clock.utc(),
                "pid", probes.pid(),
                "runner", runner,
                "affinity_cpus", probes.affinityCpus(),
                "artifact_sha256", sha256,
                "state", probes.state());
        phase = "load";
        if (!sha256.equals(request.sha256)) { // before a runtime sees it: a damaged file can crash one
            throw new Problem("another file than the job names (SHA-256 differs) [" + request.artifact
                    + "]; copy the bundle again");
        }
        try (GoldenFile golden = new GoldenFile(request.golden)) {
            Input timed = golden.input(request.timedInput);
            Session session = load();
            System.gc(); // what reading left behind is not to be collected in the middle of somebody's latency
            phase = "first";
            OutputCheck check = new OutputCheck(session, golden, request.inputShape);
            check.bind(timed);
            first(session);
            phase = "warmup";
            Samples warmup = TimingLoop.run(request.warmup, session, clock).samples;
            write("warmup", "runs", warmup.count(), "total_ms", warmup.totalMs());
            phase = "timing";
            TimingLoop timing = TimingLoop.run(request.timed, session, clock);
            samples(timing.samples);
            phase = "check";
            Map<String, Object> errors = check.errors(request.checkedInputs);
            if (outputs != null) {
                check.write(outputs);
            }
            end(timing, errors);
        }
    }

    private Session load() {
        long before = clock.nanoseconds();
        Engine engine = engines.find(request.format);
        engine.load();
        long imported = clock.nanoseconds();
        Session session = engine.open(request.artifact, request.threads);
        long opened = clock.nanoseconds();
        write("load",
                "runtime", engine.runtime(),
                "runtime_version", session.version(),
                "threads", session.threads(),
                "import_ms", (imported - before) / 1e6,
                "load_ms", (opened - imported) / 1e6);
        return session;
    }

    private void first(Session session) {
        long before = clock.nanoseconds();
        session.call();
        write("first", "first_ms", (clock.nanoseconds() - before) / 1e6);
    }

    private void samples(Samples samples) {
        for (int from = 0; from < samples.count(); from += BATCH) {
            write("samples", "latencies_ns", samples.range(from, from + BATCH));
        }
    }

    private void end(TimingLoop timing, Map<String, Object> errors) {
        write("end",
                "ended_utc", clock.utc(),
                "runs", timing.samples.count(),
                "total_ms", timing.samples.totalMs(),
                "stopped_by", timing.stoppedBy,
                "peak_rss_mib", probes.peakRssMib(),
                "os_threads", probes.osThreads(),
                "output_errors", errors,
                "state", probes.state());
    }

    private void write(String type, Object... fields) {
        records.write(Records.of(type, request.visit, fields));
    }
}
