package org.finetdeploy.core.json;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.Random;

import org.finetdeploy.core.Problem;
import org.junit.Test;

public class JsonTest {
    private static Object parse(String text) {
        return JsonParser.parse(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String written(Object value) {
        return new String(JsonWriter.compact(value), StandardCharsets.UTF_8);
    }

    @Test
    public void whatIsReadIsWrittenAgainByteForByte() {
        String[] texts = {
            "{}", "[]", "null", "true", "false", "0", "-1", "9223372036854775807", "-9223372036854775808",
            "18446744073709551616", "{\"b\":1,\"a\":[1.5,{\"c\":null}]}", "\"a\\\"\\\\/\\u0001\\n\\t\\b\\f\\r\"",
            "\"\u00e9\u2028\ud83d\ude00\u007f\"",
        };
        for (String text : texts) {
            assertEquals(text, written(parse(text)));
        }
    }

    /** What msgspec writes for these numbers; the golden files hold more of them. */
    @Test
    public void numbersAreWrittenAsThePythonSideWritesThem() {
        String[] numbers = {
            "0.0", "-0.0", "1.0", "0.1", "2.1", "100.0", "-2600.5", "0.0001", "0.00001", "1e-6", "1e-7", "1.5e-10",
            "1.2345e-6", "1000000000000000.0", "1e16", "1.2345678901234568e17", "1e21", "5e-324",
            "1.7976931348623157e308", "0.30000000000000004", "2.2250738585072014e-308",
        };
        for (String number : numbers) {
            assertEquals(number, written(parse(number)));
            assertEquals(number, written(Double.valueOf(number)));
        }
    }

    @Test
    public void everyDoubleComesBackAsItself() {
        Random random = new Random(0);
        for (int i = 0; i < 20_000; i++) {
            double value = Double.longBitsToDouble(random.nextLong());
            if (!Double.isNaN(value) && !Double.isInfinite(value)) {
                assertEquals(Double.valueOf(value), parse(written(value)));
            }
        }
    }

    @Test
    public void whatIsNotJsonIsRefused() {
        String[] texts = {
            "", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "'a'",
            "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"", "01", "-", "+1", "1.", ".5", "1e", "1e+",
            "1.e1", "NaN", "Infinity", "-Infinity", "1e999", "tru", "truex", "nul", "1 2", "[1]]", "//x\n1", "\ufeff1",
            "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\ud800\"",
        };
        for (String text : texts) {
            assertThrows(text, Problem.class, () -> parse(text));
        }
    }

    @Test
    public void bytesThatAreNoTextAreRefused() {
        byte[][] broken = {{'"', (byte) 0xff, '"'}, {'"', (byte) 0xc3}, {'"', (byte) 0xed, (byte) 0xa0, (byte) 0x80, '"'}};
        for (byte[] bytes : broken) {
            assertThrows(Problem.class, () -> JsonParser.parse(bytes));
        }
    }

    @Test
    public void depthAndLengthOfNumbersAreBounded() {
        String deep = new String(new char[500_000]).replace('\0', '[');
        assertThrows(Problem.class, () -> parse(deep));
        String named = new String(new char[100_000]).replace("\0", "{\"a\":");
        assertThrows(Problem.class, () -> parse(named));
        String number = new String(new char[500_000]).replace('\0', '9');
        assertThrows(Problem.class, () -> parse(number));
    }

    @Test
    public void anyBytesAreReadOrRefused() {
        Random random = new Random(1);
        String alphabet = "{}[]\",:\\u0019.-+eEtruefalsn \n\u00e9";
        int read = 0;
        for (int i = 0; i < 50_000; i++) {
            StringBuilder text = new StringBuilder();
            for (int length = random.nextInt(12); length >= 0; length--) {
                text.append(alphabet.charAt(random.nextInt(alphabet.length())));
            }
            try {
                Object value = parse(text.toString());
                assertEquals(value, parse(written(value)));
                read++;
            } catch (Problem refused) {
                assertTrue(refused.getMessage().startsWith("malformed JSON: "));
            }
        }
        assertTrue("some are JSON", read > 100);
    }

    @Test
    public void whatIsNoTextIsReplacedOnWriting() {
        assertEquals("\"a\ufffdb\"", written("a\ud800b"));
        assertThrows(IllegalArgumentException.class, () -> written(Double.NaN));
        assertThrows(IllegalArgumentException.class, () -> written(new Object()));
    }
}
