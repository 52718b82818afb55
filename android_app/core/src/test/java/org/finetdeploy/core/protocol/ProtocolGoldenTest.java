package org.finetdeploy.core.protocol;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Resources;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;
import org.junit.Test;

/** The golden files of {@code tests/data/bench}, which the Python side writes and reads as well. */
public class ProtocolGoldenTest {
    private final Schema schema = Schema.load();

    @Test
    public void theJobIsReadAndWrittenByteForByte() throws IOException {
        byte[] golden = Resources.golden("bench/job.json");
        Job job = Job.decode(golden, schema);
        ByteArrayOutputStream again = new ByteArrayOutputStream();
        again.write(JsonWriter.indented(job.json()));
        again.write('\n');
        assertArrayEquals(golden, again.toByteArray());
        assertEquals(6, job.visitCount());
        assertEquals("onnxruntime/0-aa", job.rowOf(2));
        assertEquals("../bundle", job.bundleOf("onnxruntime/0"));
        assertEquals("model.onnx", job.artifactOf("onnxruntime/0"));
        assertEquals("golden.safetensors", job.goldenOf("onnxruntime/0"));
    }

    @Test
    public void everyRecordIsReadAndWrittenByteForByte() throws IOException {
        byte[] golden = Resources.golden("bench/records.jsonl");
        ByteArrayOutputStream again = new ByteArrayOutputStream();
        Set<Object> types = new HashSet<>();
        for (Map<String, Object> record : Records.decodeLines(golden, schema)) {
            again.write(Records.line(record));
            types.add(record.get("type"));
        }
        assertArrayEquals(golden, again.toByteArray());
        assertEquals(new HashSet<>(Arrays.asList(
                "start", "load", "first", "warmup", "samples", "end", "invalid", "resumed")), types);
    }

    @Test
    public void aRequestOfTheJobSaysWhatTheVisitNeeds() throws IOException {
        Job job = Job.decode(Resources.golden("bench/job.json"), schema);
        byte[] request = JsonWriter.compact(job.request(3, "/bundle/model.onnx", "/bundle/golden.safetensors"));
        VisitRequest visit = VisitRequest.decode(request, schema);
        assertEquals(3, visit.visit);
        assertEquals("/bundle/model.onnx", visit.artifact.toString());
        assertEquals("onnx", visit.format);
        assertEquals("photo_0", visit.timedInput);
        assertEquals(Arrays.asList("photo_0", "noise_0"), visit.checkedInputs);
        assertEquals(1, visit.threads);
        assertEquals(1, visit.warmup.minRuns);
        assertEquals(5.0, visit.warmup.maxSeconds, 0);
        assertEquals(5, visit.timed.minRuns);
        assertEquals(1000, visit.timed.maxRuns);
        assertEquals(1000, visit.warmup.maxRuns);
    }

    /** Each field of each golden object in turn: absent, of another type, and beside one that nobody knows. */
    @Test
    public void noChangedFieldOfARecordIsAccepted() throws IOException {
        for (Map<String, Object> record : Records.decodeLines(Resources.golden("bench/records.jsonl"), schema)) {
            for (String name : new ArrayList<>(record.keySet())) {
                Map<String, Object> changed = new LinkedHashMap<>(record);
                changed.put(name, new ArrayList<>(Arrays.asList(new LinkedHashMap<>())));
                refused(changed);
            }
            Map<String, Object> more = new LinkedHashMap<>(record);
            more.put("unknown", 1L);
            refused(more);
        }
    }

    @Test
    public void aRecordWithoutARequiredFieldIsRefusedAndNamesIt() throws IOException {
        List<String> optional = Arrays.asList("schema_version", "exit_status", "signal", "stderr_tail");
        for (Map<String, Object> record : Records.decodeLines(Resources.golden("bench/records.jsonl"), schema)) {
            for (String name : record.keySet()) {
                Map<String, Object> changed = new LinkedHashMap<>(record);
                changed.remove(name);
                if (!optional.contains(name)) {
                    assertTrue(refused(changed).getMessage().contains(name));
                }
            }
        }
    }

    @Test
    public void valuesOutOfRangeAreRefused() throws IOException {
        Map<String, Object> job = JsonParser.parseObject(Resources.golden("bench/job.json"));
        Object[][] changes = {
            {"schema_version", 2L}, {"device.cpu_count", 0L}, {"device.cpu_count", 1.5}, {"settings.statistic", "mode"},
            {"settings.warmup_min_seconds", -0.1}, {"settings.timed_min_runs", 0L}, {"rows.0.artifact.sha256", "00"},
            {"rows.0.golden.output_limits", new LinkedHashMap<>()}, {"rows.0.threads", 0L}, {"rows.0.threads", true},
            {"rows", new ArrayList<>()}, {"visits", new ArrayList<>()}, {"visits.0.index", -1L},
            {"visits.0.index", 1L}, {"visits.0.row", "another"}, {"rows.0.id", "onnxruntime/0-aa"},
        };
        for (Object[] change : changes) {
            Map<String, Object> copy = JsonParser.parseObject(JsonWriter.compact(job));
            set(copy, (String) change[0], change[1]);
            Problem problem = assertThrows(
                    Arrays.toString(change), Problem.class, () -> Job.decode(JsonWriter.compact(copy), schema));
            assertTrue(problem.getMessage().startsWith("not a job: "));
        }
    }

    @Test
    public void aLineThatAKillCutOffIsLeftOut() throws IOException {
        byte[] golden = Resources.golden("bench/records.jsonl");
        for (int cut = 1; cut < 200; cut += 7) {
            byte[] shorter = Arrays.copyOf(golden, golden.length - cut);
            assertTrue(Records.decodeLines(shorter, schema).size() < 8);
        }
        byte[] resumed = Records.line(Records.resumed("now", 0, 3));
        assertEquals(1, Records.decodeLines(("{\"t\n" + new String(resumed)).getBytes(), schema).size());
        for (String text : new String[] {"{\"ty\n", "{\"t\n{\"t\n", "{\"t\n"}) {
            String rest = text.length() == 4 ? "" : new String(resumed);
            assertThrows(text, Problem.class, () -> Records.decodeLines((text + rest).getBytes(), schema));
        }
        assertThrows(Problem.class, () -> Records.decode("{\"type\":\"what\"}".getBytes(), schema));
        assertThrows(Problem.class, () -> Records.decode("{}".getBytes(), schema));
    }

    @Test
    public void theReasonOfAFailureIsOneLineOfBoundedLength() {
        StringBuilder reason = new StringBuilder("a\n  b\t");
        for (int i = 0; i < 3000; i++) {
            reason.append('x');
        }
        String line = (String) Records.invalid(1, reason.toString(), "load").get("reason");
        assertTrue(line.startsWith("a b x"));
        assertEquals(2000, line.length());
    }

    private Problem refused(Map<String, Object> record) {
        return assertThrows(record.toString(), Problem.class, () -> Records.decode(Records.line(record), schema));
    }

    @SuppressWarnings("unchecked")
    private static void set(Object tree, String path, Object value) {
        String[] names = path.split("\\.");
        Object at = tree;
        for (int i = 0; i < names.length - 1; i++) {
            at = at instanceof List ? ((List<Object>) at).get(Integer.parseInt(names[i])) : ((Map<String, Object>) at).get(names[i]);
        }
        ((Map<String, Object>) at).put(names[names.length - 1], value);
    }
}
