package org.finetdeploy.app;

import java.nio.file.Paths;
import java.time.Instant;
import java.time.ZoneId;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;

import org.finetdeploy.core.plan.Bundle;
import org.finetdeploy.core.plan.Planner;
import org.finetdeploy.core.plan.Planning;
import org.finetdeploy.core.probes.Cores;
import org.finetdeploy.core.probes.ProcFiles;

/** New runs of bundles in the app's folder. */
final class RunPlanner {
    private final AppFolder folder;
    private final List<String> runtimes;
    private final Planning planning = Planning.load();

    /** @param runtimes that the app has */
    RunPlanner(AppFolder folder, List<String> runtimes) {
        this.folder = folder;
        this.runtimes = runtimes;
    }

    /** Names of the presets, shortest first. */
    List<String> presets() {
        return planning.presets();
    }

    /** For whom a preset is. */
    String description(String preset) {
        return (String) planning.settings(preset).get("description");
    }

    /** Threads of a runtime when nobody says otherwise, and the most that there can be. */
    static int[] threads() {
        Cores cores = new Cores(new ProcFiles(Paths.get("/")));
        return new int[] {cores.big(), cores.count()};
    }

    /**
     * Writes the job into a new folder. Reads all files of the bundles: not for the thread that draws the screen.
     *
     * @param bundles names of folders, the first of them being the baseline of the ratios
     * @return the run's name; Problem for bundles that are damaged, or must not share a table
     */
    String plan(List<String> bundles, String preset, int threads, boolean mixedFusion, Instant now) {
        List<Bundle> read = new ArrayList<>();
        for (String bundle : bundles) {
            read.add(Bundle.read(folder.resolve(bundle), planning));
        }
        Planner planner = new Planner(planning, runtimes, PhoneInfo.json());
        String utc = format("yyyy-MM-dd'T'HH:mm:ssxxx", ZoneOffset.UTC, now);
        String name = "run-" + format("yyyyMMdd-HHmmss", ZoneId.systemDefault(), now);
        folder.write(name, planner.job(read, preset, threads, mixedFusion, utc));
        return name;
    }

    private static String format(String pattern, ZoneId zone, Instant time) {
        return DateTimeFormatter.ofPattern(pattern, java.util.Locale.ROOT).withZone(zone).format(time);
    }
}
