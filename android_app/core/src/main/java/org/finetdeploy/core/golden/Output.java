package org.finetdeploy.core.golden;

/** What a runtime returned: an fp32 tensor, copied. */
public final class Output {
    public final long[] shape;
    public final float[] values;

    public Output(long[] shape, float[] values) {
        this.shape = shape;
        this.values = values;
    }
}
