package org.finetdeploy.core.run;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Resources;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** Which visits count, and what is shown of them. */
public class ResultTableTest {
    @Rule
    public final TemporaryFolder temporary = new TemporaryFolder();

    private RunFolder run;

    /** The golden job, all of its visits being the golden one. */
    @Before
    public void finishedRun() throws Exception {
        Schema schema = Schema.load();
        Path folder = temporary.getRoot().toPath();
        Files.write(folder.resolve("job.json"), Resources.golden("bench/job.json"));
        run = new RunFolder(folder, schema);
        for (int visit : run.missing()) {
            List<Map<String, Object>> records = new ArrayList<>();
            for (Map<String, Object> record :
                    Records.decodeLines(Resources.golden("bench/records.jsonl"), schema).subList(0, 6)) {
                record.put("visit", (long) visit);
                records.add(record);
            }
            run.append(visit, records);
        }
    }

    @Test
    @SuppressWarnings("unchecked")
    public void aVisitThatDoesNotCountIsNotInTheTable() throws Exception {
        assertEquals(null, VisitProblem.of(run.records(0), run.job.row(run.job.rowOf(0))));
        Object[][] spoilt = {
            {"start", "artifact_sha256", "0", "another file was run"}, {"load", "runtime", "other", "run by other"},
            {"load", "threads", 2L, "the runtime reports 2"}, {"end", "runs", 1L, "1 runs reported"},
            {"samples", "latencies_ns", Arrays.asList(0L), "usable samples"},
            {"end", "output_errors", new LinkedHashMap<>(), "error not a number, limit 1.0e-05"},
            {"warmup", "type", "other", "incomplete"},
        };
        for (Object[] change : spoilt) {
            List<Map<String, Object>> records = new ArrayList<>();
            for (Map<String, Object> record : run.records(0)) {
                Map<String, Object> copy = new LinkedHashMap<>(record);
                if (change[0].equals(copy.get("type"))) {
                    copy.put((String) change[1], change[2]);
                }
                records.add(copy);
            }
            String problem = String.valueOf(VisitProblem.of(records, run.job.row(run.job.rowOf(0))));
            assertTrue(problem, problem.contains((String) change[3]));
        }
        Map<String, Object> errors = new LinkedHashMap<>();
        errors.put("photo_0", 1.1e-5);
        errors.put("noise_0", 1e-7);
        run.records(0).get(5).put("output_errors", errors);
        assertEquals("952.4 images/s (1 invalid)", ResultTable.of(run).get("onnxruntime/0"));
    }

    @Test
    public void throughputIsTakenAsTheJobSays() {
        Map<String, Object> samples =
                Records.of("samples", 0, "latencies_ns", Arrays.asList(1000000L, 1000000L, 4000000L));
        Map<String, Object> end = Records.of("end", 0);
        assertEquals(1000.0, ResultTable.imagesPerSecond(Arrays.asList(samples, end), false), 1e-9);
        assertEquals(500.0, ResultTable.imagesPerSecond(Arrays.asList(samples, end), true), 1e-9);
    }
}
