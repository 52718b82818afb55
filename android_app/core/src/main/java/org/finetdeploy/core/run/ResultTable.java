package org.finetdeploy.core.run;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

import org.finetdeploy.core.protocol.Job;

/**
 * A first look at a run: images per second of each row, median over rounds. The table that counts, with intervals, is
 * made from the records by {@code finet-deploy report}.
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
            Double figure = imagesPerSecond(run.records(visit), job.usesMean());
            if (figure != null) {
                rounds.get(row).add(figure);
            } else if (!run.records(visit).isEmpty()) {
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

    /** Null for a visit without an end, or without samples. Outputs are judged by the report. */
    static Double imagesPerSecond(List<Map<String, Object>> records, boolean mean) {
        List<Double> latencies = new ArrayList<>();
        boolean ended = false;
        double total = 0;
        for (Map<String, Object> record : records) {
            ended |= "end".equals(record.get("type"));
            if ("samples".equals(record.get("type"))) {
                for (Object latency : (List<?>) record.get("latencies_ns")) {
                    latencies.add(((Number) latency).doubleValue());
                    total += ((Number) latency).doubleValue();
                }
            }
        }
        if (!ended || latencies.isEmpty() || total <= 0) {
            return null;
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
