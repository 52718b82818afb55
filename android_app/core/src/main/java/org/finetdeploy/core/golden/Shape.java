package org.finetdeploy.core.golden;

import java.util.Arrays;

/** Sizes of a tensor's dimensions, written as Python writes a tuple. */
public final class Shape {
    private Shape() {}

    /** {@code (1, 3, 224, 224)}. */
    public static String text(long[] shape) {
        String inner = Arrays.toString(shape);
        return "(" + inner.substring(1, inner.length() - 1) + ")";
    }

    /** Number of elements; the sizes must have been checked. */
    public static int count(long[] shape) {
        long count = 1;
        for (long size : shape) {
            count *= size;
        }
        return Math.toIntExact(count);
    }
}
