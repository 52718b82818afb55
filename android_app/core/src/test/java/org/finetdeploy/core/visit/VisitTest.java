package org.finetdeploy.core.visit;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Resources;
import org.finetdeploy.core.engine.Engines;
import org.finetdeploy.core.golden.GoldenFiles;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.probes.ProcProbes;
import org.finetdeploy.core.protocol.Job;
import org.finetdeploy.core.protocol.RecordFile;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.protocol.Unwritable;
import org.finetdeploy.core.protocol.VisitRequest;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class VisitTest {
    @Rule
    public final TemporaryFolder folder = new TemporaryFolder();

    private final Schema schema = Schema.load();
    private final FakeClock clock = new FakeClock();
    private final FakeEngine engine = new FakeEngine(clock);
    private final Map<String, Object> settings = new LinkedHashMap<>();
    private Path artifact;
    private Path golden;

    @Before
    public void files() throws IOException {
        artifact = Files.write(folder.getRoot().toPath().resolve("model.onnx"), "model".getBytes());
        golden = GoldenFiles.write(folder.getRoot().toPath().resolve("golden.safetensors"));
    }

    private Path at(String name) {
        return folder.getRoot().toPath().resolve(name);
    }

    /** The golden job's first visit, with the files of this test. */
    @SuppressWarnings("unchecked")
    private VisitRequest request() throws IOException {
        Job job = Job.decode(Resources.golden("bench/job.json"), schema);
        Map<String, Object> tree = JsonParser.parseObject(
                JsonWriter.compact(job.request(0, artifact.toString(), golden.toString())));
        ((Map<String, Object>) tree.get("settings")).putAll(settings);
        Map<String, Object> row = (Map<String, Object>) tree.get("row");
        row.put("input_shape", Arrays.asList(1L, 2L));
        return VisitRequest.decode(JsonWriter.compact(tree), schema);
    }

    private List<Map<String, Object>> run(boolean ends, Path outputs) throws IOException {
        List<Map<String, Object>> records = new ArrayList<>();
        Visit visit = new Visit(
                request(), new Engines(engine), new ProcProbes(Paths.get("/")), "test 1", clock, records::add);
        assertEquals(ends, visit.run(outputs));
        for (Map<String, Object> record : records) { // what was written can be read
            assertArrayEquals(Records.line(record), Records.line(Records.decode(Records.line(record), schema)));
        }
        return records;
    }

    private Map<String, Object> invalid() throws IOException {
        List<Map<String, Object>> records = run(false, null);
        Map<String, Object> last = records.get(records.size() - 1);
        assertEquals("invalid", last.get("type"));
        return last;
    }

    private static List<Object> types(List<Map<String, Object>> records) {
        List<Object> types = new ArrayList<>();
        for (Map<String, Object> record : records) {
            types.add(record.get("type"));
        }
        return types;
    }

    @Test
    public void aVisitWritesEachPhaseWithItsTimes() throws IOException {
        List<Map<String, Object>> records = run(true, null);
        assertEquals(Arrays.asList("start", "load", "first", "warmup", "samples", "end"), types(records));
        assertEquals(20.0, records.get(1).get("import_ms"));
        assertEquals(12.5, records.get(1).get("load_ms"));
        assertEquals(1.0, records.get(2).get("first_ms"));
        assertEquals(1, records.get(3).get("runs"));
        assertArrayEquals(new long[] {1000000, 1000000, 1000000, 1000000, 1000000},
                (long[]) records.get(4).get("latencies_ns"));
        Map<String, Object> end = records.get(5);
        assertEquals(5, end.get("runs"));
        assertEquals(5.0, end.get("total_ms"));
        assertEquals("minimum", end.get("stopped_by"));
        assertEquals("{photo_0=0.0, noise_0=0.0}", end.get("output_errors").toString());
    }

    /** Field by field, the order of the schema: that in which Python writes. */
    @Test
    public void recordsHaveTheFieldsAndTheOrderOfTheSchema() throws IOException {
        engine.callsBeforeFailure = 3;
        List<Map<String, Object>> all = run(false, null);
        engine.callsBeforeFailure = Integer.MAX_VALUE;
        all.addAll(run(true, null));
        for (Map<String, Object> record : all) {
            String type = (String) record.get("type");
            List<String> wanted = new ArrayList<>();
            schema.fields(Character.toUpperCase(type.charAt(0)) + type.substring(1)).forEach(wanted::add);
            assertEquals(wanted, new ArrayList<>(record.keySet()));
        }
        Map<?, ?> state = (Map<?, ?>) all.get(0).get("state");
        List<String> wanted = new ArrayList<>();
        schema.fields("DeviceState").forEach(wanted::add);
        assertEquals(wanted, new ArrayList<Object>(state.keySet()));
    }

    @Test
    public void aLoopEndsWithRunsAndSecondsOrAtACap() throws IOException {
        settings.put("timed_min_seconds", 0.01);
        assertEquals("[10, minimum]", runsAndStop());
        settings.put("timed_min_runs", 12L);
        assertEquals("[12, minimum]", runsAndStop());
        settings.put("timed_max_seconds", 0.004);
        assertEquals("[4, max_seconds]", runsAndStop());
        settings.put("timed_max_seconds", 9.0);
        settings.put("timed_max_runs", 7L);
        assertEquals("[7, max_runs]", runsAndStop());
    }

    private String runsAndStop() throws IOException {
        List<Map<String, Object>> records = run(true, null);
        Map<String, Object> end = records.get(records.size() - 1);
        return Arrays.asList(end.get("runs"), end.get("stopped_by")).toString();
    }

    @Test
    public void theWarmUpHasItsOwnRuleAndTheCommonCapOnRuns() throws IOException {
        settings.put("warmup_min_runs", 3L);
        assertEquals(3, run(true, null).get(3).get("runs"));
        settings.put("warmup_min_seconds", 0.008);
        assertEquals(8, run(true, null).get(3).get("runs"));
        settings.put("warmup_max_seconds", 0.002);
        assertEquals(2, run(true, null).get(3).get("runs"));
        settings.put("timed_max_runs", 6L);
        settings.put("warmup_max_seconds", 5.0);
        assertEquals(6, run(true, null).get(3).get("runs"));
    }

    @Test
    public void samplesComeInBatchesOfAThousand() throws IOException {
        settings.put("timed_min_runs", 2500L);
        settings.put("timed_max_runs", 9000L);
        engine.callNs = 1000;
        List<Map<String, Object>> records = run(true, null);
        List<Integer> sizes = new ArrayList<>();
        for (Map<String, Object> record : records) {
            if ("samples".equals(record.get("type"))) {
                sizes.add(((long[]) record.get("latencies_ns")).length);
            }
        }
        assertEquals(Arrays.asList(1000, 1000, 500), sizes);
    }

    @Test
    public void aWrongOutputIsAFigureAndAnUncomparableOneIsNull() throws IOException {
        engine.scale = 4;
        Map<String, Object> end = run(true, null).get(5);
        assertEquals("{photo_0=1.0, noise_0=1.0}", end.get("output_errors").toString());
        engine.scale = Float.NaN;
        end = run(true, null).get(5);
        assertEquals("{photo_0=null, noise_0=null}", end.get("output_errors").toString());
    }

    @Test
    public void anotherFileThanTheJobNamesIsNotGivenToTheRuntime() throws IOException {
        Files.write(artifact, "other".getBytes());
        Map<String, Object> last = invalid();
        assertEquals("load", last.get("phase"));
        assertTrue(last.get("reason").toString().contains("SHA-256 differs"));
        assertEquals(0, engine.calls);
    }

    @Test
    public void eachFailureTellsItsPhase() throws IOException {
        engine.onLoad = new Problem("cannot load the runtime: gone");
        assertEquals("load", invalid().get("phase"));
        engine.onLoad = null;
        engine.onOpen = new Problem("refused");
        assertEquals("load", invalid().get("phase"));
        engine.onOpen = null;
        String[] phases = {"first", "warmup", "timing", "timing", "timing", "timing", "timing", "check", "check"};
        for (int calls = 0; calls < phases.length; calls++) {
            engine.calls = 0;
            engine.callsBeforeFailure = calls;
            Map<String, Object> last = invalid();
            assertEquals(phases[calls], last.get("phase"));
            assertEquals("onnxruntime cannot run this file", last.get("reason"));
        }
    }

    @Test
    public void whateverARuntimeThrowsIsTheVisitsResult() throws IOException {
        engine.callsBeforeFailure = 0;
        engine.onCall = new OutOfMemoryError("heap");
        assertEquals("out of memory", invalid().get("reason"));
        engine.onCall = new UnsatisfiedLinkError("no libx.so");
        assertEquals("UnsatisfiedLinkError: no libx.so", invalid().get("reason"));
        engine.onCall = null;
        engine.callsBeforeFailure = Integer.MAX_VALUE;
        engine.onLoad = new IllegalStateException("two\nlines");
        assertEquals("IllegalStateException: two lines", invalid().get("reason"));
    }

    @Test
    public void anInputOfAnotherShapeIsRefusedBeforeTheRuntimeSeesIt() throws IOException {
        engine.shape = new long[] {1, 3};
        Map<String, Object> last = invalid();
        assertEquals("first", last.get("phase"));
        assertTrue(last.get("reason").toString().startsWith("input has shape (1, 2), this file takes (1, 3)"));
        assertEquals(0, engine.calls);
        engine.shape = null; // then the job's counts
        run(true, null);
    }

    @Test
    public void missingFilesAreNamed() throws IOException {
        golden = at("absent.safetensors");
        assertTrue(invalid().get("reason").toString().contains("absent.safetensors"));
        artifact = at("absent.onnx");
        List<Map<String, Object>> records = run(false, null);
        assertEquals(1, records.size());
        assertEquals("start", records.get(0).get("phase"));
        assertTrue(records.get(0).get("reason").toString().contains("No such file"));
    }

    @Test
    public void theOutputsOfAllInputsAreWrittenRawWithAnIndex() throws IOException {
        run(true, at("outputs.bin"));
        byte[] data = Files.readAllBytes(at("outputs.bin"));
        assertEquals(16, data.length);
        assertArrayEquals(new byte[] {0, 0, (byte) 0xc0, 0x40}, Arrays.copyOf(data, 4)); // 6.0: noise_0 comes first
        Map<String, Object> index = JsonParser.parseObject(Files.readAllBytes(at("outputs.bin.json")));
        assertEquals("[{name=noise_0, shape=[1, 2], offset=0, bytes=8}, {name=photo_0, shape=[1, 2], offset=8, bytes=8}]",
                index.get("outputs").toString());
        assertEquals("check", lastOf(run(false, at("absent/outputs.bin"))).get("phase"));
    }

    private static Map<String, Object> lastOf(List<Map<String, Object>> records) {
        return records.get(records.size() - 1);
    }

    @Test
    public void recordsGetTheirNameWhenTheyAreComplete() throws IOException {
        RecordFile file = new RecordFile(at("records.jsonl"));
        file.write(Records.invalid(0, "reason", "load"));
        assertFalse(Files.exists(at("records.jsonl")));
        assertTrue(new String(Files.readAllBytes(at("records.jsonl.unfinished"))).endsWith("}\n"));
        file.finish();
        assertEquals(1, Records.decodeLines(Files.readAllBytes(at("records.jsonl")), schema).size());
        assertFalse(Files.exists(at("records.jsonl.unfinished")));
        assertThrows(Unwritable.class, () -> new RecordFile(at("absent/records.jsonl")));
        assertThrows(Unwritable.class, () -> file.write(Records.invalid(0, "reason", "load")));
    }
}
