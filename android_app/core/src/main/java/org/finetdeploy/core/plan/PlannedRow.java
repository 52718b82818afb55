package org.finetdeploy.core.plan;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.Fields;

/** A {@code Row} of the protocol: one bundle in one runtime. */
final class PlannedRow {
    private static final List<String> ARTIFACT = Arrays.asList(
            "file", "sha256", "bytes", "format", "runtime", "dtype", "delegates", "delegated_share", "nodes_outside",
            "normalization_ops", "notices");

    private final Map<String, Object> row;

    private PlannedRow(Map<String, Object> row) {
        this.row = row;
    }

    /**
     * Problem when the bundle's certificate did not pass or does not know the file, or no photograph is among its
     * golden inputs.
     */
    static PlannedRow of(Bundle bundle, String runtime, String id, String label, boolean baseline, long threads,
            Planning planning) {
        Fields manifest = bundle.manifest;
        if (!manifest.inner("certificate").flag("passed")) {
            throw new Problem("the certificate of '" + bundle.name() + "' did not pass; export it again");
        }
        Fields artifact = bundle.artifact(runtime);
        Map<String, Object> row = new LinkedHashMap<>();
        row.put("id", id);
        row.put("label", label);
        row.put("baseline", baseline);
        row.put("aa_of", null);
        row.put("bundle", "../" + bundle.folderName()); // runs and bundles lie side by side in the app's folder
        row.put("artifact", artifact(artifact));
        row.put("golden", golden(bundle, artifact, planning));
        row.put("threads", threads);
        row.put("input_shape", manifest.inner("input").items("shape"));
        row.put("fused", manifest.flag("fused"));
        row.put("trained", manifest.inner("source").map().get("trained"));
        row.put("params", manifest.map().get("params"));
        row.put("macs", manifest.map().get("macs"));
        row.put("certificate_passed", true);
        return new PlannedRow(row);
    }

    private static Map<String, Object> artifact(Fields entry) {
        Map<String, Object> artifact = new LinkedHashMap<>();
        for (String name : ARTIFACT) {
            artifact.put(name, entry.map().get(name));
        }
        artifact.put("notices", entry.items("notices"));
        if (artifact.get("delegated_share") instanceof Long) { // 1 and 1.0 are the same share
            artifact.put("delegated_share", ((Long) artifact.get("delegated_share")).doubleValue());
        }
        return artifact;
    }

    /** Timed on a photograph: noise and constants can hide what data does to speed. It and one other are checked. */
    private static Map<String, Object> golden(Bundle bundle, Fields artifact, Planning planning) {
        Fields entry = bundle.manifest.inner("golden");
        String photo = null;
        List<String> checked = new ArrayList<>();
        for (Object input : entry.items("inputs")) {
            if (photo == null && ((String) input).startsWith("photo")) {
                photo = (String) input;
            }
        }
        if (photo == null) {
            throw new Problem("no photograph among the golden inputs of '" + bundle.name() + "'; export it again");
        }
        checked.add(photo);
        for (Object input : entry.items("inputs")) {
            if (checked.size() < planning.checkedInputs && !input.equals(photo)) {
                checked.add((String) input);
            }
        }
        Map<String, Object> golden = new LinkedHashMap<>();
        golden.put("file", entry.text("file"));
        golden.put("sha256", entry.text("sha256"));
        golden.put("timed_input", photo);
        golden.put("output_limits", new OutputLimits(
                planning, bundle.certificate, artifact.text("format"), artifact.text("dtype")).of(checked));
        return golden;
    }

    /** The same file under a second name: the difference between the two is the noise floor. */
    PlannedRow sameFile() {
        Map<String, Object> copy = new LinkedHashMap<>(row);
        copy.put("id", id() + "-aa");
        copy.put("label", "A/A: " + label());
        copy.put("baseline", false);
        copy.put("aa_of", id());
        return new PlannedRow(copy);
    }

    /** The same row with its degree of fusion in the label. */
    PlannedRow withFusionInLabel() {
        Map<String, Object> copy = new LinkedHashMap<>(row);
        copy.put("label", label() + " (" + fusion() + ")");
        return new PlannedRow(copy);
    }

    String id() {
        return (String) row.get("id");
    }

    String label() {
        return (String) row.get("label");
    }

    /** {@code 1x3x224x224}. */
    String inputShape() {
        List<String> sizes = new ArrayList<>();
        for (Object size : (List<?>) row.get("input_shape")) {
            sizes.add(String.valueOf(size));
        }
        return String.join("x", sizes);
    }

    String precision() {
        return (String) ((Map<?, ?>) row.get("artifact")).get("dtype");
    }

    /** {@code fused}, {@code unfused}, or what is left, as {@code bench/summary.py} calls it. */
    String fusion() {
        Object left = ((Map<?, ?>) row.get("artifact")).get("normalization_ops");
        if (!Boolean.TRUE.equals(row.get("fused"))) {
            return "unfused";
        }
        return Long.valueOf(0).equals(left) ? "fused" : "fused, " + left + " normalization ops left";
    }

    /** The row as JSON. */
    Map<String, Object> json() {
        return row;
    }
}
