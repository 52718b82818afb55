package org.finetdeploy.core.run;

import static org.junit.Assert.assertArrayEquals;
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
        Files.write(folder.resolve("job.json"), Resources.golden("bench/job.json"));
        golden = Records.decodeLines(Resources.golden("bench/records.jsonl"), schema).subList(0, 6);
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
        new JobRun(run, folder, launcher).run(relative -> folder, (done, total) -> { });
        return run;
    }

    private Map<String, Object> last(RunFolder run, int visit) {
        List<Map<String, Object>> records = run.records(visit);
        return records.get(records.size() - 1);
    }

    @SuppressWarnings("unchecked")
    private void timeout(double seconds) throws IOException {
        Map<String, Object> job = JsonParser.parseObject(Resources.golden("bench/job.json"));
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
            Map<String, Object> job = JsonParser.parseObject(Resources.golden("bench/job.json"));
            for (Object row : (List<Object>) job.get("rows")) {
                ((Map<String, Object>) ((Map<String, Object>) row).get("artifact")).put("file", path);
            }
            Files.write(folder.resolve("job.json"), JsonWriter.compact(job));
            Files.deleteIfExists(folder.resolve("records.jsonl"));
            Files.deleteIfExists(folder.resolve("link"));
            Files.createSymbolicLink(folder.resolve("link"), java.nio.file.Paths.get("/etc"));
            RunFolder run = run(good);
            assertTrue(path, last(run, 0).get("reason").toString().contains("leaves its folder"));
        }
        assertEquals("[]", visited.toString());
    }

    @Test
    public void aLauncherThatCannotStartIsAnInvalidVisit() throws Exception {
        RunFolder run = run(new Launcher() {
            @Override
            void play(VisitRequest visit, Path records) {
                throw new Problem("not allowed from the background");
            }
        });
        assertEquals("not allowed from the background", last(run, 0).get("reason"));
    }

    @Test
    public void aRunIsStoppedBetweenTwoVisits() throws Exception {
        RunFolder run = new RunFolder(folder, schema);
        JobRun job = new JobRun(run, folder, good);
        job.run(relative -> folder, (done, total) -> {
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

    @Test
    public void throughputIsTakenAsTheJobSays() {
        Map<String, Object> samples = Records.of("samples", 0, "latencies_ns", Arrays.asList(1000000L, 1000000L, 4000000L));
        Map<String, Object> end = Records.of("end", 0);
        assertEquals(1000.0, ResultTable.imagesPerSecond(Arrays.asList(samples, end), false), 1e-9);
        assertEquals(500.0, ResultTable.imagesPerSecond(Arrays.asList(samples, end), true), 1e-9);
        assertEquals(null, ResultTable.imagesPerSecond(Arrays.asList(samples), true));
        assertArrayEquals(new Object[] {null}, new Object[] {ResultTable.imagesPerSecond(Arrays.asList(end), true)});
    }
}
