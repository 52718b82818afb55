package org.finetdeploy.core.plan;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Version;
import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Job;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;

/**
 * From bundles to a job: rows, the audit that they may be compared, and the order of the visits. The same job, byte
 * for byte, as {@code finet_deploy/bench/plan.py} makes of the same bundles.
 */
public final class Planner {
    private final Planning planning;
    private final List<String> supported;
    private final Map<String, Object> device;

    /**
     * @param supported the runtimes that this program has
     * @param device a {@code DeviceInfo}
     */
    public Planner(Planning planning, List<String> supported, Map<String, Object> device) {
        this.planning = planning;
        this.supported = supported;
        this.device = device;
    }

    /**
     * The job that measures these bundles, the first of them being the baseline of the ratios.
     *
     * @param threads that each runtime must use
     * @param mixedFusion whether fused and unfused networks may stand in one table
     * @param utc now, ISO 8601
     * @return JSON of a job; Problem for bundles that must not share a table, naming them
     */
    public byte[] job(List<Bundle> bundles, String preset, int threads, boolean mixedFusion, String utc) {
        if (bundles.isEmpty()) {
            throw new Problem("nothing to measure; choose at least one bundle");
        }
        long cpus = new Fields(device).integer("cpu_count", 1, Integer.MAX_VALUE);
        if (threads < 1 || threads > cpus) {
            throw new Problem(threads + " threads, but this phone has " + cpus + " CPUs");
        }
        checkNames(bundles);
        Map<String, Object> settings = planning.settings(preset);
        List<String> leftOut = new ArrayList<>();
        List<Object> rows = new ArrayList<>();
        List<List<String>> groups = new ArrayList<>();
        for (String runtime : runtimes(bundles, leftOut)) {
            List<String> ids = new ArrayList<>();
            for (PlannedRow row : group(bundles, runtime, threads, mixedFusion, new Fields(settings).flag("aa_row"))) {
                rows.add(row.json());
                ids.add(row.id());
            }
            groups.add(ids);
        }
        int rounds = (int) new Fields(settings).integer("rounds", 1, Integer.MAX_VALUE);
        Map<String, Object> job = new LinkedHashMap<>();
        job.put("schema_version", Records.SCHEMA_VERSION);
        job.put("tool_version", Version.TOOL);
        job.put("created_utc", utc);
        job.put("suite", null);
        job.put("mixed_fusion", mixedFusion);
        job.put("mixed_precision", false); // see audit
        job.put("device", device);
        job.put("runner", "app");
        job.put("left_out", leftOut);
        job.put("settings", settings);
        job.put("rows", rows);
        job.put("visits", Schedule.visits(groups, rounds));
        return checked(job);
    }

    private static byte[] checked(Map<String, Object> job) {
        byte[] json = JsonWriter.indented(job);
        Job.decode(json, Schema.load());
        byte[] lines = java.util.Arrays.copyOf(json, json.length + 1);
        lines[json.length] = '\n';
        return lines;
    }

    private static void checkNames(List<Bundle> bundles) {
        Set<String> kinds = new HashSet<>();
        for (Bundle bundle : bundles) {
            if (!kinds.add(bundle.manifest.flag("fused") + " " + bundle.precisions() + " " + bundle.name())) {
                throw new Problem("two bundles are called '" + bundle.name() + "'; measure them in separate runs");
            }
        }
    }

    /** The runtimes of the bundles that this program has; those that it lacks are added to {@code leftOut}. */
    private List<String> runtimes(List<Bundle> bundles, List<String> leftOut) {
        Set<String> known = new LinkedHashSet<>();
        for (Bundle bundle : bundles) {
            known.addAll(bundle.runtimes());
        }
        List<String> chosen = new ArrayList<>();
        for (String runtime : known) {
            (supported.contains(runtime) ? chosen : leftOut).add(runtime);
        }
        if (chosen.isEmpty()) {
            throw new Problem("no file for a runtime of this app in these bundles; it has "
                    + String.join(", ", supported));
        }
        for (String runtime : chosen) {
            for (Bundle bundle : bundles) {
                if (bundle.artifact(runtime) == null) {
                    throw new Problem("no file for runtime '" + runtime + "' in '" + bundle.name()
                            + "'; export that format too, or measure it in a run of its own");
                }
            }
        }
        return chosen;
    }

    private List<PlannedRow> group(List<Bundle> bundles, String runtime, int threads, boolean mixedFusion,
            boolean withSameFile) {
        List<PlannedRow> rows = new ArrayList<>();
        for (Bundle bundle : bundles) {
            int number = rows.size();
            rows.add(PlannedRow.of(
                    bundle, runtime, runtime + "/" + number, bundle.name(), number == 0, threads, planning));
        }
        audit(rows, mixedFusion);
        if (withSameFile) {
            rows.add(rows.get(0).sameFile());
        }
        if (mixedFusion) {
            rows.replaceAll(PlannedRow::withFusionInLabel);
        }
        return rows;
    }

    /** Rows of one table have the same input and precision, and are fused to the same degree. */
    private static void audit(List<PlannedRow> rows, boolean mixedFusion) {
        same(rows, "input shapes", PlannedRow::inputShape, "measure them in separate runs");
        same(rows, "precisions", PlannedRow::precision, "measure them in separate runs");
        if (!mixedFusion) {
            same(rows, "degrees of fusion", PlannedRow::fusion, "say that fusion is what is compared");
        }
    }

    private static void same(List<PlannedRow> rows, String what, Function<PlannedRow, String> key, String advice) {
        Map<String, List<String>> found = new LinkedHashMap<>();
        for (PlannedRow row : rows) {
            found.computeIfAbsent(key.apply(row), absent -> new ArrayList<>()).add(row.label());
        }
        if (found.size() > 1) {
            throw new Problem("rows of different " + what + " must not share a table: " + found + "; " + advice);
        }
    }
}
