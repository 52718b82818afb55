package org.finetdeploy.core.protocol;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.JsonParser;

/**
 * The protocol's JSON Schema, which the Python side derives from {@code finet_deploy/bench/protocol.py}, and a check
 * of values against it. Only the keywords that the schema uses are known; any other one is refused on loading, so
 * that no rule can be overlooked.
 */
public final class Schema {
    private static final String RESOURCE = "protocol.schema.json";
    private static final List<String> RULES = java.util.Arrays.asList(
            "$ref", "anyOf", "enum", "type", "properties", "required", "additionalProperties", "minProperties",
            "items", "minItems", "minimum", "pattern", "title", "description", "default");

    private final Map<String, Object> definitions;

    private Schema(Map<String, Object> definitions) {
        this.definitions = definitions;
        for (Object rule : definitions.values()) {
            checkRules(rule);
        }
    }

    /** The schema that is packed beside this class. */
    public static Schema load() {
        try (InputStream stream = Schema.class.getResourceAsStream(RESOURCE)) {
            if (stream == null) {
                throw new IllegalStateException(RESOURCE + " is not in this program");
            }
            ByteArrayOutputStream data = new ByteArrayOutputStream();
            byte[] block = new byte[8192];
            for (int got = stream.read(block); got >= 0; got = stream.read(block)) {
                data.write(block, 0, got);
            }
            return new Schema(object(JsonParser.parseObject(data.toByteArray()).get("$defs")));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Problem, naming the field, when {@code value} is no {@code name}: {@code VisitRequest}, {@code Start}, ... */
    public void check(String name, Object value) {
        Object rule = definitions.get(name);
        if (rule == null) {
            throw new IllegalArgumentException("the protocol has no " + name);
        }
        check(object(rule), value, name);
    }

    /** Names of the fields of a structure, in the order in which they are written. */
    public Iterable<String> fields(String name) {
        return object(object(definitions.get(name)).get("properties")).keySet();
    }

    private void check(Map<String, Object> rule, Object value, String where) {
        if (rule.containsKey("$ref")) {
            String target = (String) rule.get("$ref");
            check(object(definitions.get(target.substring(target.lastIndexOf('/') + 1))), value, where);
            return;
        }
        if (rule.containsKey("anyOf")) {
            checkAny((List<?>) rule.get("anyOf"), value, where);
            return;
        }
        if (rule.containsKey("enum") && !((List<?>) rule.get("enum")).contains(value)) {
            throw new Problem("field '" + where + "' is none of " + rule.get("enum"));
        }
        if (rule.containsKey("type")) {
            checkType((String) rule.get("type"), rule, value, where);
        }
    }

    private void checkAny(List<?> rules, Object value, String where) {
        Problem last = null;
        for (Object rule : rules) {
            try {
                check(object(rule), value, where);
                return;
            } catch (Problem problem) {
                last = last == null ? problem : last;
            }
        }
        throw last;
    }

    private void checkType(String type, Map<String, Object> rule, Object value, String where) {
        boolean good;
        switch (type) {
            case "object":
                good = value instanceof Map;
                break;
            case "array":
                good = value instanceof List;
                break;
            case "string":
                good = value instanceof String;
                break;
            case "integer":
                good = value instanceof Long || value instanceof BigInteger;
                break;
            case "number":
                good = value instanceof Number;
                break;
            case "boolean":
                good = value instanceof Boolean;
                break;
            default:
                good = value == null;
        }
        if (!good) {
            throw new Problem("field '" + where + "' is not of type " + type);
        }
        if (value instanceof Map) {
            checkObject(rule, object(value), where);
        } else if (value instanceof List) {
            checkArray(rule, (List<?>) value, where);
        } else {
            checkRange(rule, value, where);
        }
    }

    private void checkObject(Map<String, Object> rule, Map<String, Object> value, String where) {
        Map<String, Object> fields = rule.containsKey("properties") ? object(rule.get("properties")) : null;
        Object others = rule.get("additionalProperties");
        for (Map.Entry<String, Object> entry : value.entrySet()) {
            if (fields != null && fields.containsKey(entry.getKey())) {
                check(object(fields.get(entry.getKey())), entry.getValue(), entry.getKey());
            } else if (others instanceof Map) {
                check(object(others), entry.getValue(), where + "." + entry.getKey());
            } else {
                throw new Problem("unknown field '" + entry.getKey() + "' in '" + where + "'");
            }
        }
        if (rule.containsKey("required")) {
            for (Object name : (List<?>) rule.get("required")) {
                if (!value.containsKey(name)) {
                    throw new Problem("no field '" + name + "' in '" + where + "'");
                }
            }
        }
        checkCount(rule.get("minProperties"), value.size(), where);
    }

    private void checkArray(Map<String, Object> rule, List<?> value, String where) {
        checkCount(rule.get("minItems"), value.size(), where);
        for (Object item : value) {
            check(object(rule.get("items")), item, where);
        }
    }

    private void checkCount(Object least, int count, String where) {
        if (least != null && count < (Long) least) {
            throw new Problem("field '" + where + "' is empty");
        }
    }

    private void checkRange(Map<String, Object> rule, Object value, String where) {
        Object least = rule.get("minimum");
        if (least != null && !(((Number) value).doubleValue() >= ((Number) least).doubleValue())) {
            throw new Problem("field '" + where + "' is out of range");
        }
        Object pattern = rule.get("pattern");
        if (pattern != null && !Pattern.compile((String) pattern).matcher((String) value).find()) {
            throw new Problem("field '" + where + "' does not match " + pattern);
        }
    }

    private static void checkRules(Object rule) {
        if (!(rule instanceof Map)) {
            return;
        }
        for (Map.Entry<String, Object> entry : object(rule).entrySet()) {
            if (!RULES.contains(entry.getKey())) {
                throw new IllegalStateException("the schema has a rule that is not known here: " + entry.getKey());
            }
            if ("properties".equals(entry.getKey())) {
                for (Object field : object(entry.getValue()).values()) {
                    checkRules(field);
                }
            } else if ("anyOf".equals(entry.getKey())) {
                for (Object choice : (List<?>) entry.getValue()) {
                    checkRules(choice);
                }
            } else if (!"default".equals(entry.getKey())) {
                checkRules(entry.getValue());
            }
        }
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> object(Object value) {
        return (Map<String, Object>) value;
    }
}
