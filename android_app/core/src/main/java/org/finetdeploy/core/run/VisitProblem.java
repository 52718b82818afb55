package org.finetdeploy.core.run;

import java.util.List;
import java.util.Locale;
import java.util.Map;

import org.finetdeploy.core.json.Fields;

/** Whether a visit counts, derived from its records as {@code finet_deploy/bench/validity.py} does. */
final class VisitProblem {
    private VisitProblem() {}

    /** Why the visit must not count, in one line; null when it does. */
    static String of(List<Map<String, Object>> records, Fields row) {
        Fields invalid = find(records, "invalid");
        if (invalid != null) {
            return invalid.text("reason") + " (in phase " + invalid.text("phase") + ")";
        }
        Fields start = find(records, "start");
        Fields load = find(records, "load");
        Fields end = find(records, "end");
        if (start == null || load == null || end == null || find(records, "first") == null
                || find(records, "warmup") == null) {
            return "the records are incomplete";
        }
        Fields artifact = row.inner("artifact");
        if (!start.text("artifact_sha256").equals(artifact.text("sha256"))) {
            return "another file was run than the job names (SHA-256 differs)";
        }
        if (!load.text("runtime").equals(artifact.text("runtime"))) {
            return "run by " + load.text("runtime") + " instead of " + artifact.text("runtime");
        }
        if (!load.map().get("threads").equals(row.map().get("threads"))) {
            return "asked for " + row.map().get("threads") + " threads, the runtime reports "
                    + load.map().get("threads");
        }
        return samples(records, end, row);
    }

    private static String samples(List<Map<String, Object>> records, Fields end, Fields row) {
        long count = 0;
        boolean zero = false;
        for (Map<String, Object> record : records) {
            if ("samples".equals(record.get("type"))) {
                List<Object> latencies = new Fields(record).items("latencies_ns");
                count += latencies.size();
                zero |= latencies.contains(0L);
            }
        }
        if (count == 0 || zero || !Long.valueOf(count).equals(end.map().get("runs"))) {
            return count + " usable samples, " + end.map().get("runs") + " runs reported";
        }
        return outputs(end.inner("output_errors"), row.inner("golden").inner("output_limits"));
    }

    private static String outputs(Fields errors, Fields limits) {
        for (String name : limits.names()) {
            double limit = ((Number) limits.map().get(name)).doubleValue();
            Object error = errors.map().get(name);
            if (error == null || !(((Number) error).doubleValue() <= limit)) {
                String shown = error == null ? "not a number" : text(((Number) error).doubleValue());
                return "wrong output on '" + name + "': norm-relative error " + shown + ", limit " + text(limit);
            }
        }
        return null;
    }

    private static String text(double value) {
        return String.format(Locale.ROOT, "%.1e", value);
    }

    private static Fields find(List<Map<String, Object>> records, String type) {
        for (Map<String, Object> record : records) {
            if (type.equals(record.get("type"))) {
                return new Fields(record);
            }
        }
        return null;
    }
}
