package org.finetdeploy.core.plan;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.json.Fields;

/** How close a runtime's outputs have to come to the golden ones: the certificate's limits, input by input. */
final class OutputLimits {
    private final Planning planning;
    private final Map<String, Double> growth = new HashMap<>();

    OutputLimits(Planning planning, Fields certificate) {
        this.planning = planning;
        for (Fields check : certificate.list("checks")) {
            if (check.text("name").equals(planning.conditioningCheck)) {
                grow(check);
                return;
            }
        }
    }

    /** Norm-relative limits of these inputs, in their order. */
    Map<String, Object> of(List<String> inputs) {
        Map<String, Object> limits = new LinkedHashMap<>();
        for (String input : inputs) {
            Double factor = growth.get(input);
            limits.put(input, planning.artifactLimit * (factor == null ? 1.0 : factor));
        }
        return limits;
    }

    /** Rounding errors scatter: an input's counts as the median over all where it is smaller than that by luck. */
    private void grow(Fields check) {
        Map<String, Double> errors = new LinkedHashMap<>();
        for (Fields input : check.list("inputs")) {
            errors.put(input.text("name"), input.number("relative_error", Double.MAX_VALUE));
        }
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
