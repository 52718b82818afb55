package org.finetdeploy.core.golden;

import java.util.Arrays;

/** The output that the network has on a golden input, in fp64. */
public final class Reference {
    public final long[] shape;
    public final double[] values;

    public Reference(long[] shape, double[] values) {
        this.shape = shape;
        this.values = values;
    }

    /**
     * {@code ||a - b|| / ||b||} in double, b this reference, as {@code finet_deploy.verify.compare} has it: both
     * divided by their largest magnitude first; {@code ||a - b||} where b is all zeros. Null where the two cannot be
     * compared: another shape, empty, not finite.
     */
    public Double relativeError(Output found) {
        if (values.length == 0 || found.values.length != values.length || !Arrays.equals(found.shape, shape)) {
            return null;
        }
        double scale = 0;
        double referenceScale = 0;
        for (int i = 0; i < values.length; i++) {
            double a = found.values[i];
            double b = values[i];
            if (!finite(a) || !finite(b) || !finite(a - b)) {
                return null;
            }
            scale = Math.max(scale, Math.max(Math.abs(a), Math.abs(b)));
            referenceScale = Math.max(referenceScale, Math.abs(b));
        }
        if (scale == 0) {
            return 0.0;
        }
        double difference = 0;
        double norm = 0;
        for (int i = 0; i < values.length; i++) {
            double a = found.values[i] / scale;
            double b = values[i] / scale;
            difference += (a - b) * (a - b);
            norm += b * b;
        }
        double error = referenceScale == 0
                ? Math.sqrt(difference) * scale
                : Math.sqrt(difference) / Math.sqrt(norm);
        return finite(error) ? (Double) error : null;
    }

    private static boolean finite(double value) {
        return !Double.isNaN(value) && !Double.isInfinite(value);
    }
}
