package org.finetdeploy.core.plan;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Resources;
import org.finetdeploy.core.Version;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.json.Fields;
import org.finetdeploy.core.json.JsonParser;
import org.finetdeploy.core.json.JsonWriter;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.run.RunFolder;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** The golden plans of {@code tests/data/plan}, which the Python side makes of the same bundles. */
public class PlannerTest {
    private static final String UTC = "2026-11-21T00:00:00+00:00";
    private static final List<String> ALL = Arrays.asList("executorch", "onnxruntime", "torch_mobile");

    @Rule
    public final TemporaryFolder folder = new TemporaryFolder();

    private static Path shipped(String name) {
        return Paths.get(System.getProperty("finet.golden"), "plan", name);
    }

    private static Map<String, Object> device() throws IOException {
        return new Fields(JsonParser.parseObject(Resources.golden("plan/two.json"))).inner("device").map();
    }

    private static String plan(List<Bundle> bundles, String preset, int threads, boolean mixed, List<String> runtimes)
            throws IOException {
        byte[] job = new Planner(Planning.load(), runtimes, device()).job(bundles, preset, threads, mixed, UTC);
        return new String(job, StandardCharsets.UTF_8);
    }

    /** A copy of a shipped bundle that may be changed. */
    private Path copy(String name) throws IOException {
        Path target = folder.newFolder().toPath();
        try (Stream<Path> files = Files.list(shipped(name))) {
            for (Path file : (Iterable<Path>) files::iterator) {
                Files.copy(file, target.resolve(file.getFileName()));
            }
        }
        return target;
    }

    private static void change(Path manifest, String old, String replacement) throws IOException {
        String text = new String(Files.readAllBytes(manifest), StandardCharsets.UTF_8);
        assertTrue(old, text.contains(old));
        Files.write(manifest, text.replace(old, replacement).getBytes(StandardCharsets.UTF_8));
    }

    @Test
    public void theJobsAreThoseThatPythonPlans() throws IOException {
        Fields cases = new Fields(JsonParser.parseObject(Resources.golden("plan/cases.json")));
        for (String job : cases.names()) {
            Fields wanted = cases.inner(job);
            List<Bundle> bundles = new ArrayList<>();
            for (Object name : wanted.items("bundles")) {
                bundles.add(Bundle.read(shipped((String) name), Planning.load()));
            }
            List<String> supported = new ArrayList<>();
            wanted.items("supported").forEach(runtime -> supported.add((String) runtime));
            String python = new String(Resources.golden("plan/" + job), StandardCharsets.UTF_8)
                    .replaceFirst("\"tool_version\": \"0.1.0\"", "\"tool_version\": \"" + Version.TOOL + "\"");
            String java = plan(bundles, wanted.text("preset"), (int) wanted.integer("threads", 1, 99),
                    wanted.flag("mixed_fusion"), supported);
            assertEquals(job, python, java);
        }
        assertEquals(5, cases.names().size());
    }

    @Test
    public void theOrderOfTheVisitsIsThatOfPython() throws IOException {
        List<?> schedules = (List<?>) JsonParser.parse(Resources.golden("plan/schedules.json"));
        assertFalse(schedules.isEmpty());
        for (Object item : schedules) {
            @SuppressWarnings("unchecked")
            Fields schedule = new Fields((Map<String, Object>) item);
            List<List<String>> groups = new ArrayList<>();
            for (Object group : schedule.items("groups")) {
                List<String> rows = new ArrayList<>();
                ((List<?>) group).forEach(row -> rows.add((String) row));
                groups.add(rows);
            }
            List<Object> found = new ArrayList<>();
            for (Object visit : Schedule.visits(groups, (int) schedule.integer("rounds", 1, 99))) {
                Map<?, ?> fields = (Map<?, ?>) visit;
                assertEquals((long) found.size(), fields.get("index"));
                found.add(Arrays.asList(fields.get("round"), fields.get("position"), fields.get("row")));
            }
            assertEquals(schedule.items("visits"), found);
        }
    }

