package org.finetdeploy.core.json;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;

/** Typed access to a JSON object that the schema has passed; what the schema cannot say (upper bounds) is said here. */
public final class Fields {
    private final Map<String, Object> object;

    /** @param object checked by a schema: the methods here take each field to be of its type */
    public Fields(Map<String, Object> object) {
        this.object = object;
    }

    /** The object itself. */
    public Map<String, Object> map() {
        return object;
    }

    /** Null where the field is absent or null. */
    public String text(String name) {
        return (String) object.get(name);
    }

    /** Problem when the number is outside {@code low}..{@code high}. */
    public long integer(String name, long low, long high) {
        Object value = object.get(name);
        if (!(value instanceof Long) || (Long) value < low || (Long) value > high) {
            throw new Problem("field '" + name + "' is out of range");
        }
        return (Long) value;
    }

    /** Problem when the number is negative or above {@code high}. */
    public double number(String name, double high) {
        double value = ((Number) object.get(name)).doubleValue();
        if (!(value >= 0 && value <= high)) {
            throw new Problem("field '" + name + "' is out of range");
        }
        return value;
    }

    /** Whether the field is true. */
    public boolean flag(String name) {
        return Boolean.TRUE.equals(object.get(name));
    }

    /** The object in this field. */
    @SuppressWarnings("unchecked")
    public Fields inner(String name) {
        return new Fields((Map<String, Object>) object.get(name));
    }

    /** The objects in this field; none where it is absent. */
    public List<Fields> list(String name) {
        List<Fields> found = new ArrayList<>();
        for (Object item : items(name)) {
            @SuppressWarnings("unchecked")
            Map<String, Object> fields = (Map<String, Object>) item;
            found.add(new Fields(fields));
        }
        return found;
    }

    /** The values in this field; none where it is absent. */
    public List<Object> items(String name) {
        List<?> list = (List<?>) object.get(name);
        return list == null ? new ArrayList<>() : new ArrayList<>(list);
    }

    /** Whole numbers; Problem where one is too large. */
    public long[] integers(String name) {
        List<?> list = (List<?>) object.get(name);
        long[] found = new long[list.size()];
        for (int i = 0; i < found.length; i++) {
            if (!(list.get(i) instanceof Long)) {
                throw new Problem("field '" + name + "' is out of range");
            }
            found[i] = (Long) list.get(i);
        }
        return found;
    }

    /** Names of the fields, in the order of the text. */
    public List<String> names() {
        return new ArrayList<>(object.keySet());
    }
}
