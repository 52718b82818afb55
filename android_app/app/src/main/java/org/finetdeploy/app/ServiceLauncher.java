package org.finetdeploy.app;

import android.app.ActivityManager;
import android.content.Context;
import android.content.Intent;
import android.os.Process;

import java.nio.file.Path;
import java.util.List;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.run.VisitLauncher;

/** Visits in the process of {@link VisitService}. */
final class ServiceLauncher implements VisitLauncher {
    /** As in the manifest. */
    private static final String PROCESS = ":visit";

    private final Context context;
    private final AppFolder folder;
    private final boolean sustained;

    /** @param sustained whether a window of the app holds the sustained-performance mode */
    ServiceLauncher(Context context, AppFolder folder, boolean sustained) {
        this.context = context;
        this.folder = folder;
        this.sustained = sustained;
    }

    @Override
    public void start(Path request, Path records) {
        Intent intent = new Intent(context, VisitService.class)
                .putExtra(VisitService.REQUEST, folder.relative(request))
                .putExtra(VisitService.RECORDS, folder.relative(records))
                .putExtra(VisitService.SUSTAINED, sustained);
        try {
            context.startForegroundService(intent);
        } catch (IllegalStateException | SecurityException error) { // Android 12: not from the background
            throw new Problem("cannot start the visit: " + Problem.firstLine(error)
                    + "; keep the app on the screen", error);
        }
    }

    @Override
    public boolean running() {
        return pid() != 0;
    }

    @Override
    public void end() {
        int pid = pid();
        if (pid != 0) {
            Process.killProcess(pid);
        }
    }

    private int pid() {
        List<ActivityManager.RunningAppProcessInfo> running =
                context.getSystemService(ActivityManager.class).getRunningAppProcesses();
        if (running != null) {
            for (ActivityManager.RunningAppProcessInfo info : running) {
                if (info.processName.equals(context.getPackageName() + PROCESS)) {
                    return info.pid;
                }
            }
        }
        return 0;
    }
}
