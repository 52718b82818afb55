package org.finetdeploy.core.golden;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;

import org.finetdeploy.core.Problem;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class GoldenFileTest {
    @Rule
    public final TemporaryFolder folder = new TemporaryFolder();

    private Path path() {
        return folder.getRoot().toPath().resolve("golden.safetensors");
    }

    private Problem refused(String header, int bytes) throws IOException {
        Path path = GoldenFiles.write(path(), header.getBytes(StandardCharsets.UTF_8), new byte[bytes]);
        return assertThrows(header, Problem.class, () -> {
            try (GoldenFile file = new GoldenFile(path)) {
                file.input("a");
            }
        });
    }

    @Test
    public void inputsAndOutputsAreReadAsTheyAre() throws IOException {
        try (GoldenFile file = new GoldenFile(GoldenFiles.write(path()))) {
            assertEquals("[noise_0, photo_0]", file.inputs().toString());
            Input input = file.input("noise_0");
            assertArrayEquals(new long[] {1, 2}, input.shape);
            assertTrue(input.data().isDirect());
            assertEquals(3f, input.data().get(0), 0);
            assertEquals(4f, input.data().get(1), 0);
            assertArrayEquals(new double[] {2, 4}, file.output("photo_0").values, 0);
            Problem problem = assertThrows(Problem.class, () -> file.input("absent"));
            assertTrue(problem.getMessage().contains("no golden tensor 'input.absent'"));
        }
    }

    @Test
    public void anInputMustBeFp32AndAnOutputMayBe() throws IOException {
        String header = "{" + GoldenFiles.entry("input.a", "F64", "[1]", 0, 8) + ","
                + GoldenFiles.entry("output.a", "F32", "[2]", 0, 8) + "}";
        assertTrue(refused(header, 8).getMessage().contains("not fp32"));
        try (GoldenFile file = new GoldenFile(path())) {
            assertEquals(2, file.output("a").values.length);
        }
    }

    @Test
    public void noSizeOrPlaceThatDoesNotFitTheFileIsAccepted() throws IOException {
        String[] entries = {
            GoldenFiles.entry("input.a", "F32", "[2]", 0, 4), GoldenFiles.entry("input.a", "F32", "[2]", 4, 12),
            GoldenFiles.entry("input.a", "F32", "[2]", -8, 0), GoldenFiles.entry("input.a", "F32", "[2]", 8, 0),
            GoldenFiles.entry("input.a", "F32", "[-2]", 0, 8), GoldenFiles.entry("input.a", "BF16", "[2]", 0, 8),
            GoldenFiles.entry("input.a", "F32", "[4611686018427387904,4]", 0, 8),
            GoldenFiles.entry("input.a", "F32", "[2.0]", 0, 8), GoldenFiles.entry("input.a", "F32", "2", 0, 8),
            GoldenFiles.entry("input.a", "F32", "[1,1,1,1,1,1,1,1,2]", 0, 8),
            GoldenFiles.entry("input.a", "F32", "[18446744073709551618]", 0, 8),
            "\"input.a\":{\"dtype\":\"F32\",\"shape\":[2]}", "\"input.a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}",
            "\"input.a\":{}", "\"input.a\":[]",
        };
        for (String entry : entries) {
            assertTrue(entry, refused("{" + entry + "}", 8).getMessage().contains("is damaged"));
        }
        refused("{\"input.a\":null}", 8);
        refused("{}", 8);
    }

    @Test
    public void anythingThatIsNoSafetensorsFileIsRefused() throws IOException {
        byte[] good = Files.readAllBytes(GoldenFiles.write(path()));
        Random random = new Random(0);
        for (int i = 0; i < 2000; i++) {
            byte[] broken = good.clone();
            broken[random.nextInt(broken.length)] ^= (byte) (1 << random.nextInt(8));
            int keep = i % 2 == 0 ? broken.length : random.nextInt(broken.length);
            Files.write(path(), java.util.Arrays.copyOf(broken, keep));
            try (GoldenFile file = new GoldenFile(path())) {
                file.input("photo_0");
                file.output("noise_0");
            } catch (Problem refused) {
                assertTrue(refused.getMessage().contains(path().toString()));
            }
        }
        Files.write(path(), new byte[] {-1, -1, -1, -1, -1, -1, -1, 127, '{', '}'});
        assertThrows(Problem.class, () -> new GoldenFile(path()));
        Files.write(path(), new byte[] {-1, -1, -1, -1, -1, -1, -1, -1, '{', '}'});
        assertThrows(Problem.class, () -> new GoldenFile(path()));
        assertThrows(Problem.class, () -> new GoldenFile(folder.getRoot().toPath().resolve("absent")));
        assertThrows(Problem.class, () -> new GoldenFile(folder.getRoot().toPath()));
    }

    @Test
    public void theErrorIsThatOfTheCertificate() {
        Reference reference = new Reference(new long[] {1, 2}, new double[] {3, 4});
        assertEquals(0.0, reference.relativeError(output(3, 4)), 0);
        assertEquals(1.0, reference.relativeError(output(6, 8)), 1e-15);
        assertEquals(0.2, reference.relativeError(output(3, 5)), 1e-15);
        assertNull(reference.relativeError(output(3, Float.NaN)));
        assertNull(reference.relativeError(output(3, Float.POSITIVE_INFINITY)));
        assertNull(reference.relativeError(new Output(new long[] {2}, new float[] {3, 4})));
        assertNull(reference.relativeError(new Output(new long[] {1, 1}, new float[] {3})));
        Reference zeros = new Reference(new long[] {1, 2}, new double[] {0, 0});
        assertEquals(5.0, zeros.relativeError(output(3, 4)), 1e-15);
        assertEquals(0.0, zeros.relativeError(output(0, 0)), 0);
        Reference huge = new Reference(new long[] {1, 2}, new double[] {3e300, 4e300});
        assertEquals(1.0, huge.relativeError(output(0, 0)), 1e-15);
        Reference tiny = new Reference(new long[] {1, 2}, new double[] {3e-320, 4e-320});
        assertEquals(1.0, tiny.relativeError(output(0, 0)), 1e-2);
        assertNull(new Reference(new long[] {0}, new double[0]).relativeError(new Output(new long[] {0}, new float[0])));
    }

    private static Output output(float a, float b) {
        return new Output(new long[] {1, 2}, new float[] {a, b});
    }
}
