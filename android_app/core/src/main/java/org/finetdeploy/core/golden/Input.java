package org.finetdeploy.core.golden;

import java.nio.FloatBuffer;

/** An fp32 input of a network, contiguous, outside the Java heap: runtimes take it without a copy. */
public final class Input {
    /** N, C, H, W. */
    public final long[] shape;
    private final FloatBuffer data;

    /** @param data a direct buffer in the machine's byte order, from position 0 to its limit */
    public Input(long[] shape, FloatBuffer data) {
        if (!data.isDirect() || data.remaining() != Shape.count(shape)) {
            throw new IllegalArgumentException("not " + Shape.text(shape) + " direct floats");
        }
        this.shape = shape;
        this.data = data;
    }

    /** The values, with a position and limit of their own. */
    public FloatBuffer data() {
        return data.duplicate();
    }
}
