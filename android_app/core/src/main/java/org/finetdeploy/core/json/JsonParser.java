package org.finetdeploy.core.json;

import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;

/**
 * Reads one JSON text (RFC 8259), strictly. The platform's own {@code org.json} takes comments, unquoted words and
 * {@code NaN}, keeps no difference between 1 and 1.0, and is another program on a phone than on a JVM.
 *
 * <p>Objects become maps in the order of the text (the last of two equal names counts, as for msgspec), arrays lists,
 * whole numbers {@code Long} or {@code BigInteger}, all others {@code Double}.
 */
public final class JsonParser {
    private static final int MAX_DEPTH = 100;

    private final String text;
    private int at;
    private int depth;

    private JsonParser(String text) {
        this.text = text;
    }

    /** The value in {@code utf8}; Problem when it is not exactly one JSON text in UTF-8. */
    public static Object parse(byte[] utf8) {
        String text;
        try {
            text = StandardCharsets.UTF_8.newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .onUnmappableCharacter(CodingErrorAction.REPORT)
                    .decode(ByteBuffer.wrap(utf8))
                    .toString();
        } catch (CharacterCodingException error) {
            throw new Problem("not UTF-8 text", error);
        }
        JsonParser parser = new JsonParser(text);
        Object value = parser.value();
        parser.skipBlanks();
        if (parser.at != text.length()) {
            throw parser.malformed("text after the end");
        }
        return value;
    }

    /** The object in {@code utf8}; Problem when it is another value, or none. */
    public static Map<String, Object> parseObject(byte[] utf8) {
        Object value = parse(utf8);
        if (!(value instanceof Map)) {
            throw new Problem("not a JSON object");
        }
        @SuppressWarnings("unchecked")
        Map<String, Object> object = (Map<String, Object>) value;
        return object;
    }

    private Object value() {
        skipBlanks();
        if (at >= text.length()) {
            throw malformed("ends too early");
        }
        char first = text.charAt(at);
        switch (first) {
            case '{':
                return object();
            case '[':
                return array();
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> object() {
        Map<String, Object> found = new LinkedHashMap<>();
        enter();
        if (!endsHere('}')) {
            do {
                skipBlanks();
                if (at >= text.length() || text.charAt(at) != '"') {
                    throw malformed("no name");
                }
                String name = string();
                skipBlanks();
                expect(':');
                found.put(name, value());
            } while (continues('}'));
        }
        depth--;
        return found;
    }

    private List<Object> array() {
        List<Object> found = new ArrayList<>();
        enter();
        if (!endsHere(']')) {
            do {
                found.add(value());
            } while (continues(']'));
        }
        depth--;
        return found;
    }

    private void enter() {
        at++;
        if (++depth > MAX_DEPTH) {
            throw malformed("nested too deeply");
        }
    }

    private boolean endsHere(char end) {
        skipBlanks();
        if (at < text.length() && text.charAt(at) == end) {
            at++;
            return true;
        }
        return false;
    }

    private boolean continues(char end) {
        if (endsHere(end)) {
            return false;
        }
        expect(',');
        return true;
    }

    private void expect(char wanted) {
        if (at >= text.length() || text.charAt(at) != wanted) {
            throw malformed("no '" + wanted + "'");
        }
        at++;
    }

    private Object word(String word, Object meaning) {
        if (!text.startsWith(word, at)) {
            throw malformed("unknown word");
        }
        at += word.length();
        return meaning;
    }

    private String string() {
        StringBuilder found = new StringBuilder();
        at++;
        while (true) {
            char c = next();
            if (c == '"') {
                return wellFormed(found);
            }
            if (c < ' ') {
                throw malformed("control character in a string");
            }
            found.append(c == '\\' ? escaped() : c);
        }
    }

    private char escaped() {
        char c = next();
        switch (c) {
            case '"':
            case '\\':
            case '/':
                return c;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int i = 0; i < 4; i++) {
                    char hex = next();
                    int digit = hex < 128 ? Character.digit(hex, 16) : -1;
                    if (digit < 0) {
                        throw malformed("bad escape");
                    }
                    code = 16 * code + digit;
                }
                return (char) code;
            default:
                throw malformed("bad escape");
        }
    }

    /** Half a surrogate pair is no text, and could not be written again. */
    private String wellFormed(StringBuilder found) {
        for (int i = 0; i < found.length(); i++) {
            char c = found.charAt(i);
            boolean pair = Character.isHighSurrogate(c)
                    && i + 1 < found.length()
                    && Character.isLowSurrogate(found.charAt(i + 1));
            if (Character.isSurrogate(c) && !pair) {
                throw malformed("half a surrogate pair");
            }
            i += pair ? 1 : 0;
        }
        return found.toString();
    }

    private Object number() {
        int start = at;
        boolean whole = true;
        skip("-");
        int digits = at;
        skipDigits();
        boolean bad = at == digits || (text.charAt(digits) == '0' && at > digits + 1);
        if (skip(".")) {
            whole = false;
            int fraction = at;
            skipDigits();
            bad |= at == fraction;
        }
        if (skip("eE")) {
            whole = false;
            skip("+-");
            int exponent = at;
            skipDigits();
            bad |= at == exponent;
        }
        if (bad) {
            throw malformed("no value");
        }
        return converted(text.substring(start, at), whole);
    }

    private Object converted(String number, boolean whole) {
        if (whole) {
            BigInteger value = number.length() < 1000 ? new BigInteger(number) : null;
            if (value == null) {
                throw malformed("number out of range");
            }
            return value.bitLength() < Long.SIZE ? (Object) value.longValue() : value;
        }
        double value = Double.parseDouble(number);
        if (Double.isInfinite(value)) {
            throw malformed("number out of range");
        }
        return value;
    }

    private boolean skip(String anyOf) {
        boolean found = at < text.length() && anyOf.indexOf(text.charAt(at)) >= 0;
        at += found ? 1 : 0;
        return found;
    }

    private void skipDigits() {
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
    }

    private void skipBlanks() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char next() {
        if (at >= text.length()) {
            throw malformed("ends too early");
        }
        return text.charAt(at++);
    }

    private Problem malformed(String found) {
        return new Problem("malformed JSON: " + found + " (character " + at + ")");
    }
}
