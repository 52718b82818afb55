package org.finetdeploy.core.protocol;

import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Collections;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonParser;

/** The visit that a runner is asked to do: a {@code VisitRequest} of {@code finet_deploy/bench/protocol.py}. */
public final class VisitRequest {
    private static final int MAX_BYTES = 1 << 20;
    private static final long MAX_RUNS = 10_000_000;
    private static final long MAX_THREADS = 1024;
    private static final double MAX_SECONDS = 1e7;

    /** Index of the visit in its job. */
    public final long visit;
    /** The file to run. */
    public final Path artifact;
    /** The golden file. */
    public final Path golden;
    /** {@code pte}, {@code onnx} or {@code ptl}. */
    public final String format;
    /** Hex SHA-256 that the file to run must have. */
    public final String sha256;
    /** Name of the golden input that is timed. */
    public final String timedInput;
    /** Golden inputs whose outputs are checked, in the order of the job. */
    public final List<String> checkedInputs;
    /** Threads that the runtime must use. */
    public final int threads;
    /** N, C, H, W of the network's input. */
    public final long[] inputShape;
    /** Rule of the warm-up. */
    public final Rule warmup;
    /** Rule of the timed runs. */
    public final Rule timed;

    private VisitRequest(Fields request) {
        Fields settings = request.inner("settings");
        Fields row = request.inner("row");
        visit = request.inner("visit").integer("index", 0, Long.MAX_VALUE);
        artifact = path(request, "artifact_path");
        golden = path(request, "golden_path");
        format = row.inner("artifact").text("format");
        sha256 = row.inner("artifact").text("sha256");
        timedInput = row.inner("golden").text("timed_input");
        checkedInputs = Collections.unmodifiableList(row.inner("golden").inner("output_limits").names());
        inputShape = row.integers("input_shape");
        threads = (int) row.integer("threads", 1, MAX_THREADS);
        warmup = rule(settings, "warmup");
        timed = rule(settings, "timed");
    }

    /** Problem for a file that is no request of schema version 1, or one with impossible values. */
    public static VisitRequest read(Path path, Schema schema) {
        byte[] data = CheckedFiles.readBounded(path, MAX_BYTES);
        try {
            return decode(data, schema);
        } catch (Problem problem) {
            throw new Problem("not a visit request: " + problem.getMessage() + " [" + path + "]", problem);
        }
    }

    /** The request in {@code data}, JSON in UTF-8; Problem as above. */
    public static VisitRequest decode(byte[] data, Schema schema) {
        Map<String, Object> object = JsonParser.parseObject(data);
        schema.check("VisitRequest", object);
        return new VisitRequest(new Fields(object));
    }

    private static Path path(Fields request, String name) {
        try {
            return Paths.get(request.text(name));
        } catch (java.nio.file.InvalidPathException error) {
            throw new Problem("field '" + name + "' is no path", error);
        }
    }

    private static Rule rule(Fields settings, String loop) {
        return new Rule(
                (int) settings.integer(loop + "_min_runs", 1, MAX_RUNS),
                settings.number(loop + "_min_seconds", MAX_SECONDS),
                settings.number(loop + "_max_seconds", MAX_SECONDS),
                (int) settings.integer("timed_max_runs", 1, MAX_RUNS));
    }
}
