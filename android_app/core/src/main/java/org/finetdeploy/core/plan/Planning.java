package org.finetdeploy.core.plan;

import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.Resource;
import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonParser;

/** Presets and limits, as {@code finet_deploy/bench/app_resources.py} writes them out of the Python side's. */
public final class Planning {
    /** Norm-relative error that an exported file may have, on an ordinary input. */
    final double artifactLimit;
    /** Norm-relative error that an fp32 network may have. */
    final double fp32Limit;
    /** Where the unfused fp32 network itself is less exact, limits grow to this multiple of its error. */
    final double fp32Multiple;
    /** On another machine, a file below fp32 may be at most this multiple further off than where it was exported. */
    final double lowerMultiple;
    /** Precision below fp32 -> relative error that a file of it may have in any case. */
    private final Fields lowerFloors;
    /** Name of the certificate's check that has those errors. */
    final String conditioningCheck;
    /** How many golden inputs are checked in a visit. */
    final int checkedInputs;

    /** Schema versions of manifests that are read. */
    final List<Object> manifestVersions;
    /** Schema versions of certificates that are read. */
    final List<Object> certificateVersions;

    private final Fields presets;

    private Planning(Fields data) {
        Fields limits = data.inner("limits");
        artifactLimit = limits.number("artifact", 1);
        fp32Limit = limits.number("fp32", 1);
        fp32Multiple = limits.number("fp32_multiple", Double.MAX_VALUE);
        lowerMultiple = limits.number("lower_multiple", Double.MAX_VALUE);
        lowerFloors = limits.inner("lower_floors");
        conditioningCheck = limits.text("conditioning_check");
        checkedInputs = (int) data.integer("checked_inputs", 1, Integer.MAX_VALUE);
        manifestVersions = data.items("manifest_versions");
        certificateVersions = data.items("certificate_versions");
        presets = data.inner("presets");
    }

    /** What is packed beside this class. */
    public static Planning load() {
        return new Planning(new Fields(JsonParser.parseObject(Resource.read(Planning.class, "planning.json"))));
    }

    /** Names of the presets, shortest first. */
    public List<String> presets() {
        return presets.names();
    }

    /** A preset as {@code Settings} of the protocol; Problem for an unknown name. */
    public Map<String, Object> settings(String preset) {
        if (!presets.names().contains(preset)) {
            throw new Problem("unknown preset '" + preset + "'; use one of " + String.join(", ", presets()));
        }
        return presets.inner(preset).map();
    }

    /** The relative error that a file of this precision may have in any case; Problem for one that is not known. */
    double lowerFloor(String dtype) {
        if (!lowerFloors.names().contains(dtype)) {
            throw new Problem("no limit for files in " + dtype + "; export another precision");
        }
        return lowerFloors.number(dtype, 1);
    }

    /** Factor, 1 as a rule, on the limit of an input on which the unfused fp32 network is {@code ownError} off. */
    double growth(double ownError) {
        return Math.max(1.0, fp32Multiple * ownError / fp32Limit);
    }
}
