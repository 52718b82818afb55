package org.finetdeploy.core.engine;

import java.nio.file.Path;

/** A runtime that runs files of one format. */
public interface Engine {
    /** {@code pte}, {@code onnx} or {@code ptl}. */
    String format();

    /** As the protocol calls it: {@code executorch}, {@code onnxruntime} or {@code torch_mobile}. */
    String runtime();

    /** Loads the runtime's libraries, so that opening a file afterwards takes the file's time alone; throws Problem. */
    void load();

    /** Opens the file with {@code threads} threads; Problem when the runtime refuses it. */
    Session open(Path file, int threads);
}
