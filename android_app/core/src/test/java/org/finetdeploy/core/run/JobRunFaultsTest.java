package org.finetdeploy.core.run;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.VisitRequest;
import org.junit.Test;

/** What goes wrong in a run, and what is left of it. */
public class JobRunFaultsTest extends RunFixture {
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
}
