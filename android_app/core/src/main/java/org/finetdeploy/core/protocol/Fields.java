package org.finetdeploy.core.protocol;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;

/** Typed access to a JSON object that the schema has passed; what the schema cannot say (upper bounds) is said here. */
final class Fields {
    private final Map<String, Object> object;

    Fields(Map<String, Object> object) {
        this.object = object;
    }

    Map<String, Object> map() {
        return object;
    }

    String text(String name) {
        return (String) object.get(name);
    }

    /** Problem when the number is outside {@code low}..{@code high}. */
    long integer(String name, long low, long high) {
        Object value = object.get(name);
        if (!(value instanceof Long) || (Long) value < low || (Long) value > high) {
            throw new Problem("field '" + name + "' is out of range");
        }
        return (Long) value;
    }

    /** Problem when the number is negative or above {@code high}. */
    double number(String name, double high) {
        double value = ((Number) object.get(name)).doubleValue();
        if (!(value >= 0 && value <= high)) {
            throw new Problem("field '" + name + "' is out of range");
        }
        return value;
    }

    @SuppressWarnings("unchecked")
    Fields inner(String name) {
        return new Fields((Map<String, Object>) object.get(name));
    }

    List<Fields> list(String name) {
        List<Fields> found = new ArrayList<>();
        for (Object item : (List<?>) object.get(name)) {
            @SuppressWarnings("unchecked")
            Map<String, Object> fields = (Map<String, Object>) item;
            found.add(new Fields(fields));
        }
        return found;
    }

    long[] integers(String name) {
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

    List<String> names() {
        return new ArrayList<>(object.keySet());
    }
}