    @Test
    public void overAsManyRoundsAsRowsEachIsAtEachPlaceOnce() {
        for (int count = 1; count < 9; count++) {
            int[][] orders = Schedule.rotation(count, count);
            for (int place = 0; place < count; place++) {
                boolean[] seen = new boolean[count];
                for (int[] order : orders) {
                    assertFalse(seen[order[place]]);
                    seen[order[place]] = true;
                }
            }
        }
    }

    @Test
    public void bundlesThatMustNotShareATableAreRefused() throws IOException {
        Bundle fused = Bundle.read(shipped("net_b"), Planning.load());
        Bundle unfused = Bundle.read(shipped("net_b_unfused"), Planning.load());
        List<String> onnx = Arrays.asList("onnxruntime");
        refused("degrees of fusion", Arrays.asList(fused, unfused), "quick", 1, onnx);
        refused("no file for runtime 'executorch'", Arrays.asList(fused, unfused), "quick", 1, ALL);
        refused("two bundles are called 'net b'", Arrays.asList(fused, fused), "quick", 1, ALL);
        refused("nothing to measure", new ArrayList<>(), "quick", 1, ALL);
        refused("9 threads, but this phone has 8 CPUs", Arrays.asList(fused), "quick", 9, ALL);
        refused("unknown preset 'fast'; use one of smoke, ", Arrays.asList(fused), "fast", 1, ALL);
        refused("it has other", Arrays.asList(fused), "quick", 1, Arrays.asList("other"));
        Bundle int8 = Bundle.read(shipped("net_c_int8"), Planning.load());
        refused("precisions must not share a table", Arrays.asList(fused, int8), "quick", 1, onnx);
        Path rounded = copy("net_c_int8");
        change(rounded.resolve("manifest.json"), "\"name\": \"net c\"", "\"name\": \"net b\"");
        refused("precisions must not", Arrays.asList(fused, Bundle.read(rounded, Planning.load())), "quick", 1, onnx);
        Path odd = copy("net_c_fp16");
        change(odd.resolve("manifest.json"), "float16", "float8");
        refused("no limit for files in float8", Arrays.asList(Bundle.read(odd, Planning.load())), "quick", 1, ALL);
        Path small = copy("net_a");
        change(small.resolve("manifest.json"), "4,\n      4", "8,\n      8");
        refused("input shapes", Arrays.asList(fused, Bundle.read(small, Planning.load())), "quick", 1, onnx);
    }

    private static void refused(String word, List<Bundle> bundles, String preset, int threads, List<String> runtimes) {
        Problem problem = assertThrows(word, Problem.class, () -> plan(bundles, preset, threads, false, runtimes));
        assertTrue(problem.getMessage(), problem.getMessage().contains(word));
    }

    @Test
    public void aBundleWithAnotherFileThanItsManifestNamesIsRefused() throws IOException {
        for (String file : Arrays.asList("model.onnx", "golden.safetensors", "certificate.json")) {
            Path bundle = copy("net_a");
            Files.write(bundle.resolve(file), "other".getBytes(StandardCharsets.UTF_8));
            damaged(bundle, "file was changed");
            Files.delete(bundle.resolve(file));
            damaged(bundle, "No such file");
        }
    }

