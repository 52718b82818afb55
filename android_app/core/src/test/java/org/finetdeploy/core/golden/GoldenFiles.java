package org.finetdeploy.core.golden;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Golden files made by hand. */
public final class GoldenFiles {
    private GoldenFiles() {}

    /** Two inputs of shape (1, 2), fp32: (1, 2) and (3, 4); their outputs, fp64, twice as large. */
    public static Path write(Path path) throws IOException {
        ByteBuffer data = ByteBuffer.allocate(48).order(ByteOrder.LITTLE_ENDIAN);
        data.putFloat(1).putFloat(2).putFloat(3).putFloat(4);
        data.putDouble(2).putDouble(4).putDouble(6).putDouble(8);
        String header = "{\"__metadata__\":{\"format\":\"pt\"},"
                + entry("input.photo_0", "F32", "[1,2]", 0, 8) + "," + entry("input.noise_0", "F32", "[1,2]", 8, 16)
                + "," + entry("output.photo_0", "F64", "[1,2]", 16, 32) + ","
                + entry("output.noise_0", "F64", "[1,2]", 32, 48) + "}";
        return write(path, header.getBytes(StandardCharsets.UTF_8), data.array());
    }

    /** A file with this header and these bytes after it. */
    public static Path write(Path path, byte[] header, byte[] data) throws IOException {
        ByteBuffer whole = ByteBuffer.allocate(8 + header.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
        whole.putLong(header.length).put(header).put(data);
        return Files.write(path, whole.array());
    }

    /** The description of one tensor. */
    public static String entry(String name, String dtype, String shape, long from, long to) {
        return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" + from + ","
                + to + "]}";
    }
}
