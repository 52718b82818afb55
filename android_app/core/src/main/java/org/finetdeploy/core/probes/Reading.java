package org.finetdeploy.core.probes;

import java.util.LinkedHashMap;
import java.util.Map;

import org.finetdeploy.core.Problem;

/** The protocol's Reading: what a probe read, or null with the reason. Never a made-up number. */
public final class Reading {
    /** Reads one thing; throws Problem with the reason when it cannot. */
    public interface Probe {
        /** A JSON value. */
        Object read();
    }

    private Reading() {}

    /** What {@code probe} reads, as JSON. */
    public static Map<String, Object> of(Probe probe) {
        try {
            return json(probe.read(), null);
        } catch (Problem problem) {
            return json(null, problem.getMessage());
        } catch (NumberFormatException error) {
            return json(null, "not a number");
        } catch (RuntimeException error) { // a platform's API may refuse in many ways; all of them are reasons
            return json(null, Problem.firstLine(error));
        }
    }

    /** Nothing was read, for this reason. */
    public static Map<String, Object> none(String reason) {
        return json(null, reason);
    }

    private static Map<String, Object> json(Object value, String reason) {
        Map<String, Object> reading = new LinkedHashMap<>();
        reading.put("value", value);
        reading.put("reason", reason);
        return reading;
    }
}
