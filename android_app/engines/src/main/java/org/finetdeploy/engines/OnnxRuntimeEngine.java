package org.finetdeploy.engines;

import java.nio.file.Path;

import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Engine;
import org.finetdeploy.core.engine.Session;

/** ONNX Runtime on its CPU provider: {@code .onnx} files. The same classes on a phone and on a JVM. */
public final class OnnxRuntimeEngine implements Engine {
    static final String RUNTIME = "onnxruntime";
    /** Must be {@code 1} in the environment before the library is opened. */
    public static final String TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY";

    private OrtEnvironment environment;

    @Override
    public String format() {
        return "onnx";
    }

    @Override
    public String runtime() {
        return RUNTIME;
    }

    @Override
    public void load() {
        // From 1.29 on it sends telemetry, writes a device id and a database and starts a thread. Java cannot set
        // the environment of its own process: whoever starts it does.
        if (!"1".equals(System.getenv(TELEMETRY_OFF))) {
            throw new Problem("onnxruntime would send telemetry: " + TELEMETRY_OFF + "=1 is not in the environment");
        }
        try {
            environment = OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR, "finet");
            environment.setTelemetry(false);
        } catch (OrtException | RuntimeException | LinkageError error) {
            throw Refusal.library(error);
        }
    }

    @Override
    public Session open(Path file, int threads) {
        try {
            return new OnnxRuntimeSession(environment, file, threads);
        } catch (OrtException error) {
            throw Refusal.of(RUNTIME, "load", error);
        }
    }
}
