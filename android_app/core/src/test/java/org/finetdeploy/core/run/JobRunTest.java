package org.finetdeploy.core.run;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.protocol.VisitRequest;
import org.junit.Test;

public class JobRunTest extends RunFixture {
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
