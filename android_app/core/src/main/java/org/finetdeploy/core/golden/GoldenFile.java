package org.finetdeploy.core.golden;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.json.JsonParser;

/** A bundle's golden inputs and outputs: {@code golden.safetensors}, read piece by piece, nothing in it trusted. */
public final class GoldenFile implements Closeable {
    private static final String INPUT = "input.";
    private static final String OUTPUT = "output.";
    private static final int MAX_HEADER_BYTES = 16 << 20;
    private static final long MAX_TENSOR_BYTES = 256 << 20;
    private static final int MAX_RANK = 8;

    private final Path path;
    private final FileChannel channel;
    private final Map<String, Object> header;
    private final long dataStart;
    private final long dataBytes;

    private static final class Entry {
        String dtype;
        long[] shape;
        long offset;
        int bytes;
    }

    /** Problem for a file that cannot be read, or is not safetensors. */
    public GoldenFile(Path path) {
        this.path = path;
        try {
            channel = FileChannel.open(path, StandardOpenOption.READ);
        } catch (IOException error) {
            throw CheckedFiles.cannot("read", path, error);
        }
        try {
            long size = channel.size();
            if (size < Long.BYTES) {
                throw damaged("shorter than its header");
            }
            long length = read(0, Long.BYTES).getLong();
            if (length < 0 || length > MAX_HEADER_BYTES || length > size - Long.BYTES) {
                throw damaged("its header is longer than the file");
            }
            header = header(read(Long.BYTES, (int) length));
            dataStart = Long.BYTES + length;
            dataBytes = size - dataStart;
        } catch (IOException error) {
            close();
            throw CheckedFiles.cannot("read", path, error);
        } catch (RuntimeException error) {
            close();
            throw error;
        }
    }

    private Map<String, Object> header(ByteBuffer text) {
        byte[] bytes = new byte[text.remaining()];
        text.get(bytes);
        try {
            return JsonParser.parseObject(bytes);
        } catch (Problem problem) {
            throw damaged("its header is not a JSON object");
        }
    }

    /** A golden input, fp32; Problem when there is none of this name, or it has another type. */
    public Input input(String name) {
        Entry entry = entry(INPUT + name);
        if (!"F32".equals(entry.dtype)) {
            throw new Problem("golden input '" + name + "' is not fp32 [" + path + "]");
        }
        FloatBuffer values = ByteBuffer.allocateDirect(entry.bytes).order(ByteOrder.nativeOrder()).asFloatBuffer();
        values.put(tensor(entry).asFloatBuffer()).flip();
        return new Input(entry.shape, values);
    }

    /** The output that the network has on this input; Problem as above. */
    public Reference output(String name) {
        Entry entry = entry(OUTPUT + name);
        ByteBuffer data = tensor(entry);
        boolean fp64 = "F64".equals(entry.dtype);
        double[] values = new double[entry.bytes / (fp64 ? Double.BYTES : Float.BYTES)];
        for (int i = 0; i < values.length; i++) {
            values[i] = fp64 ? data.getDouble() : data.getFloat();
        }
        return new Reference(entry.shape, values);
    }

    /** Names of all inputs, sorted. */
    public SortedSet<String> inputs() {
        SortedSet<String> names = new TreeSet<>();
        for (String key : header.keySet()) {
            if (key.startsWith(INPUT)) {
                names.add(key.substring(INPUT.length()));
            }
        }
        return names;
    }

    @Override
    public void close() {
        try {
            channel.close();
        } catch (IOException error) {
            throw CheckedFiles.cannot("close", path, error);
        }
    }

    private Entry entry(String key) {
        Object found = header.get(key);
        if (found == null) {
            throw new Problem("no golden tensor '" + key + "' [" + path + "]; export the bundle again");
        }
        Entry entry = found instanceof Map ? checked((Map<?, ?>) found) : null;
        if (entry == null) {
            throw new Problem("golden tensor '" + key + "' is damaged [" + path + "]; export the bundle again");
        }
        return entry;
    }

    /** Null when type, shape and place do not fit each other and the file. */
    private Entry checked(Map<?, ?> description) {
        Entry entry = new Entry();
        entry.shape = longs(description.get("shape"));
        long[] offsets = longs(description.get("data_offsets"));
        Object dtype = description.get("dtype");
        long size = "F32".equals(dtype) ? Float.BYTES : "F64".equals(dtype) ? Double.BYTES : 0;
        if (size == 0 || entry.shape == null || entry.shape.length > MAX_RANK || offsets == null
                || offsets.length < 2) {
            return null;
        }
        long bytes = size;
        for (long extent : entry.shape) {
            if (extent < 0 || extent > MAX_TENSOR_BYTES) {
                return null;
            }
            bytes = Math.min(bytes * extent, MAX_TENSOR_BYTES + 1);
        }
        boolean fits = bytes <= MAX_TENSOR_BYTES && offsets[0] >= 0 && offsets[0] <= offsets[1]
                && offsets[1] <= dataBytes && offsets[1] - offsets[0] == bytes;
        entry.dtype = (String) dtype;
        entry.offset = offsets[0];
        entry.bytes = (int) bytes;
        return fits ? entry : null;
    }

    private static long[] longs(Object value) {
        if (!(value instanceof List)) {
            return null;
        }
        List<?> list = (List<?>) value;
        long[] found = new long[list.size()];
        for (int i = 0; i < found.length; i++) {
            if (!(list.get(i) instanceof Long)) {
                return null;
            }
            found[i] = (Long) list.get(i);
        }
        return found;
    }

    private ByteBuffer tensor(Entry entry) {
        try {
            return read(dataStart + entry.offset, entry.bytes);
        } catch (IOException error) {
            throw CheckedFiles.cannot("read", path, error);
        }
    }

    /** Exactly {@code count} bytes, little-endian. */
    private ByteBuffer read(long from, int count) throws IOException {
        ByteBuffer data = ByteBuffer.allocate(count).order(ByteOrder.LITTLE_ENDIAN);
        while (data.hasRemaining()) {
            if (channel.read(data, from + data.position()) < 0) {
                throw new Problem("the file ends too early: " + path);
            }
        }
        data.flip();
        return data;
    }

    private Problem damaged(String found) {
        return new Problem("not a safetensors file: " + found + " [" + path + "]; export the bundle again");
    }
}
