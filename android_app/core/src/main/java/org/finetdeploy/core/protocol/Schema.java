package org.finetdeploy.core.protocol;

import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.Resource;
import org.finetdeploy.core.json.JsonParser;

/**
 * A JSON Schema that the Python side derives from its own structures, and a check of values against it. Only the
 * keywords that the schemas use are known; any other one is refused on loading, so that no rule can be overlooked.
 */
public final class Schema {
    private static final String PROTOCOL = "protocol.schema.json";
    private static final String BUNDLE = "bundle.schema.json";
    private static final List<String> RULES = java.util.Arrays.asList(
            "$ref", "anyOf", "enum", "type", "properties", "required", "additionalProperties", "minProperties",
            "items", "prefixItems", "minItems", "maxItems", "minLength", "minimum", "maximum", "pattern", "title",
            "description", "default");

    private final Map<String, Object> definitions;

    private Schema(Map<String, Object> definitions) {
        this.definitions = definitions;
        for (Object rule : definitions.values()) {
            checkRules(rule);
        }
    }

    /** Of jobs, requests and records: {@code finet_deploy/bench/protocol.py}. */
    public static Schema load() {
        return load(PROTOCOL);
    }

    /** Of a bundle's manifest and certificate: {@code finet_deploy/export/schema.py} and {@code verify}. */
    public static Schema ofBundles() {
        return load(BUNDLE);
    }

    private static Schema load(String name) {
        return new Schema(object(JsonParser.parseObject(Resource.read(Schema.class, name)).get("$defs")));
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
            } else if (others != null) { // false
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
        checkCount(rule.get("minProperties"), null, value.size(), where);
    }

    private void checkArray(Map<String, Object> rule, List<?> value, String where) {
        checkCount(rule.get("minItems"), rule.get("maxItems"), value.size(), where);
        List<?> first = (List<?>) rule.get("prefixItems");
        for (int i = 0; i < value.size(); i++) {
            Object item = first != null && i < first.size() ? first.get(i) : rule.get("items");
            if (item instanceof Map) {
                check(object(item), value.get(i), where);
            }
        }
    }

    private void checkCount(Object least, Object most, int count, String where) {
        if (least != null && count < (Long) least) {
            throw new Problem("field '" + where + "' is " + (count == 0 ? "empty" : "too short"));
        }
        if (most != null && count > (Long) most) {
            throw new Problem("field '" + where + "' is too long");
        }
    }

    private void checkRange(Map<String, Object> rule, Object value, String where) {
        Object least = rule.get("minimum");
        Object most = rule.get("maximum");
        if ((least != null && !(((Number) value).doubleValue() >= ((Number) least).doubleValue()))
                || (most != null && !(((Number) value).doubleValue() <= ((Number) most).doubleValue()))) {
            throw new Problem("field '" + where + "' is out of range");
        }
        if (value instanceof String) {
            checkCount(rule.get("minLength"), null, ((String) value).length(), where);
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
            } else if (entry.getValue() instanceof List && !"default".equals(entry.getKey())) {
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
