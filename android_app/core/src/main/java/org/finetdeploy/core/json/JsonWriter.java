package org.finetdeploy.core.json;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.MathContext;
import java.math.RoundingMode;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;

/**
 * Writes JSON, byte for byte as the Python side (msgspec) does: maps in their own order, no blanks, numbers as short
 * as they can be read back.
 */
public final class JsonWriter {
    private static final int MAX_DIGITS = 17;
    private static final int MAX_PLAIN = 16;
    private static final int MIN_PLAIN = -5;

    private final StringBuilder out = new StringBuilder();
    private final boolean indented;

    private JsonWriter(boolean indented) {
        this.indented = indented;
    }

    /** {@code value} in one line of UTF-8. Values: maps, lists, {@code long[]}, strings, numbers, booleans, null. */
    public static byte[] compact(Object value) {
        JsonWriter writer = new JsonWriter(false);
        writer.write(value, 0);
        return writer.out.toString().getBytes(StandardCharsets.UTF_8);
    }

    /** The same with a line for each item, indented by one blank a level. */
    public static byte[] indented(Object value) {
        JsonWriter writer = new JsonWriter(true);
        writer.write(value, 0);
        return writer.out.toString().getBytes(StandardCharsets.UTF_8);
    }

    private void write(Object value, int level) {
        if (value instanceof Map) {
            writeMap((Map<?, ?>) value, level);
        } else if (value instanceof List) {
            writeList((List<?>) value, level);
        } else if (value instanceof long[]) {
            writeLongs((long[]) value, level);
        } else if (value instanceof Double) {
            out.append(number((Double) value));
        } else if (value instanceof String) {
            writeString((String) value);
        } else if (value == null || value instanceof Boolean || value instanceof Long
                || value instanceof Integer || value instanceof BigInteger) {
            out.append(value);
        } else {
            throw new IllegalArgumentException("no JSON for a " + value.getClass().getName());
        }
    }

    private void writeMap(Map<?, ?> map, int level) {
        out.append('{');
        boolean first = true;
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            item(first, level);
            first = false;
            writeString((String) entry.getKey());
            out.append(indented ? ": " : ":");
            write(entry.getValue(), level + 1);
        }
        end(first, level, '}');
    }

    private void writeList(List<?> list, int level) {
        out.append('[');
        boolean first = true;
        for (Object value : list) {
            item(first, level);
            first = false;
            write(value, level + 1);
        }
        end(first, level, ']');
    }

    private void writeLongs(long[] values, int level) {
        out.append('[');
        boolean first = true;
        for (long value : values) {
            item(first, level);
            first = false;
            out.append(value);
        }
        end(first, level, ']');
    }

    private void item(boolean first, int level) {
        if (!first) {
            out.append(',');
        }
        newLine(level + 1);
    }

    private void end(boolean empty, int level, char bracket) {
        if (!empty) {
            newLine(level);
        }
        out.append(bracket);
    }

    private void newLine(int level) {
        if (indented) {
            out.append('\n');
            for (int i = 0; i < level; i++) {
                out.append(' ');
            }
        }
    }

    private void writeString(String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            int known = "\"\\\b\f\n\r\t".indexOf(c);
            boolean pair = Character.isHighSurrogate(c)
                    && i + 1 < text.length()
                    && Character.isLowSurrogate(text.charAt(i + 1));
            if (known >= 0) {
                out.append('\\').append("\"\\bfnrt".charAt(known));
            } else if (c < ' ') {
                out.append(String.format("\\u%04x", (int) c));
            } else if (pair) {
                out.append(c).append(text.charAt(++i));
            } else {
                out.append(Character.isSurrogate(c) ? '\ufffd' : c); // what is no text is replaced
            }
        }
        out.append('"');
    }

    /** The shortest text that is read back as {@code value}; IllegalArgumentException for NaN and infinities. */
    static String number(double value) {
        if (Double.isNaN(value) || Double.isInfinite(value)) {
            throw new IllegalArgumentException(value + " is not a JSON number");
        }
        String sign = Double.compare(value, 0.0) < 0 ? "-" : "";
        if (value == 0) {
            return sign + "0.0";
        }
        BigDecimal shortest = shortest(Math.abs(value)).stripTrailingZeros();
        String digits = shortest.unscaledValue().toString();
        int point = digits.length() - shortest.scale(); // digits before the decimal point
        return sign + (point > MIN_PLAIN && point <= MAX_PLAIN ? plain(digits, point) : scientific(digits, point));
    }

    private static BigDecimal shortest(double value) {
        BigDecimal exact = new BigDecimal(value);
        for (int precision = 1; precision < MAX_DIGITS; precision++) {
            BigDecimal rounded = exact.round(new MathContext(precision, RoundingMode.HALF_EVEN));
            if (rounded.doubleValue() == value) {
                return rounded;
            }
        }
        return exact.round(new MathContext(MAX_DIGITS, RoundingMode.HALF_EVEN));
    }

    private static String plain(String digits, int point) {
        if (point <= 0) {
            return "0." + zeros(-point) + digits;
        }
        if (digits.length() <= point) {
            return digits + zeros(point - digits.length()) + ".0";
        }
        return digits.substring(0, point) + "." + digits.substring(point);
    }

    private static String scientific(String digits, int point) {
        String rest = digits.length() == 1 ? "" : "." + digits.substring(1);
        return digits.charAt(0) + rest + "e" + (point - 1);
    }

    private static String zeros(int count) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < count; i++) {
            text.append('0');
        }
        return text.toString();
    }
}
