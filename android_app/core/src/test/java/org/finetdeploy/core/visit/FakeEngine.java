package org.finetdeploy.core.visit;

import java.nio.FloatBuffer;
import java.nio.file.Path;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Engine;
import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.golden.Output;

/** A runtime that doubles its input; each call takes as long as the test says. */
final class FakeEngine implements Engine, Session {
    final FakeClock clock;
    long callNs = 1_000_000;
    long[] shape;
    RuntimeException onLoad;
    RuntimeException onOpen;
    Error onCall;
    int callsBeforeFailure = Integer.MAX_VALUE;
    float scale = 2;
    int calls;
    private Input input;

    FakeEngine(FakeClock clock) {
        this.clock = clock;
    }

    @Override
    public String format() {
        return "onnx";
    }

    @Override
    public String runtime() {
        return "onnxruntime";
    }

    @Override
    public void load() {
        clock.now += 20_000_000;
        if (onLoad != null) {
            throw onLoad;
        }
    }

    @Override
    public Session open(Path file, int threads) {
        clock.now += 12_500_000;
        if (onOpen != null) {
            throw onOpen;
        }
        return this;
    }

    @Override
    public String version() {
        return "1.2.3";
    }

    @Override
    public int threads() {
        return 1;
    }

    @Override
    public long[] inputShape() {
        return shape;
    }

    @Override
    public void bind(Input data) {
        input = data;
    }

    @Override
    public void call() {
        clock.now += callNs;
        if (calls++ >= callsBeforeFailure) {
            if (onCall != null) {
                throw onCall;
            }
            throw new Problem("onnxruntime cannot run this file");
        }
    }

    @Override
    public Output output() {
        FloatBuffer data = input.data();
        float[] values = new float[data.remaining()];
        for (int i = 0; i < values.length; i++) {
            values[i] = scale * data.get(i);
        }
        return new Output(input.shape, values);
    }
}
