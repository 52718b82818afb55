package org.finetdeploy.core.protocol;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonParser;

/** A whole benchmark, {@code job.json}: its rows, and the visits to them in order. */
public final class Job {
    private final Map<String, Object> object;
    private final Map<String, Fields> rows = new HashMap<>();
    private final List<Fields> visits;

    private Job(Map<String, Object> object) {
        this.object = object;
        Fields job = new Fields(object);
        List<Fields> listed = job.list("rows");
        for (Fields row : listed) {
            rows.put(row.text("id"), row);
        }
        visits = job.list("visits");
        boolean matching = rows.size() == listed.size();
        for (int index = 0; index < visits.size(); index++) {
            matching &= rows.containsKey(visits.get(index).text("row"));
            if (visits.get(index).integer("index", 0, Long.MAX_VALUE) != index) {
                throw new Problem("not a job: visits are not numbered 0, 1, ...");
            }
        }
        if (!matching) {
            throw new Problem("not a job: visits and rows do not match");
        }
    }

    /** The job in {@code data}, JSON in UTF-8; Problem when it is none of schema version 1, or contradicts itself. */
    public static Job decode(byte[] data, Schema schema) {
        try {
            Map<String, Object> object = JsonParser.parseObject(data);
            schema.check("Job", object);
            return new Job(object);
        } catch (Problem problem) {
            String message = problem.getMessage();
            throw message.startsWith("not a job") ? problem : new Problem("not a job: " + message, problem);
        }
    }

    /** Number of visits. */
    public int visitCount() {
        return visits.size();
    }

    /** The id of the row that visit {@code index} measures. */
    public String rowOf(int index) {
        return visits.get(index).text("row");
    }

    /** Path of the row's bundle, relative to the job's folder. */
    public String bundleOf(String row) {
        return rows.get(row).text("bundle");
    }

    /** Path of the row's file inside its bundle. */
    public String artifactOf(String row) {
        return rows.get(row).inner("artifact").text("file");
    }

    /** Hex SHA-256 of the row's file. */
    public String artifactSha256(String row) {
        return rows.get(row).inner("artifact").text("sha256");
    }

    /** Hex SHA-256 of the row's golden file. */
    public String goldenSha256(String row) {
        return rows.get(row).inner("golden").text("sha256");
    }

    /** All fields of a row. */
    public Fields row(String row) {
        return rows.get(row);
    }

    /** Path of the row's golden file inside its bundle. */
    public String goldenOf(String row) {
        return rows.get(row).inner("golden").text("file");
    }

    /** Visit {@code index} as a request, JSON of {@code VisitRequest}, with the paths as a runner here sees them. */
    public Map<String, Object> request(int index, String artifactPath, String goldenPath) {
        Map<String, Object> request = new LinkedHashMap<>();
        request.put("schema_version", Records.SCHEMA_VERSION);
        request.put("settings", object.get("settings"));
        request.put("visit", visits.get(index).map());
        request.put("row", rows.get(rowOf(index)).map());
        request.put("artifact_path", artifactPath);
        request.put("golden_path", goldenPath);
        return request;
    }

    /** The whole job as JSON values, in the order of the file. */
    public Map<String, Object> json() {
        return object;
    }

    /** Ids of the rows, in the order of the table. */
    public List<String> rowIds() {
        List<String> ids = new ArrayList<>();
        for (Fields row : new Fields(object).list("rows")) {
            ids.add(row.text("id"));
        }
        return ids;
    }

    /** The row's name in tables. */
    public String labelOf(String row) {
        return rows.get(row).text("label");
    }

    /** After this many seconds a visit is ended. */
    public double visitTimeoutSeconds() {
        return new Fields(object).inner("settings").number("visit_timeout_seconds", Double.MAX_VALUE);
    }

    /** Whether throughput is runs over total time, instead of one over the median latency. */
    public boolean usesMean() {
        return "mean".equals(new Fields(object).inner("settings").text("statistic"));
    }
}
