package org.finetdeploy.core.visit;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.golden.GoldenFile;
import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.golden.Output;
import org.finetdeploy.core.golden.Shape;
import org.finetdeploy.core.json.JsonWriter;

/** Runs golden inputs through a session and compares with the golden outputs. */
final class OutputCheck {
    private final Session session;
    private final GoldenFile golden;
    private final long[] jobShape;
    private final Map<String, Output> outputs = new TreeMap<>();

    /** @param jobShape the network's input shape as the job has it, for files that do not tell theirs */
    OutputCheck(Session session, GoldenFile golden, long[] jobShape) {
        this.session = session;
        this.golden = golden;
        this.jobShape = jobShape;
    }

    /** Binds an input after a check that runtimes do not make: one that is too small is read beyond its end. */
    void bind(Input input) {
        long[] told = session.inputShape();
        long[] shape = told == null ? jobShape : told;
        if (!Arrays.equals(shape, input.shape)) {
            throw new Problem("input has shape " + Shape.text(input.shape) + ", this file takes "
                    + Shape.text(shape) + "; export the bundle again");
        }
        session.bind(input);
    }

    /** Norm-relative error by input; null where the outputs cannot be compared (another shape, NaN). */
    Map<String, Object> errors(List<String> names) {
        Map<String, Object> errors = new LinkedHashMap<>();
        for (String name : names) {
            errors.put(name, golden.output(name).relativeError(run(name)));
        }
        return errors;
    }

    /**
     * The outputs of all golden inputs: raw little-endian fp32 one after another in {@code path}, and an index beside
     * it in {@code path.json} with name, shape, offset and bytes of each.
     */
    void write(Path path) {
        ByteArrayOutputStream data = new ByteArrayOutputStream();
        List<Object> index = new ArrayList<>();
        for (String name : golden.inputs()) {
            Output output = run(name);
            byte[] bytes = bytes(output.values);
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("name", name);
            entry.put("shape", boxed(output.shape));
            entry.put("offset", data.size());
            entry.put("bytes", bytes.length);
            index.add(entry);
            data.write(bytes, 0, bytes.length);
        }
        Map<String, Object> whole = new LinkedHashMap<>();
        whole.put("schema_version", 1);
        whole.put("dtype", "float32");
        whole.put("byte_order", "little");
        whole.put("outputs", index);
        CheckedFiles.writeWhole(path, data.toByteArray());
        CheckedFiles.writeWhole(path.resolveSibling(path.getFileName() + ".json"), JsonWriter.indented(whole));
    }

    private Output run(String name) {
        Output known = outputs.get(name);
        if (known == null) {
            bind(golden.input(name));
            session.call();
            known = session.output();
            outputs.put(name, known);
        }
        return known;
    }

    private static byte[] bytes(float[] values) {
        ByteBuffer data = ByteBuffer.allocate(values.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        data.asFloatBuffer().put(values);
        return data.array();
    }

    private static List<Object> boxed(long[] shape) {
        List<Object> sizes = new ArrayList<>();
        for (long size : shape) {
            sizes.add(size);
        }
        return sizes;
    }
}
