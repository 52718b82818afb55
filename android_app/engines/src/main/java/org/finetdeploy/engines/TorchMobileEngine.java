package org.finetdeploy.engines;

import java.nio.file.Path;

import org.pytorch.DType;
import org.pytorch.IValue;
import org.pytorch.LiteModuleLoader;
import org.pytorch.Module;
import org.pytorch.PyTorchAndroid;
import org.pytorch.Tensor;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.engine.Engine;
import org.finetdeploy.core.engine.Session;
import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.golden.Output;

/** PyTorch Mobile's lite interpreter: {@code .ptl} files. A legacy runtime, on phones only as an app's library. */
public final class TorchMobileEngine implements Engine {
    private static final String RUNTIME = "torch_mobile";

    private final String version;

    /** @param version of the library, which does not tell it itself */
    public TorchMobileEngine(String version) {
        this.version = version;
    }

    @Override
    public String format() {
        return "ptl";
    }

    @Override
    public String runtime() {
        return RUNTIME;
    }

    @Override
    public void load() {
        try {
            PyTorchAndroid.setNumThreads(1); // loads the library
        } catch (RuntimeException | LinkageError error) {
            throw Refusal.library(error);
        }
    }

    @Override
    public Session open(Path file, int threads) {
        KernelThreads started = KernelThreads.count();
        try {
            PyTorchAndroid.setNumThreads(threads);
            Module module = LiteModuleLoader.load(file.toString());
            return new OpenModule(module, version, started.used(threads));
        } catch (RuntimeException error) {
            throw Refusal.of(RUNTIME, "load", error);
        }
    }

    private static final class OpenModule implements Session {
        private final Module module;
        private final String version;
        private final int threads;
        private IValue input;
        private IValue output;

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

        /** The format has no place for it. */
        @Override
        public long[] inputShape() {
            return null;
        }

        @Override
        public void bind(Input data) {
            input = IValue.from(Tensor.fromBlob(data.data(), data.shape));
        }

        @Override
        public void call() {
            try {
                output = module.forward(input);
            } catch (RuntimeException error) {
                output = null;
                throw Refusal.of(RUNTIME, "run", error);
            }
        }

        @Override
        public Output output() {
            if (output == null || !output.isTensor()) {
                throw new Problem("its program does not give one tensor");
            }
            Tensor tensor = output.toTensor();
            if (tensor.dtype() != DType.FLOAT32) {
                throw new Problem("its output is not fp32");
            }
            return new Output(tensor.shape(), tensor.getDataAsFloatArray());
        }
    }
}
