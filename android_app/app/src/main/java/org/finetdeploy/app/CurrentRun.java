package org.finetdeploy.app;

import android.content.Context;
import android.os.Handler;
import android.os.Looper;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.run.JobRun;
import org.finetdeploy.core.run.RunFolder;

/**
 * The run that this process is doing. It outlives the screen that shows it, which Android makes anew when the phone is
 * turned; there is one at a time, because a second one would disturb the first. Everything but the run itself happens
 * on the main thread.
 */
final class CurrentRun {
    private static CurrentRun current;

    /** Whoever shows the run. Called on the main thread. */
    interface Viewer {
        /** The run's table has changed. */
        void changed(String text);

        /** The run is over; {@code problem} is why it could not go on, or null. */
        void ended(String problem);
    }

    private final String name;
    private final Context context;
    private final Handler main = new Handler(Looper.getMainLooper());
    private Viewer viewer;
    private String text = "";
    private volatile JobRun job;
    private volatile boolean stopped;

    private CurrentRun(String name, Context context) {
        this.name = name;
        this.context = context;
    }

    /** The run of this name if it is the one that is being done, else null. */
    static CurrentRun find(String name) {
        return current != null && current.name.equals(name) ? current : null;
    }

    /**
     * Goes on with a run.
     *
     * @param sustained whether a window holds the sustained-performance mode; the records will say so
     * @throws Problem when another run is being done
     */
    static CurrentRun start(String name, Context context, boolean sustained) {
        if (current != null) {
            throw new Problem("run '" + current.name + "' is being done; wait for its end, or stop it");
        }
        CurrentRun run = new CurrentRun(name, context.getApplicationContext());
        current = run;
        new Thread(() -> run.measure(sustained), "finet-run").start();
        return run;
    }

    /** Shows it from now on, beginning with what there is; null: nobody does. */
    void show(Viewer next) {
        viewer = next;
        if (next != null) {
            next.changed(text);
        }
    }

    /** Ends after the visit that is running. */
    void stop() {
        stopped = true;
        JobRun running = job;
        if (running != null) {
            running.stop();
        }
    }

    private void measure(boolean sustained) {
        String problem = null;
        try {
            AppFolder folder = new AppFolder(context);
            RunFolder run = new RunFolder(folder.resolve(name), Schema.load());
            tell(RunText.of(context, run));
            JobRun work = new JobRun(run, folder.resolve(name), bundle -> folder.resolve(name + "/" + bundle),
                    new ServiceLauncher(context, folder, sustained));
            job = work;
            if (stopped) {
                work.stop();
            }
            work.run((done, total) -> tell(RunText.of(context, run)));
        } catch (Problem found) {
            problem = found.getMessage();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        String word = problem;
        main.post(() -> end(word));
    }

    private void tell(String changed) {
        main.post(() -> {
            text = changed;
            if (viewer != null) {
                viewer.changed(changed);
            }
        });
    }

    private void end(String problem) {
        current = null;
        if (viewer != null) {
            viewer.ended(problem);
        }
    }
}
