package org.finetdeploy.core.run;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Resources;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.protocol.VisitRequest;
import org.junit.Before;
import org.junit.Rule;
import org.junit.rules.TemporaryFolder;

/** A run folder with the golden job, and launchers that play the process of a visit. */
abstract class RunFixture {
    @Rule
    public final TemporaryFolder temporary = new TemporaryFolder();

    final Schema schema = Schema.load();
    final List<Long> visited = new ArrayList<>();
    Path folder;
    List<Map<String, Object>> golden;

    /** Plays the process of a visit: says what it was told to say, at once. */
    abstract class Launcher implements VisitLauncher {
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

    final Launcher good = new Launcher() {
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
    Map<String, Object> goldenJob() throws IOException {
        String sha256 = CheckedFiles.sha256(folder.resolve("golden.safetensors"));
        Map<String, Object> job = JsonParser.parseObject(Resources.golden("bench/job.json"));
        for (Object row : (List<Object>) job.get("rows")) {
            ((Map<String, Object>) ((Map<String, Object>) row).get("golden")).put("sha256", sha256);
        }
        return job;
    }

    /** The first {@code count} records of the golden visit, as those of another one. */
    void write(Path path, long visit, int count) throws IOException {
        for (Map<String, Object> record : golden.subList(0, count)) {
            record.put("visit", visit);
            Files.write(path, Records.line(record), StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
    }

    RunFolder run(VisitLauncher launcher) throws InterruptedException {
        RunFolder run = new RunFolder(folder, schema);
        new JobRun(run, folder, relative -> folder, launcher).run((done, total) -> { });
        return run;
    }

    Map<String, Object> last(RunFolder run, int visit) {
        List<Map<String, Object>> records = run.records(visit);
        return records.get(records.size() - 1);
    }

    @SuppressWarnings("unchecked")
    void timeout(double seconds) throws IOException {
        Map<String, Object> job = goldenJob();
        ((Map<String, Object>) job.get("settings")).put("visit_timeout_seconds", seconds);
        Files.write(folder.resolve("job.json"), JsonWriter.compact(job));
    }
}
