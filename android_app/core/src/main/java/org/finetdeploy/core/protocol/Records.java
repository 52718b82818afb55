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

    /** All whole lines of a record file; a last line that was cut off is left out, as a kill leaves it. */
    public static List<Map<String, Object>> decodeLines(byte[] data, Schema schema) {
        List<Map<String, Object>> records = new ArrayList<>();
        int start = 0;
        for (int at = 0; at < data.length; at++) {
            if (data[at] == '\n') {
                records.add(decode(Arrays.copyOfRange(data, start, at), schema));
                start = at + 1;
            }
        }
        return records;
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
