package org.finetdeploy.core.plan;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.Fields;

/**
 * How close a runtime's outputs have to come to the golden ones, input by input. An fp32 file: the certificate's limit,
 * which grows where fp32 itself is less exact. A file of lower precision: a multiple of what it was off when it was
 * exported. The twin of {@code artifact_limits} in {@code finet_deploy/verify/precision.py}.
 */
final class OutputLimits {
    private static final String FP32 = "float32";
    private static final String ARTIFACT = "artifact/";

    private final Planning planning;
    private final String format;
    private final String dtype;
    private final Map<String, Double> growth = new HashMap<>();
    /** Input -> the file's own error; null for fp32, whose limits do not depend on it. */
    private final Map<String, Double> measured;

    /**
     * @param format of the file
     * @param dtype its precision
     */
    OutputLimits(Planning planning, Fields certificate, String format, String dtype) {
        this.planning = planning;
        this.format = format;
        this.dtype = dtype;
        if (FP32.equals(dtype)) {
            measured = null;
            grow(check(certificate, planning.conditioningCheck));
            return;
        }
        measured = errors(check(certificate, ARTIFACT + format));
    }

    /**
     * Norm-relative limits of these inputs, in their order. Problem when the file is below fp32, and the certificate
     * does not know what it was off on one of them.
     */
    Map<String, Object> of(List<String> inputs) {
        Map<String, Object> limits = new LinkedHashMap<>();
        for (String input : inputs) {
            limits.put(input, measured == null ? fp32(input) : lower(input));
        }
        return limits;
    }

    private double fp32(String input) {
        Double factor = growth.get(input);
        return planning.artifactLimit * (factor == null ? 1.0 : factor);
    }

    private double lower(String input) {
        Double error = measured.get(input);
        if (error == null) {
            throw new Problem("the certificate has no figures of the " + dtype + " ." + format + " file on input '" + input
                    + "'; export the bundle again");
        }
        return Math.max(planning.lowerFloor(dtype), planning.lowerMultiple * error);
    }

    /** Null where the check was not made. */
    private static Fields check(Fields certificate, String name) {
        for (Fields check : certificate.list("checks")) {
            if (check.text("name").equals(name)) {
                return check;
            }
        }
        return null;
    }

    /** Input -> norm-relative error, in the check's order; empty for a check that was not made. */
    private static Map<String, Double> errors(Fields check) {
        Map<String, Double> errors = new LinkedHashMap<>();
        if (check != null) {
            for (Fields input : check.list("inputs")) {
                errors.put(input.text("name"), input.number("relative_error", Double.MAX_VALUE));
            }
        }
        return errors;
    }

    /** Rounding errors scatter: an input's counts as the median over all where it is smaller than that by luck. */
    private void grow(Fields check) {
        Map<String, Double> errors = errors(check);
        if (errors.isEmpty() || check.map().get("figures") == null) {
            return;
        }
        double middle = median(new ArrayList<>(errors.values()));
        Object grown = check.inner("figures").map().get("ill_conditioned");
        for (Object name : grown instanceof List ? (List<?>) grown : Collections.emptyList()) {
            if (errors.containsKey(name)) {
                growth.put((String) name, planning.growth(Math.max(errors.get(name), middle)));
            }
        }
    }

    private static double median(List<Double> values) {
        Collections.sort(values);
        int middle = values.size() / 2;
        return values.size() % 2 == 1 ? values.get(middle) : (values.get(middle - 1) + values.get(middle)) / 2;
    }
}