    @Test
    public void aManifestThatIsNoneIsRefusedWithTheField() throws IOException {
        String[][] changes = {
            {"\"schema_version\": 2", "\"schema_version\": 3", "schema_version is 3"},
            {"\"bytes\": 10", "\"bytes\": 11", "has not the 11 bytes"},
            {"\"bytes\": 10", "\"bytes\": 0", "'bytes' is out of range"},
            {"\"delegated_share\": 0.875", "\"delegated_share\": 1.5", "'delegated_share'"},
            {"\"file\": \"model.onnx\"", "\"file\": \"../net_b/model.onnx\"", "leaves its folder"},
            {"\"format\": \"onnx\"", "\"format\": \"pte\"", "says that its format is 'pte'"},
            {"\"kind\": \"seeded\"", "\"kind\": \"\"", "'kind' is empty"},
            {"\"passed\": true", "\"passed\": false", "disagree on the verdict"},
            {"\"params\": 1001", "\"params\": 1001, \"more\": 1", "unknown field 'more'"},
            {"\"params\": 1001,", "", "no field 'params'"},
        };
        for (String[] change : changes) {
            Path bundle = copy("net_a");
            change(bundle.resolve("manifest.json"), change[0], change[1]);
            damaged(bundle, change[2]);
        }
        Path none = folder.newFolder().toPath();
        damaged(none, "manifest.json");
    }

    private static void damaged(Path bundle, String word) {
        Problem problem = assertThrows(word, Problem.class, () -> Bundle.read(bundle, Planning.load()));
        assertTrue(problem.getMessage(), problem.getMessage().contains(word));
    }

    @Test
    public void aBundleWhoseCertificateDidNotPassOrWithoutAPhotographIsNotMeasured() throws IOException {
        Path failed = copy("net_a");
        Path certificate = failed.resolve("certificate.json");
        String before = CheckedFiles.sha256(certificate);
        change(certificate, "\"passed\": true", "\"passed\": false");
        change(failed.resolve("manifest.json"), before, CheckedFiles.sha256(certificate));
        change(failed.resolve("manifest.json"), "\"passed\": true", "\"passed\": false");
        refused("certificate of 'net a' did not pass", Arrays.asList(Bundle.read(failed, Planning.load())), "quick", 1, ALL);
        Path dark = copy("net_a");
        change(dark.resolve("manifest.json"), "\"photo_0\"", "\"noise_1\"");
        refused("no photograph", Arrays.asList(Bundle.read(dark, Planning.load())), "quick", 1, ALL);
    }

    @Test
    public void aFileBelowFp32OfWhichTheCertificateHasNoFiguresIsNotMeasured() throws IOException {
        for (String[] change : new String[][] {{"\"artifact/onnx\"", "\"artifact/ptl\""}, {"\"photo_0\"", "\"noise_1\""}}) {
            Path unknown = copy("net_c_int8");
            Path certificate = unknown.resolve("certificate.json");
            String before = CheckedFiles.sha256(certificate);
            change(certificate, change[0], change[1]);
            change(unknown.resolve("manifest.json"), before, CheckedFiles.sha256(certificate));
            refused("no figures of the int8 .onnx file on input 'photo_0'",
                    Arrays.asList(Bundle.read(unknown, Planning.load())), "quick", 1, Arrays.asList("onnxruntime"));
        }
    }

    @Test
    public void aNewRunIsThereWithItsWholeJobOrNotAtAll() throws IOException {
        Path root = folder.getRoot().toPath();
        byte[] job = Resources.golden("plan/two.json");
        NewRun.write(root, "run", job);
        assertEquals(new RunFolder(root.resolve("run"), Schema.load()).missing().size(),
                new Fields(JsonParser.parseObject(job)).items("visits").size());
        assertFalse(Files.exists(root.resolve("run.part")));
        assertThrows(Problem.class, () -> NewRun.write(root, "run", job));
        Files.createDirectories(root.resolve("next.part/job.json/full"));
        assertThrows(Problem.class, () -> NewRun.write(root, "next", job));
        assertFalse(Files.exists(root.resolve("next")));
    }

    @Test
    public void everyPresetIsASettingsOfTheProtocol() {
        Planning planning = Planning.load();
        assertEquals("smoke", planning.presets().get(0));
        for (String preset : planning.presets()) {
            Schema.load().check("Settings", JsonParser.parse(JsonWriter.compact(planning.settings(preset))));
            assertEquals(preset, planning.settings(preset).get("preset"));
        }
    }
}
