package org.finetdeploy.core.engine;

import org.finetdeploy.core.golden.Input;
import org.finetdeploy.core.golden.Output;

/** One file, open in its runtime. */
public interface Session {
    /** The runtime's version, as it says itself, or as it was built with where it does not say. */
    String version();

    /** The effective number of threads, read back from the runtime or from the kernel. */
    int threads();

    /** The static shape that the file was made for; null when it does not tell. */
    long[] inputShape();

    /** Sets the input of the calls to come. Its memory must stay; it was checked against {@link #inputShape}. */
    void bind(Input input);

    /** The runtime's own call on the bound input: this is what is timed. Throws Problem. */
    void call();

    /** A copy of what the last call returned; Problem for anything but one fp32 tensor. */
    Output output();
}
