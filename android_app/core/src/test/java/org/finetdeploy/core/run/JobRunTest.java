package org.finetdeploy.core.run;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Resources;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.protocol.VisitRequest;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class JobRunTest {
    @Rule
    public final TemporaryFolder temporary = new TemporaryFolder();

    private final Schema schema = Schema.load();
    private final List<Long> visited = new ArrayList<>();
    private Path folder;
    private List<Map<String, Object>> golden;

    /** Plays the process of a visit: says what it was told to say, at once. */
    private abstract class Launcher implements VisitLauncher {
        int ended;

        @Override
        public void start(Path request, Path records) {
            try {
                VisitRequest visit = VisitRequest.read(request, schema);
                visited.add(visit.visit);
                play(visit, records);
            } catch (IOException error) {
                throw new Problem("test", error);
            }
        }

        abstract void play(VisitRequest visit, Path records) throws IOException;

        @Override
        public boolean running() {
            return false;
        }

        @Override
        public void end() {
            ended++;
        }
    }

    private final Launcher good = new Launcher() {
        @Override
        void play(VisitRequest visit, Path records) throws IOException {
            write(records, visit.visit, 6);
        }
    };

    @Before
    public void job() throws IOException {
        folder = temporary.getRoot().toPath();
        Files.write(folder.resolve("model.onnx"), "model".getBytes());
        Files.write(folder.resolve("golden.safetensors"), "golden".getBytes());
        Files.write(folder.resolve("job.json"), JsonWriter.compact(goldenJob()));
        golden = Records.decodeLines(Resources.golden("bench/records.jsonl"), schema).subList(0, 6);
    }

    /** The golden job, with the hash of the golden file that is here. */
    @SuppressWarnings("unchecked")
    private Map<String, Object> goldenJob() throws IOException {
        String sha256 = org.finetdeploy.core.files.Files.sha256(folder.resolve("golden.safetensors"));
        Map<String, Object> job = JsonParser.parseObject(Resources.golden("bench/job.json"));
        for (Object row : (List<Object>) job.get("rows")) {
            ((Map<String, Object>) ((Map<String, Object>) row).get("golden")).put("sha256", sha256);
        }
        return job;
    }

    /** The first {@code count} records of the golden visit, as those of another one. */
    private void write(Path path, long visit, int count) throws IOException {
        for (Map<String, Object> record : golden.subList(0, count)) {
            record.put("visit", visit);
            Files.write(path, Records.line(record), StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
    }

    private RunFolder run(VisitLauncher launcher) throws InterruptedException {
        RunFolder run = new RunFolder(folder, schema);
        new JobRun(run, folder, relative -> folder, launcher).run((done, total) -> { });
        return run;
    }

    private Map<String, Object> last(RunFolder run, int visit) {
        List<Map<String, Object>> records = run.records(visit);
        return records.get(records.size() - 1);
    }

    @SuppressWarnings("unchecked")
    private void timeout(double seconds) throws IOException {
        Map<String, Object> job = goldenJob();
        ((Map<String, Object>) job.get("settings")).put("visit_timeout_seconds", seconds);
        Files.write(folder.resolve("job.json"), JsonWriter.compact(job));
    }

    @Test
    public void allVisitsAreDoneInOrderAndTheirRecordsKept() throws Exception {
        RunFolder run = run(good);
        assertEquals(Arrays.asList(0L, 1L, 2L, 3L, 4L, 5L), visited);
        assertEquals("[]", run.missing().toString());
        RunFolder again = new RunFolder(folder, schema);
        assertEquals("[]", again.missing().toString());
        assertEquals(6, again.records(5).size());
        assertEquals("{onnxruntime/0=952.4 images/s, onnxruntime/0-aa=952.4 images/s}",
                ResultTable.of(again).toString());
    }

    @Test
    public void aRunThatWasCutOffGoesOnWithTheVisitsThatAreMissing() throws Exception {
        write(folder.resolve("records.jsonl"), 0, 6);
        write(folder.resolve("records.jsonl"), 1, 3);
        Files.write(folder.resolve("records.jsonl"), "{\"type\":\"sam".getBytes(), StandardOpenOption.APPEND);
        assertEquals("[1, 2, 3, 4, 5]", new RunFolder(folder, schema).missing().toString());
        RunFolder run = run(good);
        assertEquals(Arrays.asList(1L, 2L, 3L, 4L, 5L), visited);
        assertEquals(6, run.records(1).size());
        assertEquals(6, new RunFolder(folder, schema).records(1).size());
        String text = new String(Files.readAllBytes(folder.resolve("records.jsonl")));
        assertTrue(text.contains("{\"type\":\"sam\n{\"type\":\"resumed\",\"schema_version\":1,\"resumed_utc\":\""));
        assertTrue(text.contains("\"visits_done\":1,\"discarded_bytes\":12}"));
    }

    @Test
    public void aProcessThatDiedIsAnInvalidVisitWithWhatItHadReached() throws Exception {
        RunFolder run = run(new Launcher() {
            boolean first;

            @Override
            void play(VisitRequest visit, Path records) throws IOException {
                write(records.resolveSibling("visit.jsonl.unfinished"), visit.visit, 3);
                first = true;
            }

            @Override
            public boolean running() {
                boolean alive = first;
                first = false;
                return alive;
            }
        });
        assertEquals("[]", run.missing().toString());
        assertEquals(4, run.records(2).size());
        assertEquals("the visit's process died", last(run, 2).get("reason"));
        assertEquals("warmup", last(run, 2).get("phase"));
        assertEquals("- (3 invalid)", ResultTable.of(run).get("onnxruntime/0"));
    }

    @Test
    public void aVisitThatHangsIsEndedAndTheNextOneFollows() throws Exception {
        timeout(0.2);
        Launcher hanging = new Launcher() {
            boolean alive;

            @Override
            void play(VisitRequest visit, Path records) {
                alive = true;
            }

            @Override
            public boolean running() {
                return alive;
            }

            @Override
            public void end() {
                super.end();
                alive = false;
            }
        };
        RunFolder run = run(hanging);
        assertEquals(6, hanging.ended);
        assertEquals("no result within 0.2 s", last(run, 5).get("reason"));
        assertEquals("start", last(run, 5).get("phase"));
    }

    @Test
    public void aVisitStartsWhenTheProcessBeforeItIsGone() throws Exception {
        Launcher slow = new Launcher() {
            int looks;

            @Override
            void play(VisitRequest visit, Path records) throws IOException {
                assertEquals(0, looks);
                write(records, visit.visit, 6);
                looks = 3;
            }

            @Override
            public boolean running() {
                looks = Math.max(0, looks - 1);
                return looks > 0;
            }
        };
        assertEquals("[]", run(slow).missing().toString());
        assertEquals(0, slow.ended);
    }

    @Test
    public void recordsOfAnotherVisitOrNoneAreNotKept() throws Exception {
        RunFolder run = run(new Launcher() {
            @Override
            void play(VisitRequest visit, Path records) throws IOException {
                Files.write(records, "{\"type\":\"what\"}\n".getBytes());
            }
        });
        assertTrue(last(run, 0).get("reason").toString().startsWith("not a run record"));
        Files.delete(folder.resolve("records.jsonl"));
        Problem problem = assertThrows(Problem.class, () -> run(new Launcher() {
            @Override
            void play(VisitRequest visit, Path records) throws IOException {
                write(records, 3, 6);
            }
        }));
        assertEquals("the records are of another visit", problem.getMessage());
    }

    @Test
    @SuppressWarnings("unchecked")
    public void noFileOutsideItsBundleIsRun() throws Exception {
        for (String path : Arrays.asList("../../etc/passwd", "/etc/passwd", "", ".", "link/passwd", "a/../..")) {
            Map<String, Object> job = goldenJob();
            for (Object row : (List<Object>) job.get("rows")) {
                ((Map<String, Object>) ((Map<String, Object>) row).get("artifact")).put("file", path);
            }
            Files.write(folder.resolve("job.json"), JsonWriter.compact(job));
            Files.deleteIfExists(folder.resolve("records.jsonl"));
            Files.deleteIfExists(folder.resolve("link"));
            Files.createSymbolicLink(folder.resolve("link"), java.nio.file.Paths.get("/etc"));
            Problem problem = assertThrows(path, Problem.class, () -> run(good));
            assertTrue(path, problem.getMessage().contains("leaves its folder"));
        }
        assertEquals("[]", visited.toString());
    }

    @Test
    public void anotherFileThanTheJobNamesIsNotRun() throws Exception {
        for (String file : Arrays.asList("model.onnx", "golden.safetensors")) {
            byte[] right = Files.readAllBytes(folder.resolve(file));
            Files.write(folder.resolve(file), "other".getBytes());
            assertTrue(assertThrows(Problem.class, () -> run(good)).getMessage().contains("not the one"));
            Files.write(folder.resolve(file), right);
        }
        assertEquals("[]", visited.toString());
        assertEquals("[]", run(good).missing().toString());
    }

    /** Nothing is wrong with the visits: they are still to be done when the app is on the screen again. */
    @Test
    public void aVisitThatMayNotBeStartedEndsTheRunAndStaysMissing() throws Exception {
        Problem problem = assertThrows(Problem.class, () -> run(new Launcher() {
            @Override
            void play(VisitRequest visit, Path records) throws IOException {
                if (visit.visit == 1) {
                    throw new Problem("not allowed from the background");
                }
                write(records, visit.visit, 6);
            }
        }));
        assertEquals("not allowed from the background", problem.getMessage());
        assertEquals("[1, 2, 3, 4, 5]", new RunFolder(folder, schema).missing().toString());
    }

    @Test
    public void aRequestThatIsNotTakenIsInvalidWithTheReason() throws Exception {
        RunFolder run = run(new Launcher() {
            @Override
            void play(VisitRequest visit, Path records) throws IOException {
                Files.write(records.resolveSibling("visit.jsonl.refused"), "no such\nmodel\n".getBytes());
            }
        });
        assertEquals("no such model", last(run, 5).get("reason"));
    }

    @Test
    public void nothingOfAVisitIsLeftBesideTheRecords() throws Exception {
        run(good);
        assertEquals(Arrays.asList("golden.safetensors", "job.json", "model.onnx", "records.jsonl"),
                Arrays.asList(sorted(folder.toFile().list())));
    }

    private static String[] sorted(String[] names) {
        Arrays.sort(names);
        return names;
    }

    @Test
    public void aRunIsStoppedBetweenTwoVisits() throws Exception {
        RunFolder run = new RunFolder(folder, schema);
        JobRun job = new JobRun(run, folder, relative -> folder, good);
        job.run((done, total) -> {
            if (done == 2) {
                job.stop();
            }
        });
        assertEquals(Arrays.asList(0L, 1L), visited);
        assertEquals("[2, 3, 4, 5]", run.missing().toString());
    }

    @Test
    public void aFolderThatIsNoRunIsRefused() throws Exception {
        write(folder.resolve("records.jsonl"), 17, 6);
        assertThrows(Problem.class, () -> new RunFolder(folder, schema));
        Files.write(folder.resolve("job.json"), "{}".getBytes());
        assertThrows(Problem.class, () -> new RunFolder(folder, schema));
        assertThrows(Problem.class, () -> new RunFolder(folder.resolve("absent"), schema));
    }
}
