package org.finetdeploy.core.protocol;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;

/** Run records: JSON objects with a {@code type}, one a line. */
public final class Records {
    /** Version of the protocol, in every record. */
    public static final long SCHEMA_VERSION = 1;

    private static final int MAX_REASON = 2000;

    private Records() {}

    /** A record of a visit; the values of its fields follow, name by name. */
    public static Map<String, Object> of(String type, long visit, Object... fields) {
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("type", type);
        record.put("schema_version", SCHEMA_VERSION);
        record.put("visit", visit);
        for (int i = 0; i < fields.length; i += 2) {
            record.put((String) fields[i], fields[i + 1]);
        }
        return record;
    }

    /** The record of a visit that failed in {@code phase}; the reason is put on one line of bounded length. */
    public static Map<String, Object> invalid(long visit, String reason, String phase) {
        String line = reason.trim().replaceAll("\\s+", " ");
        return of("invalid", visit,
                "reason", line.length() > MAX_REASON ? line.substring(0, MAX_REASON) : line,
                "phase", phase,
                "exit_status", null,
                "signal", null,
                "stderr_tail", "");
    }

    /** One line of {@code records.jsonl}, with its newline. */
    public static byte[] line(Map<String, Object> record) {
        byte[] json = JsonWriter.compact(record);
        byte[] line = Arrays.copyOf(json, json.length + 1);
        line[json.length] = '\n';
        return line;
    }

    /** The record in one line; Problem when the line is none of the protocol's. */
    public static Map<String, Object> decode(byte[] line, Schema schema) {
        Map<String, Object> record = JsonParser.parseObject(line);
        Object type = record.get("type");
        String name = type instanceof String ? structure((String) type) : null;
        if (name == null) {
            throw new Problem("not a run record: its type is " + type);
        }
        schema.check(name, record);
        return record;
    }

    /**
     * All whole lines of a record file. A last line that was cut off is left out, as a kill leaves it; one in the
     * middle as well, where the {@code resumed} record after it vouches for that.
     */
    public static List<Map<String, Object>> decodeLines(byte[] data, Schema schema) {
        List<Map<String, Object>> records = new ArrayList<>();
        Problem doubt = null;
        int doubtful = 0;
        int start = 0;
        for (int at = 0; at < data.length; at++) {
            if (data[at] != '\n') {
                continue;
            }
            int length = at - start;
            try {
                Map<String, Object> record = decode(Arrays.copyOfRange(data, start, at), schema);
                if (doubt != null && !Long.valueOf(doubtful).equals(record.get("discarded_bytes"))) {
                    throw doubt;
                }
                doubt = null;
                records.add(record);
            } catch (Problem problem) {
                if (doubt != null) {
                    throw doubt;
                }
                doubt = problem;
                doubtful = length;
            }
            start = at + 1;
        }
        if (doubt != null) {
            throw doubt;
        }
        return records;
    }

    /** The bytes of an unfinished last line. */
    public static int tailBytes(byte[] data) {
        int length = 0;
        while (length < data.length && data[data.length - 1 - length] != '\n') {
            length++;
        }
        return length;
    }

    /** From here on the job was continued by another process. */
    public static Map<String, Object> resumed(String utc, int visitsDone, int discardedBytes) {
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("type", "resumed");
        record.put("schema_version", SCHEMA_VERSION);
        record.put("resumed_utc", utc);
        record.put("visits_done", visitsDone);
        record.put("discarded_bytes", discardedBytes);
        return record;
    }

    /** {@code start} is a {@code Start} in the schema. */
    private static String structure(String type) {
        switch (type) {
            case "start":
            case "load":
            case "first":
            case "warmup":
            case "samples":
            case "end":
            case "invalid":
            case "resumed":
                return Character.toUpperCase(type.charAt(0)) + type.substring(1);
            default:
                return null;
        }
    }
}
