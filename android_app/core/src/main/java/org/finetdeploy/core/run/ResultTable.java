package org.finetdeploy.core.run;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

import org.finetdeploy.core.protocol.Job;

/**
 * A first look at a run: images per second of each row, median over the rounds that count. The table with intervals,
 * ratios and notes is made from the records by {@code finet-deploy report}.
 */
public final class ResultTable {
    private ResultTable() {}

    /** Row's id and its figure, in the order of the job; {@code -} while there is none. */
    public static Map<String, String> of(RunFolder run) {
        Map<String, List<Double>> rounds = new LinkedHashMap<>();
        Map<String, Integer> invalid = new LinkedHashMap<>();
        Job job = run.job;
        for (String row : job.rowIds()) {
            rounds.put(row, new ArrayList<Double>());
            invalid.put(row, 0);
        }
        for (int visit = 0; visit < job.visitCount(); visit++) {
            String row = job.rowOf(visit);
            List<Map<String, Object>> records = run.records(visit);
            if (records.isEmpty()) {
                continue;
            }
            if (VisitProblem.of(records, job.row(row)) == null) {
                rounds.get(row).add(imagesPerSecond(records, job.usesMean()));
            } else {
                invalid.put(row, invalid.get(row) + 1);
            }
        }
        Map<String, String> table = new LinkedHashMap<>();
        for (String row : job.rowIds()) {
            table.put(row, text(rounds.get(row), invalid.get(row)));
        }
        return table;
    }

    private static String text(List<Double> figures, int invalid) {
        String text = figures.isEmpty() ? "-" : String.format(Locale.ROOT, "%.1f images/s", median(figures));
        return invalid == 0 ? text : text + " (" + invalid + " invalid)";
    }

    /** Of a visit that counts: it has samples, none of them 0. */
    static double imagesPerSecond(List<Map<String, Object>> records, boolean mean) {
        List<Double> latencies = new ArrayList<>();
        double total = 0;
        for (Map<String, Object> record : records) {
            if ("samples".equals(record.get("type"))) {
                for (Object latency : (List<?>) record.get("latencies_ns")) {
                    latencies.add(((Number) latency).doubleValue());
                    total += ((Number) latency).doubleValue();
                }
            }
        }
        return mean ? latencies.size() * 1e9 / total : 1e9 / median(latencies);
    }

    private static double median(List<Double> values) {
        List<Double> sorted = new ArrayList<>(values);
        Collections.sort(sorted);
        int middle = sorted.size() / 2;
        return sorted.size() % 2 == 1
                ? sorted.get(middle)
                : (sorted.get(middle - 1) + sorted.get(middle)) / 2;
    }
}
