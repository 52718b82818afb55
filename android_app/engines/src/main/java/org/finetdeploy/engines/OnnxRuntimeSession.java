package org.finetdeploy.engines;

import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Map;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxTensorLike;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.golden.Output;

/** A {@code .onnx} file: all graph optimizations on, operators one after another, idle threads asleep. */
final class OnnxRuntimeSession implements Session {
    private final OrtEnvironment environment;
    private final OrtSession session;
    private final int threads;
    private final String inputName;
    private final long[] inputShape;

    private Map<String, OnnxTensorLike> inputs;
    private OnnxTensor input;
    private OrtSession.Result result;

    OnnxRuntimeSession(OrtEnvironment environment, Path file, int wantedThreads) throws OrtException {
        this.environment = environment;
        try (OrtSession.SessionOptions options = options(wantedThreads)) {
            KernelThreads started = KernelThreads.count();
            session = environment.createSession(file.toString(), options);
            threads = started.used(wantedThreads);
        }
        Map<String, NodeInfo> infos = session.getInputInfo();
        NodeInfo info = infos.size() == 1 && session.getNumOutputs() == 1 ? infos.values().iterator().next() : null;
        TensorInfo tensor = info != null && info.getInfo() instanceof TensorInfo ? (TensorInfo) info.getInfo() : null;
        if (tensor == null || tensor.type != OnnxJavaType.FLOAT) {
            throw new Problem("its graph does not take one fp32 tensor and give one tensor; export the bundle again");
        }
        inputName = info.getName();
        inputShape = isStatic(tensor.getShape()) ? tensor.getShape() : null;
    }

    private static OrtSession.SessionOptions options(int threads) throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(threads);
        options.setInterOpNumThreads(1);
        options.setExecutionMode(OrtSession.SessionOptions.ExecutionMode.SEQUENTIAL);
        options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
        options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR);
        // Spinning threads would take the cores from whatever runs beside them.
        options.addConfigEntry("session.intra_op.allow_spinning", "0");
        return options;
    }

    private static boolean isStatic(long[] shape) {
        for (long size : shape) {
            if (size < 1) {
                return false;
            }
        }
        return true;
    }

    @Override
    public String version() {
        return environment.getVersion();
    }

    @Override
    public int threads() {
        return threads;
    }

    @Override
    public long[] inputShape() {
        return inputShape;
    }

    @Override
    public void bind(Input data) {
        try {
            if (input != null) {
                input.close();
            }
            input = OnnxTensor.createTensor(environment, data.data(), data.shape);
            inputs = Collections.<String, OnnxTensorLike>singletonMap(inputName, input);
        } catch (OrtException error) {
            throw Refusal.of(OnnxRuntimeEngine.RUNTIME, "run", error);
        }
    }

    @Override
    public void call() {
        if (result != null) {
            result.close(); // else every call would leave an output behind
        }
        try {
            result = session.run(inputs);
        } catch (OrtException error) {
            result = null;
            throw Refusal.of(OnnxRuntimeEngine.RUNTIME, "run", error);
        }
    }

    @Override
    public Output output() {
        OnnxValue value = result == null ? null : result.get(0);
        if (!(value instanceof OnnxTensor)) {
            throw new Problem("its graph does not give one tensor");
        }
        OnnxTensor tensor = (OnnxTensor) value;
        if (tensor.getInfo().type != OnnxJavaType.FLOAT) {
            throw new Problem("its output is not fp32");
        }
        FloatBuffer data = tensor.getFloatBuffer();
        float[] values = new float[data.remaining()];
        data.get(values);
        return new Output(tensor.getInfo().getShape(), values);
    }
}
