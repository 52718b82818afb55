package org.finetdeploy.engines;

import java.nio.file.Path;

import org.pytorch.executorch.DType;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.ExecuTorchRuntime;
import org.pytorch.executorch.Module;
import org.pytorch.executorch.Tensor;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Engine;
import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.golden.Output;

/** ExecuTorch's Android library: {@code .pte} files. */
public final class ExecuTorchEngine implements Engine {
    private static final String RUNTIME = "executorch";
    private static final String METHOD = "forward";

    private final String version;

    /** @param version of the library, which does not tell it itself */
    public ExecuTorchEngine(String version) {
        this.version = version;
    }

    @Override
    public String format() {
        return "pte";
    }

    @Override
    public String runtime() {
        return RUNTIME;
    }

    @Override
    public void load() {
        try {
            ExecuTorchRuntime.getRuntime();
        } catch (RuntimeException | LinkageError error) {
            throw Refusal.library(error);
        }
    }

    @Override
    public Session open(Path file, int threads) {
        KernelThreads started = KernelThreads.count();
        try {
            Module module = Module.load(
                    file.toString(), Module.LOAD_MODE_MMAP_USE_MLOCK_IGNORE_ERRORS, threads);
            module.loadMethod(METHOD);
            return new OpenModule(module, version, started.used(threads));
        } catch (RuntimeException error) {
            throw Refusal.of(RUNTIME, "load", error);
        }
    }

    private static final class OpenModule implements Session {
        private final Module module;
        private final String version;
        private final int threads;
        private EValue input;
        private EValue[] outputs = {};

        OpenModule(Module module, String version, int threads) {
            this.module = module;
            this.version = version;
            this.threads = threads;
        }

        @Override
        public String version() {
            return version;
        }

        @Override
        public int threads() {
            return threads;
        }

        /** The Java API does not tell; the runtime refuses other shapes itself. */
        @Override
        public long[] inputShape() {
            return null;
        }

        @Override
        public void bind(Input data) {
            input = EValue.from(Tensor.fromBlob(data.data(), data.shape));
        }

        @Override
        public void call() {
            try {
                outputs = module.execute(METHOD, input);
            } catch (RuntimeException error) {
                outputs = new EValue[0];
                throw Refusal.of(RUNTIME, "run", error);
            }
        }

        @Override
        public Output output() {
            if (outputs.length != 1 || !outputs[0].isTensor()) {
                throw new Problem("its program does not give one tensor");
            }
            Tensor tensor = outputs[0].toTensor();
            if (tensor.dtype() != DType.FLOAT) {
                throw new Problem("its output is not fp32");
            }
            return new Output(tensor.shape(), tensor.getDataAsFloatArray());
        }
    }
}
